"""What was refused, taken away, or has no outcome is tried again, and ends well."""

from __future__ import annotations

from dataclasses import replace

from hanat.core import actions as do
from hanat.core import inputs as told
from hanat.core.drift import REPAIR_GAP_S
from hanat.core.node import KERNEL_RETRY_S
from hanat.core.status import Role
from hanat.core.tenure import HAND_ON_AGAIN_S, HAND_ON_LEASES, OPENING_S_MAX
from tests.core.examples import NO_PEER, because
from tests.core.test_giving_up import DARK, LONG_S, again, holder, newer
from tests.core.test_node import CONFIGURATION, ME, PEER, PROFILE, VIPS, Harness


def test_what_the_log_did_not_take_is_proposed_again_until_it_took_effect() -> None:
    h = Harness(revision=0, knows=False)
    assert h.elect() == [do.ProposeBarrier(1)]
    for _ in range(3):
        assert again_when_due(h) == [do.ProposeBarrier(1)]
    assert h.tell(told.BarrierApplied(1)) == [do.ProposeConfiguration()]
    assert again_when_due(h) == [do.ProposeConfiguration()]
    h.tell(told.ConfigurationApplied(1, CONFIGURATION))
    assert again_when_due(h) == []
    h.lease(until=LONG_S)
    assert h.role is Role.ACTIVE
    h.now += PROFILE.lease_s
    assert do.ProposeHolder(1) in h.tell(told.TimerDue())
    h.tell(told.HolderApplied(1))
    h.now += PROFILE.lease_s
    assert do.ProposeHolder(1) not in h.tell(told.TimerDue())


def test_nothing_is_proposed_for_a_term_that_is_over() -> None:
    h = Harness()
    h.elect()
    h.tell(told.LeaderObserved(2, PEER))
    h.now = h.node.deadline or PROFILE.lease_s
    assert h.tell(told.TimerDue()) == []
    assert h.node.deadline is None


def again_when_due(h: Harness) -> list[do.Action]:
    """Let the node's next time come."""
    h.now = h.node.deadline or 0.0
    return h.tell(told.TimerDue())


def test_node_whose_addition_has_no_outcome_makes_room() -> None:
    h = Harness().active(until=0.09)
    h.now = 0.09
    h.tell(told.TimerDue())
    assert h.role is Role.FENCED
    h.node.step(told.LeaseObserved(1, LONG_S), h.now)
    assert h.waits
    h.now = h.node.deadline or 0.0
    assert h.tell(told.TimerDue()) == [do.StepDown()]


def test_gate_whose_second_try_has_no_outcome_is_tried_once_more() -> None:
    # A removal before it failed, and nobody says so of what was to come behind it.
    h = holder()
    h.tell(told.ActionFailed(do.ArmGate(LONG_S, LONG_S), because("slow")))
    h.slow = True
    for tries in range(1, 4):
        h.now = tries * KERNEL_RETRY_S
        assert do.InstallRuleset(CONFIGURATION) in h.tell(told.TimerDue())
        assert h.node.unsafe
    h.tell(told.ActionDone(do.InstallRuleset(CONFIGURATION)))
    assert not h.node.unsafe


def test_address_whose_second_try_has_no_outcome_is_tried_once_more() -> None:
    h = Harness(failing=do.AddAddresses(VIPS))
    again(h, 1)
    for tries in range(1, 4):
        h.now = tries * KERNEL_RETRY_S
        assert do.AddAddresses(VIPS) in h.node.step(told.TimerDue(), h.now)
    h.tell(told.ActionDone(do.AddAddresses(VIPS)))
    assert h.node.hindrances == ()


def test_ruleset_that_somebody_took_away_is_back_with_the_older_revision() -> None:
    h, wanted = holder(), newer()
    h.slow = True
    refused = told.ActionFailed(do.InstallRuleset(wanted), because("no helper"), kept=True)
    h.tell(told.ConfigurationApplied(2, wanted))
    h.tell(refused)
    for _ in range(2):
        h.now += REPAIR_GAP_S
        assert h.tell(told.RulesetDrifted(("gone",)))[-1] == do.InstallRuleset(wanted)
        actions = h.tell(refused)
        assert do.ArmGate(LONG_S, LONG_S + PROFILE.grace_s) in actions  # its sets are empty
        assert (h.role, h.node.unsafe) == (Role.ACTIVE, ())
    h.now += REPAIR_GAP_S
    h.tell(told.RulesetDrifted(("gone",)))
    assert do.WithdrawGate() in h.tell(replace(refused, kept=False))


def test_what_somebody_took_away_long_ago_is_not_what_is_back() -> None:
    """Its gate would guard other addresses than the one that is in force."""
    h, second = holder(), newer()
    third = replace(second, name="third")
    h.slow = True
    h.tell(told.RulesetDrifted(("gone",)))
    h.tell(told.ActionDone(do.InstallRuleset(CONFIGURATION)))
    h.tell(told.ConfigurationApplied(2, second))
    h.tell(told.ActionDone(do.InstallRuleset(second)))
    h.tell(told.ConfigurationApplied(3, third))
    for kept in (False, True):
        h.tell(told.ActionFailed(do.InstallRuleset(third), because("no helper"), kept=kept))
        assert h.node.unsafe


def test_addition_without_an_outcome_is_begun_again_if_nobody_else_could_be_elected() -> None:
    h = Harness(electable=False).active(until=0.09)
    h.peers()
    h.now = 0.09
    h.tell(told.TimerDue())
    h.node.step(told.LeaseObserved(1, 60.0), h.now)
    assert h.waits
    h.now = 0.09 + OPENING_S_MAX
    assert do.AddAddresses(VIPS) in h.tell(told.TimerDue())
    assert h.role is Role.ACTIVE


def test_opening_behind_a_removal_that_was_refused_is_begun_again() -> None:
    h = Harness().active(until=0.09)
    h.now = 0.09
    h.tell(told.TimerDue())
    h.tell(told.ConfigurationApplied(2, wanted := newer()))
    h.slow = True
    h.tell(told.ConfigurationApplied(3, replace(wanted, name="third")))
    h.node.step(told.LeaseObserved(1, 60.0), h.now)
    assert h.waits
    assert do.AddAddresses in map(
        type, h.tell(told.ActionFailed(do.RemoveAddresses(VIPS), because("x")))
    )
    assert h.role is Role.ACTIVE


def test_unsafe_leader_whom_nobody_succeeds_hands_on_once_a_second() -> None:
    h = Harness()
    h.tell(told.SafetyObserved("clock", "too fast"))
    h.tell(told.LeaderObserved(1, ME))
    h.tell(told.BarrierApplied(1))
    h.lease(until=60.0)
    h.peers(DARK)
    h.now = HAND_ON_LEASES * PROFILE.lease_s
    assert do.WithdrawGate() in h.tell(told.TimerDue())
    transfer = h.node.step(told.FlowsFlushed(), h.now)[-1]
    h.tell(told.ActionFailed(transfer, NO_PEER))
    assert h.waits
    began = h.now
    while h.role is Role.TAKEOVER:
        assert h.node.deadline is not None
        h.now = h.node.deadline
        h.tell(told.TimerDue())
    assert h.now - began >= HAND_ON_AGAIN_S
