"""What happens to all nodes happens to one of them first."""

from __future__ import annotations

import pytest

from hanat.core import actions as do
from hanat.core import inputs as told
from hanat.core.eligibility import SETTLED_S, Fitness, Kind
from hanat.core.node_snapshot import Reason
from hanat.core.status import Role
from tests.core.test_giving_up import BACK, DARK, GIVES_UP, GOOD, LONG_S, LOST, holder
from tests.core.test_node import PEER, VIPS


def test_holder_waits_for_its_own_return_when_what_broke_for_all_returns_for_another_first() -> (
    None
):
    """A switch that starts brings up one port after the other."""
    h = holder(DARK)
    h.tell(LOST)
    h.peers(DARK)
    h.now = 2.0
    assert h.peers(GOOD) == []
    h.now = 1.99 + SETTLED_S
    assert h.peers(GOOD._replace(handicap=None)) == h.peers(GOOD) == []
    assert h.tell(BACK) == [do.SetFitness(Fitness()), do.Announce(VIPS, LONG_S)]
    assert h.role is Role.ACTIVE


def test_holder_gives_up_for_who_recovered_alone() -> None:
    h = holder(DARK)
    h.tell(LOST)
    h.peers(DARK)
    h.now = 2.0
    h.peers(GOOD)
    assert h.node.deadline is not None
    assert h.node.deadline <= 2.0 + SETTLED_S
    h.now = 2.0 + SETTLED_S
    assert h.tell(told.TimerDue())[-2:] == GIVES_UP


@pytest.mark.parametrize(
    "item",
    [
        told.ForwardObserved("chain FORWARD drops"),
        told.JournalObserved("no space left"),
        told.ConfigurationRefused(2, "cluster.profile: unknown"),
    ],
)
def test_holder_that_is_the_first_to_meet_what_spreads_waits_until_the_others_have_met_it(
    item: told.Input,
) -> None:
    """Automation sets a FORWARD policy, or fills the disks, of one node after the other."""
    h = holder(GOOD)
    h.tell(item)
    assert h.peers(GOOD) == []
    h.now = SETTLED_S / 2
    assert h.peers(GOOD._replace(handicap=Kind.FORWARD.value)) == []
    h.now = SETTLED_S
    assert do.WithdrawGate() not in h.tell(told.TimerDue())
    assert h.role is Role.ACTIVE


def test_holder_whose_successors_all_lost_their_carrier_meanwhile_stays() -> None:
    """The kernels of three nodes tell of one switch that died within milliseconds."""
    h = holder(GOOD)
    h.tell(LOST)
    assert h.peers(GOOD) == GIVES_UP
    h.peers(DARK)
    h.tell(told.FlowsFlushed())
    assert h.role is Role.ACTIVE
    assert h.reason is Reason.LEASE_OBTAINED
    assert h.peers(GOOD) == GIVES_UP  # it did not give up, so it may now


def test_holder_that_lost_a_second_carrier_while_its_flows_were_flushed_goes_on() -> None:
    h = holder(GOOD)
    h.tell(LOST)
    assert h.peers(GOOD) == GIVES_UP
    h.tell(told.CarrierObserved("private", carrier=False))  # nobody has answered to that yet
    assert do.TransferLeadership((PEER,)) in h.tell(told.FlowsFlushed())


def test_holder_whose_own_carrier_is_back_while_its_flows_are_flushed_stays() -> None:
    h = holder(DARK)
    h.tell(LOST)
    assert h.peers(GOOD) == GIVES_UP
    h.tell(BACK)
    h.peers(GOOD)
    h.tell(told.FlowsFlushed())
    assert h.role is Role.ACTIVE


def test_holder_that_became_unsafe_while_its_flows_were_flushed_goes_on() -> None:
    h = holder(GOOD)
    h.tell(LOST)
    assert h.peers(GOOD) == GIVES_UP
    h.tell(told.SafetyObserved("clock", "runs at another rate"))
    h.peers(DARK)
    assert do.TransferLeadership((PEER,)) in h.tell(told.FlowsFlushed())


def test_holder_that_stays_lacks_no_flows() -> None:
    """Its worker was started again just then; its kernel has them."""
    h = holder(GOOD)
    h.tell(told.FlowsObserved(complete=False))
    h.tell(LOST)
    assert h.peers(GOOD) == GIVES_UP
    h.peers(DARK)
    h.tell(told.FlowsFlushed())
    assert h.role is Role.ACTIVE
