"""What the core wants done. Imperatives, carried out in the order given."""

from __future__ import annotations

from dataclasses import dataclass

from hanat.core.configuration import Configuration, FloatingAddress
from hanat.core.drift import Setting
from hanat.core.eligibility import Fitness


@dataclass(frozen=True, slots=True)
class ProposeBarrier:
    """Append a barrier of this term: once applied, this node has seen every commit."""

    term: int


@dataclass(frozen=True, slots=True)
class ProposeConfiguration:
    """Append this node's own cluster file: the cluster has no configuration yet."""


@dataclass(frozen=True, slots=True)
class ProposeHolder:
    """Append that this node holds the addresses in this term, for everybody to know."""

    term: int


# What is in the log already, in this term, is not appended again.
Proposal = ProposeBarrier | ProposeConfiguration | ProposeHolder


@dataclass(frozen=True, slots=True)
class InstallRuleset:
    """Render and apply the gate's tables and the ruleset of a configuration.

    The outcome comes later, while other actions are carried out; several of these are
    carried out in order.
    """

    configuration: Configuration


@dataclass(frozen=True, slots=True)
class AddAddresses:
    """Put floating addresses on their devices."""

    vips: tuple[FloatingAddress, ...]


@dataclass(frozen=True, slots=True)
class RestoreAddresses:
    """Put floating addresses back that somebody else took off their devices."""

    vips: tuple[FloatingAddress, ...]


@dataclass(frozen=True, slots=True)
class RestoreSettings:
    """Set settings of the kernel back that another program changed."""

    settings: tuple[Setting, ...]


@dataclass(frozen=True, slots=True)
class RemoveAddresses:
    """Take floating addresses off their devices."""

    vips: tuple[FloatingAddress, ...]


@dataclass(frozen=True, slots=True)
class ArmGate:
    """Grant both rights on all interfaces until these times [s of CLOCK_BOOTTIME]."""

    answers_until: float
    carries_until: float


@dataclass(frozen=True, slots=True)
class WithdrawGate:
    """Stop answering at once; established flows are carried until their time is over."""


@dataclass(frozen=True, slots=True)
class ShutGate:
    """End both rights at once."""


@dataclass(frozen=True, slots=True)
class Announce:
    """Send one round of announcements for these addresses, unless it is too late.

    No rule of the kernel stops an announcement: the gate is about answers. So what may
    have waited behind another action is told until when [s of CLOCK_BOOTTIME].
    """

    vips: tuple[FloatingAddress, ...]
    until: float


@dataclass(frozen=True, slots=True)
class SettleFlows:
    """Answer with `FlowsSettled` when all flows that were committed are in the kernel."""

    term: int


@dataclass(frozen=True, slots=True)
class StartCapture:
    """Read flow changes from the kernel and propose them as batches of this term."""

    term: int


@dataclass(frozen=True, slots=True)
class StopCapture:
    """Stop reading flow changes; what is read but not proposed is dropped."""


@dataclass(frozen=True, slots=True)
class FlushFlows:
    """Answer with `FlowsFlushed` when everything captured so far is committed."""


@dataclass(frozen=True, slots=True)
class TransferLeadership:
    """Give the lease up for this term and hand leadership to a peer.

    To the first of these that has the whole log; to anybody, the best first, if there are none.
    """

    to: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StepDown:
    """Stop leading.

    Attributes:
        stand: Stand for the next term as any other node, instead of after all others.
    """

    stand: bool = False


@dataclass(frozen=True, slots=True)
class SetFitness:
    """Tell the election, and the peers, what speaks against this node."""

    fitness: Fitness


@dataclass(frozen=True, slots=True)
class Finish:
    """Everything is handed over or cleaned: the process may end."""


Action = (
    ProposeBarrier
    | ProposeConfiguration
    | ProposeHolder
    | InstallRuleset
    | AddAddresses
    | RestoreAddresses
    | RestoreSettings
    | RemoveAddresses
    | ArmGate
    | WithdrawGate
    | ShutGate
    | Announce
    | SettleFlows
    | StartCapture
    | StopCapture
    | FlushFlows
    | TransferLeadership
    | StepDown
    | SetFitness
    | Finish
)

# These are tried whatever failed before: they make the node hold less, or let it go.
CLEANUP: tuple[type[Action], ...] = (
    ShutGate,
    WithdrawGate,
    StopCapture,
    RemoveAddresses,
    SetFitness,
    StepDown,
    Finish,
)
