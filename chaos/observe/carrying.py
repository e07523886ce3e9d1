"""Watch who forwards packets of flows that are under way, cheaply.

Thousands of packets a second pass the routers, and to know who carries them a few are enough:
the kernel hands every fourth to the observer, by chance, and those of one router that come
within some milliseconds become one fact. A packet that a router forwarded is told from its
own by the source address: still the client's in the private network, already the floating
one in the public.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_interface

from chaos.lab.clock import CONTROL_BYTES, received_at, want_timestamps
from chaos.lab.topology import CLIENT, FLOATING, FLOATING_V6, Port, Topology
from chaos.observe.frames import ETH_P_IP, ETH_P_IPV6, ETHERNET, IPV6, SYN_FLAGS_AT, TCP
from chaos.observe.packet_filters import (
    AND,
    IF_ANY_BIT,
    IF_EQUAL,
    INDEX_IP,
    JUMP,
    LOAD_BYTE,
    LOAD_BYTE_INDEXED,
    LOAD_HALF,
    LOAD_WORD,
    OUTGOING,
    PKTTYPE,
    RANDOM,
    Instruction,
    Line,
    assemble,
    attach,
)
from chaos.observe.run_history import CarriedSeen

BIN_NS = 5_000_000
SHARE = 4  # one packet in so many
ETH_P_ALL = 0x0003
SO_RCVBUFFORCE = 33  # asm-generic/socket.h; needs CAP_NET_ADMIN
SOL_PACKET, PACKET_STATISTICS = 263, 6  # linux/socket.h, linux/if_packet.h
TPACKET_STATS = struct.Struct("=II")  # frames, of them dropped
ROOM_BYTES = 4 << 20

_UDP, _ACK = 17, 0x10


def filter_for(client: Port) -> tuple[Instruction, ...]:
    """Return the program that lets a share of the forwarded packets through.

    Args:
        client: Whose addresses no router has.
    """
    sources = {4: (client.address, FLOATING), 6: (client.address_v6, FLOATING_V6)}
    addresses = {
        version: [ip_interface(own).ip.packed, ip_interface(family["public"]).ip.packed]
        for version, (own, family) in sources.items()
    }
    return assemble(
        (
            Line(LOAD_WORD, RANDOM),
            Line(AND, SHARE - 1),
            Line(IF_EQUAL, 0, no="reject"),
            Line(LOAD_HALF, PKTTYPE),
            Line(IF_EQUAL, OUTGOING, yes="reject"),
            Line(LOAD_HALF, 12),
            Line(IF_EQUAL, ETH_P_IPV6, yes="six"),
            Line(IF_EQUAL, ETH_P_IP, no="reject"),
            *_comes_from(addresses[4], ETHERNET + 12, then="four"),
            Line(LOAD_BYTE, ETHERNET + 9, label="four"),
            Line(IF_EQUAL, _UDP, yes="accept"),
            Line(IF_EQUAL, TCP, no="reject"),
            Line(INDEX_IP, ETHERNET),
            Line(LOAD_BYTE_INDEXED, ETHERNET + SYN_FLAGS_AT),
            Line(JUMP, yes="flags"),
            *_comes_from(addresses[6], ETHERNET + 8, then="six-protocol", label="six"),
            Line(LOAD_BYTE, ETHERNET + 6, label="six-protocol"),
            Line(IF_EQUAL, _UDP, yes="accept"),
            Line(IF_EQUAL, TCP, no="reject"),
            Line(LOAD_BYTE, ETHERNET + IPV6 + SYN_FLAGS_AT),
            # A first packet asks for a new flow; that it passes is an admission.
            Line(IF_ANY_BIT, _ACK, yes="accept", no="reject", label="flags"),
        )
    )


def _comes_from(
    addresses: Sequence[bytes], at: int, *, then: str, label: str = ""
) -> Iterator[Line]:
    """Go on at a label if the address at a place is one of these, else reject."""
    for number, address in enumerate(addresses):
        last = number == len(addresses) - 1
        other = "reject" if last else f"{then}-{number + 1}"
        words = struct.unpack(f"!{len(address) // 4}I", address)
        for index, word in enumerate(words):
            own = (f"{then}-{number}" if number else label) if index == 0 else ""
            yield Line(LOAD_WORD, at + 4 * index, label=own)
            yes = then if index == len(words) - 1 else ""
            yield Line(IF_EQUAL, word, yes=yes, no=other)


@dataclass(slots=True)
class _Bin:
    first_ns: int
    last_ns: int
    frames: int


class Carrying:
    """A packet socket on the switch, and what has come in since.

    Must be made inside the switch's namespace.
    """

    def __init__(self, topology: Topology, record: Callable[[CarriedSeen], None]) -> None:
        self._record = record
        self._ports: Mapping[str, Port] = {p.port: p for r in topology.routers for p in r.ports}
        self._bins: dict[tuple[Port, int], _Bin] = {}
        client = next(h for h in topology.hosts if h.name == CLIENT).ports[0]
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        attach(self.socket, filter_for(client))
        want_timestamps(self.socket)
        make_room(self.socket)
        self.socket.setblocking(False)  # noqa: FBT003

    def read(self) -> None:
        """Take what has come."""
        while True:
            try:
                frame, control, _, origin = self.socket.recvmsg(34, CONTROL_BYTES)
            except BlockingIOError:
                break
            except OSError:
                continue  # an interface went down
            port = self._ports.get(origin[0])
            if port is not None:
                version = 6 if frame[12:14] == b"\x86\xdd" else 4
                self._add((port, version), received_at(control))
        self.flush(time.monotonic_ns() - 2 * BIN_NS)

    def flush(self, before_ns: int) -> None:
        """Record the slices that began before an instant."""
        for way in [w for w, found in self._bins.items() if found.first_ns < before_ns]:
            self._close(way)

    def _add(self, way: tuple[Port, int], t_ns: int) -> None:
        """Count a packet by its port and IP version."""
        found = self._bins.get(way)
        if found is not None and t_ns - found.first_ns > BIN_NS:
            self._close(way)
            found = None
        if found is None:
            self._bins[way] = _Bin(t_ns, t_ns, 1)
        else:
            found.last_ns = max(found.last_ns, t_ns)
            found.frames += 1

    def _close(self, way: tuple[Port, int]) -> None:
        done, (port, version) = self._bins.pop(way), way
        self._record(
            CarriedSeen(done.first_ns, done.last_ns, port.host, port.network, done.frames, version)
        )


def make_room(sock: socket.socket, size: int = ROOM_BYTES) -> None:
    """Let frames wait for us, more of them than the machine allows everybody."""
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size)


def dropped(sock: socket.socket) -> int:
    """Return how many frames had no room in a packet socket since this was asked last."""
    stats = sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, TPACKET_STATS.size)
    _, drops = TPACKET_STATS.unpack(stats)
    return int(drops)
