"""Cut the time of a chaos run at every beginning and undoing of a fault.

Between two such instants nothing is done to the cluster, so what it owes is known: in a
*serviceable* segment a majority is healthy and connected and one of it can hold, and then an
outage may last as long as the instant that opens the segment allows. What an earlier instant
still allows goes on being allowed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from chaos.judge.checkers import Window
from chaos.observe.run_history import MS, Injection


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of time in which nothing is done.

    Attributes:
        label: What opened it: ``kill r1``, ``heal kill r1``, ``warm-up``.
        nemesis: Whose doing it is, ``none`` at the beginning.
        serviceable: Whether somebody is able to hold the addresses.
        limit_ms: How long an outage may last; infinite where nothing is promised.
        unjudged: Streams of probes of which nothing is promised.
        of_servers: Whether checks have to notice something.
    """

    label: str
    nemesis: str
    start_ns: int
    end_ns: int
    serviceable: bool
    limit_ms: float
    unjudged: tuple[str, ...] = ()
    of_servers: bool = False

    @property
    def window(self) -> Window:
        """The same for the checkers of `checkers`."""
        return Window(self.label, self.start_ns, self.end_ns, moves_holder=False)

    @property
    def judged(self) -> bool:
        """Whether anything is promised for it."""
        return self.serviceable and math.isfinite(self.limit_ms)


def serviceable(active: Collection[Injection], nodes: Collection[str]) -> bool:
    """Whether a majority is left, and in it a node that can hold."""
    out = {node for injection in active for node in injection.out}
    hindered = {node for injection in active for node in injection.hindered}
    left = set(nodes) - out
    return len(left) > len(nodes) // 2 and bool(left - hindered)


def segments(
    injections: Sequence[Injection],
    nodes: Collection[str],
    bounds: tuple[int, int],
    limit_ms: Callable[[str], float],
    damped: Callable[[Injection], bool] = lambda _: False,
) -> list[Segment]:
    """Return the segments of a run, in order.

    Args:
        injections: All of it.
        nodes: All of them.
        bounds: First and last instant with traffic, monotonic ns.
        limit_ms: What a word of `faults.bounds` stands for.
        damped: Whether the holder that a fault hits need not give up for it now.
    """
    start_ns, end_ns = bounds
    instants = [(i.t_ns, i, True) for i in injections]
    instants += [(i.heal_ns, i, False) for i in injections if i.heal_ns is not None]
    instants = sorted((it for it in instants if start_ns < it[0] < end_ns), key=lambda it: it[0])
    noise_ms = limit_ms("noise")
    able = serviceable([i for i in injections if i.holds(start_ns)], nodes)
    until_ns = instants[0][0] if instants else end_ns
    found = [Segment("warm-up", "none", start_ns, until_ns, able, noise_ms)]
    allowed_until_ns = 0.0
    for number, (t_ns, injection, begins) in enumerate(instants):
        until_ns = instants[number + 1][0] if number + 1 < len(instants) else end_ns
        limit = noise_ms
        if begins:
            limit = math.inf if damped(injection) else limit_ms(injection.start_limit)
        elif not found[-1].judged:
            limit = max(noise_ms, limit_ms(injection.heal_limit))
        active = [i for i in injections if i.holds(t_ns)]
        able = serviceable(active, nodes)
        unjudged = tuple(sorted({name for i in active for name in i.unjudged}))
        allowed_until_ns = max(t_ns + limit * MS, allowed_until_ns if able else 0.0)
        limit = (allowed_until_ns - t_ns) / MS
        of_servers = any(i.servers for i in (injection, *active))
        label = injection.label if begins else f"heal {injection.label}"
        found.append(
            Segment(label, injection.nemesis, t_ns, until_ns, able, limit, unjudged, of_servers)
        )
        if math.isinf(limit):
            # Of this segment only: its end opens one that is allowed its own time.
            allowed_until_ns = 0.0
    return found
