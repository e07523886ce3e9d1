"""Carries out the core's actions on the kernel, the log and the flow worker.

Decides nothing. Each action is one or two calls of an adapter; what the kernel
refuses comes back as text, for the core to hear and the operator to read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from hanat.config.settings import ANNOUNCEMENTS_PER_MS, NodeSettings
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
    SetFitness,
    SettleFlows,
    ShutGate,
    StartCapture,
    StepDown,
    StopCapture,
    TransferLeadership,
    WithdrawGate,
)
from hanat.core.configuration import Configuration, FloatingAddress
from hanat.core.drift import Setting
from hanat.core.inputs import (
    ActionDone,
    ActionFailed,
    AnnouncementsRefused,
    FlowsSettled,
    Input,
)
from hanat.core.outcomes import DONE, PENDING, Cause, Done, Failed, Outcome
from hanat.core.placements import Labels, Placement, placements
from hanat.daemon.announcing import Announcing
from hanat.daemon.granting import Granting
from hanat.daemon.placing import Placing
from hanat.daemon.ruleset_installer import RulesetInstaller
from hanat.daemon.worker_link import WorkerLink
from hanat.errors import AbsentObjectError, ConsensusError, KernelError
from hanat.kernel.ports import Addresses, Announced, Announcer, KernelSettings
from hanat.raft.replica import Replica
from hanat.raft.state import Barrier, Holder, NewConfiguration

log = logging.getLogger(__name__)

NAMED_MAX = 20  # vips in a line of the log
COMPLAIN_S = 60.0  # of announcements, a device


@dataclass(frozen=True, slots=True)
class Kernel:
    """The adapters that actions need."""

    addresses: Addresses
    announcer: Announcer
    granting: Granting
    rulesets: RulesetInstaller
    settings: KernelSettings


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Whom to tell what is not an outcome of a call.

    Attributes:
        flushed: The flow worker has nothing left to commit.
        transfer: Hand leadership to one of these (none: the best); may take some beacons.
        finish: The process may end.
        ended: An action that took longer has come to its end.
        soon: Call something when the loop has looked at everything else.
        later: Call something after some seconds.
    """

    flushed: Callable[[], None]
    transfer: Callable[[tuple[int, ...]], None]
    finish: Callable[[], None]
    ended: Callable[[Input], None]
    soon: Callable[[Callable[[], None]], object]
    later: Callable[[float, Callable[[], None]], object]


@dataclass(frozen=True, slots=True)
class Place:
    """Where actions are carried out.

    Attributes:
        node_id: This node.
        interfaces: Logical name to kernel device.
        configuration_text: This node's own cluster file, for an empty cluster.
        clock: Seconds of CLOCK_BOOTTIME.
        announcements_per_ms: How many frames go out in a millisecond, at most.
    """

    node_id: int
    interfaces: Mapping[str, str]
    configuration_text: str
    clock: Callable[[], float]
    announcements_per_ms: int = ANNOUNCEMENTS_PER_MS

    @classmethod
    def of(cls, settings: NodeSettings, text: str, clock: Callable[[], float]) -> Place:
        """Return the place of the node that has these settings."""
        pace = settings.announcements_per_ms
        return cls(settings.node_id, settings.interfaces, text, clock, pace)


class NodeExecutor:
    """Actions of one node.

    Args:
        place: Which node, which devices.
        kernel: The adapters.
        replica: The replicated log.
        worker: The flow worker.
        callbacks: Whom to tell.

    Attributes:
        frames: How many announcements were sent.
        refused: For how many addresses and rounds the kernel took one not.
    """

    def __init__(
        self,
        place: Place,
        *,
        kernel: Kernel,
        replica: Replica,
        worker: WorkerLink,
        callbacks: Callbacks,
    ) -> None:
        self._place, self._kernel = place, kernel
        self._replica, self._worker, self._callbacks = replica, worker, callbacks
        self._placing = Placing(
            kernel.addresses, soon=callbacks.soon, later=callbacks.later, clock=place.clock
        )
        self._announcing = Announcing(
            self._send, failed=self._not_sent, later=callbacks.later, clock=place.clock,
            frames_per_ms=place.announcements_per_ms,
        )  # fmt: skip
        self._announced: tuple[FloatingAddress, ...] = ()
        self._labels = Labels()
        self._placed: tuple[tuple[FloatingAddress, ...], list[Placement]] = (), []
        self.frames = self.refused = 0
        self._complained: dict[str, float] = {}  # device → when

    def execute(self, action: Action) -> Outcome:
        """Carry out one action, or begin to."""
        try:
            return self._execute(action)
        except (KernelError, ConsensusError, OSError) as error:
            return failure_of(error)

    def _execute(self, action: Action) -> Outcome:  # noqa: C901, PLR0912 - one arm an action
        match action:
            case ArmGate(answers_until, carries_until):
                return self._arm(answers_until, carries_until)
            case WithdrawGate():
                self._give_up(self._kernel.granting.gate.withdraw)
            case ShutGate():
                self._give_up(self._kernel.granting.gate.shut)
            case AddAddresses(vips) | RestoreAddresses(vips):
                return self._add(action, vips)
            case RestoreSettings(settings):
                self._restore(settings)
            case RemoveAddresses(vips):
                placed = self._placements(vips)
                return self._later(self._placing.remove(placed, partial(self._ended, action)))
            case Announce(vips, until):
                return self._announce(vips, until)
            case InstallRuleset(configuration):
                return self._install(action, configuration)
            case SettleFlows(term):
                self._worker.settle(lambda: self._callbacks.ended(FlowsSettled(term)))
            case StartCapture(term):
                self._worker.start_capture(term)
            case StopCapture():
                self._worker.stop_capture()
            case FlushFlows():
                self._worker.flush(self._callbacks.flushed)
            case ProposeBarrier(term):
                self._replica.propose_once(Barrier(term, self._place.node_id))
            case ProposeHolder(term):
                self._replica.propose_once(Holder(term, self._place.node_id))
            case ProposeConfiguration():
                self._replica.propose_once(NewConfiguration(0, self._place.configuration_text))
            case TransferLeadership(to):
                self._callbacks.transfer(to)
            case StepDown(stand):
                self._replica.step_down(stand=stand)
            case SetFitness(fitness):
                self._replica.set_fitness(fitness)
            case Finish():
                self._placing.behind(lambda _: self._callbacks.finish())
        return DONE

    def _add(self, action: Action, vips: tuple[FloatingAddress, ...]) -> Outcome:
        if isinstance(action, RestoreAddresses):
            names = ",".join(vip.name for vip in vips[:NAMED_MAX])
            more = f",and_{len(vips) - NAMED_MAX}_more" if len(vips) > NAMED_MAX else ""
            log.warning(
                "vips=%s%s found=removed_by_another_program action=added_again", names, more
            )
        # No address without a gate: if its tables are gone this says so.
        self._kernel.granting.confirm()
        placed = self._placements(vips)
        return self._later(self._placing.add(placed, partial(self._ended, action)))

    def _placements(self, vips: tuple[FloatingAddress, ...]) -> list[Placement]:
        """Return where they go; a holder announces the same thousand again and again."""
        if vips is not self._placed[0]:
            self._placed = vips, placements(vips, self._place.interfaces, self._labels)
        return self._placed[1]

    @staticmethod
    def _later(done: bool) -> Outcome:  # noqa: FBT001 - of a call that returns it
        return DONE if done else PENDING

    def _ended(self, action: Action, error: KernelError | None) -> None:
        """Tell how an action ended that took longer."""
        done = ActionDone(action) if error is None else ActionFailed(action, failure_of(error))
        self._callbacks.ended(done)

    def _announce(self, vips: tuple[FloatingAddress, ...], until: float) -> Outcome:
        if self._place.clock() >= until:
            return Failed(Cause.LATE, "the lease ended before the announcement")
        if not self._announced:
            self._announced = vips
        elif vips is not self._announced:
            self._announced = tuple(dict.fromkeys((*vips, *self._announced)))
        self._announcing.begin(self._placements(vips), until)
        return DONE

    def _send(self, placed: Sequence[Placement]) -> None:
        announced = self._kernel.announcer.announce(placed)
        self.frames += announced.sent
        if announced.refused:
            self._not_announced(self._announced, announced)

    def _not_sent(self, error: KernelError) -> None:
        log.error("announcements found=%r", str(error))

    def _not_announced(self, vips: tuple[FloatingAddress, ...], announced: Announced) -> None:
        """Have what the kernel did not take tried again."""
        self.refused += len(announced.refused)
        now = self._place.clock()
        for placement, error in announced.refused:
            if now - self._complained.get(placement.device, -COMPLAIN_S) >= COMPLAIN_S:
                self._complained[placement.device] = now
                log.warning("announcement found=%r action=tried_again", str(error))
        left = {(placement.device, placement.address) for placement, _ in announced.refused}
        device = self._place.interfaces.get
        again = tuple(v for v in vips if any((device(v.interface), a) in left for a in v.addresses))
        self._callbacks.ended(AnnouncementsRefused(again))

    def _restore(self, settings: tuple[Setting, ...]) -> None:
        problems: list[KernelError] = []
        for path, found, wanted in settings:
            name = path.replace("/", ".")
            try:
                self._kernel.settings.write(path, wanted)
            except KernelError as error:
                problems.append(error)
                log.error("sysctl=%s found=%s wanted=%s", name, found, wanted)  # noqa: TRY400 - told as outcome
            else:
                log.warning("sysctl=%s found=%s action=set_to_%s", name, found, wanted)
        if problems:
            raise problems[0]

    def _install(self, action: Action, configuration: Configuration) -> Outcome:
        missing = sorted(set(configuration.interfaces) - set(self._place.interfaces))
        if missing:
            found = f"no device for interface {missing[0]!r}; add it to [interfaces]"
            failure = Failed(Cause.NO_DEVICE, found)
            self._kernel.rulesets.pass_over(partial(self._installed, action, failure))
            return PENDING

        def begin(unremoved: KernelError | None) -> None:
            # The gate guards what is still there; the core hears of it, and tries again.
            if unremoved is None:
                self._labels.configure(configuration.vips, self._place.interfaces)
                self._kernel.rulesets.install(configuration, partial(self._installed, action))

        self._placing.behind(begin)
        return PENDING

    def _installed(self, action: Action, outcome: Done | Failed, kept: bool) -> None:  # noqa: FBT001 - called by the thread
        match outcome:
            case Failed():
                self._callbacks.ended(ActionFailed(action, outcome, kept))
            case Done():
                self._callbacks.ended(ActionDone(action))

    def _arm(self, answers_until: float, carries_until: float) -> Outcome:
        outcome = self._kernel.granting.grant(answers_until, carries_until)
        if outcome == DONE:
            self._announcing.extend(answers_until)
        return outcome

    def _give_up(self, operation: Callable[[], None]) -> None:
        self._kernel.granting.forget()
        self._announcing.stop()
        self._announced = ()
        try:
            operation()
        except AbsentObjectError:
            log.debug("gate not installed: nothing to withdraw")


def failure_of(error: BaseException) -> Failed:
    """Return a failure that was raised as a value."""
    match error:
        case KernelError():
            cause = Cause.KERNEL
        case ConsensusError():
            cause = Cause.LOG
        case _:
            cause = Cause.SYSTEM
    return Failed(cause, str(error))
