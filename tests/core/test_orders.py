"""An operator's order that comes late undoes nothing that was done meanwhile."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from hanat.core.orders import AT_ONCE_S, LOST_S, UNDER_WAY_S, Appended, Order, Outcome
from hanat.core.server_facts import Administrative, Mode, ServerId
from hanat.core.server_records import (
    Record,
    factor_of,
    following,
    is_sound,
    mode_of,
    mode_record,
    stay_record,
    weight_record,
)

WEB1 = ServerId("web", "web1")
READY, DRAIN, MAINT = (mode_record(WEB1, Administrative(mode, "op")) for mode in Mode)
HALF, WHOLE = (weight_record(WEB1, factor, by="op", at_s=0.0) for factor in (0.5, 1.0))
ORDERS = [(READY, DRAIN), (DRAIN, READY), (MAINT, READY), (READY, MAINT), (HALF, WHOLE)]


def log_of(*records: Record) -> dict[bytes, bytes]:
    return dict(records)


@pytest.mark.parametrize(("old", "new"), ORDERS)
def test_order_that_comes_late_does_not_undo_a_newer_one(old: Record, new: Record) -> None:
    leader = Appended()
    late = Order(old, 0.0).ask(log_of())
    newer = Order(new, 1.0).ask(log_of())
    assert leader.admits(newer, log_of(), 1.0)
    leader.note(newer, 1.0)
    assert not leader.admits(late, log_of(), 1.0)  # the newer one is not committed yet
    leader.applied([newer])
    assert not leader.admits(late, log_of(newer), 9.0)
    # Nor does it if the newer one was undone again.
    once_more = following(new, following(old, newer.value).value)
    assert not leader.admits(late, log_of(once_more), 99.0)


def test_order_that_is_given_again_is_appended_again_only_if_it_was_lost() -> None:
    leader = Appended()
    order = Order(DRAIN, 0.0)
    asked = order.ask(log_of())
    assert leader.admits(asked, log_of(), 0.0)
    leader.note(asked, 0.0)
    assert order.ask(log_of()) == asked  # its node does not know yet
    assert not leader.admits(asked, log_of(), 0.1)
    assert leader.admits(asked, log_of(), UNDER_WAY_S)
    leader.applied([asked])
    assert not leader.admits(asked, log_of(asked), 1.0)


def test_order_that_was_lost_on_its_way_into_the_log_does_not_keep_others_out() -> None:
    leader = Appended()
    leader.note(Order(DRAIN, 0.0).ask(log_of()), 0.0)
    ready = Order(READY, 0.0).ask(log_of())
    assert not leader.admits(ready, log_of(), LOST_S - 0.1)
    assert leader.admits(ready, log_of(), LOST_S)
    leader.note(DRAIN, 10.0)
    leader.clear()  # another term
    assert leader.admits(ready, log_of(), 10.0)


def test_older_version_and_other_records_are_taken_as_they_come() -> None:
    leader = Appended()
    assert leader.admits(DRAIN, log_of(READY), 0.0)
    assert leader.admits(stay_record(WEB1, stays=True), log_of(), 0.0)


def outcome(order: Order, before: Mapping[bytes, bytes], *applied: Record) -> Outcome | None:
    order.ask(before)
    return order.applied(applied)


def test_order_is_done_when_it_is_in_the_log_and_overtaken_when_another_one_is() -> None:
    other = mode_record(ServerId("web", "web2"), Administrative(Mode.DRAIN))
    assert outcome(Order(DRAIN, 0.0), {}, other) is None
    assert outcome(Order(DRAIN, 0.0), {}, READY) is Outcome.OVERTAKEN
    assert outcome(Order(DRAIN, 0.0), {}, following(DRAIN, b"")) is Outcome.DONE
    both = (following(DRAIN, b""), READY)
    assert outcome(Order(DRAIN, 0.0), {}, *both) is Outcome.DONE


def test_order_is_done_or_overtaken_by_a_snapshot_too() -> None:
    order = Order(DRAIN, 0.0)
    asked = order.ask(log_of(READY))
    assert order.restored(log_of(READY)) is None
    assert order.restored(log_of(asked)) is Outcome.DONE
    assert order.restored(log_of(MAINT)) is Outcome.OVERTAKEN


def test_order_that_was_overtaken_at_once_is_given_again() -> None:
    order = Order(DRAIN, 10.0)
    order.ask(log_of())
    assert order.may_be_repeated(10.0 + AT_ONCE_S)
    assert not order.may_be_repeated(10.1 + AT_ONCE_S)
    leader = Appended()
    assert leader.admits(order.ask(log_of(READY)), log_of(READY), 10.1)


def test_record_says_the_same_whatever_it_follows() -> None:
    for record in (READY, DRAIN, MAINT):
        assert mode_of(following(record, b"x")) == mode_of(record)
    assert factor_of(following(HALF, b"x")) == 0.5
    long = mode_record(WEB1, Administrative(Mode.DRAIN, "\U0001f600" * 200, "\0" * 200))
    assert is_sound(following(long, b"x"))
    assert mode_of(following(long, b"x")).mode is Mode.DRAIN
