"""Flows as values: one connection-tracking entry in a fixed-size record.

A record is what travels from the holder's kernel to a backup's kernel. It is
bytes, not an object: a busy router makes tens of thousands a second, and a
48-byte string costs a tenth of a dictionary. `Flow` is the readable view for
tests, the API and messages.

Layout (IPv4 48 bytes, IPv6 96): original source and destination, reply source
and destination, original ports, reply ports (all as on the wire), then id,
status, timeout [s], mark, zone, protocol, TCP state, TCP window scales and TCP
flags for each direction. ICMP: the first port holds the id, the second type
and code. SCTP: the state where TCP has it, the verification tag of the original
direction in the place of the id, that of the reply in the last four bytes.
Numbers are in network order, as netlink has them. Status bits are those of the
kernel's ``nf_conntrack_common.h``.

Of the mark one bit is ours, `RESET_MARK`: the client of the TCP connection is to be
reset (`core.endings`). All other bits are those of other programs of the machine; they
are read and never written, and no other node gets them. The bit is none that is common:
Kubernetes has 0xc000, Tailscale 0xff0000, mwan3 0x3f00, wg-quick, Mullvad and Istio have
values without it. A program that writes all 32 bits takes it away; such a connection
is kept.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from struct import Struct
from typing import NamedTuple

from hanat.core.columns import WORTHWHILE, cut

RECORD_V4 = Struct("!4s4s4s4s4s4sIIIIHBBBBBB")
RECORD_V6 = Struct("!16s16s16s16s4s4sIIIIHBBBBBB")
assert RECORD_V4.size == 48
assert RECORD_V6.size == 96

STATUS_EXPECTED = 0x01
STATUS_SEEN_REPLY = 0x02
STATUS_ASSURED = 0x04
STATUS_CONFIRMED = 0x08
STATUS_SRC_NAT = 0x10
STATUS_DST_NAT = 0x20
STATUS_FIXED_TIMEOUT = 0x400  # no packet changes it

RESET_MARK = 0x10000000

PORTS = Struct(">HH")
KEY_V4_SIZE = 15
_KEY = {48: (*range(8), *range(16, 20), 40, 41, 42), 96: (*range(32), *range(64, 68), 88, 89, 90)}
_MAPPING = {48: (*range(8, 16), *range(20, 24)), 96: (*range(32, 64), *range(68, 72))}
# Of a `ServerKey`: port, protocol, who is asked, who answers.
_PLACE = {48: (18, 19, 42, *range(4, 12)), 96: (66, 67, 90, *range(16, 48))}
_TCP = 6
_TIME_WAIT, _CLOSE = 7, 8
_STATES_OVER = frozenset({_TIME_WAIT, _CLOSE})
_RESET_BYTE = RESET_MARK >> 24  # of the mark's first byte, which is the twelfth from the end
_CLOSE_INIT = 0x04  # IP_CT_TCP_FLAG_CLOSE_INIT: this side said goodbye
_TOLD_OF_RESET = b"\1"
_MAPPING_SIZES = frozenset(map(len, _MAPPING.values()))  # without that


class ChangeKind(IntEnum):
    """What happened to a flow on the holder."""

    PUT = 1
    DELETE = 2


class Run(NamedTuple):
    """Changes of one kind that follow each other.

    Attributes:
        kind: PUT for entries that are new or changed, DELETE for those that are gone.
        records: One or more entries, in the layout of this module, oldest first.
    """

    kind: ChangeKind
    records: list[bytes]


@dataclass(frozen=True, slots=True)
class Tuple5:
    """One direction of a flow."""

    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    source_port: int
    destination_port: int


@dataclass(frozen=True, slots=True)
class Flow:
    """A record, readable."""

    protocol: int
    original: Tuple5
    reply: Tuple5
    status: int
    timeout_s: int
    mark: int = 0
    zone: int = 0
    ident: int = 0
    tcp_state: int = 0
    tcp_scale: tuple[int, int] = (0, 0)
    tcp_flags: tuple[int, int] = (0, 0)

    @classmethod
    def from_record(cls, record: bytes) -> Flow:
        """Unpack a record of either family.

        Raises:
            ValueError: If the length is that of neither family.
        """
        layout = layout_of(record)
        (osrc, odst, rsrc, rdst, oports, rports, ident, status, timeout_s, mark, zone,
         protocol, state, oscale, rscale, oflags, rflags) = layout.unpack(record)  # fmt: skip
        return cls(
            protocol=protocol,
            original=Tuple5(ip_address(osrc), ip_address(odst), *PORTS.unpack(oports)),
            reply=Tuple5(ip_address(rsrc), ip_address(rdst), *PORTS.unpack(rports)),
            status=status, timeout_s=timeout_s, mark=mark, zone=zone, ident=ident,
            tcp_state=state, tcp_scale=(oscale, rscale), tcp_flags=(oflags, rflags),
        )  # fmt: skip

    def to_record(self) -> bytes:
        """Pack into the layout of this module."""
        layout = RECORD_V4 if self.original.source.version == 4 else RECORD_V6
        o, r = self.original, self.reply
        return layout.pack(
            o.source.packed, o.destination.packed, r.source.packed, r.destination.packed,
            PORTS.pack(o.source_port, o.destination_port),
            PORTS.pack(r.source_port, r.destination_port),
            self.ident, self.status, self.timeout_s, self.mark, self.zone, self.protocol,
            self.tcp_state, *self.tcp_scale, *self.tcp_flags,
        )  # fmt: skip


def layout_of(record: bytes) -> Struct:
    """Return the layout a record has, by its length.

    Raises:
        ValueError: If the length is that of neither family.
    """
    if len(record) == RECORD_V4.size:
        return RECORD_V4
    if len(record) == RECORD_V6.size:
        return RECORD_V6
    raise ValueError(f"a flow record of {len(record)} bytes; known are 48 (IPv4) and 96 (IPv6)")


def status_of(record: bytes) -> int:
    """Return the status bits without unpacking the rest."""
    return int.from_bytes(record[-20:-16], "big")


def is_translated(record: bytes) -> bool:
    """Say whether the flow has NAT; only such flows are replicated."""
    return bool(record[-17] & (STATUS_SRC_NAT | STATUS_DST_NAT))


def awaits_reset(record: bytes) -> bool:
    """Say whether the client of a TCP connection gets a reset at its next packet."""
    return record[-6] == _TCP and bool(record[-12] & _RESET_BYTE)


def with_reset(record: bytes) -> bytes:
    """Return a TCP flow as it is when it waits for its ends to be reset.

    For connection tracking it is closed, by both sides: so a SYN with the same ports begins a
    new connection, which gets another server, and a table that is full drops it first.
    """
    status = status_of(record) | STATUS_SEEN_REPLY | STATUS_ASSURED | STATUS_CONFIRMED
    return b"".join(
        (
            record[:-20],
            status.to_bytes(4, "big"),
            record[-16:-12],
            bytes((record[-12] | _RESET_BYTE,)),
            record[-11:-5],
            bytes((_CLOSE,)),
            record[-4:-2],
            bytes((record[-2] | _CLOSE_INIT, record[-1] | _CLOSE_INIT)),
        )
    )


def is_over(record: bytes) -> bool:
    """Say whether a TCP flow has ended, although its entry lasts for some minutes.

    One that waits for a reset has not: its ends do not know yet.
    """
    return record[-6] == _TCP and record[-5] in _STATES_OVER and not awaits_reset(record)


def is_established(record: bytes) -> bool:
    """Say whether the flow is one to keep: answered, and as TCP not over."""
    return bool(record[-17] & STATUS_ASSURED) and not is_over(record)


def with_timeout(record: bytes, timeout_s: int) -> bytes:
    """Return the record with another timeout."""
    return record[:-16] + timeout_s.to_bytes(4, "big") + record[-12:]


def timeout_of(record: bytes) -> int:
    """Return the timeout in seconds without unpacking the rest."""
    return int.from_bytes(record[-16:-12], "big")


def key_of(record: bytes) -> bytes:
    """Return what identifies a flow: original tuple, protocol and zone."""
    if len(record) == RECORD_V4.size:
        return record[:8] + record[16:20] + record[40:43]
    return record[:32] + record[64:68] + record[88:91]


def keys_of(records: Sequence[bytes]) -> list[bytes]:
    """Return what `key_of` returns, for each record."""
    sizes = set(map(len, records))
    if len(records) < WORTHWHILE or len(sizes) != 1:
        return [key_of(record) for record in records]
    (size,) = sizes
    return cut(b"".join(records), size, _KEY[size])


def mapping_of(record: bytes) -> bytes:
    """Return what becomes of a flow's packets: the reply tuple, and a byte more for a reset."""
    told = _TOLD_OF_RESET if awaits_reset(record) else b""
    if len(record) == RECORD_V4.size:
        return record[8:16] + record[20:24] + told
    return record[32:64] + record[68:72] + told


def record_with(key: bytes) -> bytes:
    """Return a record with nothing but a key: enough to delete the flow.

    Raises:
        ValueError: If the length is that of neither family.
    """
    for layout, size in ((RECORD_V4, 4), (RECORD_V6, 16)):
        if len(key) == 2 * size + 7:
            source, destination, ports = key[:size], key[size : 2 * size], key[-7:-3]
            zone = int.from_bytes(key[-3:-1], "big")
            nothing = bytes(size)
            return layout.pack(
                source, destination, nothing, nothing, ports, bytes(4), 0, 0, 0, 0, zone, key[-1],
                0, 0, 0, 0, 0,
            )  # fmt: skip
    raise ValueError(f"a flow's key of {len(key)} bytes; known are 15 (IPv4) and 39 (IPv6)")


class ServerKey(NamedTuple):
    """What tells for which server of which service a flow counts.

    Attributes:
        protocol: IP protocol number.
        listen: Packed address the client asked for.
        port: First port of the listen that has the port the client asked for.
        server: Packed address of the real server.
    """

    protocol: int
    listen: bytes
    port: int
    server: bytes


class Row(NamedTuple):
    """How many flows a server has and had; see `FlowTable.report`."""

    key: ServerKey
    now: int
    opened: int


@dataclass(slots=True)
class _Sum:
    now: int = 0
    opened: int = 0
    told: int = 0  # of `opened`, in the last report


class FlowTable:
    """Which replicated flows exist, how they are translated, how many each real server has.

    Holds 27 bytes (IPv4) a flow, not the record: the kernel's table is the real one. To find
    out which flows are gone although nobody said so, everything is told once more between
    `begin` and `end`; what was not is left over. A flow that waits for a reset counts for no
    server.
    """

    def __init__(self) -> None:
        self._mappings: dict[bytes, bytes] = {}
        self._doubtful: dict[bytes, bytes] = {}  # not told again yet
        # By port, of those that have a flow: there are no more of them than flows.
        self._counts: dict[bytes, int] = {}
        # By listen: clients choose among the ports of a range, but not how many these are.
        self._sums: dict[bytes, _Sum] = {}
        self._listens: dict[bytes, tuple[list[int], list[int]]] = {}  # first and last ports

    def __len__(self) -> int:
        return len(self._mappings) + len(self._doubtful)

    def keys(self) -> list[bytes]:
        """Return what identifies each flow that does not wait for a reset, in any order."""
        return [
            key
            for some in (self._mappings, self._doubtful)
            for key, mapping in some.items()
            if len(mapping) in _MAPPING_SIZES
        ]

    def knows(self, record: bytes) -> bool:
        """Say whether the flow is there, translated as in the record."""
        key = key_of(record)
        return self._mappings.get(key, self._doubtful.get(key)) == mapping_of(record)

    def put(self, record: bytes) -> bool:
        """Take a flow into account; say whether it was there, translated as now."""
        return self._put(key_of(record), mapping_of(record))

    def put_all(self, records: Sequence[bytes]) -> list[bytes]:
        """Take flows into account; return those that were not there, translated as now."""
        sizes = set(map(len, records))
        if len(records) < WORTHWHILE or len(sizes) != 1:
            return [record for record in records if not self.put(record)]
        (size,) = sizes
        joined = b"".join(records)
        if joined[size - 12 :: size].strip(b"\0"):  # some may wait for a reset
            return [record for record in records if not self.put(record)]
        keys, mappings = cut(joined, size, _KEY[size]), cut(joined, size, _MAPPING[size])
        fresh = not self._doubtful and self._mappings.keys().isdisjoint(keys)
        if fresh and len(set(keys)) == len(keys):
            self._mappings.update(zip(keys, mappings, strict=True))
            for place, count in Counter(cut(joined, size, _PLACE[size])).items():
                self._count_at(place, count)
            return list(records)
        told = zip(keys, mappings, records, strict=True)
        return [record for key, mapping, record in told if not self._put(key, mapping)]

    def _put(self, key: bytes, mapping: bytes) -> bool:
        was = self._mappings.get(key)
        if was is None and self._doubtful:
            was = self._doubtful.pop(key, None)
        self._mappings[key] = mapping
        if was == mapping:
            return True
        if was is not None:
            self._count(key, was, -1)
        self._count(key, mapping, 1)
        return False

    def drop(self, record: bytes) -> None:
        """Take into account that a flow is gone."""
        key = key_of(record)
        was = self._mappings.pop(key, None)
        if was is None:
            was = self._doubtful.pop(key, None)
        if was is not None:
            self._count(key, was, -1)

    def begin(self) -> None:
        """Doubt every flow that is not told of again until `end`."""
        self._doubtful |= self._mappings
        self._mappings = {}

    def end(self) -> list[bytes]:
        """Forget what was not told of since `begin`; return the keys."""
        left, self._doubtful = self._doubtful, {}
        for key, mapping in left.items():
            self._count(key, mapping, -1)
        return list(left)

    def __contains__(self, key: bytes) -> bool:
        return key in self._mappings or key in self._doubtful

    def listen(self, ports: Mapping[tuple[int, bytes], Sequence[tuple[int, int]]]) -> None:
        """Count flows of these listens, and of no others.

        Args:
            ports: First and last port of each, by protocol and packed address.
        """
        listens = {
            bytes([protocol]) + address: (
                [first for first, _ in sorted(some)],
                [last for _, last in sorted(some)],
            )
            for (protocol, address), some in ports.items()
        }
        if listens == self._listens:
            return
        self._listens = listens
        opened = {place: s.opened for place, s in self._sums.items()}
        self._sums = {}
        for place, count in self._counts.items():
            self._add(place, count)
        for place, summed in self._sums.items():
            summed.opened = opened.get(place, 0)

    def report(self) -> list[Row]:
        """Return how many flows each server on each listen has, and had so far.

        One that has none, and had none since the last report, is forgotten: it begins at 0.
        """
        told = [(p, s) for p, s in self._sums.items() if s.now or s.opened != s.told]
        if len(told) < len(self._sums):
            self._sums = dict(told)
        for _, summed in told:
            summed.told = summed.opened
        return [Row(_server(place), summed.now, summed.opened) for place, summed in told]

    def counts(self) -> Mapping[ServerKey, int]:
        """Return the number of flows of each server on each listen that has any."""
        return {_server(place): summed.now for place, summed in self._sums.items() if summed.now}

    def _count(self, key: bytes, mapping: bytes, step: int) -> None:
        size = 4 if len(key) == KEY_V4_SIZE else 16
        if len(mapping) > 2 * size + 4:
            return
        self._count_at(key[-5:-3] + key[-1:] + key[size : 2 * size] + mapping[:size], step)

    def _count_at(self, place: bytes, step: int) -> None:
        half = 3 + (len(place) - 3) // 2
        if place[3:half] != place[half:]:  # otherwise nobody else answers than who is asked
            total = self._counts.get(place, 0) + step
            if total:
                self._counts[place] = total
            else:
                del self._counts[place]
            self._add(place, step)

    def _add(self, place: bytes, step: int) -> None:
        """Count at the listen, of which the first port is named."""
        ports = self._listens.get(place[2 : 3 + (len(place) - 3) // 2])
        if ports is None:
            return
        firsts, lasts = ports
        port = int.from_bytes(place[:2], "big")
        at = bisect_right(firsts, port) - 1
        if at < 0 or port > lasts[at]:
            return
        if firsts[at] != port:
            place = firsts[at].to_bytes(2, "big") + place[2:]
        summed = self._sums.get(place)
        if summed is None:
            summed = self._sums[place] = _Sum()
        summed.now += step
        summed.opened += max(0, step)


def _server(packed: bytes) -> ServerKey:
    half = 3 + (len(packed) - 3) // 2
    return ServerKey(packed[2], packed[3:half], int.from_bytes(packed[:2], "big"), packed[half:])
