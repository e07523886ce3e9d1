"""What the holder does for its addresses: announce them, put them back."""

from __future__ import annotations

from ipaddress import ip_interface
from itertools import pairwise

import pytest

from hanat.core import actions as do
from hanat.core import inputs as told
from hanat.core.address_schedule import ANNOUNCE_OFFSETS_S, ANNOUNCE_REFRESH_S, RESTORE_GAP_S
from hanat.core.configuration import Configuration, FloatingAddress
from hanat.core.eligibility import Kind, Seen
from hanat.core.status import Role
from tests.core.test_node import PEER, PROFILE, VIPS, Harness


def test_announcements_are_a_burst_two_repeats_and_a_refresh() -> None:
    h = Harness().active(until=0.09)
    sent = [0.0]
    while len(sent) < len(ANNOUNCE_OFFSETS_S) + 1:
        h.lease(until=h.now + 1000.0)
        assert h.node.deadline is not None
        h.now = h.node.deadline
        assert do.Announce(VIPS, until=h.lease_until) in h.tell(told.TimerDue())
        sent.append(h.now)
    refresh = ANNOUNCE_OFFSETS_S[-1] + ANNOUNCE_REFRESH_S
    assert sent == pytest.approx([*ANNOUNCE_OFFSETS_S, refresh])


def removed(vip: FloatingAddress) -> told.RemovalObserved:
    return told.RemovalObserved(vip.interface, vip.addresses[:1])


def test_holder_puts_back_what_somebody_else_removed_and_announces_it() -> None:
    h = Harness().active(until=9.0)
    assert h.tell(removed(VIPS[0])) == []
    assert h.node.deadline == pytest.approx(ANNOUNCE_OFFSETS_S[1])
    h.now = PROFILE.beacon_s
    again = [do.RestoreAddresses(VIPS[:1]), do.Announce(VIPS[:1], until=9.0)]
    assert h.tell(told.TimerDue())[-2:] == again
    assert (h.role, h.node.snapshot().restored) == (Role.ACTIVE, 1)


def test_burst_of_removals_is_answered_once() -> None:
    h = Harness().active(until=9.0)
    h.tell(removed(VIPS[0]))
    h.tell(removed(VIPS[1]))
    h.tell(removed(VIPS[0]))
    h.now = PROFILE.beacon_s
    assert do.RestoreAddresses(VIPS) in h.tell(told.TimerDue())
    assert h.node.snapshot().restored == 2


def test_fight_over_an_address_costs_one_addition_a_second() -> None:
    h = Harness().active(until=100.0)
    restored = []
    while h.now < 10.0:
        h.tell(removed(VIPS[0]))
        assert h.node.deadline is not None
        h.now = max(h.now, h.node.deadline)
        if do.RestoreAddresses(VIPS[:1]) in h.tell(told.TimerDue()):
            restored.append(h.now)
    gaps = [after - before for before, after in pairwise(restored)]
    assert len(restored) == 11
    assert min(gaps) == pytest.approx(RESTORE_GAP_S)


def test_node_that_is_not_the_holder_puts_nothing_back() -> None:
    h = Harness()
    h.tell(removed(VIPS[0]))
    assert h.node.deadline is None
    h.active(until=0.09)
    h.tell(removed(VIPS[0]))
    h.tell(told.LeaderObserved(2, PEER))
    h.tell(removed(VIPS[0]))
    assert h.node.deadline is None


@pytest.mark.parametrize(
    "item",
    [
        told.RemovalObserved("public", (ip_interface("203.0.113.11/24"),)),
        told.RemovalObserved("public", (ip_interface("203.0.113.10/32"),)),
        told.RemovalObserved("private", VIPS[0].addresses[:1]),
    ],
)
def test_removal_of_another_address_is_nothing_to_the_holder(item: told.RemovalObserved) -> None:
    h = Harness().active(until=9.0)
    h.tell(item)
    h.now = 1.0
    assert not any(isinstance(a, do.RestoreAddresses) for a in h.tell(told.TimerDue()))


def test_address_that_a_configuration_took_away_is_not_put_back() -> None:
    h = Harness().active(until=9.0)
    h.tell(removed(VIPS[0]))
    h.tell(told.ConfigurationApplied(2, Configuration("test", PROFILE, VIPS[1:], (), ())))
    h.tell(removed(VIPS[0]))  # by the node itself
    h.now = 1.0
    assert not any(isinstance(a, do.RestoreAddresses) for a in h.tell(told.TimerDue()))


@pytest.mark.parametrize("better", [True, False])
def test_holder_that_cannot_put_an_address_back_gives_up_for_one_that_can(better: bool) -> None:  # noqa: FBT001 - a parameter
    h = Harness(failing=do.RestoreAddresses(VIPS[:1])).active(until=9.0)
    h.tell(removed(VIPS[0]))
    h.now = PROFILE.beacon_s
    h.tell(told.TimerDue())
    told_then = h.peers(Seen(PEER, fit=True, handicap=0 if better else Kind.ADDRESS.value))
    assert (do.WithdrawGate() in told_then) is better
    role = Role.RELEASING if better else Role.ACTIVE
    assert (h.role, h.node.snapshot().restored) == (role, 0)
