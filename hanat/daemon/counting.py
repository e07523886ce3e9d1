"""The holder looks at how many connections servers have, some servers in a turn of the loop.

A thousand services of 20 servers are 20,000 servers: in one turn that is longer than a lease lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol

from hanat.core.configuration import VirtualService
from hanat.core.full_servers import FullServers
from hanat.core.levelling import PERIOD_S, Levelling, Load
from hanat.core.server_facts import ServerId
from hanat.core.services import Levels, Rotation

SLICE = 500  # servers a turn: 2 ms
# A table of slots takes longer than to compare a count: 80 us a server.
BY_COUNTS = 20
# So many times as long at rest as at work: with what it takes to read the worker's report, half as
# long as that, a tenth of a processor.
REST = 15
STALE_S = 1.0  # beside the time from one report to the next


class Loads(Protocol):
    """What tells how many connections servers have; see `daemon.levels`."""

    def ask(self) -> None:
        """Have it brought up to date, for the next time."""
        ...

    def of(
        self, services: Iterable[VirtualService], age_s: float
    ) -> Mapping[ServerId, Load] | None:
        """Return the loads of those servers that are counted; one without an entry has none.

        Args:
            services: Whose.
            age_s: How old what is told may be.

        Returns:
            None if it is older, or if those who count do not know all connections yet.
        """
        ...

    def keep(self, names: Iterable[str]) -> None:
        """Forget what was remembered of other services than these."""
        ...


class Counting:
    """Looks at services, again and again.

    Args:
        loads: Tells the connections.
        clock: Seconds of CLOCK_BOOTTIME.
        fill: Takes servers that are full now, and those that are not any more.
        rotations: Returns who gets new clients, by name of the service.
        level: Takes tables of services by counts.

    Attributes:
        due: When to call `look`, seconds of the clock.
    """

    def __init__(
        self,
        loads: Loads,
        clock: Callable[[], float],
        *,
        fill: Callable[[Collection[ServerId], Collection[ServerId]], None],
        rotations: Callable[[], Mapping[str, Rotation]],
        level: Callable[[Levels], None],
    ) -> None:
        self._loads, self._clock = loads, clock
        self._fill, self._rotations, self._level = fill, rotations, level
        self._levelling, self._full = Levelling(), FullServers()
        self._services: tuple[VirtualService, ...] = ()
        self._at = 0  # the next of them to look at
        self._took_s, self._period_s = 0.0, PERIOD_S
        self.due = 0.0

    def clear(self) -> None:
        """Forget all: somebody else holds."""
        self._levelling.clear()
        self._full.clear()
        self._at, self._took_s, self._period_s, self.due = 0, 0.0, PERIOD_S, 0.0

    def look(self, services: tuple[VirtualService, ...], now: float) -> None:
        """Look at some more of the services; at the end of them say when to begin anew.

        What is not known, or not all of it, changes nothing.

        Args:
            services: From `core.full_servers.counted`.
            now: Of the clock.
        """
        began = self._clock()
        if services is not self._services:
            self._begin(services)
        some = _slice(services, self._at)
        loads = self._loads.of(some, STALE_S + self._period_s)
        if loads is None:
            self._levelling.begin()
            self._full.begin()
            self._rest()
            return
        self._at += len(some)
        self._look_at(some, loads, now)
        if self._at >= len(services):
            self._end(now)
        self._took_s += self._clock() - began
        if self._at >= len(services):
            self._rest()

    def _begin(self, services: tuple[VirtualService, ...]) -> None:
        """Begin anew, with other services."""
        self._services, self._at = services, 0
        self._levelling.begin()
        self._full.begin()
        self._loads.keep(service.name for service in services)

    def _look_at(
        self, some: tuple[VirtualService, ...], loads: Mapping[ServerId, Load], now: float
    ) -> None:
        """What is full is taken out first: the tables of those by counts follow the rotation."""
        came, went = self._full.look(some, loads, now)
        if came or went:
            self._fill(came, went)
        rotations = self._rotations()
        self._levelling.look(
            [(s, rotations[s.name]) for s in some if s.scheduler.by_counts and s.name in rotations],
            loads,
        )

    def _end(self, now: float) -> None:
        gone = self._full.end()
        if gone:
            self._fill((), gone)
        tables = self._levelling.end(now)
        if tables:
            self._level(tables)

    def _rest(self) -> None:
        self._loads.ask()
        self._period_s = max(PERIOD_S, REST * self._took_s)
        self.due = self._clock() + self._period_s
        self._at, self._took_s = 0, 0.0


def _slice(services: tuple[VirtualService, ...], at: int) -> tuple[VirtualService, ...]:
    """Return as many services from there on as may be looked at in one turn, one at least."""
    work, end = 0, at
    while end < len(services) and work < SLICE:
        service = services[end]
        work += len(service.servers) * (BY_COUNTS if service.scheduler.by_counts else 1)
        end += 1
    return services[at:end]
