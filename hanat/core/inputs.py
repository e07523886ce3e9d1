"""What the core is told. Past participles: each is a fact that happened."""

from __future__ import annotations

from dataclasses import dataclass

from hanat.core.actions import Action
from hanat.core.configuration import Configuration, Interface
from hanat.core.drift import Setting


@dataclass(frozen=True, slots=True)
class LeaderObserved:
    """The replicated log has a new term or a new leader (None: unknown)."""

    term: int
    leader: int | None


@dataclass(frozen=True, slots=True)
class BarrierApplied:
    """This node, as leader of `term`, has applied everything committed before it."""

    term: int


@dataclass(frozen=True, slots=True)
class LeaseObserved:
    """A majority promised: as leader of `term` this node may answer until `until` [s]."""

    term: int
    until: float


@dataclass(frozen=True, slots=True)
class ConfigurationCommitted:
    """A configuration was committed; `revision` counts from 1. It is being read.

    `ConfigurationApplied` or `ConfigurationRefused` follows, in the order of revisions.
    """

    revision: int


@dataclass(frozen=True, slots=True)
class ConfigurationApplied:
    """A committed configuration was read and is in force from here on."""

    revision: int
    configuration: Configuration


@dataclass(frozen=True, slots=True)
class ConfigurationRefused:
    """A configuration was committed that this node cannot read or use."""

    revision: int
    found: str


@dataclass(frozen=True, slots=True)
class CarrierObserved:
    """A logical interface has, or lacks, its carrier."""

    interface: str
    carrier: bool


@dataclass(frozen=True, slots=True)
class RemovalObserved:
    """An address was taken off the device of a logical interface, by whomever."""

    interface: str
    address: Interface


@dataclass(frozen=True, slots=True)
class RulesetDrifted:
    """Another program changed or removed these of our tables."""

    found: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SettingsDrifted:
    """Settings of the kernel that were right are not any more."""

    found: tuple[Setting, ...]


@dataclass(frozen=True, slots=True)
class JournalObserved:
    """The journal can be written and is complete (empty), or what is wrong with it."""

    found: str


@dataclass(frozen=True, slots=True)
class SwitchoverRequested:
    """An operator wants another node to hold the addresses; None: any."""

    to: int | None


@dataclass(frozen=True, slots=True)
class ShutdownRequested:
    """The process shall end."""


@dataclass(frozen=True, slots=True)
class FlowsFlushed:
    """Everything captured so far is committed."""


@dataclass(frozen=True, slots=True)
class FlowsSettled:
    """The kernel has all flows that were committed before the barrier of `term`."""

    term: int


@dataclass(frozen=True, slots=True)
class TimerDue:
    """`Node.deadline` has come."""


@dataclass(frozen=True, slots=True)
class ActionDone:
    """An action was carried out."""

    action: Action


@dataclass(frozen=True, slots=True)
class ActionFailed:
    """An action failed.

    Those returned after it by the same step were not tried, unless it was one whose
    outcome comes later.
    """

    action: Action
    found: str


Input = (
    LeaderObserved
    | BarrierApplied
    | LeaseObserved
    | ConfigurationCommitted
    | ConfigurationApplied
    | ConfigurationRefused
    | CarrierObserved
    | RemovalObserved
    | RulesetDrifted
    | SettingsDrifted
    | JournalObserved
    | SwitchoverRequested
    | ShutdownRequested
    | FlowsFlushed
    | FlowsSettled
    | TimerDue
    | ActionDone
    | ActionFailed
)
