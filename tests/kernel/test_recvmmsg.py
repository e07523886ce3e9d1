"""Datagrams come out as they went in, and room for them is no memory before they come."""

from __future__ import annotations

import subprocess
import sys
from socket import AF_UNIX, SO_SNDBUF, SOCK_DGRAM, SOL_SOCKET, socketpair

from hanat.kernel.recvmmsg import SLOT_BYTES, SLOTS, Burst


def test_datagrams_are_read_in_order_and_cut_off_at_their_slots() -> None:
    ours, theirs = socketpair(AF_UNIX, SOCK_DGRAM)
    with ours, theirs:
        ours.setsockopt(SOL_SOCKET, SO_SNDBUF, 1 << 22)
        sent = [b"first", b"x" * (SLOT_BYTES + 1), b"", b"last"]
        burst = Burst()
        for _ in range(2):  # a slot that was long holds a short one
            for datagram in sent:
                ours.send(datagram)

            assert burst.read(theirs) == [datagram[:SLOT_BYTES] for datagram in sent]
            sent.reverse()
        assert burst.read(theirs) == []


def test_room_for_a_burst_is_no_memory_yet() -> None:
    code = (
        "import re\n"
        "from pathlib import Path\n"
        "from hanat.kernel.recvmmsg import Burst\n"
        "def kib():\n"
        "    rollup = Path('/proc/self/smaps_rollup').read_text()\n"
        "    return int(re.search(r'^Anonymous: +([0-9]+) kB$', rollup, re.MULTILINE)[1])\n"
        "before = kib()\n"
        "bursts = [Burst() for _ in range(4)]\n"
        "print(kib() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert int(done.stdout) * 1024 < SLOTS * SLOT_BYTES
