"""A holder gives up at once if it is unsafe, else only for a node that can do better."""

from __future__ import annotations

from ipaddress import ip_interface

import pytest

from hanat.core import actions as do
from hanat.core import inputs as told
from hanat.core.address_schedule import REFUSED_S
from hanat.core.configuration import Configuration, FloatingAddress
from hanat.core.eligibility import (
    DAMPED_S,
    SETTLED_S,
    SPREADING,
    Fitness,
    Kind,
    Seen,
)
from hanat.core.node import KERNEL_RETRY_S
from hanat.core.node_snapshot import Reason
from hanat.core.status import Role
from hanat.core.tenure import HAND_ON_LEASES, TRANSFER_LEASES
from tests.core.examples import NO_PEER, because
from tests.core.test_node import (
    BOTH,
    ME,
    PEER,
    PROFILE,
    RETREAT,
    VIPS,
    Harness,
    dark,
)

GOOD = Seen(PEER, fit=True, handicap=0)
DARK = GOOD._replace(handicap=Kind.PATH.value)
LOST = told.CarrierObserved("public", carrier=False)
BACK = told.CarrierObserved("public", carrier=True)
GIVES_UP = [do.WithdrawGate(), do.FlushFlows()]
LONG_S = 1000.0

# ------------------------------------------------------------------- a hindered holder


@pytest.mark.parametrize("interface", ["public", "private"])
def test_holder_that_loses_a_carrier_gives_up_both_addresses_for_a_node_that_has_it(
    interface: str,
) -> None:
    h = holder(GOOD)
    # Others may have lost it as well, and answer so in a moment.
    assert h.tell(told.CarrierObserved(interface, carrier=False)) == [dark()]
    assert h.peers(GOOD) == GIVES_UP
    assert h.reason is Reason.HINDERED
    h.now = PROFILE.beacon_s
    assert h.tell(told.TimerDue()) == [do.StopCapture(), BOTH, do.TransferLeadership((PEER,))]


def test_node_that_answers_after_the_holder_gave_up_may_follow_as_well() -> None:
    """The first to answer died in that moment, and the other was not asked (chaos seed 1415)."""
    third = Seen(PEER + 1, fit=True, handicap=0)
    h = holder(GOOD, third._replace(handicap=None))
    h.tell(LOST)
    assert h.peers(GOOD, third._replace(handicap=None)) == GIVES_UP
    h.peers(GOOD, third)
    assert h.tell(told.FlowsFlushed())[-1] == do.TransferLeadership((PEER, PEER + 1))


@pytest.mark.parametrize(
    "seen",
    [(), (DARK,), (GOOD._replace(handicap=None),), (GOOD._replace(fit=False),)],
    ids=["nobody", "tie", "old word", "not fit"],
)
def test_holder_that_loses_a_carrier_holds_on_if_nobody_can_do_better(
    seen: tuple[Seen, ...],
) -> None:
    h = holder(*seen)
    assert h.tell(LOST) == [dark()]
    assert h.peers(*seen) == []
    assert h.role is Role.ACTIVE
    assert h.peers(GOOD) == GIVES_UP  # now there is one


def test_holder_announces_again_when_the_carrier_is_back() -> None:
    h = holder()
    h.tell(LOST)
    assert h.tell(BACK) == [do.SetFitness(Fitness()), do.Announce(VIPS, LONG_S)]
    h.now = 0.02
    assert h.tell(told.TimerDue()) == [do.Announce(VIPS, LONG_S)]


def test_holder_does_not_give_up_for_the_same_reason_again_so_soon() -> None:
    h = holder(GOOD)
    h.tell(LOST)
    h.peers(GOOD)
    h.tell(told.FlowsFlushed())
    h.tell(told.LeaderObserved(2, PEER))
    h.tell(BACK)
    h.now = 1.0
    again(h, 3, GOOD)
    assert h.tell(LOST) == [dark()]
    assert h.peers(GOOD) == []
    assert h.role is Role.ACTIVE
    assert h.node._weigh_due == DAMPED_S
    h.now = DAMPED_S
    assert h.tell(told.TimerDue())[-2:] == GIVES_UP


def test_holder_gives_up_for_another_reason_meanwhile() -> None:
    h = holder(GOOD)
    h.tell(LOST)
    h.peers(GOOD)
    h.tell(told.FlowsFlushed())
    h.tell(told.LeaderObserved(2, PEER))
    h.tell(BACK)
    again(h, 3, GOOD)
    h.tell(told.ForwardObserved("chain FORWARD drops"))
    h.peers(GOOD)
    h.now += SETTLED_S
    assert h.tell(told.TimerDue())[-2:] == GIVES_UP


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        (told.SilenceObserved("public", silent=True), Kind.PATH),
        (told.ForwardObserved("chain FORWARD drops"), Kind.FORWARD),
        (told.JournalObserved("no space left"), Kind.DISK),
        (told.ConfigurationRefused(2, "cluster.profile: unknown"), Kind.REVISION),
    ],
)
def test_each_hindrance_is_relative(item: told.Input, kind: Kind) -> None:
    fitness = do.SetFitness(Fitness(handicap=kind.value))
    h = holder()
    assert h.tell(item) == [fitness]
    assert h.peers(GOOD._replace(handicap=kind.value)) == []
    at_once = h.peers(GOOD)
    assert at_once == ([] if kind in SPREADING else GIVES_UP)
    h.now += SETTLED_S
    assert at_once or h.tell(told.TimerDue())[-2:] == GIVES_UP


def test_holder_has_all_flows_whatever_its_worker_says() -> None:
    h = holder(GOOD)
    assert h.tell(told.FlowsObserved(complete=False)) == []


def test_node_that_ends_gives_up_for_nobody_in_particular() -> None:
    h = holder()
    h.tell(told.ShutdownRequested())
    assert do.TransferLeadership(()) in h.tell(told.FlowsFlushed())


# --------------------------------------------------------------- an elected one


def test_elected_node_that_is_hindered_opens_at_once_if_nobody_can_do_better() -> None:
    h = Harness()
    h.tell(LOST)
    again(h, 1, DARK)
    assert h.role is Role.ACTIVE


def test_elected_node_that_is_hindered_hands_on_to_a_better_one() -> None:
    h = Harness()
    h.tell(LOST)
    h.peers(GOOD)
    h.elect()
    assert h.tell(told.BarrierApplied(1)) == GIVES_UP
    assert h.tell(told.FlowsFlushed())[-1] == do.TransferLeadership((PEER,))


def test_elected_node_that_lacks_flows_hands_on_to_one_that_has_them() -> None:
    h = Harness()
    h.tell(told.FlowsObserved(complete=False))
    h.peers(GOOD)
    h.elect()
    assert h.tell(told.BarrierApplied(1)) == GIVES_UP
    # While it flushes it counts as a holder, which lacks nothing.
    assert h.tell(told.FlowsFlushed())[-1] == do.TransferLeadership((PEER,))


# ------------------------------------------------------------- handed over in vain


def test_order_that_could_not_be_given_is_no_end_of_the_term() -> None:
    # The lease was never given up: no election is needed.
    h = holder(GOOD)
    h.tell(LOST)
    h.peers(GOOD)
    h.tell(told.FlowsFlushed())
    h.tell(told.ActionFailed(do.TransferLeadership((PEER,)), NO_PEER))
    assert (h.role, h.reason) == (Role.TAKEOVER, Reason.TAKEN_BACK)
    h.lease(until=LONG_S + 1)
    assert h.role is Role.ACTIVE
    h.now = DAMPED_S - 0.1
    assert h.peers(GOOD, GOOD._replace(node_id=3)) == []  # for no reason at all


def test_handover_that_finds_no_successor_is_taken_back_in_a_new_term() -> None:
    h = holder(GOOD)
    h.tell(LOST)
    h.peers(GOOD)
    h.tell(told.FlowsFlushed())
    h.now = TRANSFER_LEASES * PROFILE.lease_s
    assert h.lease(until=LONG_S + 1) == []  # of the term that was given up
    assert h.tell(told.TimerDue()) == [do.StepDown(stand=True)]
    h.tell(told.LeaderObserved(2, None))
    again(h, 3, GOOD)
    assert h.role is Role.ACTIVE


def test_leader_that_the_others_could_not_replace_leads_on() -> None:
    # One of them recovers, and needs a leader for that.
    h = holder(GOOD)
    h.tell(LOST)
    h.peers(GOOD)
    h.tell(told.FlowsFlushed())
    h.electable = False
    h.peers(GOOD._replace(fit=False))
    h.now = TRANSFER_LEASES * PROFILE.lease_s
    assert h.tell(told.TimerDue()) == []
    h.electable = True
    h.peers(GOOD)
    h.now = h.node.deadline or 0.0
    assert h.tell(told.TimerDue()) == [do.StepDown(stand=True)]


@pytest.mark.parametrize("fenced", [True, False])
def test_leader_without_a_lease_steps_down_only_if_others_could_be_elected(
    fenced: bool,  # noqa: FBT001 - a parameter
) -> None:
    h = Harness(electable=False)
    h.peers()
    h.elect()
    h.tell(told.BarrierApplied(1))
    if fenced:
        h.lease(until=0.09)
        h.now = 0.09
        assert h.tell(told.TimerDue()) == RETREAT
    for _ in range(3):
        h.now = h.node.deadline or 0.0
        assert h.tell(told.TimerDue()) == []
    h.electable = True
    h.peers()
    h.now = h.node.deadline or 0.0
    assert h.tell(told.TimerDue()) == [do.StepDown()]


# -------------------------------------------------------------------- unsafe


def test_unsafe_holder_gives_up_at_once_whoever_else_there_is() -> None:
    h = holder()
    unsafe = told.SafetyObserved("clock", "the clock runs 8 % too fast")
    assert h.tell(unsafe) == [do.SetFitness(Fitness(safe=False)), *GIVES_UP]
    assert h.reason is Reason.UNSAFE
    assert h.node.unsafe == ("the clock runs 8 % too fast",)


def test_unsafe_node_that_is_elected_never_opens_and_hands_on_when_it_hears_a_safe_one() -> None:
    h = Harness()
    h.tell(told.SafetyObserved("clock", "too fast"))
    again(h, 1)
    assert h.waits
    h.now = HAND_ON_LEASES * PROFILE.lease_s
    assert h.tell(told.TimerDue()) == []  # nobody else: at least it leads
    h.peers(DARK)
    h.now *= 2
    assert h.tell(told.TimerDue()) == GIVES_UP
    assert h.tell(told.FlowsFlushed())[-1] == do.TransferLeadership((PEER,))


def test_unsafe_node_that_is_elected_again_hands_on_though_it_did_in_vain_just_now() -> None:
    h = holder(GOOD)
    h.tell(told.SafetyObserved("clock", "too fast"))
    h.tell(told.FlowsFlushed())
    h.now = TRANSFER_LEASES * PROFILE.lease_s
    assert h.tell(told.TimerDue()) == [do.StepDown(stand=True)]
    h.tell(told.LeaderObserved(2, None))
    again(h, 3, GOOD)
    assert h.waits
    h.now = h.node.deadline or 0.0
    assert h.now < 1.0
    assert h.tell(told.TimerDue()) == GIVES_UP


def test_node_that_is_safe_again_opens() -> None:
    h = Harness()
    h.tell(told.SafetyObserved("clock", "too fast"))
    again(h, 1)
    assert h.waits
    h.tell(told.SafetyObserved("clock", ""))
    assert h.role is Role.ACTIVE


def test_holder_whose_gate_is_refused_gives_up_though_nobody_else_is_there() -> None:
    h = holder()
    h.failing = do.ArmGate(LONG_S + 1, LONG_S + 1 + PROFILE.grace_s)
    assert do.WithdrawGate() in h.lease(until=LONG_S + 1)
    assert h.node.unsafe == ("kernel: refused",)


# ---------------------------------------------------------- what the kernel refuses


def test_refused_announcement_is_no_hindrance_and_is_tried_again_soon() -> None:
    h = holder()
    assert h.tell(told.AnnouncementsRefused(VIPS[:1])) == []
    assert (h.role, h.node.hindrances) == (Role.ACTIVE, ())
    h.now = REFUSED_S
    assert do.Announce(VIPS[:1], LONG_S) in h.tell(told.TimerDue())


def test_announcements_that_are_refused_again_and_again_are_tried_ever_less_often() -> None:
    h = holder()
    tries = 0
    for ms in range(0, 5000, 10):
        h.now = ms / 1000
        actions = h.tell(told.TimerDue()) if (h.node.deadline or 0.0) <= h.now else []
        if do.Announce(VIPS[:1], LONG_S) in actions or ms == 0:
            tries += 1
            h.tell(told.AnnouncementsRefused(VIPS[:1]))
    assert 6 <= tries <= 9


def test_claim_of_another_is_answered_at_once_and_then_once_a_second() -> None:
    h = holder()
    h.now = 0.5
    h.tell(told.TimerDue())
    announced = []
    for ms in range(500, 3500, 1):
        h.now = ms / 1000
        h.tell(told.ClaimHeard())
        if (h.node.deadline or LONG_S) <= h.now and do.Announce(VIPS, LONG_S) in h.tell(
            told.TimerDue()
        ):
            announced.append(h.now)
    assert len(announced) <= 8
    assert announced[0] < 0.6


def test_elected_node_holds_what_the_kernel_takes_and_tries_the_rest_again() -> None:
    h = Harness(failing=do.AddAddresses(VIPS))
    again(h, 1)
    assert (h.role, h.node.hindrances) == (Role.ACTIVE, ("kernel: refused",))
    h.failing = None
    h.now = KERNEL_RETRY_S
    actions = h.tell(told.TimerDue())
    assert do.AddAddresses(VIPS) in actions
    assert do.SetFitness(Fitness()) in actions


def test_elected_node_that_cannot_put_an_address_on_gives_up_for_one_that_can() -> None:
    h = Harness(failing=do.AddAddresses(VIPS))
    again(h, 1, GOOD)
    # They may have met the same, and answer so in a moment.
    assert h.peers(GOOD) == GIVES_UP


# ------------------------------------------------------------ a refused revision


def newer() -> Configuration:
    """Return a configuration without the public address, with another one."""
    extra = FloatingAddress("extra", "public", (ip_interface("203.0.113.20/24"),))
    return Configuration("test", PROFILE, (VIPS[1], extra), (), ())


def test_newer_ruleset_that_is_refused_leaves_the_older_in_force() -> None:
    h, wanted = holder(DARK), newer()
    h.slow = True
    install = do.InstallRuleset(wanted)
    assert h.tell(told.ConfigurationApplied(2, wanted)) == [
        do.RemoveAddresses(VIPS[:1]), install,
    ]  # fmt: skip
    actions = h.tell(told.ActionFailed(install, because("no helper"), kept=True))
    assert actions == [do.SetFitness(Fitness(handicap=Kind.REVISION.value))]
    assert h.role is Role.ACTIVE
    assert (h.node.settled, h.node.refuses) == (2, True)
    # What the newest does not have is gone, what only it has is not there.
    h.tell(told.ClaimHeard())
    h.now = 0.02
    assert do.Announce(VIPS[1:], LONG_S) in h.tell(told.TimerDue())
    # It is tried again, and then all of it is there.
    h.now = KERNEL_RETRY_S
    h.slow = False
    actions = h.tell(told.TimerDue())
    assert [a for a in actions if not isinstance(a, do.Announce)] == [
        install, do.AddAddresses(wanted.vips[1:]), do.SetFitness(Fitness()),
    ]  # fmt: skip


def test_elected_node_opens_with_the_older_of_which_the_newest_has_something() -> None:
    h, wanted = Harness(), newer()
    h.slow = True
    h.tell(told.ConfigurationApplied(2, wanted))
    h.tell(told.ActionFailed(do.InstallRuleset(wanted), because("no helper"), kept=True))
    h.elect()
    h.tell(told.BarrierApplied(1))
    assert do.AddAddresses(VIPS[1:]) in h.lease(until=LONG_S)


def test_holder_gives_up_for_a_node_that_has_the_newest_revision() -> None:
    h, wanted = holder(GOOD), newer()
    h.slow = True
    h.tell(told.ConfigurationApplied(2, wanted))
    h.tell(told.ActionFailed(do.InstallRuleset(wanted), because("no helper"), kept=True))
    h.peers(GOOD)
    h.now += SETTLED_S
    assert h.tell(told.TimerDue())[-2:] == GIVES_UP


def test_without_any_ruleset_a_node_is_unsafe() -> None:
    h, wanted = holder(), newer()
    h.slow = True
    h.tell(told.ConfigurationApplied(2, wanted))
    assert h.tell(told.ActionFailed(do.InstallRuleset(wanted), because("no gate")))[-2:] == GIVES_UP
    assert h.node.unsafe == ("kernel: no gate",)


def test_gate_that_is_back_with_the_older_revision_ends_being_unsafe() -> None:
    h, wanted = holder(), newer()
    h.slow = True
    h.tell(told.ConfigurationApplied(2, wanted))
    refused = told.ActionFailed(do.InstallRuleset(wanted), because("no helper"), kept=True)
    h.tell(refused)
    h.tell(told.ActionFailed(do.ArmGate(LONG_S, LONG_S), because("slow")))
    assert h.node.unsafe == ("kernel: slow",)
    h.tell(refused)  # at once: it must have been well for a while
    assert h.node.unsafe == ("kernel: slow",)
    h.now = KERNEL_RETRY_S
    h.tell(told.TimerDue())
    h.tell(refused)
    assert not h.node.unsafe


def test_lease_that_ended_beside_a_refused_address_does_not_open_for_ever() -> None:
    h = Harness()
    h.elect()
    h.node.step(told.BarrierApplied(1), h.now)
    h.node.step(told.FlowsSettled(1), h.now)
    adding = [
        a for a in h.node.step(told.LeaseObserved(1, 0.1), h.now) if isinstance(a, do.AddAddresses)
    ]
    h.now = 0.2
    h.node.step(told.ActionFailed(adding[0], because("not local")), h.now)
    assert h.role is Role.FENCED
    assert h.node.deadline is not None


def test_told_to_end_in_a_switchover_that_does_not_drain_ends() -> None:
    h = holder(GOOD)
    h.tell(told.SwitchoverRequested(None))
    h.tell(told.ShutdownRequested())
    h.now = 1.0
    assert any(isinstance(a, do.TransferLeadership) for a in h.tell(told.TimerDue()))
    assert h.role is Role.RELEASING


def test_only_what_the_gate_in_force_guards_is_put_on_a_device() -> None:
    # Revision 2 drops an address, 3 has it again; 2 came into force late, 3 is refused.
    h, second = Harness(slow=True), newer()
    third = Configuration("test", PROFILE, (*VIPS, second.vips[1]), (), ())
    h.tell(told.ConfigurationApplied(2, second))
    h.tell(told.ConfigurationApplied(3, third))
    h.tell(told.ActionDone(do.InstallRuleset(second)))
    h.tell(told.ActionFailed(do.InstallRuleset(third), because("no helper"), kept=True))
    h.elect()
    h.tell(told.BarrierApplied(1))
    assert do.AddAddresses(second.vips) in h.lease(until=LONG_S)


def holder(*seen: Seen) -> Harness:
    """Return a holder with a long lease that hears these."""
    h = Harness().active(until=LONG_S)
    h.peers(*seen)
    return h


def again(h: Harness, term: int, *seen: Seen) -> None:
    """Let the node be elected, with a lease."""
    h.tell(told.LeaderObserved(term, ME))
    h.peers(*seen)
    h.tell(told.BarrierApplied(term))
    h.tell(told.LeaseObserved(term, LONG_S + term))
