"""Divide the slots of a service among its servers: by weight, or so that connection counts level.

The kernel looks a new connection's server up in a table of *slots* 0..N-1. What a server gets of
the new connections is its part of the slots. Nothing here knows how the kernel chooses a slot.

Everything is computed in whole numbers, and servers are always taken in the order of their names:
the same weights and counts give the same slots on every node, in whatever order they come.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from heapq import nlargest
from typing import TypeVar

SLOTS_MAX = 4_093  # an element of a map costs nft 15 us: a whole table 61 ms

LEVEL_SLOTS = 256  # of a table that follows counts: steps of 0.4 %, rewritten in 4 ms
LEVEL_SLOTS_PER_SERVER = 4

# Connections for which a table is made, in those that come until it is made anew. With 1 a
# difference would be made up in one period; counts are up to a period old, so that it would
# then be made up twice. With 4 a quarter of it is made up in each period.
HORIZON_PERIODS = 4

REWRITES_BURST = 10
REWRITES_PER_S = 40  # with the burst: at most 50 in any second
OFF_MIN = 0.02  # a table that is off by less is left alone: a few connections more or less

Server = TypeVar("Server", str, int)
Slots = tuple[str, ...]
"""The server of each slot, by name; empty if there is none."""


# ------------------------------------------------------------------------ by weight


def fit(weights: Mapping[str, int], slots_max: int = SLOTS_MAX) -> dict[str, int]:
    """Return how many slots each server gets, as few in all as the weights allow.

    Weights are divided by what they have in common. If they fit then, shares are exact. Else they
    are scaled down to `slots_max` slots: each share is off by less than one slot (0.025 % of
    4,093), apart from servers due less than one, which get one, and those that give it. What it
    comes to is `share_error`.

    Args:
        weights: Positive, one entry per server; at most `slots_max` servers.
        slots_max: Most slots in all.
    """
    divisor = math.gcd(*weights.values()) or 1
    least = {name: weights[name] // divisor for name in sorted(weights)}
    return least if sum(least.values()) <= slots_max else apportion(weights, slots_max, least=1)


def apportion(weights: Mapping[str, int], size: int, *, least: int = 0) -> dict[str, int]:
    """Divide exactly `size` slots by weight: the largest remainders are rounded up.

    Args:
        weights: Not negative; servers of weight 0 get none.
        size: How many slots, at least `least` per server with a weight.
        least: What a server with a weight gets in any case.

    Returns:
        Slots per server in the order of names, those without any left out.

    Source: Hamilton's method; of equal remainders the first name is rounded up.
    """
    rest = {name: weights[name] for name in sorted(weights) if weights[name] > 0}
    assert rest, "no server has a weight"
    assert size >= least * len(rest), f"{size} slots for {len(rest)} servers"
    given = dict.fromkeys(rest, least)
    while True:
        left, total = size - least * (len(given) - len(rest)), sum(rest.values())
        poor = [name for name, weight in rest.items() if weight * left < least * total]
        if not poor:
            break
        for name in poor:
            del rest[name]
    for name, weight in rest.items():
        given[name] = weight * left // total
    lacking = size - sum(given.values())
    by_remainder = sorted(rest, key=lambda name: (-(rest[name] * left % total), name))
    for name in by_remainder[:lacking]:
        given[name] += 1
    return {name: count for name, count in given.items() if count}


def share_error(weights: Mapping[str, int], slots: Slots) -> float:
    """Return the largest difference of a server's part of the slots from its part of the weights.

    Both are fractions of 1: 0.001 means that of 1,000 new connections one goes elsewhere.
    """
    total, counts = sum(weights.values()), Counter(slots)
    off = (abs(Fraction(counts[n], len(slots)) - Fraction(w, total)) for n, w in weights.items())
    return float(max(off))


def in_a_row(counts: Mapping[str, int]) -> Slots:
    """Return as many slots as each server has, side by side: a range per server."""
    return tuple(name for name in sorted(counts) for _ in range(counts[name]))


def interleaved(counts: Mapping[Server, int]) -> tuple[Server, ...]:
    """Return as many slots as each server has, those of one spread as evenly as can be.

    Servers are told by their names, or by their places in a list.

    Every server earns its count in each turn; the one that has most takes the turn and pays the
    sum of all. Servers of equal count take turns among themselves, so only the first of each such
    group is looked at: 4,093 slots have at most 90 different counts.

    Source: nginx, smooth weighted round robin (``ngx_http_upstream_round_robin.c``); the result is
    the same, with servers in the order of names or places.
    """
    names = sorted(name for name in counts if counts[name] > 0)
    groups: dict[int, list[int]] = {}
    for index, name in enumerate(names):
        groups.setdefault(counts[name], []).append(index)
    total, taken = sum(counts[name] for name in names), dict.fromkeys(groups, 0)
    slots = []
    for turn in range(1, total + 1):
        _, minus_index, chosen = max(
            (
                count * turn - total * (taken[count] // len(group)),
                -group[taken[count] % len(group)],
                count,
            )
            for count, group in groups.items()
        )
        taken[chosen] += 1
        slots.append(names[-minus_index])
    return tuple(slots)


# ------------------------------------------------------------------------ by counts


def level_size(servers: int) -> int:
    """Return how many slots a table has that follows the counts of so many servers."""
    assert servers * LEVEL_SLOTS_PER_SERVER <= SLOTS_MAX, f"{servers} servers"
    return max(LEVEL_SLOTS, servers * LEVEL_SLOTS_PER_SERVER)


def levelling(
    weights: Mapping[str, int],
    counts: Mapping[str, int],
    *,
    arriving: int,
    ahead: int = 0,
    idle_first: bool = False,
) -> dict[str, int]:
    """Return how many slots each server gets so that new connections level the counts.

    The rule: what IPVS would do with the next connections, none ending meanwhile, is done in
    advance. IPVS gives each connection to the server that is lowest in ``(count + ahead) /
    weight``; in the limit of many, they fill the servers like water, from the lowest up. The table
    has of each server what it would get of the next ``HORIZON_PERIODS * arriving`` connections,
    but at least 4 per server. A server above the level it would come to gets nothing.

    What differs from IPVS: a connection that comes or ends changes nothing until the table is made
    anew, and a difference is made up by a quarter in each period, not at once. A server whose
    connections last longer than those of the others stays above them, by less than what comes
    in `HORIZON_PERIODS` periods.

    One connection more or less moves at most ``1 / (HORIZON_PERIODS * arriving)`` of the slots,
    apart from rounding.

    Args:
        weights: Positive, one entry per server in rotation.
        counts: Connections now; servers without an entry have none, others are left out.
        arriving: New connections expected until the table is made anew.
        ahead: Connections that count already: 0 for lc and wlc, 1 for sed and nq.
        idle_first: Each server without a connection gets one before all else: nq.

    Returns:
        Slots per server, `level_size` in all, those without any left out.

    Source: ipvsadm(8), lc, wlc, sed and nq.
    """
    horizon = HORIZON_PERIODS * max(arriving, len(weights))
    idle = [name for name in weights if idle_first and not counts.get(name)]
    had = {name: counts.get(name, 0) + ahead + (name in idle) for name in weights}
    by_level = sorted(weights, key=lambda name: (Fraction(had[name], weights[name]), name))
    water, width = horizon - len(idle), 0  # the level is water / width
    filled = []
    for name in by_level:
        if width and had[name] * width >= water * weights[name]:
            break
        water, width = water + had[name], width + weights[name]
        filled.append(name)
    parts = {name: water * weights[name] - had[name] * width for name in filled}
    for name in idle:
        parts[name] = parts.get(name, 0) + width
    return apportion(parts, level_size(len(weights)), least=1)


def rewritten(before: Slots, counts: Mapping[str, int]) -> Slots:
    """Return slots of those counts that differ from those there were in as few slots as can be.

    A server gives up slots spread evenly over those it has; whoever lacks some gets them in turn.
    A table of another size is made anew.
    """
    if len(before) != sum(counts.values()):
        return interleaved(counts)
    places: dict[str, list[int]] = {}
    for slot, name in enumerate(before):
        places.setdefault(name, []).append(slot)
    free: list[int] = []
    for name, had in places.items():
        excess = len(had) - counts.get(name, 0)
        free += (had[(2 * i + 1) * len(had) // (2 * excess)] for i in range(excess))
    lacking = {name: count - len(places.get(name, ())) for name, count in counts.items()}
    slots = list(before)
    for slot, name in zip(sorted(free), interleaved(lacking), strict=True):
        slots[slot] = name
    return tuple(slots)


def off_by(slots: Slots, counts: Mapping[str, int]) -> float:
    """Return which part of the slots has to change to come to those counts, 0 to 1."""
    if len(slots) != sum(counts.values()):
        return 1.0
    had = Counter(slots)
    return sum(max(0, count - had[name]) for name, count in counts.items()) / len(slots)


def moved(before: Sequence[str], after: Sequence[str]) -> dict[int, str]:
    """Return the slots that have another server than before, or none before, and that server."""
    known = dict(enumerate(before))
    return {slot: name for slot, name in enumerate(after) if known.get(slot) != name}


# ------------------------------------------------------------------------ which, and when


class RewriteBudget:
    """Which services have their tables rewritten now: at most 50 in any second.

    Those go first that are furthest off, and those that have waited: what counts is how far off a
    service is times 1 s plus how long it has been waiting. So none waits for ever: with 1,000
    services equally far off each has its turn every 25 s.

    A server that leaves rotation is no matter of this budget: its slots go at once.
    """

    def __init__(self) -> None:
        self._tokens, self._at = float(REWRITES_BURST), -math.inf
        self._since: dict[str, float] = {}

    def choose(self, off: Mapping[str, float], now: float) -> tuple[str, ...]:
        """Return the services to rewrite now, the most urgent first; they count as rewritten.

        Args:
            off: How far off each service that follows counts is, from `off_by`.
            now: Seconds of a clock that does not go back.
        """
        assert now >= self._at, (now, self._at)
        gained = (now - self._at) * REWRITES_PER_S
        self._tokens, self._at = min(float(REWRITES_BURST), self._tokens + gained), now
        due = (name for name, part in off.items() if part >= OFF_MIN)
        self._since = {name: self._since.get(name, now) for name in due}
        chosen = nlargest(
            int(self._tokens), sorted(self._since), key=lambda name: self._urgency(name, off[name])
        )
        self._tokens -= len(chosen)
        for name in chosen:
            del self._since[name]
        return tuple(chosen)

    def _urgency(self, name: str, off: float) -> float:
        return off * (1 + self._at - self._since[name])
