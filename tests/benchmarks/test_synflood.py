"""The flood of SYN: frames that a router takes for connections, and what is said of clients."""

from __future__ import annotations

import struct
from dataclasses import replace

from benchmarks.rawflows import BATCH, FRAME_BYTES, STRIDE, Side
from benchmarks.synflood import Probes, Row, frames, markdown

SIDE = Side("none", "eth0", "02:00:00:00:00:11", "", "203.0.113.10")


def _sums_up(data: bytes) -> bool:
    """Say whether a checksum within the data is right (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total == 0xFFFF


def test_each_frame_is_the_syn_of_another_client_with_sound_checksums() -> None:
    batches = list(frames(SIDE, 9100, 3 * BATCH))
    made = [batch[i : i + STRIDE] for batch in batches for i in range(0, len(batch), STRIDE)]

    assert len(made) == 3 * BATCH
    clients = set()
    for frame in made:
        assert frame[:6] == bytes.fromhex("020000000011")
        assert not any(frame[FRAME_BYTES:])
        head, tcp = frame[14:34], frame[34:FRAME_BYTES]
        assert _sums_up(head)
        assert _sums_up(head[12:] + struct.pack("!HH", 6, len(tcp)) + tcp)
        assert (tcp[2:4], tcp[13]) == (struct.pack("!H", 9100), 0x02)
        clients.add(head[12:16] + tcp[:2])
    assert len(clients) == len(made)


def test_row_has_what_clients_met() -> None:
    nobody, some = Probes(4, (), 0.25), Probes(4, (0.001, 0.002, 3.1), 0.5)

    dead = replace(nobody, kept_s=None)

    *_, first, second = markdown(
        [Row("hanat", 50_000.4, some, one, 262_144, 0) for one in (nobody, dead)]
    ).splitlines()

    assert first == "| hanat | 50,000 | 75 % | 2.0 / 3100 | 0 % | - | 500 | 262,144 | 0 |"
    assert second == "| hanat | 50,000 | 75 % | 2.0 / 3100 | 0 % | - | ended | 262,144 | 0 |"
