"""A node that takes over has all committed flows in its kernel, or waited for them long enough."""

from __future__ import annotations

import pytest

from hanat.core import actions as do
from hanat.core import inputs as told
from hanat.core.status import Role
from tests.core.test_node import ME, PEER, PROFILE, VIPS, Harness


def test_elected_node_opens_only_with_its_flows() -> None:
    h = Harness(settles=False)
    h.elect()
    h.lease(until=0.09)
    assert h.tell(told.BarrierApplied(1)) == [do.SettleFlows(1)]
    assert h.waits
    assert h.tell(told.FlowsSettled(0)) == []
    assert do.AddAddresses(VIPS) in h.tell(told.FlowsSettled(1))
    assert h.role is Role.ACTIVE


def test_elected_node_waits_for_its_flows_no_longer_than_a_lease() -> None:
    h = Harness(settles=False)
    h.elect()
    h.tell(told.BarrierApplied(1))
    h.lease(until=1.0)
    assert h.node.deadline == pytest.approx(PROFILE.lease_s)
    h.now = PROFILE.lease_s
    assert do.AddAddresses(VIPS) in h.tell(told.TimerDue())
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
