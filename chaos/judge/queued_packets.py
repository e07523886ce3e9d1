"""Tell what a kernel had kept from what a router lets through now.

A kernel keeps packets that passed the gate in time until it knows the neighbour's link-layer
address. A pulled cable makes it forget all of that network; it asks once a second, three times,
and when the cable is plugged in meanwhile it sends what it kept, all at once. So there is a
burst of some milliseconds into that network after the router's cable was pulled or plugged in,
one for each neighbour, IP version and every such fault, and nobody speaks for an address around
it. In a network that is silent the neighbours are given up as well, after some seconds; what was
kept comes when it carries again.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from chaos.judge.spells import SPELL_NS
from chaos.lab.topology import SERVERS
from chaos.observe.run_history import MS, History, Injection

BURST_NS = 10 * MS
# Three questions, one second apart (neighbour parameters mcast_solicit, retrans_time_ms).
KEPT_NS = 3_000 * MS
NEIGHBOURS = {"public": 1, "private": len(SERVERS)}  # of a network that are no routers
SILENT = ("silent-network", "silent-network-two")  # `detail` begins with the network
NETWORKS = {"link-public": ["public"], "link-private": ["private"], "link-both": [*NEIGHBOURS]}


class Seen(Protocol):
    """Something that came out of a router's cable."""

    @property
    def t_ns(self) -> int:
        """When it began."""

    @property
    def last_ns(self) -> int:
        """When it ended."""

    @property
    def router(self) -> str:
        """Whose cable."""

    @property
    def network(self) -> str:
        """Into which network."""

    @property
    def version(self) -> int:
        """Of IP: the kernel knows a neighbour's two addresses apart."""


S = TypeVar("S", bound=Seen)


def split(seen: Sequence[S], injections: Sequence[Injection]) -> tuple[list[S], list[S], int]:
    """Return what a cable does not explain, what it does, and in how many bursts that came.

    Args:
        seen: In order; what would be judged.
        injections: All of the run.
    """
    bare, kept = [], []
    begun: dict[tuple[object, ...], list[int]] = {}
    for act in seen:
        for number, injection in enumerate(injections):
            if act.last_ns - act.t_ns > BURST_NS or not _cable_touched(injection, act):
                continue
            bursts = begun.setdefault((number, act.router, act.network, act.version), [])
            if not bursts or act.last_ns - bursts[-1] > BURST_NS:
                if len(bursts) == NEIGHBOURS[act.network]:
                    continue
                bursts.append(act.t_ns)
            kept.append(act)
            break
        else:
            bare.append(act)
    return bare, kept, sum(map(len, begun.values()))


def set_apart(history: History) -> History:
    """Return a history whose `admissions` lack those that a kernel had kept; its `kept` has them.

    A holder is asked by ARP every 8 ms: new connections around which a router says nothing are
    no holder's.
    """
    spoken: dict[str, list[int]] = {}
    for seen in history.arp:
        spoken.setdefault(seen.router, []).append(seen.t_ns)
    silent = [
        admission
        for admission in history.admissions
        if not _near(spoken.get(admission.router, []), admission.t_ns)
    ]
    _, kept, _ = split(silent, history.injections)
    if not kept:
        return history
    gone = set(map(id, kept))
    admissions = tuple(a for a in history.admissions if id(a) not in gone)
    return replace(history, admissions=admissions, kept=tuple(kept))


def _near(instants: Sequence[int], t_ns: int) -> bool:
    index = bisect.bisect_left(instants, t_ns - SPELL_NS)
    return index < len(instants) and instants[index] <= t_ns + SPELL_NS


def _cable_touched(injection: Injection, seen: Seen) -> bool:
    """Whether the router's cable to that network was pulled or plugged in shortly before."""
    networks = NETWORKS.get(injection.nemesis, [])
    if injection.nemesis in SILENT:
        networks = injection.detail.split()[:1]
    if seen.network not in networks or seen.router not in injection.nodes:
        return False
    instants = (injection.t_ns, injection.heal_ns)
    return any(t_ns is not None and 0 <= seen.t_ns - t_ns <= KEPT_NS for t_ns in instants)
