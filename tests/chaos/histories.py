"""Short hands to write a history in a test; times in milliseconds."""

from __future__ import annotations

from chaos.judge.checkers import Window, windows
from chaos.lab.topology import floating
from chaos.observe.run_history import (
    MS,
    ArpSeen,
    Connection,
    Fact,
    Fault,
    History,
    Outcome,
    Probes,
    Request,
)

NETWORKS = ("public", "private")
ADDRESSES = floating()


def kill(at_ms: float, node: str = "r1") -> Fault:
    return Fault(round(at_ms * MS), "kill", node, moves_holder=True)


def restart(at_ms: float, node: str = "r1") -> Fault:
    return Fault(round(at_ms * MS), "restart", node, moves_holder=False)


def switchover(at_ms: float, to: str) -> Fault:
    return Fault(round(at_ms * MS), "switchover", to, moves_holder=True)


def speaks(
    router: str,
    start_ms: int,
    end_ms: int,
    *,
    networks: tuple[str, ...] = NETWORKS,
    announces: bool = True,
) -> list[ArpSeen]:
    """A router that answers every 10 ms, the first time unasked."""
    return [
        ArpSeen(t * MS, router, n, address, "02:00:00:00:00:01", announces and t == start_ms)
        for t in range(start_ms, end_ms, 10)
        for n in networks
        for address in floating(n)
    ]


def stream(
    workload: str, end_ms: int, *silences: tuple[int, int], period_ms: int = 10, corrupt: int = 0
) -> Probes:
    """Probes, each answered 1 ms later, except those sent in a silence."""
    sent = range(0, end_ms, period_ms)
    answered = [None if any(a <= t < b for a, b in silences) else t * MS + MS for t in sent]
    return Probes(workload, period_ms * MS, [t * MS for t in sent], answered, corrupt)


def connection(
    workload: str, end_ms: int, *, payload_errors: int = 0, error: str | None = None
) -> Connection:
    return Connection(workload, 0, end_ms * MS, 10, payload_errors, error)


def request(at_ms: int, outcome: Outcome = "ok", took_ms: int = 2) -> Request:
    error = None if outcome == "ok" else "refused"
    return Request("http", at_ms * MS, (at_ms + took_ms) * MS, outcome, "s1", error)


def judged(
    *facts: Fact | list[ArpSeen] | list[Request], end_ms: int
) -> tuple[History, tuple[Window, ...]]:
    """The history of these facts, and its windows from 0 to `end_ms`."""
    flat: list[Fact] = []
    for fact in facts:
        flat.extend(fact if isinstance(fact, list) else [fact])
    history = History.of(flat)
    return history, windows(history, 0, end_ms * MS)
