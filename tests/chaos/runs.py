"""Short hands to write the history of a chaos run in a test; times in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from chaos.faults.bounds import limit_ms
from chaos.judge.segments import Segment, segments
from chaos.observe.observed import RoleLogged, Stall
from chaos.observe.run_history import (
    MS,
    AdmissionSeen,
    ArpSeen,
    CarriedSeen,
    Census,
    Fact,
    History,
    Injection,
)
from tests.chaos.histories import ADDRESSES, NETWORKS, speaks

NODES = ("r1", "r2", "r3")
BOTH = sorted(ADDRESSES)


def fault(
    at_ms: float,
    heal_ms: float | None,
    *,
    nodes: Sequence[str] = ("r1",),
    out: Sequence[str] | None = None,
    hindered: Sequence[str] = (),
    limits: tuple[str, str] = ("lease", "rejoin"),
) -> Injection:
    """A fault, by default one that takes its node out; well 500 ms after it was undone."""
    return Injection(
        t_ns=round(at_ms * MS),
        heal_ns=None if heal_ms is None else round(heal_ms * MS),
        settled_ns=None if heal_ms is None else round((heal_ms + 500) * MS),
        nemesis="cut",
        detail="+".join(nodes),
        target="holder",
        nodes=list(nodes),
        out=list(nodes if out is None else out),
        hindered=list(hindered),
        start_limit=limits[0],
        heal_limit=limits[1],
        holder="r1",
    )


def holds(router: str, start_ms: int, end_ms: int, *, announces: bool = True) -> list[Fact]:
    """A router that answers ARP, admits connections and carries flows."""
    admitted: list[Fact] = [
        AdmissionSeen(t * MS, router, network)
        for t in range(start_ms, end_ms, 10)
        for network in NETWORKS
    ]
    spoken: list[ArpSeen] = speaks(router, start_ms, end_ms, announces=announces)
    # Asked 5 ms later, it answers as well.
    answers = [replace(a, t_ns=a.t_ns + 5 * MS, gratuitous=False) for a in spoken]
    return [*admitted, *spoken, *answers, *carries(router, start_ms, end_ms)]


def carries(router: str, start_ms: int, end_ms: int) -> list[Fact]:
    return [
        CarriedSeen(t * MS, t * MS + 4 * MS, router, "private", 3)
        for t in range(start_ms, end_ms, 5)
    ]


def stall(at_ms: int, late_ms: int) -> Stall:
    return Stall(at_ms * MS, late_ms * MS)


def role(at_ms: int, node: str, change: str, reason: str = "elected", term: int = 1) -> RoleLogged:
    was, _, new = change.partition("→")
    return RoleLogged(at_ms * MS, node, new, was, term, reason)


def census(at_ms: int, node: str, **changes: object) -> Census:
    fields: dict[str, object] = {
        "commands": ["hanat.daemon", "hanat.supervisor"],
        "descriptors": 40,
        "memory_kib": 100_000,
        "addresses": BOTH if node == "r1" else [],
    }
    return Census(at_ms * MS, node, **(fields | changes))  # type: ignore[arg-type]


def of(*facts: Fact | Sequence[Fact]) -> History:
    flat: list[Fact] = []
    for fact in facts:
        flat.extend(fact if isinstance(fact, Sequence) else [fact])
    return History.of(flat)


def cut(history: History, end_ms: int, profile: str = "default") -> list[Segment]:
    bounds = (0, end_ms * MS)
    return segments(history.injections, NODES, bounds, lambda word: limit_ms(word, profile))
