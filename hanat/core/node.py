"""One node: what it may do with the floating addresses, and when.

`Node.step` takes one input and returns what is to be done, in order; `deadline`
says when to come back with `TimerDue`. Same inputs and times, same actions:
the simulation and the tests rely on it.

Theory of operation. A node is BACKUP until the replicated log elects it. Then it
is TAKEOVER, gate still shut, until five things hold: its barrier is applied (so
every committed flow and configuration is here), the flow worker has installed those
flows, the ruleset of that configuration is installed, it has a lease, and it is
not unsafe. For the flow worker it waits a lease at most. It starts to capture flows, adds
the first addresses, opens the gate, announces them, and is ACTIVE: state first,
announcements last. Of many addresses the others come then.

    BACKUP ──elected──▶ TAKEOVER ──barrier, lease, not unsafe─▶ ACTIVE
      ▲                    │ ▲                                  │ │
      │                    │ └──lease again── FENCED ◀──lease over │
      └──leadership lost───┴──────────────────────┴─ RELEASING ◀──┘ switchover,
                                                        shutdown, unsafe, outdone

A leader that is hindered gives up only for a node that can do better (`core.eligibility`);
it holds on over the paths that it has left. If nobody takes what it gave up, it takes it
back: in the same term if the order to stand was never sent, else in a new one.

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
    InstallRuleset,
    ProposeHolder,
    RemoveAddresses,
    RestoreAddresses,
    RestoreSettings,
    ShutGate,
    StepDown,
    TransferLeadership,
    WithdrawGate,
)
from hanat.core.configuration import Configuration, among
from hanat.core.eligibility import Fault, Kind
from hanat.core.inputs import (
    ActionDone,
    ActionFailed,
    AnnouncementsRefused,
    BarrierApplied,
    CarrierObserved,
    Circumstance,
    ClaimHeard,
    ConfigurationApplied,
    ConfigurationCommitted,
    ConfigurationRefused,
    FlowsFlushed,
    FlowsObserved,
    FlowsSettled,
    ForwardObserved,
    HolderApplied,
    Input,
    JournalObserved,
    LeaderObserved,
    LeaseObserved,
    PeersObserved,
    RemovalObserved,
    RulesetDrifted,
    SafetyObserved,
    SettingsDrifted,
    ShutdownRequested,
    SilenceObserved,
    SwitchoverRequested,
    TimerDue,
)
from hanat.core.node_snapshot import Reason
from hanat.core.status import Role
from hanat.core.tenure import HAND_ON_AGAIN_S, Tenure

KERNEL_RETRY_S = 5.0  # after the kernel refused something, before it is tried again
GATE_WAIT_S = 1.0  # after it did not arm the gate: what kept it is mostly over soon
LATE_S = 0.012  # with less than this left nothing is granted any more (`TIMEOUT_S_MIN`)


class Node(Tenure):
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
            case HolderApplied(term):
                self._holder_term = term
                self._took_effect(ProposeHolder(term))
                return ()
            case LeaseObserved():
                return self._lease_observed(item, now)
            case ConfigurationCommitted(revision):
                self._committed = revision
                return ()
            case ConfigurationApplied():
                return self._configuration_applied(item, now)
            case ConfigurationRefused(revision, found):
                return self._configuration_refused(revision, found, now)
            case (CarrierObserved() | SilenceObserved() | ForwardObserved() | SafetyObserved()
                  | FlowsObserved() | PeersObserved() | JournalObserved()):  # fmt: skip
                return self._circumstances_observed(item, now)
            case ClaimHeard():
                self._upkeep.again(now)
                return ()
            case AnnouncementsRefused(vips):
                self._upkeep.refuse(vips, now)
                return ()
            case RemovalObserved():
                return self._removal_observed(item, now)
            case RulesetDrifted():
                return self._ruleset_drifted(now)
            case SettingsDrifted(found):
                return (RestoreSettings(found),) if self._repairs.begin("sysctl", now) else ()
            case SwitchoverRequested():
                if self.role is not Role.ACTIVE:
                    return ()
                to = () if item.to is None else (item.to,)
                reason = Reason.BLIND if item.blind else Reason.SWITCHOVER
                return self._release(reason, now, to=to)
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
                return self._action_failed(item, now)

    # ------------------------------------------------------------- circumstances

    def _circumstances_observed(self, item: Circumstance, now: float) -> tuple[Action, ...]:
        match item:
            case CarrierObserved():
                return self._carrier_observed(item, now)
            case JournalObserved(found):
                return self._journal_observed(found, now)
            case SilenceObserved(interface, silent):
                self._eligibility.silent[interface] = silent
            case ForwardObserved(found):
                self._eligibility.forward = found
            case SafetyObserved(source, found):
                self._eligibility.unsafe[source] = found
            case FlowsObserved(complete):
                self._eligibility.complete = complete
            case PeersObserved(seen, electable):
                self._seen, self._electable = seen, electable
        return self._weigh(now)

    def _configuration_applied(self, item: ConfigurationApplied, now: float) -> tuple[Action, ...]:
        was = self._configuration.vips
        self._configuration, self._revision = item.configuration, item.revision
        self._eligibility.configuration = ""
        self._pending = (*self._pending, item.configuration)
        self._committed = max(self._committed, item.revision)
        install = InstallRuleset(item.configuration)
        actions: tuple[Action, ...] = (install,)
        # The gate guards what its configuration names: remove before, add after it changes.
        if self.role is Role.ACTIVE or self._opening:
            taken = self._let_go(item.configuration.vips)
            if self._opening:  # the outcome of that removal may be of another one
                self._held = tuple(vip for vip in self._held if vip not in taken)
                self._left = tuple(dict.fromkeys((*self._left, *taken)))
            actions = (RemoveAddresses(taken), install) if taken else (install,)
        else:
            # Also what a killed predecessor held under this revision.
            self._held = tuple(dict.fromkeys((*self._held, *was)))
            actions = (*self._clear(), install)
        return (*actions, *self._weigh(now))

    def _configuration_refused(self, revision: int, found: str, now: float) -> tuple[Action, ...]:
        self.settled, self.refuses = revision, True
        self._revision, self._committed = revision, max(self._committed, revision)
        self._eligibility.configuration = f"configuration revision {revision}: {found}"
        return self._weigh(now)

    def _ruleset_installed(self, now: float) -> tuple[Action, ...]:
        """Use what was waiting for gate and ruleset of the configuration in force."""
        if not self._eligibility.configuration:
            self.settled, self.refuses = self._revision, False
        self._eligibility.installed()
        armed = self._arm_anew()
        if self.role is not Role.ACTIVE:
            return self._weigh(now)
        # First: behind something that failed nothing is done, and this is not asked for again.
        return (*self._add_new(), *armed, *self._weigh(now))

    def _arm_anew(self) -> tuple[Action, ...]:
        """A gate that was put back grants nothing yet."""
        rearm, self._rearm = self._rearm, False
        return (self._arm(),) if rearm and self.role is Role.ACTIVE else ()

    def _ruleset_drifted(self, now: float) -> tuple[Action, ...]:
        """Put gate and ruleset back; a new gate grants nothing before it is armed."""
        if not self._repairs.begin("ruleset", now):
            return ()
        self._drifted = self._installed or self._drifted
        self._installed, self._rearm = None, True
        return (InstallRuleset(self._configuration),)

    def _carrier_observed(self, item: CarrierObserved, now: float) -> tuple[Action, ...]:
        back = item.carrier and not self._eligibility.carriers.get(item.interface, True)
        self._eligibility.carriers[item.interface] = item.carrier
        if back and self.role is Role.ACTIVE:
            # What was announced meanwhile went nowhere, and a switch may have forgotten all.
            self._upkeep.begin(now)
            return (*self._weigh(now), self._announce())
        return self._weigh(now)

    def _removal_observed(self, item: RemovalObserved, now: float) -> tuple[Action, ...]:
        if self.role is Role.ACTIVE:
            gone = (vip for a in item.addresses for vip in self._placed_with(item.interface, a))
            self._upkeep.miss(tuple(gone), now)
        return ()

    def _journal_observed(self, found: str, now: float) -> tuple[Action, ...]:
        self._eligibility.journal = found
        actions = self._weigh(now)
        silent = self._gate_until <= now and self.role in {Role.TAKEOVER, Role.FENCED}
        if found and self._leading and silent and self._electable:
            # Nothing can be committed through this node: do not stand in the way.
            return (*actions, StepDown())
        return actions

    def _fault(self, kind: Kind, found: str, now: float) -> tuple[Action, ...]:
        self._eligibility.faults[kind] = Fault(found, now + KERNEL_RETRY_S)
        return self._weigh(now)

    def _gate_fault(self, found: str, now: float, *, waits: bool) -> tuple[Action, ...]:
        until = now + (GATE_WAIT_S if waits else KERNEL_RETRY_S)
        self._eligibility.gate = Fault(found, until, waits=waits)
        return self._weigh(now)

    def _retry(self, now: float) -> tuple[Action, ...]:
        """Try again what the kernel refused a while ago."""
        kinds, gate = self._eligibility.retries(now, again_s=KERNEL_RETRY_S)
        actions: list[Action] = []
        if gate or Kind.REVISION in kinds:
            taken = self._let_go(self._configuration.vips)
            actions += [RemoveAddresses(taken)] if taken else []
            actions.append(InstallRuleset(self._configuration))
        if self.role is Role.ACTIVE:
            return (*actions, AddAddresses(self._placed)) if Kind.ADDRESS in kinds else (*actions,)
        if Kind.ADDRESS in kinds:  # it is found out when they are needed
            del self._eligibility.faults[Kind.ADDRESS]
        return (*actions, *self._weigh(now))

    # -------------------------------------------------------------- time, outcomes

    def _timer_due(self, now: float) -> tuple[Action, ...]:
        actions: list[Action] = (
            [*self._retry(now)] if self._past(self._eligibility.due, now) else []
        )
        if (self.role is Role.ACTIVE or self._opening) and self._lease_until <= now:
            return (*actions, *self._fence(now))
        if self._upkeep.announces(now):
            actions.append(self._announce())
        actions += self._announce_some(self._upkeep.refused(now))
        if missing := among(self._upkeep.restores(now), self._placed):
            actions.append(RestoreAddresses(missing))
        if self._past(self._release_due, now):
            actions += self._release_overdue(now)
        if self._past(self._step_down_due, now):
            actions += self._step_down(now)
        if self._past(self._hand_on_due, now):
            actions += self._hand_on(now)
        if self._past(self._proposal_due, now):
            actions += self._propose_again(now)
        if self._past(self._flows_due, now):
            actions += self._flows_settled(self._term, now)
        if self._past(self._weigh_due, now):
            actions += self._weigh(now)
        return tuple(actions)

    @staticmethod
    def _past(due: float | None, now: float) -> bool:
        return due is not None and due <= now

    def _action_done(self, action: Action, now: float) -> tuple[Action, ...]:
        match action:
            case WithdrawGate() | ShutGate():
                self._gate_until = 0.0
            # While opening: they were added again behind that.
            case RemoveAddresses(vips) if not self._opening:
                taken = set(vips)
                self._left = tuple(vip for vip in self._left if vip not in taken)
                self._held = tuple(vip for vip in self._held if vip not in taken)
            case ArmGate() if self.role is Role.TAKEOVER and self._opening:
                return self._opened(now)
            case AddAddresses():
                self._tried(action)
                return (*self._addresses_tried(now), *self._added(action, now))
            case RestoreAddresses(vips):
                self._upkeep.restored += len(vips)
                return self._announce_some(vips) if self.role is Role.ACTIVE else ()
            # The very object: of two rulesets on their way only the newer one counts.
            case InstallRuleset(configuration):
                self._installed, self._drifted = configuration, None
                self._no_longer_pending(configuration)
                if configuration is self._configuration:
                    return self._ruleset_installed(now)
            case _:
                pass
        return ()

    def _addresses_tried(self, now: float) -> tuple[Action, ...]:
        """The kernel took what it may have refused before."""
        fault = self._eligibility.faults.get(Kind.ADDRESS)
        if fault is None or not fault.retried:
            return ()
        del self._eligibility.faults[Kind.ADDRESS]
        return self._weigh(now)

    def _action_failed(self, failed: ActionFailed, now: float) -> tuple[Action, ...]:  # noqa: PLR0911 - one arm an action
        action, found = failed.action, str(failed.failure)
        match action:
            case ArmGate() | Announce() if self._lease_until <= now + LATE_S:
                # Not the kernel's fault: the lease was over before, or while, it was done.
                return self._fence(now) if self.role in {Role.ACTIVE, Role.TAKEOVER} else ()
            case InstallRuleset(configuration):
                return self._ruleset_refused(configuration, failed, now)
            case ArmGate():
                # Perhaps the gate is gone; one that is new is shut.
                actions = self._gate_fault(found, now, waits=True)
                return (*actions, InstallRuleset(self._configuration))
            case AddAddresses() | RestoreAddresses():
                if isinstance(action, AddAddresses):
                    self._tried(action)
                return self._go_on_without(action, found, now)
            case RemoveAddresses() if self._installed is not self._configuration:
                # Gate and ruleset were to come behind it, perhaps addresses; that is tried again.
                self._opening = False
                return self._ruleset_refused(self._configuration, failed, now)
            case RestoreSettings():
                self._repairs.refused("sysctl", now)
                return ()
            case TransferLeadership() if self._handing_over:
                return self._not_transferred(now)
            case _:
                return ()  # the driver logs it; nothing safer is left to do

    def _ruleset_refused(
        self, configuration: Configuration, failed: ActionFailed, now: float
    ) -> tuple[Action, ...]:
        """A newer one that is refused leaves the older in force; without any there is no gate."""
        if isinstance(failed.action, InstallRuleset):
            self._no_longer_pending(configuration)
            self._installed = self._installed or self._drifted if failed.kept else None
            if failed.kept:
                self._eligibility.gate_confirmed()
        if configuration is not self._configuration:
            return ()  # that of a newer configuration is on its way
        self.settled, self.refuses = self._revision, True
        if self._installed is None:
            return self._gate_fault(str(failed.failure), now, waits=False)
        found = f"configuration revision {self._revision}: {failed.failure}"
        # A flush may have come between two additions.
        added = self._add_new() if self.role is Role.ACTIVE else ()
        return (*added, *self._arm_anew(), *self._fault(Kind.REVISION, found, now))

    def _go_on_without(self, action: Action, found: str, now: float) -> tuple[Action, ...]:
        """Hold what can be held, unless another node can do better."""
        opening = self._opening
        actions = self._fault(Kind.ADDRESS, found, now)
        if self.role is Role.ACTIVE:
            return (*actions, *self._add_rest(now), self._announce())  # others may be there
        if not opening or self.role is not Role.TAKEOVER:
            return actions
        if self._lease_until <= now:
            return (*actions, *self._fence(now))
        return (*actions, *self._added(action, now)) if action is self._adding else actions

    def _not_transferred(self, now: float) -> tuple[Action, ...]:
        if self._finishing:
            return (StepDown(),)
        unsafe = self._reason is Reason.UNSAFE
        if not unsafe:
            self._damping.failed(now)
        actions = self._stay(now)
        if unsafe and self._hand_on_due is not None:  # perhaps nobody has the whole log yet
            self._hand_on_due = now + HAND_ON_AGAIN_S
        return actions
