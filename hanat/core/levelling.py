"""Keep the connection counts of servers level: which tables of slots to write, and when.

For services scheduled by counts (lc, wlc, sed, nq) the holder looks at the connections of each
server several times a second, and gives every server as many slots as it would get of the next
connections (`core.shares.levelling`). At most 50 tables a second are written, those first that are
furthest off.

How many connections will come until the next look is not known; as many as came since the last
one, smoothed, are expected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hanat.core.configuration import VirtualService
from hanat.core.schedulers import slots, wanted, weights_of
from hanat.core.server_facts import ServerId
from hanat.core.services import Levels, Rotation
from hanat.core.shares import RewriteBudget, Slots, off_by, rewritten

PERIOD_S = 0.25
SMOOTHING = 0.25  # of what came in the last period


@dataclass(frozen=True, slots=True)
class Load:
    """Connections of one server.

    Attributes:
        now: Established ones.
        opened: All that were ever opened, as far as is known: it begins anew at 0 with a worker
            that was started again, and when a server had none for a while.
    """

    now: int = 0
    opened: int = 0


NO_LOAD = Load()


@dataclass(slots=True)
class _Table:
    """The table of one service and IP version."""

    rotation: Rotation
    slots: Slots
    opened: Mapping[str, int]
    arriving: float = 0.0
    judged: tuple[Mapping[str, int], int] = ({}, 0)  # by these counts and so many arriving,
    verdict: tuple[float, Slots] | None = None  # this is how far off it is; None: not known


class Levelling:
    """The tables of all services by counts, on the holder.

    A round looks at all services, some at a time: `begin`, `look` for each, `end`.
    """

    def __init__(self) -> None:
        self._tables: dict[tuple[str, int], _Table] = {}
        self._budget = RewriteBudget()
        # Of this round.
        self._off: dict[str, float] = {}
        self._due: dict[str, tuple[tuple[str, int], Slots]] = {}
        self._met: set[tuple[str, int]] = set()

    def clear(self) -> None:
        """Forget all tables: somebody else holds."""
        self._tables.clear()
        self.begin()

    def begin(self) -> None:
        """Begin a round, from the first service on."""
        self._off, self._due, self._met = {}, {}, set()

    def look(
        self, services: Iterable[tuple[VirtualService, Rotation]], loads: Mapping[ServerId, Load]
    ) -> None:
        """Look at the tables of some services.

        Args:
            services: Scheduled by counts, and who gets their new clients.
            loads: Of each of their servers that has or had connections.
        """
        for service, rotation in services:
            for version in sorted({server.address.version for server in service.servers}):
                place = service.name, int(version)
                self._met.add(place)
                new = self._look(service, version, rotation, loads)
                if new is not None:
                    name = f"{service.name}/{version}"
                    self._off[name], self._due[name] = new[0], (place, new[1])

    def end(self, now: float) -> Levels:
        """End a round: return the tables to write now.

        Args:
            now: Seconds of a clock that does not go back; `PERIOD_S` after the last round, or
                later.
        """
        self._tables = {place: t for place, t in self._tables.items() if place in self._met}
        due = {name: table for name, table in self._due.items() if table[0] in self._tables}
        off = {name: self._off[name] for name in due}
        written = dict(due[name] for name in self._budget.choose(off, now))
        for place, table in written.items():
            self._tables[place].slots, self._tables[place].verdict = table, None
        self.begin()
        return written

    def _look(
        self,
        service: VirtualService,
        version: int,
        rotation: Rotation,
        loads: Mapping[ServerId, Load],
    ) -> tuple[float, Slots] | None:
        """Return how far off a table is, and what it should be; None: nobody is in rotation."""
        names = {s.name for s in service.servers if s.address.version == version}
        members = tuple(server for server in rotation if server.name in names)
        weights = weights_of(service.scheduler, members)
        if len(weights) < 2:
            self._tables.pop((service.name, version), None)
            return None
        of_each = {name: loads.get(ServerId(service.name, name), NO_LOAD) for name in weights}
        opened = {name: load.opened for name, load in of_each.items()}
        table = self._tables.get((service.name, version))
        if table is None or table.rotation != members:
            arriving = 0.0 if table is None else table.arriving
            table = _Table(members, slots(service.scheduler, members), opened, arriving)
            self._tables[service.name, version] = table
        came = sum(max(0, n - table.opened.get(name, 0)) for name, n in opened.items())
        table.arriving += SMOOTHING * (came - table.arriving)
        table.opened = opened
        counts, arriving = {n: load.now for n, load in of_each.items()}, round(table.arriving)
        if table.verdict is None or table.judged != (counts, arriving):  # it takes 1 ms or longer
            shares = wanted(service.scheduler, weights, counts, arriving=arriving)
            table.judged = counts, arriving
            table.verdict = off_by(table.slots, shares), rewritten(table.slots, shares)
        return table.verdict
