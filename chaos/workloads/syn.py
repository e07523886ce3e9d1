"""New TCP connections at a fixed rate: one SYN each, from a port of its own, never repeated.

The question is when a router admits new flows, to a few milliseconds. A connection by
the kernel cannot tell: it repeats its first SYN after a second, and costs a server process
more than a fast machine's outage is long. So a raw socket sends the SYN of RFC 9293 and waits
for the SYN-ACK, whose acknowledgement carries the number of the probe. The kernel here
knows of no such connection and answers with a reset, which also removes the half-open one
from the server and from the routers' tables.
"""

from __future__ import annotations

import socket
import struct

from chaos.lab.clock import CONTROL_BYTES, received_at, want_timestamps
from chaos.lab.stop import Stop
from chaos.observe.frames import checksum
from chaos.observe.run_history import Probes
from chaos.workloads import probing

FIRST_PORT = 10_000  # below the kernel's own choice, ip_local_port_range
PORTS = 20_000  # 40 s at 500 a second: longer than the tables remember a reset (10 s)
HEADER = struct.Struct("!HHIIBBHHH")  # RFC 9293, section 3.1
SYN, ACK, RST = 0x02, 0x10, 0x04
WINDOW = 1024
DATA_OFFSET = (HEADER.size // 4) << 4


def run(name: str, target: tuple[str, int], *, period_s: float, stop: Stop) -> Probes:
    """Probe until told to stop."""
    address, port = target
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP) as sock:
        want_timestamps(sock)
        sock.setblocking(False)  # noqa: FBT003
        sock.connect((address, 0))  # a raw socket hears this peer alone
        own = sock.getsockname()[0]
        return probing.run(
            name, _Handshake(sock, own, (address, port)), period_s=period_s, stop=stop
        )


def pseudo_header(own: str, peer: str) -> bytes:
    """Return what the checksum covers beside the segment (RFC 9293, 3.1; RFC 8200, 8.1)."""
    if ":" in own:
        ends = b"".join(socket.inet_pton(socket.AF_INET6, end) for end in (own, peer))
        return ends + struct.pack("!II", HEADER.size, socket.IPPROTO_TCP)
    ends = socket.inet_aton(own) + socket.inet_aton(peer)
    return ends + struct.pack("!HH", socket.IPPROTO_TCP, HEADER.size)


class _Handshake:
    """Implements `probing.Exchange`."""

    def __init__(self, sock: socket.socket, own: str, target: tuple[str, int]) -> None:
        self._sock = sock
        self._port = target[1]
        self._pseudo = pseudo_header(own, target[0])

    def _header(self, packet: bytes) -> int:
        """Length of the IP header, which raw sockets of IPv6 leave out (RFC 3542, section 3)."""
        return 0 if self._sock.family is socket.AF_INET6 else (packet[0] & 0x0F) * 4

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, number: int) -> None:
        self._sock.send(syn(number, self._port, self._pseudo))

    def receive(self) -> tuple[int | None, int] | None:
        packet, control, _, _ = self._sock.recvmsg(128, CONTROL_BYTES)
        number = answered(packet[self._header(packet) :], self._port)
        return None if number is None else (number, received_at(control))


def syn(number: int, port: int, pseudo: bytes) -> bytes:
    """Return the segment that asks for the connection of that number.

    Args:
        number: Its initial sequence number; the source port follows from it.
        port: Where to.
        pseudo: The pseudo-header that the checksum covers.
    """
    source = FIRST_PORT + number % PORTS
    fields = (source, port, number, 0, DATA_OFFSET, SYN, WINDOW)
    sum_ = checksum(pseudo + HEADER.pack(*fields, 0, 0))
    return HEADER.pack(*fields, sum_, 0)


def answered(segment: bytes, port: int) -> int | None:
    """Return the number of the connection that a segment accepts, None if it accepts none."""
    if len(segment) < HEADER.size:
        return None
    source, to, _, acknowledged, _, flags, _, _, _ = HEADER.unpack_from(segment)
    number: int = (acknowledged - 1) % (1 << 32)
    if source != port or flags & (SYN | ACK | RST) != SYN | ACK:
        return None
    return number if to == FIRST_PORT + number % PORTS else None
