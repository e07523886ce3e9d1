"""How a node comes to hold the floating addresses, and how it lets go of them.

From the election to the open gate, and from what ends that to the next leader; what a
node is told of its circumstances is in `core.node`, which has the whole picture.
"""

from __future__ import annotations

from hanat.core.actions import (
    Action,
    AddAddresses,
    ArmGate,
    Finish,
    FlushFlows,
    Proposal,
    ProposeBarrier,
    ProposeConfiguration,
    ProposeHolder,
    SetFitness,
    SettleFlows,
    StartCapture,
    StepDown,
    StopCapture,
    TransferLeadership,
    WithdrawGate,
)
from hanat.core.eligibility import Fitness, all_said, better, gravest, handicap
from hanat.core.holding import FIRST_MAX, Holding
from hanat.core.inputs import BarrierApplied, LeaderObserved, LeaseObserved
from hanat.core.node_snapshot import Reason
from hanat.core.status import Role

FLUSH_S_MAX = 0.2  # a healthy commit takes some milliseconds; longer means no majority
TRANSFER_LEASES = 5  # a transfer takes two messages; after five leases it is not coming
PATIENCE_LEASES = 10  # an elected leader without a lease, or that commits nothing
OPENING_S_MAX = 10.0  # what the kernel needs for 2,000 IPv6 addresses, several times
PROPOSE_LEASES = 1  # what did not take effect is proposed again
HAND_ON_AGAIN_S = 1.0  # after a hand-over that nobody took
HAND_ON_LEASES = 2  # an unsafe node that is elected: a node that is not may need the log first


class Tenure(Holding):
    """The transitions between BACKUP and ACTIVE, there and back."""

    # -------------------------------------------------------------- leadership

    def _leader_observed(self, item: LeaderObserved, now: float) -> tuple[Action, ...]:
        was_term, was_leading = self._term, self._leading
        self._term, self._leader = item.term, item.leader
        actions: tuple[Action, ...] = ()
        if was_leading and not (self._leading and was_term == item.term):
            actions = self._leave(now)
        if self._leading and self.role is Role.BACKUP:
            self._enter(Role.TAKEOVER, Reason.ELECTED, now)
            self._step_down_later(now)
            actions += (self._propose(ProposeBarrier(item.term), now),)
        return actions

    def _propose(self, proposal: Proposal, now: float) -> Proposal:
        """Have something appended, and again until it took effect.

        A log that is too long does not take it, and a disk that fails may lose it.
        """
        self._proposal = proposal
        self._proposal_due = now + PROPOSE_LEASES * self._profile.lease_s
        return proposal

    def _propose_again(self, now: float) -> tuple[Action, ...]:
        proposal = self._proposal
        if isinstance(proposal, ProposeConfiguration) and self._committed:
            self._took_effect(proposal)
        if not self._leading or self._proposal is None:
            self._proposal_due = None
            return ()
        return (self._propose(self._proposal, now),)

    def _took_effect(self, proposal: Proposal) -> None:
        if self._proposal == proposal:
            self._proposal = self._proposal_due = None

    def _step_down_later(self, now: float) -> None:
        """No lease, or nothing is committed: perhaps another node fares better."""
        if self._step_down_due is None:
            self._step_down_due = now + PATIENCE_LEASES * self._profile.lease_s

    def _leave(self, now: float) -> tuple[Action, ...]:
        """Leadership is gone: hold nothing."""
        self._lease_until = self._armed_until = 0.0
        self._flows_due = None
        handed_over = self.role is Role.RELEASING and self._handing_over
        finish: tuple[Action, ...] = (Finish(),) if self._finishing else ()
        reason = Reason.HANDED_OVER if handed_over else Reason.LEADERSHIP_LOST
        self._enter(Role.BACKUP, reason, now)
        return (*self._retreat(), *finish)

    def _retreat(self) -> tuple[Action, ...]:
        """Stop answering, then stop the capture, then give the addresses back."""
        self._captures = False
        return (WithdrawGate(), StopCapture(), *self._clear())

    def _barrier_applied(self, item: BarrierApplied, now: float) -> tuple[Action, ...]:
        if not self._leading or item.term != self._term:
            return ()
        self._took_effect(ProposeBarrier(item.term))
        self._flows_due = now + self._profile.lease_s
        settle = SettleFlows(item.term)
        if self._committed == 0:
            return (settle, self._propose(ProposeConfiguration(), now))
        return (settle, *self._open(now))

    def _flows_settled(self, term: int, now: float) -> tuple[Action, ...]:
        """The flows are in the kernel, or were waited for long enough."""
        if term != self._term:
            return ()
        self._flows_term, self._flows_due = term, None
        if self._opening and not self._ready:
            # Until the addresses are there it may take longer than a lease is waited for.
            # Behind something that failed the addition has no outcome.
            self._step_down_due = now + OPENING_S_MAX
        return self._weigh(now) if self._opening else self._open(now)

    def _lease_observed(self, item: LeaseObserved, now: float) -> tuple[Action, ...]:
        if not self._leading or item.term != self._term:
            return ()
        self._lease_until = max(self._lease_until, item.until)
        if self.role is Role.ACTIVE:
            # Every renewal moves the lease by about one beacon; half of one keeps
            # jitter from skipping a re-arm without arming twice a beacon.
            if item.until - self._armed_until < self._profile.beacon_s / 2:
                return ()
            return (self._arm(),)
        return self._open(now)

    def _arm(self) -> ArmGate:
        self._armed_until = self._gate_until = self._lease_until
        grace_s = self._profile.grace_s
        return ArmGate(self._lease_until, self._lease_until + grace_s)

    def _open(self, now: float) -> tuple[Action, ...]:
        """Take the addresses if everything is in place; called whenever something changed."""
        if self.role is Role.FENCED and self._lease_until > now:
            self._enter(Role.TAKEOVER, Reason.LEASE_OBTAINED, now)
        if self.role is not Role.TAKEOVER or self._committed == 0:
            return ()
        if self._opening:
            return self._open_gate(now)
        if not self._settled:
            if self.unsafe or better(handicap(self._hindrances), self._seen):
                return ()  # that is decided when it is known what is committed
        elif self.unsafe:
            self._hand_on_later(now)
            return ()
        else:
            self._hand_on_due = None
            if actions := self._give_up(now):
                return actions
        return self._add_first(now)

    def _add_first(self, now: float) -> tuple[Action, ...]:
        """Have the first addresses added behind a gate that is shut."""
        if not self._is_known or self._lease_until <= now:
            if self._settled:
                self._step_down_later(now)
            return ()
        self._opening, self._ready = True, False
        if self._settled:
            self._step_down_due = now + OPENING_S_MAX
        first = self._guarded()[:FIRST_MAX]
        # A hand-over that was called off took none away; somebody else may have.
        left = () if self._cleared else (*self._left, *self._held)
        self._left = tuple(dict.fromkeys(left))
        self._held, self._cleared, self._coming = first, False, False
        self._adding = AddAddresses(first)
        return (self._adding,)

    def _hand_on_later(self, now: float) -> None:
        """Elected, and unsafe: a node that is not may need the log first."""
        self._step_down_due = None
        if self._hand_on_due is None:
            self._hand_on_due = now + HAND_ON_LEASES * self._profile.lease_s

    @property
    def _settled(self) -> bool:
        """The flows of this term are in the kernel, or were waited for."""
        return self._flows_term == self._term

    @property
    def _is_known(self) -> bool:
        """What the newest revision says: else addresses that it removed would answer."""
        return self._revision >= self._committed and self._installed is not None

    def _open_gate(self, now: float) -> tuple[Action, ...]:
        """Open the gate when the first addresses and the flows are in the kernel.

        The addresses may come before the flows: until the gate is open they answer nobody.
        """
        if not self._ready or not self._settled or not self._is_known:
            return ()
        if self._lease_until <= now:
            return self._fence(now)
        self._ready, self._captures = False, True
        return (StartCapture(self._term), self._arm())

    def _added(self, action: AddAddresses, now: float) -> tuple[Action, ...]:
        """Go on when the first addresses are there; announce what a holder got anew."""
        if action is self._adding and self._opening and self.role is Role.TAKEOVER:
            self._ready = True
            return self._open_gate(now)
        if self.role is not Role.ACTIVE:
            return ()
        return (*self._add_rest(now), *self._announce_some(action.vips))

    def _opened(self, now: float) -> tuple[Action, ...]:
        if self._lease_until <= now:  # the kernel call took longer than the lease
            return self._fence(now)
        self._enter(Role.ACTIVE, Reason.LEASE_OBTAINED, now)
        self._upkeep.begin(now)
        known = self._holder_term == self._term
        told = () if known else (self._propose(ProposeHolder(self._term), now),)
        # First: behind something that failed nothing is done. There may be many, or a newer
        # configuration was installed meanwhile.
        announcement = self._announce()
        return (*self._add_new(), announcement, *told)

    def _fence(self, now: float) -> tuple[Action, ...]:
        """The lease is over although nobody told us that we lost."""
        self._enter(Role.FENCED, Reason.LEASE_EXPIRED, now)
        self._step_down_due = now + 2 * self._profile.lease_s
        return self._retreat()

    # ----------------------------------------------------------------- release

    def _release(self, reason: Reason, now: float, to: tuple[int, ...] = ()) -> tuple[Action, ...]:
        """Stop answering and let the flows drain before leadership goes on."""
        self._enter(Role.RELEASING, reason, now)
        self._release_to = to
        self._release_due = now + FLUSH_S_MAX
        if reason in {Reason.UNSAFE, Reason.HINDERED}:
            # Where a path is broken packets would only die, so do not wait long.
            self._release_due = now + self._profile.beacon_s
        return (WithdrawGate(), FlushFlows())

    def _hand_over(self, now: float) -> tuple[Action, ...]:
        if self._gate_until > now:  # the kernel did not withdraw: it ends the right by itself
            self._release_due = self._gate_until
            return ()
        hindered = self._reason is Reason.HINDERED and not self.unsafe and not self._finishing
        if hindered and self._none_better(handicap(self._hindrances)):
            self._damping.stayed()
            return self._stay(now)
        self._handing_over = True
        self._lease_until = self._armed_until = 0.0
        self._release_due = now + TRANSFER_LEASES * self._profile.lease_s
        self._captures = False
        return (StopCapture(), *self._clear(), TransferLeadership(self._heirs))

    @property
    def _heirs(self) -> tuple[int, ...]:
        """Who may lead next, the best first; more may have answered since this node gave up."""
        if self._reason is Reason.UNSAFE:
            return self._successors or self._release_to
        if self._reason is Reason.HINDERED:
            others = better(handicap(self._hindrances), self._seen)
            return tuple(other.node_id for other in others) or self._release_to
        return self._release_to

    def _release_overdue(self, now: float) -> tuple[Action, ...]:
        if self._handing_over:
            return self._take_back(now)
        if self._reason in {Reason.SWITCHOVER, Reason.BLIND} and not self._finishing:
            # The flows do not drain: better to stay than to lose connections.
            return self._stay(now)
        return self._hand_over(now)

    def _take_back(self, now: float) -> tuple[Action, ...]:
        """Nobody obeyed: stand again, in a new term, since this one's lease was given up."""
        self._release_due = now + TRANSFER_LEASES * self._profile.lease_s
        if self._finishing:
            return (StepDown(), Finish())
        if self._reason is not Reason.UNSAFE:
            self._damping.failed(now)
        if not self._electable:  # as the leader it can at least bring others up to date
            self._release_due = now + self._profile.lease_s
            return ()
        return (StepDown(stand=True),)

    def _stay(self, now: float) -> tuple[Action, ...]:
        """Nothing was handed over: take the addresses again, in this term."""
        switchover = self._reason is Reason.SWITCHOVER
        reason = Reason.SWITCHOVER_ABORTED if switchover else Reason.TAKEN_BACK
        self._enter(Role.TAKEOVER, reason, now)
        self._step_down_later(now)
        return self._open(now)

    def _shutdown(self, now: float) -> tuple[Action, ...]:
        self._finishing = True
        told = self._tell(now)
        if self.role in {Role.ACTIVE, Role.TAKEOVER, Role.FENCED}:
            return (*told, *self._release(Reason.SHUTDOWN, now))
        if self.role is Role.RELEASING:
            return told
        return (*told, *self._retreat(), Finish())

    def _step_down(self, now: float) -> tuple[Action, ...]:
        """Make room, if the others could elect another; else this one is better than none."""
        stuck, self._opening = self._opening, False  # the addition has no outcome
        if not self._electable:
            self._step_down_due = now + self._profile.lease_s
            return self._open(now) if stuck else ()
        self._step_down_due = None
        return (StepDown(),)

    # -------------------------------------------------------------------- eligibility

    def _tell(self, now: float) -> tuple[Action, ...]:
        """Let the others know what speaks against this node, if that changed."""
        fitness = Fitness(not (self.unsafe or self._finishing), handicap(self._hindrances))
        if fitness == self._told:
            return ()
        self._told, self._told_at = fitness, now
        # What they said before was no answer to this: they may have met the same trouble.
        self._seen = tuple(seen._replace(handicap=None) for seen in self._seen)
        return (SetFitness(fitness),)

    def _weigh(self, now: float) -> tuple[Action, ...]:
        """Act on what speaks against this node, or against the others, after a change."""
        self._weigh_due = None
        told = self._tell(now)
        # Before the log is known nothing is given up: it is not held yet.
        holds = self.role is Role.ACTIVE or (self._opening and self._settled)
        if self.unsafe and holds:
            return (*told, *self._release(Reason.UNSAFE, now, to=self._successors))
        given_up = self._give_up(now) if holds else ()
        return (*told, *(given_up or self._open(now)))

    def _give_up(self, now: float) -> tuple[Action, ...]:
        """Give up if another node can do better, and it was not given up for that just now."""
        mine = handicap(self._hindrances)
        others = better(mine, self._seen)
        if self._none_better(mine):
            self._damping.not_outdone()
        if not others or self._finishing:
            return ()
        assert others[0].handicap is not None
        kind = gravest(mine, others[0].handicap)
        since = self._told_at if self.role is Role.ACTIVE else None
        free_at = self._damping.free_at(kind, now, since=since)
        if now < free_at:
            self._weigh_due = free_at
            return ()
        self._damping.gave_up(kind, now)
        return self._release(Reason.HINDERED, now, to=tuple(other.node_id for other in others))

    def _none_better(self, mine: int) -> bool:
        """All have said that they do no better."""
        return all_said(self._seen) and not better(mine, self._seen)

    @property
    def _successors(self) -> tuple[int, ...]:
        """Peers that can stand in for a node that must not hold, the best first."""
        fit = [seen for seen in self._seen if seen.fit]
        fit.sort(key=lambda s: (s.handicap is None, s.handicap or 0, s.node_id))
        return tuple(seen.node_id for seen in fit)

    def _hand_on(self, now: float) -> tuple[Action, ...]:
        """Unsafe, and elected: let another node lead if there is one that is not."""
        to = self._successors
        if not to:
            self._hand_on_due = now + HAND_ON_LEASES * self._profile.lease_s
            return ()
        return self._release(Reason.UNSAFE, now, to=to)
