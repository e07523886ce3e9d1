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
from dataclasses import dataclass, field

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
        opened: All that were ever opened, as far as this process knows.
    """

    now: int = 0
    opened: int = 0


NO_LOAD = Load()


@dataclass(slots=True)
class _Table:
    """The table of one service and IP version."""

    rotation: Rotation
    slots: Slots
    opened: int  # of all its servers
    arriving: float = 0.0
    counts: Mapping[str, int] = field(default_factory=dict)


class Levelling:
    """The tables of all services by counts, on the holder."""

    def __init__(self) -> None:
        self._tables: dict[tuple[str, int], _Table] = {}
        self._budget = RewriteBudget()

    def clear(self) -> None:
        """Forget all tables: somebody else holds."""
        self._tables.clear()

    def look(
        self,
        services: Iterable[tuple[VirtualService, Rotation]],
        loads: Mapping[ServerId, Load],
        now: float,
    ) -> Levels:
        """Return the tables to write now.

        Args:
            services: Those scheduled by counts, and who gets their new clients.
            loads: Of each server that has or had connections.
            now: Seconds of a clock that does not go back; `PERIOD_S` after the last look.
        """
        off: dict[str, float] = {}
        due: dict[str, tuple[tuple[str, int], Slots]] = {}
        there: set[tuple[str, int]] = set()
        for service, rotation in services:
            for version in sorted({server.address.version for server in service.servers}):
                place = service.name, int(version)
                there.add(place)
                new = self._look(service, version, rotation, loads)
                if new is not None:
                    name = f"{service.name}/{version}"
                    off[name], due[name] = new[0], (place, new[1])
        self._tables = {place: t for place, t in self._tables.items() if place in there}
        written = dict(due[name] for name in self._budget.choose(off, now))
        for place, table in written.items():
            self._tables[place].slots = table
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
        opened = sum(load.opened for load in of_each.values())
        table = self._tables.get((service.name, version))
        if table is None or table.rotation != members:
            arriving = 0.0 if table is None else table.arriving
            table = _Table(members, slots(service.scheduler, members), opened, arriving)
            self._tables[service.name, version] = table
        # A worker that was started again counts from 0.
        table.arriving += SMOOTHING * (max(0, opened - table.opened) - table.arriving)
        table.opened = opened
        counts = {name: load.now for name, load in of_each.items()}
        shares = wanted(service.scheduler, weights, counts, arriving=round(table.arriving))
        return off_by(table.slots, shares), rewritten(table.slots, shares)
