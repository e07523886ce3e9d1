"""A drain that is limited in time ends by a clock that nobody sets."""

from __future__ import annotations

import pytest

from hanat.core.server_facts import Administrative, Mode, ServerId
from hanat.core.time_limits import CLOCKS_S_MAX, TimeLimits

WEB1, WEB2 = ServerId("web", "web1"), ServerId("web", "web2")
WALL_S, NOW = 1e9, 5000.0
HALF_AN_HOUR = 1800.0


def drain(for_s: float = HALF_AN_HOUR, *, at_s: float = WALL_S) -> Administrative:
    """Return an order that a node took whose wall clock said `at_s`."""
    return Administrative(Mode.DRAIN, "op", "disk", since_s=at_s, until_s=at_s + for_s)


def lasts(order: Administrative, *, wall_s: float = WALL_S, now: float = NOW) -> float:
    """Return how long an order lasts that a node learns of now."""
    limits = TimeLimits(began=0.0)
    limits.note(WEB1, order, now, wall_s)
    due = limits.due()
    assert due is not None
    return due - now


@pytest.mark.parametrize("ahead_s", [0.0, 0.2, 120.0, -120.0, CLOCKS_S_MAX, -CLOCKS_S_MAX])
def test_order_that_comes_now_lasts_as_long_as_it_says_whatever_wall_clocks_say(
    ahead_s: float,
) -> None:
    assert lasts(drain(), wall_s=WALL_S + ahead_s) == HALF_AN_HOUR


def test_node_that_learns_of_it_later_goes_by_its_wall_clock() -> None:
    assert lasts(drain(), wall_s=WALL_S + 1000.0) == 800.0
    assert lasts(drain(), wall_s=WALL_S + 5000.0) == 0.0
    # It started just now: nobody gave an order to it before.
    assert lasts(drain(), wall_s=WALL_S + 60.0, now=10.0) == HALF_AN_HOUR - 60.0


def test_order_never_lasts_longer_than_it_says() -> None:
    assert lasts(drain(), wall_s=WALL_S - 7000.0) == HALF_AN_HOUR
    assert lasts(drain(), wall_s=0.0) == HALF_AN_HOUR  # no clock at all
    older = Administrative(Mode.DRAIN, "op", until_s=WALL_S + 60.0)  # does not say since when
    assert lasts(older) == 60.0


def test_what_the_log_gets_is_said_once_a_tenure_and_is_never_older_than_the_order() -> None:
    limits = TimeLimits(began=0.0)
    limits.note(WEB1, drain(60.0), NOW, WALL_S)
    limits.note(WEB2, drain(90.0), NOW, WALL_S - 120.0)
    assert list(limits.over(NOW + 59.9)) == []
    ready = Administrative(Mode.READY, "op", "its time was over", since_s=WALL_S + 60.0)
    assert list(limits.over(NOW + 60.0)) == [(WEB1, ready)]
    assert limits.due() == NOW + 90.0
    assert [server for server, _ in limits.over(NOW + 1000.0)] == [WEB2]
    assert (limits.due(), list(limits.over(NOW + 1000.0))) == (None, [])
    limits.again()
    assert {server for server, _ in limits.over(NOW + 1000.0)} == {WEB1, WEB2}


def test_order_that_is_repeated_is_not_prolonged_and_another_one_replaces_it() -> None:
    limits = TimeLimits(began=0.0)
    limits.note(WEB1, drain(60.0), NOW, WALL_S)
    limits.note(WEB1, drain(60.0), NOW + 30.0, WALL_S + 30.0)
    assert limits.due() == NOW + 60.0
    limits.note(WEB1, drain(60.0, at_s=WALL_S + 30.0), NOW + 30.0, WALL_S + 30.0)
    assert list(limits.over(NOW + 60.0)) == []
    assert limits.due() == NOW + 90.0
    limits.note(WEB1, Administrative(Mode.READY, "op"), NOW + 40.0, WALL_S)
    assert list(limits.over(NOW + 1000.0)) == []
    assert limits.due() is None
