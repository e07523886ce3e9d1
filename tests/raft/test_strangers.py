"""Connections that prove nothing: there are few of them, and they hold little."""

from __future__ import annotations

from itertools import count

from hanat.core.identity import Identity
from hanat.net.secure_stream import NONCE_BYTES, SecureStream
from hanat.raft.connections import (
    STRANGERS_MAX,
    STRANGERS_PER_ADDRESS_MAX,
    Connection,
    RaftTransport,
)
from tests.sim.test_quiet_connection import ADDRESSES, PROFILE, Pipe, made


def _calls(node: RaftTransport, count: int, *, remote: str) -> list[tuple[Connection, Pipe]]:
    """Return connections from an address, none of which says anything."""
    found = []
    for _ in range(count):
        pipe = Pipe(remote)
        connection = Connection(node, path=0, peer=None)
        connection.connection_made(pipe)
        found.append((connection, pipe))
    return found


def test_of_one_address_only_the_newest_strangers_stay() -> None:
    now = count(50.0)
    node = made(2, lambda: float(next(now)))
    calls = _calls(node, 64, remote=str(ADDRESSES[1]))
    open_ones = [number for number, (_, pipe) in enumerate(calls) if not pipe.aborted]
    assert open_ones == list(range(64 - STRANGERS_PER_ADDRESS_MAX, 64))
    assert len(node._open) == STRANGERS_PER_ADDRESS_MAX <= STRANGERS_MAX


def test_address_of_nobody_is_cut_off_at_once() -> None:
    node = made(2, lambda: 50.0)
    ((_, pipe),) = _calls(node, 1, remote="198.51.100.1")
    assert pipe.aborted
    assert not node._open


def test_recorded_hello_and_a_large_frame_are_cut_off_and_hold_nothing() -> None:
    node = made(2, lambda: 50.0)
    identity = Identity(bytes(32), "edge1", PROFILE.lease_s, 1)
    recorded = SecureStream(identity, nonce=b"r" * NONCE_BYTES, peer=2).opening()
    ((connection, pipe),) = _calls(node, 1, remote=str(ADDRESSES[1]))
    connection.data_received(recorded)
    connection.data_received((8 << 20).to_bytes(4) + bytes(1000))
    assert pipe.aborted
    assert node.refusals == 1
