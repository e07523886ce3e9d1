"""Open many TCP connections through a router, as raw frames: ``python -m benchmarks.rawflows``.

One process plays both ends: the client's SYN and ACK into one network, the server's SYN/ACK
into the other. Nothing is answered or waited for, so that all a connection costs is what the
router does for it. Frames are made before the time runs. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import ctypes
import ipaddress
import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from chaos.lab.netns import entered

PORTS = 64_000  # of a client, for each port of the service
FIRST_CLIENT_PORT, FIRST_SERVICE_PORT = 1024, 9100
BATCH = 32
STRIDE = 64
FRAME_BYTES = 54
SYN, RST, ACK = 0x02, 0x04, 0x10
SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Side:
    """One end of the connections: where its frames go in, and its addresses on the wire.

    Attributes:
        namespace: Of the host that sends.
        device: Its device.
        router_mac: Who gets the frames, ``02:00:...``.
        source: IPv4 address that is sent from.
        destination: And to.
    """

    namespace: str
    device: str
    router_mac: str
    source: str
    destination: str


class _Vector(ctypes.Structure):  # struct iovec
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):  # struct msghdr
    _fields_ = (
        ("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_Vector)), ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )  # fmt: skip


class _Message(ctypes.Structure):  # struct mmsghdr
    _fields_ = (("header", _Header), ("sent", ctypes.c_uint))


class Sender:
    """Sends frames of one length, many with a call."""

    def __init__(self, side: Side) -> None:
        with entered(side.namespace):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.bind((side.device, 0))
        self._socket.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        self._buffer = ctypes.create_string_buffer(BATCH * STRIDE)
        start = ctypes.addressof(self._buffer)
        self._vectors = (_Vector * BATCH)(
            *(_Vector(start + i * STRIDE, FRAME_BYTES) for i in range(BATCH))
        )
        self._messages = (_Message * BATCH)()
        for message, vector in zip(self._messages, self._vectors, strict=True):
            message.header.vectors, message.header.vector_count = ctypes.pointer(vector), 1

    def send(self, frames: bytes) -> None:
        """Send up to `BATCH` frames, each at the begin of `STRIDE` bytes."""
        ctypes.memmove(self._buffer, frames, len(frames))
        count, done = len(frames) // STRIDE, 0
        while done < count:
            messages = ctypes.byref(self._messages, done * ctypes.sizeof(_Message))
            sent = _libc.sendmmsg(self._socket.fileno(), messages, count - done, 0)
            if sent < 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
            done += sent


def frames(side: Side, *, flags: int, numbers: range, client: bool) -> bytes:
    """Return the frames of one side for some connections, each in `STRIDE` bytes.

    Args:
        side: Who sends.
        flags: Of TCP.
        numbers: Of the connections.
        client: Whether the side is the client's.
    """
    ethernet = bytes.fromhex(side.router_mac.replace(":", "")) + bytes.fromhex("02aabbccdd01")
    source, destination = (ipaddress.ip_address(a).packed for a in (side.source, side.destination))
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 0, 0x4000, 64, 6, 0, source, destination)
    ip = ip[:10] + struct.pack("!H", ~_sum(ip) & 0xFFFF) + ip[12:]
    head = ethernet + b"\x08\x00" + ip
    sequence, acknowledged = (1000, 5000) if client else (5000, 1000)
    if flags == SYN:
        acknowledged = 0
    elif flags == SYN | ACK:
        acknowledged += 1
    else:
        sequence, acknowledged = sequence + 1, acknowledged + 1
    rest = struct.pack("!IIBBHHH", sequence, acknowledged, 0x50, flags, 65000, 0, 0)
    base = _sum(source + destination + struct.pack("!HH", 6, 20) + rest)
    parts: list[bytes] = []
    padding = bytes(STRIDE - FRAME_BYTES)
    for number in numbers:
        near = FIRST_CLIENT_PORT + number % PORTS
        far = FIRST_SERVICE_PORT + number // PORTS
        ports = (near, far) if client else (far, near)
        total = base + near + far
        total = (total & 0xFFFF) + (total >> 16)
        total = (total & 0xFFFF) + (total >> 16)
        tcp = struct.pack("!HH", *ports) + rest[:12] + struct.pack("!HH", ~total & 0xFFFF, 0)
        parts.append(head + tcp + padding)
    return b"".join(parts)


def _sum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def run(client: Side, server: Side, *, numbers: range, rate: float, reset: bool) -> float:
    """Open (or reset) connections; return how many seconds that took.

    Args:
        client: Where the SYN goes in.
        server: Where the SYN/ACK goes in.
        numbers: Of the connections.
        rate: Connections a second; 0: as fast as it goes.
        reset: End them instead.
    """
    senders = Sender(client), Sender(server)
    steps: list[tuple[Sender, bytes]] = []
    if reset:
        made = frames(client, flags=RST | ACK, numbers=numbers, client=True)
        steps.append((senders[0], made))
    else:
        steps = [
            (senders[0], frames(client, flags=SYN, numbers=numbers, client=True)),
            (senders[1], frames(server, flags=SYN | ACK, numbers=numbers, client=False)),
            (senders[0], frames(client, flags=ACK, numbers=numbers, client=True)),
        ]
    began = time.monotonic()
    for first in _paced(len(numbers), rate, began):
        for sender, made in steps:
            sender.send(made[first * STRIDE : (first + BATCH) * STRIDE])
    return time.monotonic() - began


def _paced(count: int, rate: float, began: float) -> Iterator[int]:
    for first in range(0, count, BATCH):
        if rate and (left_s := began + first / rate - time.monotonic()) > 0:
            time.sleep(left_s)
        yield first


def main() -> None:
    """Do it once."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rawflows", description=__doc__)
    for name in ("client", "server"):
        parser.add_argument(f"--{name}", nargs=5, required=True, metavar="PART")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--reset", action="store_true")
    options = parser.parse_args()
    numbers = range(options.first, options.first + options.count)
    seconds = run(
        Side(*options.client),
        Side(*options.server),
        numbers=numbers,
        rate=options.rate,
        reset=options.reset,
    )
    print(json.dumps({"flows": len(numbers), "seconds": seconds}))


if __name__ == "__main__":
    main()
