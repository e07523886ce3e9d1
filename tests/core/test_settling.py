"""A node that takes over has all committed flows in its kernel, or waited for them long enough."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hanat.core import actions as do
from hanat.core import inputs as told
from hanat.core.eligibility import Seen, kinds_of
from hanat.core.node_snapshot import Reason
from hanat.core.status import Role
from hanat.core.tenure import PATIENCE_LEASES
from tests.core.examples import NO_PEER
from tests.core.test_node import CONFIGURATION, ME, PEER, PROFILE, VIPS, Harness


def test_elected_node_opens_only_with_its_flows() -> None:
    h = Harness(settles=False)
    h.elect()
    h.lease(until=0.09)
    assert h.tell(told.BarrierApplied(1)) == [do.SettleFlows(1)]
    assert h.waits
    assert h.tell(told.FlowsSettled(0)) == []
    arm = do.ArmGate(0.09, 0.09 + PROFILE.grace_s)
    assert h.tell(told.FlowsSettled(1))[:2] == [do.StartCapture(1), arm]
    assert h.role is Role.ACTIVE


def test_addresses_come_while_the_flows_do_and_the_gate_after_both() -> None:
    h = Harness(settles=False)
    h.elect()
    (adding,) = h.node.step(told.LeaseObserved(1, 0.09), h.now)
    assert adding == do.AddAddresses(VIPS)
    h.tell(told.BarrierApplied(1))
    assert h.tell(told.FlowsSettled(1)) == []
    assert do.StartCapture(1) in h.tell(told.ActionDone(adding))
    assert h.role is Role.ACTIVE


def test_node_whose_barrier_is_not_committed_makes_room_although_its_addresses_are_there() -> None:
    h = Harness()
    h.elect()
    h.lease(until=60.0)
    h.now = PATIENCE_LEASES * PROFILE.lease_s
    assert do.StepDown() in h.tell(told.TimerDue())


def test_revision_that_the_barrier_brings_is_known_before_the_gate_opens() -> None:
    h = Harness()
    h.elect()
    h.lease(until=0.09)
    h.tell(told.ConfigurationCommitted(2))  # is still being read
    h.tell(told.BarrierApplied(1))
    assert h.waits
    less = replace(CONFIGURATION, vips=VIPS[:1])
    actions = h.tell(told.ConfigurationApplied(2, less))
    assert actions[0] == do.RemoveAddresses(VIPS[1:])
    assert [*map(type, actions)].index(do.ArmGate) > 0
    assert h.role is Role.ACTIVE


def test_elected_node_that_lacks_flows_says_so_while_its_addresses_come() -> None:
    h = Harness(settles=False)
    h.tell(told.FlowsObserved(complete=False))
    h.elect()
    assert do.AddAddresses(VIPS) in h.lease(until=0.09)
    assert "lacks flows" in kinds_of(h.node.snapshot().handicap)
    h.tell(told.BarrierApplied(1))
    h.tell(told.FlowsSettled(1))
    assert "lacks flows" not in kinds_of(h.node.snapshot().handicap)


def test_lease_that_ended_while_the_flows_came_opens_nothing() -> None:
    h = Harness(settles=False)
    h.elect()
    h.lease(until=0.09)
    h.tell(told.BarrierApplied(1))
    h.now = 0.09
    assert do.RemoveAddresses(VIPS) in h.tell(told.FlowsSettled(1))
    assert h.role is Role.FENCED


def test_elected_node_waits_for_its_flows_no_longer_than_a_lease() -> None:
    h = Harness(settles=False)
    h.elect()
    h.tell(told.BarrierApplied(1))
    h.lease(until=1.0)
    assert h.node.deadline == pytest.approx(PROFILE.lease_s)
    h.now = PROFILE.lease_s
    assert do.StartCapture(1) in h.tell(told.TimerDue())
    assert h.role is Role.ACTIVE
    assert h.tell(told.FlowsSettled(1)) == []


def test_flows_of_an_earlier_term_open_nothing() -> None:
    h = Harness(settles=False)
    h.elect()
    h.tell(told.BarrierApplied(1))
    h.tell(told.LeaderObserved(2, PEER))
    h.tell(told.LeaderObserved(3, ME))
    h.tell(told.LeaseObserved(3, 1.0))
    h.now = PROFILE.lease_s
    h.tell(told.TimerDue())
    h.tell(told.FlowsSettled(1))
    assert h.waits


def test_hand_over_that_is_called_off_before_the_flows_settled_opens_when_they_have() -> None:
    h = Harness(settles=False)
    h.elect()
    h.lease(until=9.0)
    h.tell(told.BarrierApplied(1))
    h.tell(told.CarrierObserved("public", carrier=False))
    assert h.waits  # nothing is held yet that could be given up
    h.peers(Seen(PEER, fit=True, handicap=0))
    assert h.waits
    h.tell(told.FlowsSettled(1))
    assert h.reason is Reason.HINDERED
    h.tell(told.FlowsFlushed())
    order = do.TransferLeadership((PEER,))
    h.peers()
    h.tell(told.ActionFailed(order, NO_PEER))
    assert do.StartCapture(1) in h.lease(until=9.5)
    assert h.role is Role.ACTIVE


def test_release_does_not_forget_that_the_flows_are_still_to_come() -> None:
    h = Harness(settles=False)
    h.elect()
    h.lease(until=9.0)
    h.tell(told.BarrierApplied(1))
    h.now = PROFILE.lease_s / 2
    h.tell(told.SafetyObserved("test", "broken"))
    h.tell(told.SafetyObserved("test", ""))
    h.now = PROFILE.lease_s
    h.tell(told.TimerDue())  # they were waited for long enough
    assert h.role is Role.ACTIVE


def test_vip_that_a_revision_takes_and_the_next_one_brings_back_is_on_its_device() -> None:
    h = Harness(settles=False)
    h.elect()
    (adding,) = h.node.step(told.LeaseObserved(1, 9.0), h.now)
    h.tell(told.ConfigurationCommitted(2))
    h.tell(told.BarrierApplied(1))
    less = replace(CONFIGURATION, vips=VIPS[:1])
    h.tell(told.ConfigurationApplied(2, less))
    h.tell(told.ActionDone(adding))
    h.tell(told.FlowsSettled(1))
    assert h.role is Role.ACTIVE
    again = h.tell(told.ConfigurationApplied(3, replace(CONFIGURATION, name="again")))
    assert do.AddAddresses(VIPS[1:]) in again


def test_node_that_is_cut_off_before_its_gate_opens_keeps_no_addresses() -> None:
    h = Harness(settles=False)
    h.elect()
    assert do.AddAddresses(VIPS) in h.lease(until=0.09)
    assert h.node.deadline == pytest.approx(0.09)
    h.now = 0.09
    assert do.RemoveAddresses(VIPS) in h.tell(told.TimerDue())
    assert h.role is Role.FENCED
    h.tell(told.BarrierApplied(1))
    assert do.AddAddresses(VIPS) in h.lease(until=0.2)
    assert do.StartCapture(1) in h.tell(told.FlowsSettled(1))
