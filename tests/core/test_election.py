"""Whose turn it is."""

from __future__ import annotations

from itertools import permutations

import pytest

from hanat.core.configuration import PROFILES
from hanat.core.election import INELIGIBLE_DELAY, STAGGER_BEACONS, Candidacy, Rival, rank

PROFILE = PROFILES["default"]
STAGGER_S = STAGGER_BEACONS * PROFILE.beacon_s


def candidacy(draw: float = 0.5) -> Candidacy:
    return Candidacy(PROFILE, draw=lambda: draw)


@pytest.mark.parametrize("eligible", [(True, True, True), (False, True, True), (False,) * 3])
def test_every_node_finds_another_place_in_the_same_order(eligible: tuple[bool, ...]) -> None:
    nodes = [Rival(i + 1, e) for i, e in enumerate(eligible)]
    for order in permutations(nodes):
        ranks = {me.node_id: rank(me, [n for n in order if n != me]) for me in nodes}
        assert sorted(ranks.values()) == [0, 1, 2]
        first = min(ranks, key=ranks.__getitem__)
        assert eligible[first - 1] is any(eligible)


def test_first_in_line_stands_as_soon_as_it_is_free() -> None:
    assert candidacy().due(free_at=7.0, rank=0, eligible=True) == 7.0


def test_others_leave_time_for_those_before_them() -> None:
    assert candidacy().due(free_at=7.0, rank=2, eligible=True) == 7.0 + 2 * STAGGER_S


def test_ineligible_node_leaves_time_for_all_others() -> None:
    due = candidacy().due(free_at=7.0, rank=0, eligible=False)
    assert due == 7.0 + INELIGIBLE_DELAY * PROFILE.lease_s


def test_nobody_stands_before_what_it_waits_for() -> None:
    waiting = candidacy()
    waiting.wait(9.0)
    waiting.wait(8.0)
    assert waiting.due(free_at=7.0, rank=1, eligible=True) == 9.0 + STAGGER_S


def test_rounds_without_a_majority_spread_until_there_is_a_leader() -> None:
    waiting = candidacy(draw=1.0)
    dues = []
    for _ in range(6):
        waiting.failed(7.0)
        dues.append(waiting.due(free_at=7.0, rank=0, eligible=True) - 7.0)
    assert dues == pytest.approx([n * STAGGER_S for n in (1, 2, 3, 4, 4, 4)])
    waiting.settled()
    assert waiting.due(free_at=8.0, rank=0, eligible=True) == 8.0
