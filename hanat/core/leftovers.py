"""What a holder looks through when its tenure, or a configuration, begins.

The holder before may not have ended the connections of servers that are out of rotation, and the
log may know things of servers that are gone, or lack that others stay. None of this is urgent,
and the gate opened just now: 10,000 records are looked at in slices.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import islice

from hanat.core import server_records as records
from hanat.core.configuration import OnServerDown, VirtualService
from hanat.core.health_effects import End, sorry_ends
from hanat.core.rotation import Rotations
from hanat.core.server_records import Kind, Record

SLICE_ITEMS = 500  # servers or records; each costs 1 us, one that is proposed 15 us


class Leftovers:
    """The look of one tenure at one configuration.

    Args:
        rotations: Of all services.
        known: Those that were taken, with what becomes of connections, by name.
        targets: That are probed.
        in_log: All records.
    """

    def __init__(
        self,
        rotations: Rotations,
        known: Mapping[str, tuple[VirtualService, OnServerDown]],
        targets: Collection[str],
        in_log: Mapping[bytes, bytes],
    ) -> None:
        self._rotations, self._known = rotations, known
        self._targets, self._in_log = targets, in_log
        self._items = self._look()
        self.is_over = False

    def some(self) -> list[End | Record]:
        """Return what follows from the next servers and records."""
        looked_at = list(islice(self._items, SLICE_ITEMS))
        self.is_over = len(looked_at) < SLICE_ITEMS
        return [item for item in looked_at if item is not None]

    def _look(self) -> Iterator[End | Record | None]:
        """Yield what follows for each server and record, or None.

        What goes meanwhile is no concern any more, and what comes belongs to something.
        """
        for name in list(self._known):
            yield from self._ends(name)
        for server in self._rotations.staying:
            record = records.stay_record(server, stays=True)
            yield record if record.key not in self._in_log else None
        for key in list(self._in_log):
            yield None if key not in self._in_log or self._belongs(key) else records.deleted(key)

    def _ends(self, name: str) -> Iterator[End | None]:
        service, policy = self._known[name]
        status = self._rotations.statuses[name]
        for server, found in zip(service.servers, status.servers, strict=True):
            ends = found.causes and status.loses_connections(found)
            yield End(service, server, policy) if ends else None
        if service.sorry:
            yield from sorry_ends(service, (), dict(status.rotation))

    def _belongs(self, key: bytes) -> bool:
        """Say whether something that is configured has this record."""
        match records.kind_of(key):
            case None:
                return True  # of a later version
            case Kind.VERDICT:
                return records.target_of(key) in self._targets
            case Kind.STAY:
                return self._rotations.stays(records.server_of(key))
            case _:
                return self._rotations.knows(records.server_of(key))
