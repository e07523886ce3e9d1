"""One node: what it may do with the floating addresses, and when.

`Node.step` takes one input and returns what is to be done, in order; `deadline`
says when to come back with `TimerDue`. Same inputs and times, same actions:
the simulation and the tests rely on it.

Theory of operation. A node is BACKUP until the replicated log elects it. Then it
is TAKEOVER, gate still shut, until five things hold: its barrier is applied (so
every committed flow and configuration is here), the flow worker has installed those
flows, the ruleset of that configuration is installed, it has a lease, and it is
eligible. For the flow worker it waits a lease at most. It starts to capture flows, adds
the addresses, opens the gate for all of them at once, announces them, and is
ACTIVE: state first, announcements last.

    BACKUP ──elected──▶ TAKEOVER ──barrier, lease, eligible──▶ ACTIVE
      ▲                    │ ▲                                  │ │
      │                    │ └──lease again── FENCED ◀──lease over │
      └──leadership lost───┴──────────────────────┴─ RELEASING ◀──┘ switchover,
                                                                     shutdown, link lost

Whatever ends ACTIVE stops answering first, then stops the capture (removing an
address must not delete flows on the others), then removes the addresses, and
only then hands leadership on. *Carries* is left to run out in the kernel, so
that established flows move on while neighbours learn the new place.
"""

from __future__ import annotations

from hanat.core.actions import (
    Action,
    AddAddresses,
    Announce,
    ArmGate,
    Finish,
    FlushFlows,
    InstallRuleset,
    ProposeBarrier,
    ProposeConfiguration,
    ProposeHolder,
    RemoveAddresses,
    RestoreAddresses,
    RestoreSettings,
    SetEligible,
    SettleFlows,
    ShutGate,
    StartCapture,
    StepDown,
    StopCapture,
    TransferLeadership,
    WithdrawGate,
)
from hanat.core.configuration import among
from hanat.core.holding import Holding
from hanat.core.inputs import (
    ActionDone,
    ActionFailed,
    BarrierApplied,
    CarrierObserved,
    ConfigurationApplied,
    ConfigurationCommitted,
    ConfigurationRefused,
    FlowsFlushed,
    FlowsSettled,
    Input,
    JournalObserved,
    LeaderObserved,
    LeaseObserved,
    RemovalObserved,
    RulesetDrifted,
    SettingsDrifted,
    ShutdownRequested,
    SwitchoverRequested,
    TimerDue,
)
from hanat.core.snapshot import Reason
from hanat.core.status import Role

FLUSH_S_MAX = 0.2  # a healthy commit takes some milliseconds; longer means no majority
TRANSFER_LEASES = 5  # a transfer takes two messages; after five leases it is not coming
KERNEL_RETRY_S = 5.0  # after the kernel refused something, before standing again
# A node that is elected although it may not hold: perhaps nobody may. It waits before
# it hands on, or leadership would go round as fast as messages do.
INELIGIBLE_LEASES = 10
LATE_S = 0.012  # with less than this left nothing is granted any more (`TIMEOUT_S_MIN`)


class Node(Holding):
    """The transitions of one node; see `Standing` for what it consists of."""

    # ------------------------------------------------------------------ stepping

    def start(self) -> tuple[Action, ...]:
        """Return what to do before anything else: clean what a predecessor left."""
        return (
            ShutGate(),
            RemoveAddresses(self._configuration.vips),
            InstallRuleset(self._configuration),
        )

    def step(self, item: Input, now: float) -> tuple[Action, ...]:  # noqa: C901, PLR0911, PLR0912 - one arm an input
        """Take what happened at `now`, never earlier than before; return what is to be done."""
        match item:
            case LeaderObserved():
                return self._leader_observed(item, now)
            case BarrierApplied():
                return self._barrier_applied(item, now)
            case LeaseObserved():
                return self._lease_observed(item, now)
            case ConfigurationCommitted(revision):
                self._committed = revision
                return ()
            case ConfigurationApplied():
                return self._configuration_applied(item, now)
            case ConfigurationRefused(revision, found):
                return self._configuration_refused(revision, found, now)
            case CarrierObserved():
                return self._carrier_observed(item, now)
            case RemovalObserved():
                return self._removal_observed(item, now)
            case RulesetDrifted():
                return self._ruleset_drifted(now)
            case SettingsDrifted(found):
                return (RestoreSettings(found),) if self._repairs.begin("sysctl", now) else ()
            case JournalObserved(found):
                return self._journal_observed(found, now)
            case SwitchoverRequested():
                if self.role is not Role.ACTIVE:
                    return ()
                return self._release(Reason.SWITCHOVER, now, to=item.to)
            case ShutdownRequested():
                return self._shutdown(now)
            case FlowsFlushed():
                return self._hand_over(now) if self._flushing else ()
            case FlowsSettled(term):
                return self._flows_settled(term, now)
            case TimerDue():
                return self._timer_due(now)
            case ActionDone():
                return self._action_done(item.action, now)
            case ActionFailed():
                return self._action_failed(item.action, item.found, now)

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
            actions += (ProposeBarrier(item.term),)
        return actions

    def _step_down_later(self, now: float) -> None:
        """No lease, or nothing is committed: perhaps another node fares better."""
        if self._step_down_due is None:
            self._step_down_due = now + INELIGIBLE_LEASES * self._profile.lease_s

    def _leave(self, now: float) -> tuple[Action, ...]:
        """Leadership is gone: hold nothing."""
        self._lease_until = self._armed_until = 0.0
        handed_over = self.role is Role.RELEASING and self._handing_over
        finish: tuple[Action, ...] = (Finish(),) if self._finishing else ()
        reason = Reason.HANDED_OVER if handed_over else Reason.LEADERSHIP_LOST
        self._enter(Role.BACKUP, reason, now)
        return (*self._retreat(), *finish)

    def _retreat(self) -> tuple[Action, ...]:
        """Stop answering, then stop the capture, then give the addresses back."""
        return (WithdrawGate(), StopCapture(), *self._clear())

    def _barrier_applied(self, item: BarrierApplied, now: float) -> tuple[Action, ...]:
        if not self._leading or item.term != self._term:
            return ()
        self._flows_due = now + self._profile.lease_s
        settle = SettleFlows(item.term)
        if self._committed == 0:
            return (settle, ProposeConfiguration())
        return (settle, *self._open(now))

    def _flows_settled(self, term: int, now: float) -> tuple[Action, ...]:
        """The flows are in the kernel, or were waited for long enough."""
        if term == self._term and self._flows_due is not None:
            self._flows_term, self._flows_due = term, None
        return self._open(now)

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
        if self.role is not Role.TAKEOVER or self._opening:
            return ()
        if self._flows_term != self._term or self._committed == 0:
            return ()
        if self.ineligible:
            self._step_down_due = None
            if self._hand_on_due is None:
                self._hand_on_due = now + INELIGIBLE_LEASES * self._profile.lease_s
            return ()
        self._hand_on_due = None
        # What the newest revision says must be known, or addresses that it removed would answer.
        known = self._revision >= self._committed and self._installed is not None
        if not known or self._lease_until <= now:
            self._step_down_later(now)
            return ()
        self._opening = True
        self._held = self._guarded()
        self._adding = AddAddresses(self._held)
        return (StartCapture(self._term), self._adding)

    def _added(self, action: AddAddresses, now: float) -> tuple[Action, ...]:
        """Open the gate when the last address is there, or announce what a holder got anew."""
        if action is self._adding and self._opening and self.role is Role.TAKEOVER:
            return self._fence(now) if self._lease_until <= now else (self._arm(),)
        if self.role is Role.ACTIVE:
            return self._announce_some(action.vips)
        return ()

    def _opened(self, now: float) -> tuple[Action, ...]:
        if self._lease_until <= now:  # the kernel call took longer than the lease
            return self._fence(now)
        self._enter(Role.ACTIVE, Reason.LEASE_OBTAINED, now)
        self._upkeep.begin(now)
        # Perhaps a newer configuration was installed meanwhile.
        return (self._announce(), ProposeHolder(self._term), *self._add_new())

    def _fence(self, now: float) -> tuple[Action, ...]:
        """The lease is over although nobody told us that we lost."""
        self._enter(Role.FENCED, Reason.LEASE_EXPIRED, now)
        self._step_down_due = now + 2 * self._profile.lease_s
        return self._retreat()

    # ----------------------------------------------------------------- release

    def _release(self, reason: Reason, now: float, to: int | None = None) -> tuple[Action, ...]:
        """Stop answering and let the flows drain before leadership goes on."""
        self._enter(Role.RELEASING, reason, now)
        self._release_to = to
        self._release_due = now + FLUSH_S_MAX
        if reason is Reason.INELIGIBLE:
            # The path is broken: packets would only die here, so do not wait long.
            self._release_due = now + self._profile.beacon_s
        return (WithdrawGate(), FlushFlows())

    def _hand_over(self, now: float) -> tuple[Action, ...]:
        if self._gate_until > now:  # the kernel did not withdraw: it ends the right by itself
            self._release_due = self._gate_until
            return ()
        self._handing_over = True
        self._lease_until = self._armed_until = 0.0
        self._release_due = now + TRANSFER_LEASES * self._profile.lease_s
        return (StopCapture(), *self._clear(), TransferLeadership(self._release_to))

    def _release_overdue(self, now: float) -> tuple[Action, ...]:
        if self._handing_over:
            self._release_due = now + TRANSFER_LEASES * self._profile.lease_s
            finish: tuple[Action, ...] = (Finish(),) if self._finishing else ()
            return (StepDown(), *finish)
        if self._reason is Reason.SWITCHOVER:
            # The flows do not drain: better to stay than to lose connections.
            self._enter(Role.TAKEOVER, Reason.SWITCHOVER_ABORTED, now)
            return self._open(now)
        return self._hand_over(now)

    def _shutdown(self, now: float) -> tuple[Action, ...]:
        self._finishing = True
        self._hindrances.faults["shutdown"] = None
        eligible = SetEligible(eligible=False)
        if self.role in {Role.ACTIVE, Role.TAKEOVER, Role.FENCED}:
            return (eligible, *self._release(Reason.SHUTDOWN, now))
        if self.role is Role.RELEASING:
            return (eligible,)
        return (eligible, *self._retreat(), Finish())

    # ------------------------------------------------------------- circumstances

    def _configuration_applied(self, item: ConfigurationApplied, now: float) -> tuple[Action, ...]:
        was, hindered = self._configuration.vips, bool(self.ineligible)
        self._configuration, self._revision = item.configuration, item.revision
        self._hindrances.configuration = ""
        self._committed = max(self._committed, item.revision)
        install = InstallRuleset(item.configuration)
        actions: tuple[Action, ...] = (install,)
        # The gate guards what its configuration names: remove before, add after it changes.
        if self.role is Role.ACTIVE or self._opening:
            gone = self._let_go(item.configuration.vips)
            actions = (RemoveAddresses(gone), install) if gone else (install,)
        else:
            # Also what a killed predecessor held under this revision.
            self._held = tuple(dict.fromkeys((*self._held, *was)))
            actions = (*self._clear(), install)
        return (*actions, *self._eligibility(now, hindered=hindered))

    def _configuration_refused(self, revision: int, found: str, now: float) -> tuple[Action, ...]:
        hindered = bool(self.ineligible)
        self.settled, self.refuses = revision, True
        self._revision, self._committed = revision, max(self._committed, revision)
        self._hindrances.configuration = f"configuration revision {revision}: {found}"
        return self._eligibility(now, hindered=hindered)

    def _ruleset_installed(self, now: float) -> tuple[Action, ...]:
        """Use what was waiting for gate and ruleset of the configuration in force."""
        self._installed = self._configuration
        if not self._hindrances.configuration:
            self.settled, self.refuses = self._revision, False
        if self._hindrances.retried:
            self._hindrances.retried = ""
            return self._eligibility(now, hindered=True)
        rearm, self._rearm = self._rearm, False
        if self.role is not Role.ACTIVE:
            return self._open(now)
        armed: tuple[Action, ...] = (self._arm(),) if rearm else ()
        return (*armed, *self._add_new())

    def _ruleset_drifted(self, now: float) -> tuple[Action, ...]:
        """Put gate and ruleset back; a new gate grants nothing before it is armed."""
        if not self._repairs.begin("ruleset", now):
            return ()
        self._installed, self._rearm = None, True
        return (InstallRuleset(self._configuration),)

    def _carrier_observed(self, item: CarrierObserved, now: float) -> tuple[Action, ...]:
        hindered = bool(self.ineligible)
        self._hindrances.carriers[item.interface] = item.carrier
        return self._eligibility(now, hindered=hindered)

    def _removal_observed(self, item: RemovalObserved, now: float) -> tuple[Action, ...]:
        if self.role is Role.ACTIVE:
            self._upkeep.miss(self._placed_with(item.interface, item.address), now)
        return ()

    def _journal_observed(self, found: str, now: float) -> tuple[Action, ...]:
        hindered = bool(self.ineligible)
        self._hindrances.journal = found
        actions = self._eligibility(now, hindered=hindered)
        silent = self._gate_until <= now and self.role in {Role.TAKEOVER, Role.FENCED}
        if found and self._leading and silent:
            # Nothing can be committed through this node: do not stand in the way.
            return (*actions, StepDown())
        return actions

    def _hinder(self, why: str, until: float, now: float) -> tuple[Action, ...]:
        hindered = bool(self.ineligible)
        self._hindrances.faults[why], self._hindrances.retried = until, ""
        return self._eligibility(now, hindered=hindered)

    def _eligibility(self, now: float, *, hindered: bool) -> tuple[Action, ...]:
        """Say whether the node may hold, if that changed, and act on it."""
        if not self.ineligible:
            change: tuple[Action, ...] = (SetEligible(eligible=True),) if hindered else ()
            return (*change, *self._open(now))
        change = () if hindered else (SetEligible(eligible=False),)
        if self.role is Role.ACTIVE or self._opening:
            return (*change, *self._release(Reason.INELIGIBLE, now))
        return (*change, *self._open(now))

    # -------------------------------------------------------------- time, outcomes

    def _timer_due(self, now: float) -> tuple[Action, ...]:
        actions: list[Action] = []
        if self._hindrances.expire(now):
            self._installed = None
            actions += [InstallRuleset(self._configuration)]
        if self.role is Role.ACTIVE and self._lease_until <= now:
            return (*actions, *self._fence(now))
        if self._upkeep.announces(now):
            actions.append(self._announce())
        if missing := among(self._upkeep.restores(now), self._placed):
            actions.append(RestoreAddresses(missing))
        if self._release_due is not None and self._release_due <= now:
            actions += self._release_overdue(now)
        if self._step_down_due is not None and self._step_down_due <= now:
            self._step_down_due = None
            actions.append(StepDown())
        if self._hand_on_due is not None and self._hand_on_due <= now:
            actions += self._release(Reason.INELIGIBLE, now)
        if self._flows_due is not None and self._flows_due <= now:
            actions += self._flows_settled(self._term, now)
        return tuple(actions)

    def _action_done(self, action: Action, now: float) -> tuple[Action, ...]:
        match action:
            case WithdrawGate() | ShutGate():
                self._gate_until = 0.0
            # While opening: they were added again behind that.
            case RemoveAddresses(vips) if not self._opening:
                gone = set(vips)
                self._held = tuple(vip for vip in self._held if vip not in gone)
            case AddAddresses():
                return self._added(action, now)
            case RestoreAddresses(vips):
                self._upkeep.restored += len(vips)
                return self._announce_some(vips) if self.role is Role.ACTIVE else ()
            case ArmGate() if self.role is Role.TAKEOVER and self._opening:
                return self._opened(now)
            # The very object: of two rulesets on their way only the newer one counts.
            case InstallRuleset(configuration) if configuration is self._configuration:
                return self._ruleset_installed(now)
            case _:
                pass
        return ()

    def _action_failed(self, action: Action, found: str, now: float) -> tuple[Action, ...]:  # noqa: PLR0911 - one arm an action
        match action:
            case ArmGate() | Announce() if self._lease_until <= now + LATE_S:
                # Not the kernel's fault: the lease was over before, or while, it was done.
                return self._fence(now) if self.role in {Role.ACTIVE, Role.TAKEOVER} else ()
            case InstallRuleset(configuration) if configuration is not self._configuration:
                return ()  # that of a newer configuration is on its way
            case ArmGate() if self.role is Role.ACTIVE:
                # Perhaps the gate is gone; one that is new is shut.
                actions = self._hinder(f"kernel: {found}", now + KERNEL_RETRY_S, now)
                return (*actions, InstallRuleset(self._configuration))
            case InstallRuleset():
                self.settled, self.refuses = self._revision, True
                return self._hinder(f"kernel: {found}", now + KERNEL_RETRY_S, now)
            case (AddAddresses() | RestoreAddresses() | ArmGate()
                  | StartCapture() | Announce()):  # fmt: skip
                return self._hinder(f"kernel: {found}", now + KERNEL_RETRY_S, now)
            case RemoveAddresses() if self._installed is not self._configuration:
                # Gate and ruleset were to come behind it; that is tried again.
                return self._hinder(f"kernel: {found}", now + KERNEL_RETRY_S, now)
            case RestoreSettings():
                self._repairs.refused("sysctl", now)
                return ()
            case TransferLeadership() if self._handing_over:
                return (StepDown(),)
            case _:
                return ()  # the driver logs it; nothing safer is left to do
