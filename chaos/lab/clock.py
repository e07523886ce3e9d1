"""Kernel receive timestamps, on the clock of the history.

The kernel stamps packets by the wall clock; everything else here is CLOCK_MONOTONIC. The
difference is taken anew for every packet, so that a stepped wall clock spoils only what
was under way at that moment.
"""

from __future__ import annotations

import socket
import struct
import time

SO_TIMESTAMPNS = 35  # asm-generic/socket.h, also the type of the control message
CONTROL_BYTES = socket.CMSG_SPACE(16)
TRIES_MAX = 5
APART_NS_MAX = 50_000  # a reading takes some 0.1 microseconds


def want_timestamps(sock: socket.socket) -> None:
    """Ask the kernel to stamp what this socket receives."""
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)


def received_at(control: list[tuple[int, int, bytes]]) -> int:
    """Return when a packet arrived, monotonic ns, from what `recvmsg` gave with it."""
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = struct.unpack("qq", data[:16])
            mono_ns, wall_ns = _both_clocks()
            age_ns: int = wall_ns - (seconds * 1_000_000_000 + nanoseconds)
            return mono_ns - max(0, age_ns)
    return time.monotonic_ns()


def _both_clocks() -> tuple[int, int]:
    """Return what both clocks show at one instant, monotonic first.

    Whoever loses the core between the two readings would date packets back by as much.
    """
    tries = 0
    while True:
        tries += 1
        before_ns = time.monotonic_ns()
        wall_ns = time.clock_gettime_ns(time.CLOCK_REALTIME)
        if time.monotonic_ns() - before_ns < APART_NS_MAX or tries == TRIES_MAX:
            return before_ns, wall_ns
