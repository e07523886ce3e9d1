"""What the core is told. Past participles: each is a fact that happened."""

from __future__ import annotations

from dataclasses import dataclass

from hanat.core.actions import Action
from hanat.core.configuration import Configuration, FloatingAddress, Interface
from hanat.core.drift import Setting
from hanat.core.eligibility import Seen
from hanat.core.outcomes import Failed


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
class HolderApplied:
    """That this node holds the addresses in `term` has taken effect."""

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
class SilenceObserved:
    """On a logical interface nothing is heard of any peer while others hear each other, or not."""

    interface: str
    silent: bool


@dataclass(frozen=True, slots=True)
class ForwardObserved:
    """Why packets are not forwarded here; empty when they are."""

    found: str


@dataclass(frozen=True, slots=True)
class SafetyObserved:
    """Something that makes a node unsafe, whoever says so, or (empty) not any more."""

    source: str
    found: str


@dataclass(frozen=True, slots=True)
class FlowsObserved:
    """This node has all committed flows, or lacks some."""

    complete: bool


@dataclass(frozen=True, slots=True)
class PeersObserved:
    """What this node, as leader, last heard of its peers.

    Attributes:
        seen: Of each peer that was heard.
        electable: They could elect one of them.
    """

    seen: tuple[Seen, ...]
    electable: bool


@dataclass(frozen=True, slots=True)
class ClaimHeard:
    """Neighbours may believe that another node has the floating addresses.

    They were told so, or their network did not carry what this node told them.
    """


@dataclass(frozen=True, slots=True)
class AnnouncementsRefused:
    """The kernel did not take the announcements of these: a full queue, no carrier."""

    vips: tuple[FloatingAddress, ...]


@dataclass(frozen=True, slots=True)
class RemovalObserved:
    """Addresses were taken off the device of a logical interface, by whomever."""

    interface: str
    addresses: tuple[Interface, ...]


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
    """Another node shall hold the addresses; None: any.

    An operator wants it, or (`blind`) this holder does not reach servers that the other reaches.
    """

    to: int | None
    blind: bool = False


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

    Attributes:
        failure: Why.
        kept: Of a ruleset: what was in force before still is.
    """

    action: Action
    failure: Failed
    kept: bool = False


# What speaks for or against a node, or against the others.
Circumstance = (
    CarrierObserved
    | SilenceObserved
    | ForwardObserved
    | SafetyObserved
    | FlowsObserved
    | PeersObserved
    | JournalObserved
)

Input = (
    LeaderObserved
    | BarrierApplied
    | HolderApplied
    | LeaseObserved
    | ConfigurationCommitted
    | ConfigurationApplied
    | ConfigurationRefused
    | CarrierObserved
    | SilenceObserved
    | ForwardObserved
    | SafetyObserved
    | FlowsObserved
    | PeersObserved
    | ClaimHeard
    | AnnouncementsRefused
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
