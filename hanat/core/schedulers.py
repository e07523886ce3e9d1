"""Which server gets the client: the schedulers of a service, as tables of slots.

A service has a table of *slots* 0..N-1, each with the name of a server. The kernel chooses a slot
for each new connection: the next one, any one, or by a hash. Here it is decided which server has
which slots, and what the kernel chooses by (`Key`). How that becomes rules is the ruleset's matter.

=================  ==========================================================================
rr, wrr            in turn; wrr by weight, the turns of a server spread evenly
random             at random, by weight
sh                 by source address: a server that leaves moves its own clients only
mh                 by source address: Maglev's table, even shares, few others move
lc, wlc, sed, nq   by connection counts: shares, made anew several times a second
fo                 wrr among the servers of the best tier that has one in rotation
=================  ==========================================================================

The caller passes the servers in rotation of one service and IP version; which those are is not
decided here. All nodes compute the same slots from the same servers, in whatever order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from hanat.core.configuration import Protocol, Scheduler
from hanat.core.hash_tables import maglev, rendezvous
from hanat.core.shares import (
    SLOTS_MAX,
    Slots,
    fit,
    in_a_row,
    interleaved,
    levelling,
    rewritten,
)

WEIGHT_MAX = 65_535  # as of IPVS

SLOW_START_PERCENT = 10
SLOW_START_STEP_PERCENT = 5  # coarse on purpose: weights times 55 % make small tables
SLOW_START_STEPS = (100 - SLOW_START_PERCENT) // SLOW_START_STEP_PERCENT
SLOW_START_STEP_MS_MIN = 1_000


class Key(Enum):
    """What of its first packet decides about a connection's slot."""

    NONE = "none"  # nothing: the next slot, with ``random`` any slot
    SOURCE = "source"  # source address
    SOURCE_PORT = "source-port"  # source address and port
    FLOW = "flow"  # addresses and ports, both


def key_of(
    scheduler: Scheduler,
    protocol: Protocol,
    *,
    source_port: bool = False,
    in_turn: bool = False,
) -> Key:
    """Return what the kernel chooses a slot by.

    Two UDP packets of one socket at the same moment must not go to two servers, so UDP goes by
    the flow. Its shares are then as even as the clients' ports are mixed.

    Args:
        scheduler: Of the service.
        protocol: Of what it listens on.
        source_port: sh and mh hash the port, too: IPVS's ``sh-port`` and ``mh-port``.
        in_turn: UDP, too, takes each first packet for itself: services of single datagrams.
    """
    if scheduler.by_source:
        return Key.SOURCE_PORT if source_port else Key.SOURCE
    return Key.FLOW if protocol is Protocol.UDP and not in_turn else Key.NONE


@dataclass(frozen=True, slots=True)
class InRotation:
    """A server that may get clients.

    Attributes:
        name: Unique in its service; the server's identity in every hash.
        weight: 0 to 65,535; 0 gets no clients.
        percent: What slow start allows of the weight, 1 to 100.
        tier: Of fo; 0 is the best.
    """

    name: str
    weight: int = 1
    percent: int = 100
    tier: int = 0

    def __post_init__(self) -> None:
        assert 0 <= self.weight <= WEIGHT_MAX, self
        assert 1 <= self.percent <= 100, self


def best_tier(servers: Iterable[InRotation]) -> tuple[InRotation, ...]:
    """Return the servers of the best tier in which one has a weight; none if none has.

    IPVS's ``fo`` takes the one server of the highest weight; nftlb has priorities, 1 the best.
    Here a tier can have several servers, and their weights keep their meaning.
    """
    able = [server for server in servers if server.weight]
    best = min((server.tier for server in able), default=0)
    return tuple(server for server in able if server.tier == best)


def weights_of(scheduler: Scheduler, servers: Iterable[InRotation]) -> dict[str, int]:
    """Return what each server counts, by name: its weight in hundredths, with slow start.

    Servers that get nothing are left out: of weight 0, with fo also those of other tiers. rr and
    lc ignore weights, but not slow start.
    """
    found = [server for server in servers if server.weight]
    if scheduler is Scheduler.FO:
        found = list(best_tier(found))
    alike = scheduler in {Scheduler.RR, Scheduler.LC}
    weights = {s.name: (1 if alike else s.weight) * s.percent for s in found}
    assert len(weights) == len(found), "two servers have one name"
    return weights


def slots(
    scheduler: Scheduler, servers: Iterable[InRotation], *, slots_max: int = SLOTS_MAX
) -> Slots:
    """Return the table of a service; empty if no server has a weight.

    Schedulers by counts have the table of servers without connections; see `level`. With `random`
    a server's slots are side by side: a range instead of elements.

    Args:
        scheduler: Of the service.
        servers: Those in rotation.
        slots_max: Most slots, at most 4,093 and prime; sh and mh have so many. Not of those by
            counts, see `shares.level_size`.
    """
    weights = weights_of(scheduler, servers)
    if not weights:
        return ()
    match scheduler:
        case Scheduler.RR | Scheduler.WRR | Scheduler.FO:
            return interleaved(fit(weights, slots_max))
        case Scheduler.RANDOM:
            return in_a_row(fit(weights, slots_max))
        case Scheduler.SH:
            return rendezvous(weights, slots_max)
        case Scheduler.MH:
            return maglev(weights, slots_max)
        case Scheduler.LC | Scheduler.WLC | Scheduler.SED | Scheduler.NQ:
            return interleaved(wanted(scheduler, weights, {}, arriving=0))


def wanted(
    scheduler: Scheduler, weights: Mapping[str, int], counts: Mapping[str, int], *, arriving: int
) -> dict[str, int]:
    """Return how many slots each server is to have, by its connections.

    ``lc`` looks at connections alone, ``wlc`` at connections per weight, ``sed`` counts the one
    that comes, too: (connections + 1) / weight, so that a fast server that has some is preferred
    to a slow one that has none. ``nq`` is ``sed``, but a server without any gets one first. The
    rule, and how far it is from IPVS's, is in `shares.levelling`.

    Args:
        scheduler: One by counts.
        weights: From `weights_of`; not empty.
        counts: Connections of each server now.
        arriving: New connections expected until the next time; 0 if not known.
    """
    assert scheduler.by_counts, scheduler
    return levelling(
        weights,
        counts,
        arriving=arriving,
        ahead=int(scheduler in {Scheduler.SED, Scheduler.NQ}),
        idle_first=scheduler is Scheduler.NQ,
    )


def level(
    scheduler: Scheduler,
    servers: Iterable[InRotation],
    counts: Mapping[str, int],
    before: Slots,
    *,
    arriving: int,
) -> Slots:
    """Return the slots by which new connections level the counts, close to those there were.

    `wanted` and `shares.rewritten` in one; `shares.moved` says which elements to write.
    """
    weights = weights_of(scheduler, servers)
    if not weights:
        return ()
    return rewritten(before, wanted(scheduler, weights, counts, arriving=arriving))


class SlowStart(NamedTuple):
    """What a server that came into rotation may have now.

    Attributes:
        percent: Of its weight, 10 to 100.
        changes_at: When the percentage is next another one; None: it stays at 100.
    """

    percent: int
    changes_at: float | None


def slow_start(*, since: float, duration_s: float, now: float) -> SlowStart:
    """Return what part of its weight a server has.

    It grows linearly from 10 % to 100 % in steps of 5 %; a step takes at least 1 s, so that short
    durations have larger steps. HAProxy's ``slowstart`` grows from 0 in steps of at least 1 s and
    a twentieth of the duration: from 0 no client would come before the first step.
    Envoy's starts at 10 %, too.

    A server that is alone, or starts together with all others, has all clients all the same:
    only the ratio of weights counts. Servers that were in rotation when their service began have
    no slow start; the caller does not ask for those.

    Args:
        since: When the server came into rotation, in seconds of the clock of `now`.
        duration_s: Until it has its whole weight; 0: at once.
        now: The time; before `since` the server has its first 10 %.
    """
    duration_ms = round(duration_s * 1_000)
    past_ms = max(0, round((now - since) * 1_000))  # whole, so that no step is met twice
    if past_ms >= duration_ms:
        return SlowStart(100, None)
    step_ms = max(SLOW_START_STEP_MS_MIN, math.ceil(duration_ms / SLOW_START_STEPS))
    reached_ms = past_ms // step_ms * step_ms
    steps = SLOW_START_STEPS * reached_ms // duration_ms
    next_ms = min(reached_ms + step_ms, duration_ms)
    percent = SLOW_START_PERCENT + SLOW_START_STEP_PERCENT * steps
    return SlowStart(percent, since + next_ms / 1_000)
