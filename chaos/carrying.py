"""Watch who forwards packets of flows that are under way, cheaply.

Thousands of packets a second pass the routers, and to know who carries them a few are enough:
the kernel hands every fourth to the observer, by chance, and those of one router that come
within some milliseconds become one fact. A packet that a router forwarded is told from its
own by the source address: still the client's in the private network, already the floating
one in the public.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from chaos.errors import LabError
from chaos.history import CarriedSeen
from chaos.topology import CLIENT, FLOATING, Port, Topology
from chaos.workloads.clock import CONTROL_BYTES, received_at, want_timestamps

BIN_NS = 5_000_000
SHARE = 4  # one packet in so many
ETH_P_ALL = 0x0003
SO_ATTACH_FILTER = 26
SO_RCVBUFFORCE = 33  # asm-generic/socket.h; needs CAP_NET_ADMIN
SOL_PACKET, PACKET_STATISTICS = 263, 6  # linux/socket.h, linux/if_packet.h
TPACKET_STATS = struct.Struct("=II")  # frames, of them dropped
ROOM_BYTES = 4 << 20

_SKF_AD_OFF = 0xFFFFF000  # linux/filter.h, as the others below
_PKTTYPE, _RANDOM = _SKF_AD_OFF + 4, _SKF_AD_OFF + 56
_OUTGOING = 4
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE, _INDEX_IP, _LOAD_FLAGS = 0x20, 0x28, 0x30, 0xB1, 0x50
_AND, _IF_EQUAL, _RETURN = 0x54, 0x15, 0x06
_TCP, _UDP = 6, 17


def _number(address: str) -> int:
    (number,) = struct.unpack("!I", socket.inet_aton(address.partition("/")[0]))
    return int(number)


def filter_for(client: str) -> tuple[tuple[int, int, int, int], ...]:
    """Return the classic BPF program: operation, jump if true, jump if false, operand.

    Args:
        client: Its address, which no router has.
    """
    accept, reject = 16, 17
    floating = _number(FLOATING["public"])

    def jump(at: int, to: int) -> int:
        return to - at - 1

    return (
        (_LOAD_WORD, 0, 0, _RANDOM),
        (_AND, 0, 0, SHARE - 1),
        (_IF_EQUAL, 0, jump(2, reject), 0),
        (_LOAD_HALF, 0, 0, _PKTTYPE),
        (_IF_EQUAL, jump(4, reject), 0, _OUTGOING),
        (_LOAD_HALF, 0, 0, 12),
        (_IF_EQUAL, 0, jump(6, reject), 0x0800),
        (_LOAD_WORD, 0, 0, 14 + 12),
        (_IF_EQUAL, jump(8, 10), 0, _number(client)),
        (_IF_EQUAL, 0, jump(9, reject), floating),
        (_LOAD_BYTE, 0, 0, 14 + 9),
        (_IF_EQUAL, jump(11, accept), 0, _UDP),
        (_IF_EQUAL, 0, jump(12, reject), _TCP),
        # A first packet asks for a new flow; that it passes is an admission.
        (_INDEX_IP, 0, 0, 14),
        (_LOAD_FLAGS, 0, 0, 14 + 13),
        (0x45, jump(15, accept), jump(15, reject), 0x10),  # jump if any bit is set: ACK
        (_RETURN, 0, 0, 0xFFFF),
        (_RETURN, 0, 0, 0),
    )


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
        self._bins: dict[Port, _Bin] = {}
        client = next(h for h in topology.hosts if h.name == CLIENT).ports[0].address
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        attach(self.socket, filter_for(client))
        want_timestamps(self.socket)
        make_room(self.socket)
        self.socket.setblocking(False)  # noqa: FBT003

    def read(self) -> None:
        """Take what has come."""
        while True:
            try:
                _, control, _, origin = self.socket.recvmsg(34, CONTROL_BYTES)
            except BlockingIOError:
                break
            except OSError:
                continue  # an interface went down
            port = self._ports.get(origin[0])
            if port is not None:
                self._add(port, received_at(control))
        self.flush(time.monotonic_ns() - 2 * BIN_NS)

    def flush(self, before_ns: int) -> None:
        """Record the slices that began before an instant."""
        for port in [p for p, found in self._bins.items() if found.first_ns < before_ns]:
            self._close(port)

    def _add(self, port: Port, t_ns: int) -> None:
        found = self._bins.get(port)
        if found is not None and t_ns - found.first_ns > BIN_NS:
            self._close(port)
            found = None
        if found is None:
            self._bins[port] = _Bin(t_ns, t_ns, 1)
        else:
            found.last_ns = max(found.last_ns, t_ns)
            found.frames += 1

    def _close(self, port: Port) -> None:
        done = self._bins.pop(port)
        self._record(CarriedSeen(done.first_ns, done.last_ns, port.host, port.network, done.frames))


def attach(sock: socket.socket, lines: tuple[tuple[int, int, int, int], ...]) -> None:
    """Let only what a program accepts through to a packet socket.

    What came between its making and this is thrown away: nobody has looked at it.

    Raises:
        LabError: The kernel refuses the program.
    """
    program = b"".join(struct.pack("=HBBI", *line) for line in lines)
    buffer = ctypes.create_string_buffer(program, len(program))
    pointer = struct.pack("@HP", len(lines), ctypes.addressof(buffer))
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, pointer)
    except OSError as error:
        raise LabError(f"the kernel refuses a packet filter: {error.strerror}") from error
    with suppress(BlockingIOError):
        while True:
            sock.recv(1, socket.MSG_DONTWAIT)


def make_room(sock: socket.socket, size: int = ROOM_BYTES) -> None:
    """Let frames wait for us, more of them than the machine allows everybody."""
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size)


def dropped(sock: socket.socket) -> int:
    """Return how many frames had no room in a packet socket since this was asked last."""
    stats = sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, TPACKET_STATS.size)
    _, drops = TPACKET_STATS.unpack(stats)
    return int(drops)
