"""What flows carried: from the kernel's counters of single flows to sums of each server.

The kernel counts packets and bytes of each flow, each way, if it is told to
(``net.netfilter.nf_conntrack_acct``), and tells them when the flow ends. Those of flows that go on
are read from its table now and then (a *walk*): what they grew by since the last walk is added.
So of a flow is remembered what was seen of it last; one that begins and ends between two walks
costs no memory.

Flows that were there before the first walk are counted from that on: what they carried before was
counted by somebody else, or by nobody.

Counters are as the kernel's messages have them, 32 bytes: packets and bytes of the original
direction, packets and bytes of the reply. Bytes are those of whole IP packets. If a counter went
back, because another program set it to 0, it counts from 0.

A connection counts when it is assured: TCP after its handshake, UDP after some packets each way.
UDP that was answered and ended before that (a question to a name server) counts when its entry
ends, which the kernel's timeouts decide.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from struct import Struct
from typing import NamedTuple, Protocol

from hanat.core.columns import WORTHWHILE, cut
from hanat.core.flow_scope import ReplicationScope
from hanat.core.flows import (
    RECORD_V4,
    STATUS_ASSURED,
    STATUS_DST_NAT,
    STATUS_SEEN_REPLY,
    is_established,
    key_of,
    keys_of,
)
from hanat.core.totals import Totals

COUNTERS = Struct("!QQQQ")
_NONE = bytes(COUNTERS.size)
_UDP = 17
# Port asked for, protocol, who is asked, who answers, port of the latter.
_PLACE = {48: (18, 19, 42, *range(4, 12), 20, 21), 96: (66, 67, 90, *range(16, 48), 68, 69)}


class Accounts(Protocol):
    """What flows to services carried: records, each followed by its counters.

    A port to the kernel, see `hanat.kernel.ports`.
    """

    def open(self) -> None:
        """Begin to hear of flows that end. Raises as `Conntrack.capture`."""
        ...

    def read(self) -> list[bytes]:
        """Return flows that ended since the last call, at most some thousand.

        Those that were assured, and of UDP all, by whomever they were ended. An overrun is
        counted in `overruns`, not raised.
        """
        ...

    def walk(self) -> Generator[list[bytes]]:
        """Return all there are in slices, each as the kernel hands it out: at the latest moment.

        One walk at a time; one that is left halfway must be closed.
        """
        ...

    def enabled(self) -> bool:
        """Say whether the kernel counts packets and bytes of flows that begin now."""
        ...

    @property
    def overruns(self) -> int:
        """How often the kernel dropped events because we were slow."""
        ...

    def close(self) -> None:
        """Stop; further reads return nothing."""
        ...


class Place(NamedTuple):
    """Who was asked and who answered.

    Attributes:
        protocol: IP protocol number.
        listen: Packed address that the clients asked for.
        port: First port of the listen.
        server: Packed address of the server.
        server_port: 0: that which the client asked for.
    """

    protocol: int
    listen: bytes
    port: int
    server: bytes
    server_port: int


class FlowAccounting:
    """Counters of the flows of one kernel, since the first walk."""

    def __init__(self) -> None:
        self._seen: dict[bytes, bytes] = {}  # counters by key, as of the newest walk
        self._before: dict[bytes, bytes] = {}  # of the walk before, and not seen in this one yet
        self._missed: dict[bytes, bytes] = {}  # not seen in one whole walk
        self._fresh: set[bytes] | None = set()  # began before the first walk was over; None: it is
        self._ended: set[bytes] = set()  # during this walk, whose slices may still tell of them
        self._walking = False
        self._sums: dict[bytes, list[int]] = {}

    def __len__(self) -> int:
        return len(self._seen) + len(self._before) + len(self._missed)

    def opened(self, records: Sequence[bytes]) -> None:
        """Note flows that became assured just now, among others."""
        for record in records:
            if record[-17] & STATUS_DST_NAT and is_established(record):
                self._of(_place(record))[0] += 1
                if self._fresh is not None:
                    self._fresh.add(key_of(record))

    def ended(self, records: Sequence[bytes], counters: Sequence[bytes]) -> None:
        """Note flows that are gone, with all they carried."""
        for record, now in zip(records, counters, strict=True):
            key, place = key_of(record), _place(record)
            if self._walking:
                self._ended.add(key)
            status = record[-17]
            if record[-6] == _UDP and status & STATUS_SEEN_REPLY and not status & STATUS_ASSURED:
                self._of(place)[0] += 1
            was = self._forget(key)
            if was is None:
                was = _NONE if self._is_fresh(key) else now
            self._add(place, was, now)

    def begin_walk(self) -> None:
        """What is seen until `end_walk` is all there is."""
        self._before, self._seen = self._seen, {}
        self._ended.clear()
        self._walking = True

    def see(self, records: Sequence[bytes], counters: Sequence[bytes]) -> None:
        """Note flows that are there."""
        seen, before, missed, ended = self._seen, self._before, self._missed, self._ended
        told = zip(keys_of(records), _places(records), counters, strict=True)
        for key, place, now in told:
            was = before.pop(key, None)
            if was is None:
                if key in ended:
                    continue  # the slice is of a moment ago
                was = seen.get(key)  # a torn walk tells of some twice
                if was is None and missed:
                    was = missed.pop(key, None)
                if was is None:
                    was = _NONE if self._is_fresh(key) else now
            seen[key] = now
            if now != was:
                self._add(place, was, now)

    def end_walk(self) -> None:
        """Forget flows of which neither this walk nor the one before told.

        One walk alone may be torn: a flow that is forgotten and seen again would count twice.
        """
        self._missed, self._before = self._before, {}
        self._ended.clear()
        self._fresh, self._walking = None, False

    def break_off(self) -> None:
        """End a walk that did not come to its end: what it did not see stays as it was."""
        self._seen, self._before = {**self._before, **self._seen}, {}
        self._ended.clear()
        self._walking = False

    def take(self, scope: ReplicationScope) -> dict[Place, Totals]:
        """Return what was counted since the last call; flows of no service are left out."""
        sums, self._sums = self._sums, {}
        found: dict[Place, Totals] = {}
        for packed, counts in sums.items():
            place = _unpacked(packed, scope)
            if place is not None:
                before = found.get(place)
                found[place] = Totals(*counts) if before is None else before.plus(Totals(*counts))
        return found

    def _is_fresh(self, key: bytes) -> bool:
        return self._fresh is None or key in self._fresh

    def _forget(self, key: bytes) -> bytes | None:
        for known in (self._seen, self._before, self._missed):
            was = known.pop(key, None)
            if was is not None:
                return was
        return None

    def _of(self, place: bytes) -> list[int]:
        sums = self._sums.get(place)
        if sums is None:
            sums = self._sums[place] = [0, 0, 0, 0, 0]
        return sums

    def _add(self, place: bytes, was: bytes, now: bytes) -> None:
        if now == was:
            return
        old, new = COUNTERS.unpack(was), COUNTERS.unpack(now)
        if any(n < o for o, n in zip(old, new, strict=True)):
            old = (0, 0, 0, 0)
        sums = self._of(place)
        for i, (o, n) in enumerate(zip(old, new, strict=True), start=1):
            sums[i] += n - o


def split(counted: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Return records and counters of records that are followed by their counters."""
    size = COUNTERS.size
    return [c[:-size] for c in counted], [c[-size:] for c in counted]


def _place(record: bytes) -> bytes:
    if len(record) == RECORD_V4.size:
        return record[18:20] + record[42:43] + record[4:12] + record[20:22]
    return record[66:68] + record[90:91] + record[16:48] + record[68:70]


def _places(records: Sequence[bytes]) -> list[bytes]:
    sizes = set(map(len, records))
    if len(records) < WORTHWHILE or len(sizes) != 1:
        return [_place(record) for record in records]
    (size,) = sizes
    return cut(b"".join(records), size, _PLACE[size])


def _unpacked(packed: bytes, scope: ReplicationScope) -> Place | None:
    """Return the place, None if no service listens there."""
    half = 3 + (len(packed) - 5) // 2
    protocol, listen, server = packed[2], packed[3:half], packed[half:-2]
    asked, answered = int.from_bytes(packed[:2], "big"), int.from_bytes(packed[-2:], "big")
    for first, last in scope.ports.get((protocol, listen), ()):
        if first <= asked <= last:
            # Clients choose among the ports of a range, but not how many sums there are.
            return Place(protocol, listen, first, server, 0 if answered == asked else answered)
    return None
