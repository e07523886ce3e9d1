"""The role table: what a node does with the floating addresses, in virtual time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import ip_interface

import pytest

from hanat.core import actions as do
from hanat.core import inputs as told
from hanat.core.configuration import PROFILES, Configuration, FloatingAddress
from hanat.core.eligibility import Fitness, Kind, Seen
from hanat.core.node import Node
from hanat.core.node_snapshot import Reason
from hanat.core.status import Role
from hanat.core.tenure import PATIENCE_LEASES
from tests.core.examples import because

ME, PEER = 1, 2
PROFILE = PROFILES["default"]
VIPS = (
    FloatingAddress("public", "public", (ip_interface("203.0.113.10/24"),)),
    FloatingAddress("private", "private", (ip_interface("10.11.12.1/24"),)),
)
CONFIGURATION = Configuration("test", PROFILE, VIPS, (), ())
BOTH = do.RemoveAddresses(VIPS)
RETREAT = [do.WithdrawGate(), do.StopCapture(), BOTH]


def test_start_shuts_the_gate_and_removes_what_a_predecessor_left() -> None:
    assert Harness().node.start() == (do.ShutGate(), BOTH, do.InstallRuleset(CONFIGURATION))


def test_elected_node_opens_only_after_its_barrier() -> None:
    h = Harness()
    assert h.elect() == [do.ProposeBarrier(1)]
    assert h.lease(until=0.09) == [do.AddAddresses(VIPS)]  # behind a gate that is shut
    assert h.waits
    assert do.StartCapture(1) in h.tell(told.BarrierApplied(1))
    assert h.role is Role.ACTIVE


def test_elected_node_opens_only_with_a_lease() -> None:
    h = Harness()
    h.elect()
    assert h.tell(told.BarrierApplied(1)) == []
    assert h.role is Role.TAKEOVER


def test_takeover_installs_state_first_and_announces_last() -> None:
    h = Harness()
    h.elect()
    h.tell(told.BarrierApplied(1))
    assert h.lease(until=0.09) == [
        do.AddAddresses(VIPS),
        do.StartCapture(1),
        do.ArmGate(0.09, 0.09 + PROFILE.grace_s),
        do.Announce(VIPS, until=0.09),
        do.ProposeHolder(1),
    ]


def test_first_leader_of_an_empty_cluster_proposes_its_configuration() -> None:
    h = Harness(revision=0)
    h.elect()
    h.lease(until=0.09)
    assert h.tell(told.BarrierApplied(1)) == [do.ProposeConfiguration()]
    assert h.waits
    h.tell(told.ConfigurationApplied(1, CONFIGURATION))
    assert h.role is Role.ACTIVE


def test_each_renewal_rearms_the_gate() -> None:
    h = Harness().active(until=0.09)
    assert h.lease(until=0.11) == [do.ArmGate(0.11, 0.11 + PROFILE.grace_s)]


def test_renewal_that_gains_less_than_half_a_beacon_does_not_rearm() -> None:
    h = Harness().active(until=0.09)
    assert h.lease(until=0.09 + 0.4 * PROFILE.beacon_s) == []


def test_holder_fences_when_the_lease_ends_although_nobody_told_it() -> None:
    h = Harness().active(until=0.09)
    assert h.node.deadline is not None
    h.now = 0.09
    assert h.tell(told.TimerDue()) == [do.WithdrawGate(), do.StopCapture(), BOTH]
    assert (h.role, h.reason) == (Role.FENCED, Reason.LEASE_EXPIRED)


def test_fenced_leader_takes_over_again_when_the_lease_comes_back() -> None:
    h = Harness().active(until=0.09)
    h.now = 0.09
    h.tell(told.TimerDue())
    h.now = 0.12
    assert do.ArmGate(0.2, 0.2 + PROFILE.grace_s) in h.lease(until=0.2)
    assert h.role is Role.ACTIVE


def test_fenced_leader_steps_down_after_two_leases() -> None:
    h = Harness().active(until=0.09)
    h.now = 0.09
    h.tell(told.TimerDue())
    assert h.node.deadline == pytest.approx(0.09 + 2 * PROFILE.lease_s)
    h.now = h.node.deadline or 0.0
    assert h.tell(told.TimerDue()) == [do.StepDown()]


def test_lost_leadership_stops_answering_before_the_addresses_go() -> None:
    h = Harness().active(until=0.09)
    actions = h.tell(told.LeaderObserved(2, PEER))
    assert actions == [do.WithdrawGate(), do.StopCapture(), BOTH]
    assert (h.role, h.reason) == (Role.BACKUP, Reason.LEADERSHIP_LOST)


def test_switchover_drains_then_removes_then_hands_over() -> None:
    h = Harness().active(until=0.09)
    assert h.tell(told.SwitchoverRequested(PEER)) == [do.WithdrawGate(), do.FlushFlows()]
    assert h.tell(told.FlowsFlushed()) == [do.StopCapture(), BOTH, do.TransferLeadership((PEER,))]
    assert h.tell(told.LeaderObserved(2, PEER)) == RETREAT
    assert (h.role, h.reason) == (Role.BACKUP, Reason.HANDED_OVER)


def test_switchover_whose_flows_do_not_drain_is_aborted() -> None:
    h = Harness().active(until=0.09)
    h.tell(told.SwitchoverRequested(None))
    h.now = 0.2
    h.lease(until=0.29)
    assert h.node.deadline is not None
    actions = h.tell(told.TimerDue())
    assert do.ArmGate(0.29, 0.29 + PROFILE.grace_s) in actions
    assert h.role is Role.ACTIVE


def test_aborted_switchover_without_a_lease_ends_in_stepping_down() -> None:
    # Its connections keep the others from standing, so nobody would hold the addresses.
    h = Harness().active(until=0.09)
    h.tell(told.SwitchoverRequested(None))
    h.now = h.node.deadline or 0.0
    h.tell(told.TimerDue())
    assert (h.role, h.reason) == (Role.TAKEOVER, Reason.SWITCHOVER_ABORTED)
    assert h.node.deadline == pytest.approx(h.now + PATIENCE_LEASES * PROFILE.lease_s)
    h.now = h.node.deadline or 0.0
    assert h.tell(told.TimerDue()) == [do.StepDown()]


def test_leadership_is_not_handed_on_while_the_kernel_may_still_answer() -> None:
    h = Harness(failing=do.WithdrawGate()).active(until=0.09)
    h.tell(told.SwitchoverRequested(PEER))
    assert h.tell(told.FlowsFlushed()) == []
    assert h.node.deadline == pytest.approx(0.09)


def test_carrier_of_an_interface_that_a_configuration_adds_counts() -> None:
    h = Harness()
    assert h.tell(told.CarrierObserved("dmz", carrier=False)) == []
    extra = FloatingAddress("extra", "dmz", (ip_interface("192.0.2.1/24"),))
    changed = Configuration("test", PROFILE, (*VIPS, extra), (), ())
    assert dark() in h.tell(told.ConfigurationApplied(2, changed))
    assert h.node.hindrances == ("dmz: no carrier",)


def test_carrier_of_an_interface_that_a_configuration_drops_counts_no_more() -> None:
    h = Harness()
    h.tell(told.CarrierObserved("private", carrier=False))
    changed = Configuration("test", PROFILE, VIPS[:1], (), ())
    assert do.SetFitness(Fitness()) in h.tell(told.ConfigurationApplied(2, changed))
    assert h.node.hindrances == ()


def test_addresses_of_an_older_configuration_are_removed_too() -> None:
    h = Harness().active(until=0.09)
    h.tell(told.SwitchoverRequested(None))
    changed = Configuration("test", PROFILE, VIPS[:1], (), ())
    removed = [a for a in h.tell(told.ConfigurationApplied(2, changed)) if a == BOTH]
    assert removed == [BOTH]


def test_good_configuration_ends_what_a_refused_one_did() -> None:
    h = Harness()
    h.tell(told.ConfigurationRefused(2, "cluster.profile: unknown"))
    h.tell(told.ConfigurationRefused(3, "service[1]: unknown"))
    assert h.node.hindrances == ("configuration revision 3: service[1]: unknown",)
    assert do.SetFitness(Fitness()) in h.tell(told.ConfigurationApplied(4, CONFIGURATION))
    assert not h.node.snapshot().hindrances


def test_timing_is_that_of_the_nodes_own_profile_whatever_is_replicated() -> None:
    # A beacon that gains less than half of another profile's must not skip a re-arm.
    calm = replace(CONFIGURATION, profile=PROFILES["calm"])
    h = Harness()
    h.tell(told.ConfigurationApplied(2, calm))
    h.active(until=0.09)
    until = 0.09 + PROFILE.beacon_s
    assert h.lease(until=until) == [do.ArmGate(until, until + PROFILE.grace_s)]
    assert h.node.snapshot().profile == PROFILE


def test_gate_that_was_armed_too_late_fences_without_a_fault() -> None:
    late = do.ArmGate(0.09, 0.09 + PROFILE.grace_s)
    h = Harness(failing=late)
    h.elect()
    h.tell(told.BarrierApplied(1))
    h.now = 0.088
    h.lease(until=0.09)
    assert h.role is Role.FENCED
    assert h.node.hindrances == ()


def test_each_carrier_that_comes_back_is_told() -> None:
    h = Harness()
    h.tell(told.CarrierObserved("public", carrier=False))
    h.tell(told.CarrierObserved("private", carrier=False))
    assert h.tell(told.CarrierObserved("public", carrier=True)) == [dark()]
    assert h.tell(told.CarrierObserved("private", carrier=True)) == [do.SetFitness(Fitness())]


def test_shutdown_of_the_holder_hands_over_before_it_finishes() -> None:
    h = Harness().active(until=0.09)
    actions = h.tell(told.ShutdownRequested())
    assert actions == [do.SetFitness(Fitness(safe=False)), do.WithdrawGate(), do.FlushFlows()]
    h.tell(told.FlowsFlushed())
    assert h.tell(told.LeaderObserved(2, PEER))[-1] == do.Finish()


def test_shutdown_of_a_backup_finishes_at_once() -> None:
    assert Harness().tell(told.ShutdownRequested())[-1] == do.Finish()


def test_shutdown_finishes_even_if_nobody_takes_over() -> None:
    h = Harness().active(until=0.09)
    h.tell(told.ShutdownRequested())
    h.tell(told.FlowsFlushed())
    h.now = h.node.deadline or 0.0
    assert h.tell(told.TimerDue()) == [do.StepDown(), do.Finish()]


def test_elected_node_whose_journal_fails_steps_down_at_once() -> None:
    h = Harness()
    h.elect()
    assert h.tell(told.JournalObserved("no space left")) == [
        do.SetFitness(Fitness(handicap=Kind.DISK.value)),
        do.StepDown(),
    ]


def test_elected_node_whose_journal_fails_stays_while_the_kernel_may_answer() -> None:
    h = Harness(failing=do.WithdrawGate()).active(until=1.0)
    h.tell(told.SwitchoverRequested(PEER))
    h.tell(told.SafetyObserved("clock", "too fast"))
    h.now = h.node.deadline or 0.0
    h.tell(told.TimerDue())
    assert h.waits  # called off, the flows did not drain; but the gate is open
    assert do.StepDown() not in h.tell(told.JournalObserved("no space left"))
    h.now = 1.0
    h.tell(told.JournalObserved(""))
    assert do.StepDown() in h.tell(told.JournalObserved("no space left"))


def test_elected_node_without_a_lease_steps_down_after_a_while() -> None:
    h = Harness()
    h.elect()
    h.tell(told.BarrierApplied(1))
    assert h.node.deadline == pytest.approx(PATIENCE_LEASES * PROFILE.lease_s)
    h.now = h.node.deadline or 0.0
    assert h.tell(told.TimerDue()) == [do.StepDown()]


def test_elected_node_that_opened_does_not_step_down() -> None:
    h = Harness().active(until=0.09)
    h.lease(until=2 * PATIENCE_LEASES * PROFILE.lease_s)
    h.now = PATIENCE_LEASES * PROFILE.lease_s
    assert do.StepDown() not in h.tell(told.TimerDue())


def test_node_is_unhindered_again_when_its_journal_is_whole() -> None:
    h = Harness()
    h.tell(told.JournalObserved("no space left"))
    assert h.tell(told.JournalObserved("")) == [do.SetFitness(Fitness())]
    assert h.node.snapshot().hindrances == ()


def test_lease_of_another_term_is_ignored() -> None:
    h = Harness()
    h.elect()
    h.tell(told.BarrierApplied(1))
    assert h.tell(told.LeaseObserved(0, 0.09)) == []
    assert h.role is Role.TAKEOVER


def test_changed_addresses_move_while_active() -> None:
    h = Harness().active(until=0.09)
    extra = FloatingAddress("extra", "public", (ip_interface("203.0.113.20/24"),))
    changed = Configuration("test", PROFILE, (*VIPS[1:], extra), (), ())
    assert h.tell(told.ConfigurationApplied(2, changed)) == [
        do.RemoveAddresses(VIPS[:1]),
        do.InstallRuleset(changed),
        do.AddAddresses((extra,)),
        do.Announce((extra,), until=0.09),
    ]


def test_gate_forgets_an_address_only_after_it_is_removed() -> None:
    h = Harness()
    changed = Configuration("test", PROFILE, VIPS[1:], (), ())
    assert h.tell(told.ConfigurationApplied(2, changed)) == [
        do.RemoveAddresses((*VIPS,)),
        do.InstallRuleset(changed),
    ]


def test_announcement_that_came_too_late_fences() -> None:
    h = Harness(failing=do.Announce(VIPS, until=0.09))
    h.elect()
    h.tell(told.BarrierApplied(1))
    h.now = 0.0895
    h.lease(until=0.09)
    assert (h.role, h.reason) == (Role.FENCED, Reason.LEASE_EXPIRED)


def dark(paths: int = 1) -> do.Action:
    """Return how the node tells that carriers are missing."""
    return do.SetFitness(Fitness(handicap=paths * Kind.PATH.value))


@dataclass
class Harness:
    """A node whose every action succeeds at once, except one.

    Attributes:
        failing: That one.
        electable: The others could elect one of them.
        slow: Rulesets are not installed until the test says so.
        settles: The flow worker answers at once.
        knows: What the holder has everybody know takes effect at once.
    """

    revision: int = 1
    failing: do.Action | None = None
    slow: bool = False
    settles: bool = True
    knows: bool = True
    now: float = 0.0
    electable: bool = True
    node: Node = field(init=False)

    def __post_init__(self) -> None:
        self.node = Node(node_id=ME, configuration=CONFIGURATION, now=self.now)
        self.peers()
        if self.revision:
            self.tell(told.ConfigurationApplied(self.revision, CONFIGURATION))

    @property
    def role(self) -> Role:
        return self.node.snapshot().role

    @property
    def lease_until(self) -> float:
        return self.node.snapshot().lease_until

    @property
    def waits(self) -> bool:
        """Whether the node is elected and its gate still shut."""
        return self.role is Role.TAKEOVER

    @property
    def reason(self) -> Reason:
        return self.node.snapshot().reason

    def tell(self, item: told.Input) -> list[do.Action]:
        """Feed an input and the outcomes of what follows; return all actions."""
        done: list[do.Action] = []
        inputs = [item]
        while inputs:
            failed = False
            for action in self.node.step(inputs.pop(0), self.now):
                if failed and not isinstance(action, do.CLEANUP):
                    continue
                if isinstance(action, do.SettleFlows) and self.settles:
                    inputs.append(told.FlowsSettled(action.term))
                    continue
                done.append(action)
                if action == self.failing:
                    failed = True
                    inputs.append(told.ActionFailed(action, because("refused")))
                    continue
                if isinstance(action, do.ProposeHolder) and self.knows:
                    inputs.append(told.HolderApplied(action.term))
                if not (self.slow and isinstance(action, do.InstallRuleset)):
                    inputs.append(told.ActionDone(action))
        return done

    def peers(self, *seen: Seen) -> list[do.Action]:
        """Let the node hear these."""
        return self.tell(told.PeersObserved(seen, self.electable))

    def elect(self) -> list[do.Action]:
        return self.tell(told.LeaderObserved(1, ME))

    def lease(self, *, until: float) -> list[do.Action]:
        return self.tell(told.LeaseObserved(1, until))

    def active(self, *, until: float) -> Harness:
        self.elect()
        self.tell(told.BarrierApplied(1))
        self.lease(until=until)
        assert self.role is Role.ACTIVE
        return self
