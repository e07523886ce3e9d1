"""Tables by which a client finds its server again, although others come and go: sh and mh.

The kernel scales a hash of the client's address to the number of slots. So a client moves when,
and only when, the server of its slot changes. Both tables come from one thing: each server has a
*preference*, a shuffled order of all slots that follows from its name alone. Services that have
the same servers therefore send one client to the same of them.

*Rendezvous* (sh): a slot goes to the server that bids best. No bid depends on another server, so
a server that leaves moves its own slots and no others, and one whose weight grows only gains. The
price: shares are as even as chance makes them. Of 4 equal servers and 4,093 slots the standard
deviation of a share is 0.45 points (0.68 if each slot were drawn for itself: in a shuffled order
each rank comes once). 10,000 clients add 0.43 points by themselves. So each of 4 servers gets 25 %
of them within 2 points, which is 3 standard deviations: with more than 99 % of sets of names. That
needs the 4,093 slots; with 1,021 one set of names in eight is off by more. With mh it is within 2
points in any case.

*Maglev* (mh): the servers take turns at their most wanted slot that is free. Shares are even to
one slot a server; when one of ten leaves, 1.2 % of the slots move besides its own.

Of a table that is smaller than 4,093 slots both get worse with the root of the size.
"""

from __future__ import annotations

import hashlib
import math
import struct
from array import array
from collections.abc import Mapping, Sequence
from functools import lru_cache
from heapq import heapreplace

from hanat.core.shares import SLOTS_MAX, Slots

TABLE_SLOTS = 4_093  # as large as a map may be; prime, as in Maglev's paper

PREFERENCES_KEPT = 512  # of 8 KB each, and its inverse; one is made in 2 ms

# -log2 of a rank, in whole numbers. Another C library may differ in the last bit of a logarithm;
# none of the 4,093 products is so near to half a number that it would show.
LOG_SCALE = 1 << 24


def rendezvous(weights: Mapping[str, int], size: int = TABLE_SLOTS) -> Slots:
    """Return a table in which a server that leaves or comes moves its own slots only.

    A server bids ``-log(u) / weight`` for a slot; u, its draw for that slot, is in (0, 1). The
    lowest bid wins, with a probability in proportion to the weight.

    Args:
        weights: Positive, up to 65,535 times 100, one entry per server.
        size: How many slots, up to 4,093.

    Source: Thaler & Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998; with
    weights: Schindelhauer & Schomaker, "Weighted Distributed Hash Tables", SPAA 2005.
    """
    assert 0 < size <= SLOTS_MAX, size
    names, logs = list(weights), _logs(size)
    # Quotients of whole numbers this small are equal only if they are exactly equal, so the
    # winner does not depend on what all weights have in common; nor do equal weights matter.
    places_of = [_places(name, size) for name in names]
    bids_of: Sequence[Sequence[float]] = places_of
    if len(set(weights.values())) > 1:
        bids_of = [
            [logs[-1 - place] / weight for place in places]
            for places, weight in zip(places_of, weights.values(), strict=True)
        ]
    slots = []
    for slot, bids in enumerate(zip(*bids_of, strict=True)):
        best = min(bids)
        if bids.count(best) == 1:
            slots.append(names[bids.index(best)])
        else:
            equal = (name for name, bid in zip(names, bids, strict=True) if bid == best)
            slots.append(min(equal, key=lambda name: (_digest(f"{slot} {name}"), name)))
    return tuple(slots)


def maglev(weights: Mapping[str, int], size: int = TABLE_SLOTS) -> Slots:
    """Return a table of even shares, of which little moves when a server leaves or comes.

    Every server takes a slot in the first round, so that each has one. After that the heaviest
    takes one in every round, another server in fewer rounds in proportion to its weight.

    A server's preference is a shuffle, not the paper's offset and skip: those need less memory,
    but two servers of nearly the same skip move up to 3 % of the slots of others when one of ten
    leaves. With shuffles it was 1.7 % at most in 600 departures.

    Args:
        weights: Positive, one entry per server.
        size: How many slots, prime in the paper, up to 4,093.

    Source: Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI
    2016, section 3.4, which allows for shuffles.
    """
    assert 0 < size <= SLOTS_MAX, size
    heaviest = max(weights.values(), default=0)
    wanted = {name: iter(_preference(name, size)) for name in weights}
    taken: dict[int, str] = {}
    turns = [(1, name, 1) for name in sorted(weights)]  # round, server, how many it has then
    while turns and len(taken) < size:
        _, name, count = turns[0]
        taken[next(slot for slot in wanted[name] if slot not in taken)] = name
        due = -(-(count + 1) * heaviest // weights[name])
        heapreplace(turns, (due, name, count + 1))
    return tuple(taken[slot] for slot in range(len(taken)))


@lru_cache(maxsize=PREFERENCES_KEPT)
def _preference(name: str, size: int) -> array[int]:
    """Return all slots in the order in which a server wants them."""
    draws = struct.unpack(f"<{size}Q", hashlib.shake_256(name.encode()).digest(8 * size))
    return array("H", sorted(range(size), key=draws.__getitem__))


@lru_cache(maxsize=PREFERENCES_KEPT)
def _places(name: str, size: int) -> array[int]:
    """Return of each slot which choice of the server it is; 0: its first."""
    places = array("H", bytes(2 * size))
    for place, slot in enumerate(_preference(name, size)):
        places[slot] = place
    return places


@lru_cache(maxsize=8)
def _logs(size: int) -> tuple[int, ...]:
    """Return -log2 of the draw each rank stands for; the highest rank has the smallest."""
    return tuple(round(exact) for exact in _exact_logs(size))


def _exact_logs(size: int) -> list[float]:
    return [-math.log2((rank + 0.5) / size) * LOG_SCALE for rank in range(size)]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
