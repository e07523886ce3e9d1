"""May this node hold the floating addresses, and can another one do better?

Two classes, and nothing between them. An *unsafe* node gives the addresses up at once,
whoever else there is, and takes none: a gate that is not confirmed, a clock that runs at
another rate, another list of members, a term or vote that cannot be read. A *hindered* node
may hold: being served by it beats not being served. It gives up only for a node that
can do better, and only once for the same reason within `DAMPED_S`. What happens to several
nodes happens to one of them first: a holder that was as badly off as the others for a while
waits `SETTLED_S` when one of them recovers, or before it gives up for what spreads; and when its
flows are flushed it asks once more whether there still is a better one.

All hindrances of a node together are one number, its *handicap*, which beacons carry:
the sum of their weights, so that one order is total and every node finds the same. Each
weight is larger than all that follow it together. A tie is no reason for anything.

Whether a node can *stand in*, that is, vote and store, is apart from both: a node that
forgot its vote or cannot write is of no use as a successor, however few hindrances it has.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

DAMPED_S = 10.0  # nobody is given up for again for the same reason before that
PATHS_MAX = 15  # broken paths that count
# What happens to all happens to one first: a switch that starts brings up one port after the other;
# rules that forward nothing, or a revision that kernels refuse, come to each node in its turn.
SETTLED_S = 0.1


class Kind(Enum):
    """Kinds of hindrances by weight, the gravest first."""

    PATH = 64  # each: no carrier, or nothing is heard although others hear each other
    FORWARD = 32  # nothing is forwarded
    ADDRESS = 16  # a floating address could not be put on its device
    REVISION = 8  # the newest configuration is not in force here, an older one is
    DISK = 4  # nothing can be stored
    FLOWS = 2  # some committed flows are missing


# Who has one of these may only be the first.
SPREADING = frozenset({Kind.FORWARD, Kind.REVISION, Kind.DISK})


class Hindrance(NamedTuple):
    """What speaks against a node, but not absolutely."""

    kind: Kind
    found: str


def handicap(hindrances: Iterable[Hindrance]) -> int:
    """Return the order of a node: 0 is best, a node with a larger one is worse."""
    kinds = [hindrance.kind for hindrance in hindrances]
    paths = min(kinds.count(Kind.PATH), PATHS_MAX)
    return paths * Kind.PATH.value + sum(kind.value for kind in {*kinds} - {Kind.PATH})


def kinds_of(number: int) -> tuple[str, ...]:
    """Return in words what a handicap is made of."""
    paths, rest = divmod(number, Kind.PATH.value)
    words = [f"{paths} path{'s' if paths > 1 else ''} broken"] if paths else []
    return (*words, *(_WORDS[kind] for kind in Kind if kind in _WORDS and rest & kind.value))


_WORDS = {
    Kind.FORWARD: "forwards nothing",
    Kind.ADDRESS: "an address is missing",
    Kind.REVISION: "older configuration",
    Kind.DISK: "cannot write its log",
    Kind.FLOWS: "lacks flows",
}


def gravest(mine: int, other: int) -> Kind:
    """Return the kind in which a node with the handicap `other` is better than one with `mine`."""
    assert other < mine, (mine, other)
    if mine // Kind.PATH.value > other // Kind.PATH.value:
        return Kind.PATH
    return next(kind for kind in Kind if mine & kind.value > other & kind.value)


# ------------------------------------------------------------------------ the others


class Seen(NamedTuple):
    """What a leader last heard of a peer.

    Attributes:
        fit: It can stand in: it can vote and store, it is not unsafe and does not end.
        handicap: Its order, if its word is new enough to give up for it: at most three
            beacons old, and said in answer to what this node is now. None if it is not.
    """

    node_id: int
    fit: bool
    handicap: int | None = None


def better(mine: int, seen: Iterable[Seen]) -> tuple[Seen, ...]:
    """Return the peers that can stand in and do strictly better, the best first."""
    found = [s for s in seen if s.fit and s.handicap is not None and s.handicap < mine]
    return tuple(sorted(found, key=lambda s: (s.handicap, s.node_id)))


def all_said(seen: Iterable[Seen]) -> bool:
    """Say whether the order of each peer that can stand in is known."""
    return all(s.handicap is not None for s in seen if s.fit)


def electable(*, fit: int, self_fit: bool, quorum: int) -> bool:
    """Say whether the others could elect one of them, with this node's help if it can vote.

    Args:
        fit: How many other nodes are heard that can stand in.
        self_fit: Whether this node can vote.
        quorum: How many nodes are a majority.
    """
    return fit >= 1 and fit + self_fit >= quorum


@dataclass(frozen=True, slots=True)
class Rival:
    """A node that may stand for election.

    Attributes:
        fit: It can stand in.
        handicap: Its order.
    """

    node_id: int
    fit: bool = True
    handicap: int = 0

    def after(self, other: Rival) -> bool:
        """Say whether this one stands after the other."""
        return self._order > other._order

    @property
    def _order(self) -> tuple[bool, int, int]:
        return not self.fit, self.handicap, self.node_id


def rank(me: Rival, others: Iterable[Rival]) -> int:
    """Return how many nodes should stand before this one."""
    return sum(me.after(other) for other in others)


def outdone(me: Rival, others: Iterable[Rival]) -> bool:
    """Say whether another node that can stand in does strictly better than this one."""
    return any(other.fit and other.handicap < me.handicap for other in others)


# ---------------------------------------------------------------------- this node


class Fitness(NamedTuple):
    """What a node makes known of itself.

    Attributes:
        safe: It is not unsafe, and was not told to end.
        handicap: Its order.
    """

    safe: bool = True
    handicap: int = 0


@dataclass(slots=True)
class Fault:
    """What the kernel refused.

    Attributes:
        until: When to try it again, seconds of the node's clock.
        retried: It was tried again; what came of it is not known yet.
        waits: It counts until then, whatever succeeds meanwhile.
    """

    found: str
    until: float
    retried: bool = False
    waits: bool = False


@dataclass(slots=True)
class Eligibility:
    """Everything that speaks against this node, as far as it is known.

    Attributes:
        unsafe: What makes it unsafe, by who says so; never relative. The place for whatever
            else must silence a node: `SafetyObserved` fills it.
        carriers: Logical interface to carrier, as last observed; unknown ones count as up.
        silent: Likewise, to whether nothing is heard although others hear each other.
        journal: What is wrong with it; empty when nothing is.
        configuration: What is wrong with the newest one; an older one is in force.
        forward: Why nothing is forwarded.
        complete: This node has all committed flows.
        faults: What the kernel refused, and when that is tried again.
        gate: Likewise, the gate: it is unsafe.
    """

    unsafe: dict[str, str] = field(default_factory=dict)
    carriers: dict[str, bool] = field(default_factory=dict)
    silent: dict[str, bool] = field(default_factory=dict)
    journal: str = ""
    configuration: str = ""
    forward: str = ""
    complete: bool = True
    faults: dict[Kind, Fault] = field(default_factory=dict)
    gate: Fault | None = None

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why this node is unsafe; empty when it is not."""
        gate = [self.gate.found] if self.gate else []
        return (*gate, *(found for found in self.unsafe.values() if found))

    def hindrances(self, interfaces: Collection[str], *, holds: bool) -> tuple[Hindrance, ...]:
        """Return all that counts for a node that needs these interfaces.

        Args:
            interfaces: Logical ones.
            holds: It is the holder: its own kernel is where the flows are.
        """
        dark = [name for name in interfaces if not self.carriers.get(name, True)]
        silent = [n for n in interfaces if n not in dark and self.silent.get(n, False)]
        found = [Hindrance(Kind.PATH, f"{name}: no carrier") for name in dark]
        found += [Hindrance(Kind.PATH, f"{name}: silent") for name in silent]
        found += [
            Hindrance(kind, text)
            for kind, text in (
                (Kind.FORWARD, self.forward),
                (Kind.REVISION, self.configuration),
                (Kind.DISK, self.journal),
            )
            if text
        ]
        found += [Hindrance(kind, fault.found) for kind, fault in self.faults.items()]
        if not self.complete and not holds:
            found.append(Hindrance(Kind.FLOWS, "lacks flows"))
        return tuple(found)

    @property
    def due(self) -> float | None:
        """When something refused is tried again."""
        faults = [*self.faults.values(), *([self.gate] if self.gate else [])]
        return min((fault.until for fault in faults), default=None)

    def installed(self) -> None:
        """Note that gate and ruleset of the newest configuration are in place."""
        self.faults.pop(Kind.REVISION, None)
        self.gate_confirmed()

    def gate_confirmed(self) -> None:
        """Note that a gate is in place, perhaps that of an older configuration."""
        if self.gate is not None and (self.gate.retried or not self.gate.waits):
            self.gate = None

    def retries(self, now: float, *, again_s: float) -> tuple[tuple[Kind, ...], bool]:
        """Return what to try again now: kinds, and whether the gate.

        Each is told once more after `again_s`: what was to be done behind something that
        failed was not done, and has no outcome.
        """
        kinds = tuple(kind for kind, fault in self.faults.items() if fault.until <= now)
        gate = self.gate if self.gate is not None and self.gate.until <= now else None
        for fault in (*(self.faults[kind] for kind in kinds), *([gate] if gate else [])):
            fault.retried, fault.until = True, now + again_s
        return kinds, gate is not None


class Damping:
    """Keeps a node from giving up again and again for the same reason, or too early."""

    def __init__(self) -> None:
        self._free_at: dict[Kind, float] = {}
        self._all_free_at = 0.0  # from when on for any reason
        self._outdone_at: float | None = None  # since when another node does better
        self._last: Kind | None = None

    def not_outdone(self) -> None:
        """Note that nobody does better."""
        self._outdone_at = None

    def free_at(self, kind: Kind, now: float, *, since: float | None) -> float:
        """Return from when on this node may give up for another that does better.

        Args:
            kind: In what the other does better.
            now: Seconds.
            since: When this holder became as it is, seconds; None: it does not hold yet, and
                keeps nobody waiting.
        """
        outdone_at = now if self._outdone_at is None else self._outdone_at
        if since is not None and outdone_at < since:
            outdone_at = now
        self._outdone_at = outdone_at
        settled_at = 0.0
        if since is not None and outdone_at - since >= SETTLED_S:
            settled_at = outdone_at + SETTLED_S  # this one may recover next
        elif since is not None and kind in SPREADING:
            settled_at = since + SETTLED_S  # the other may notice the same in a moment
        return max(self._free_at.get(kind, 0.0), self._all_free_at, settled_at)

    def gave_up(self, kind: Kind, now: float) -> None:
        """Note that it does, for this reason."""
        self._free_at[kind] = now + DAMPED_S
        self._last = kind

    def stayed(self) -> None:
        """Note that it did not after all."""
        if self._last is not None:
            self._free_at.pop(self._last, None)

    def failed(self, now: float) -> None:
        """Note that nobody took over: whatever the reason, that is not tried again soon."""
        self._all_free_at = now + DAMPED_S
