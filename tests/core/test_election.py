"""Whose turn it is."""

from __future__ import annotations

import pytest

from hanat.core.configuration import PROFILES
from hanat.core.election import STAGGER_BEACONS, UNFIT_DELAY, WORSE_DELAY, Candidacy

PROFILE = PROFILES["default"]
STAGGER_S = STAGGER_BEACONS * PROFILE.beacon_s


def candidacy(draw: float = 0.5) -> Candidacy:
    return Candidacy(PROFILE, draw=lambda: draw)


def test_first_in_line_stands_as_soon_as_it_is_free() -> None:
    assert candidacy().due(free_at=7.0, rank=0, safe=True) == 7.0


def test_others_leave_time_for_those_before_them() -> None:
    assert candidacy().due(free_at=7.0, rank=2, safe=True) == 7.0 + 2 * STAGGER_S


def test_nobody_waits_at_the_beginning() -> None:
    assert candidacy().due(free_at=0.5, rank=0, safe=True) == 0.5


def test_unsafe_node_leaves_time_for_all_others_and_for_those_before_it() -> None:
    due = candidacy().due(free_at=7.0, rank=2, safe=False)
    assert due == 7.0 + 2 * STAGGER_S + UNFIT_DELAY * PROFILE.lease_s


def test_node_that_another_could_do_better_than_leaves_it_time() -> None:
    due = candidacy().due(free_at=7.0, rank=1, safe=True, worse=True)
    assert due == 7.0 + STAGGER_S + WORSE_DELAY * PROFILE.lease_s


def test_nobody_stands_before_what_it_waits_for() -> None:
    waiting = candidacy()
    waiting.wait(9.0)
    waiting.wait(8.0)
    assert waiting.due(free_at=7.0, rank=1, safe=True) == 9.0 + STAGGER_S


def test_rounds_without_a_majority_spread_until_there_is_a_leader() -> None:
    waiting = candidacy(draw=1.0)
    dues = []
    for _ in range(6):
        waiting.failed(7.0)
        dues.append(waiting.due(free_at=7.0, rank=0, safe=True) - 7.0)
    assert dues == pytest.approx([n * STAGGER_S for n in (1, 2, 3, 4, 4, 4)])
    waiting.settled()
    assert waiting.due(free_at=8.0, rank=0, safe=True) == 8.0
    waiting.failed(8.0)
    assert waiting.due(free_at=8.0, rank=0, safe=True) == pytest.approx(8.0 + STAGGER_S)
