"""What a nemesis is: whom it hits, what it does, and what that excuses."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from chaos.faults.faults import Fault, Together
from chaos.lab.lab import Lab
from chaos.lab.switch import Net

Names = tuple[str, ...]
APART_S = (0.0, 0.5)


@dataclass(frozen=True, slots=True)
class Site:
    """The lab that is attacked; every fault of the network has a table of its own."""

    lab: Lab
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def net(self) -> Net:
        """Return a network whose drops are healed apart from those of other faults."""
        return Net(self.lab.topology, f"chaos{next(self.numbers)}")

    def name(self, kind: str) -> str:
        """Return a name for a program that no other of the lab has."""
        return f"{kind}-{next(self.numbers)}"

    def history(self, name: str) -> Path:
        """Return where a program of a fault writes what it has seen."""
        return self.lab.folder / "history" / f"{name}.jsonl"

    @property
    def nodes(self) -> Names:
        """All nodes."""
        return tuple(self.lab.nodes)


@dataclass(frozen=True, slots=True)
class Aim:
    """Whom to hit.

    Attributes:
        away: Nodes that do not run, for another fault's sake.
    """

    site: Site
    victims: Names
    draw: random.Random
    away: Names = ()

    @property
    def others(self) -> Names:
        """The nodes that run and are not hit."""
        return tuple(n for n in self.site.nodes if n not in (*self.victims, *self.away))

    @property
    def words(self) -> str:
        """The victims, for people."""
        return "+".join(self.victims)


@dataclass(frozen=True, slots=True)
class Attack:
    """A fault that is ready to begin, and what it excuses; see `run_history.Injection`."""

    fault: Fault
    detail: str
    nodes: Names
    out: Names = ()
    hindered: Names = ()
    start_limit: str = "lease"
    heal_limit: str = "rejoin"
    ends: Names = ()
    stays: bool = False
    unjudged: Names = ()
    servers: Names = ()
    severs: bool = False


@dataclass(frozen=True, slots=True)
class Nemesis:
    """One kind of fault.

    Attributes:
        name: ``link-public``; what stands before the hyphen names the whole family.
        summary: For ``--help`` and the report.
        targets: Words of `targets`; one that stands there twice is drawn twice as often.
        attack: Makes it ready.
        hold_s: How long it lasts, at least and at most.
        pairs: Whether it may meet another fault, of another node.
        needs: What has to be prepared for it, a word of `equipment`.
        alone_s: How long it lasts at least while another node is away.
        three: Whether it needs all three nodes.
        inner: How many faults come while it is in force, of the nodes that it does not hit.
        apart_s: How much later what meets it begins.
        second: Words what meets it may be aimed with.
    """

    name: str
    summary: str
    targets: Names
    attack: Callable[[Aim], Attack]
    hold_s: tuple[float, float] = (1.0, 2.0)
    pairs: bool = False
    needs: str = ""
    alone_s: float = 0.0
    three: bool = False
    inner: int = 0
    apart_s: tuple[float, float] = APART_S
    second: Names = ("one",)


def each(aim: Aim, make: Callable[[str], Fault]) -> Fault:
    """Return what does something to every victim."""
    return Together([make(name) for name in aim.victims])
