"""A vote request on a connection that nobody used for long arrives at once.

The library cuts a connection that was quiet for its timeout when the next message is
sent on it: followers never talk to each other, so each first election failed. Two real
transports, in virtual time, over pipes in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_address
from random import Random
from typing import Any

import pytest

from hanat.core.configuration import PROFILES
from hanat.core.identity import Identity
from hanat.raft import connections
from hanat.raft.connections import Connection, RaftTransport
from hanat.raft.guard import Guard
from hanat.raft.messages import Message
from tests.sim.checks import CheckedJournal, Checks

ADDRESSES = {1: ip_address("192.0.2.1"), 2: ip_address("192.0.2.2")}
PROFILE = PROFILES["default"]


class Socket:
    """What a connection sets up, without effect."""

    def setsockopt(self, *_: object) -> None: ...


class Pipe(asyncio.Transport):
    """One end of a connection in memory; what is written arrives when asked to."""

    def __init__(self, remote: str) -> None:
        super().__init__({"peername": (remote, 1), "socket": Socket()})
        self.written = b""
        self.aborted = False

    def write(self, data: Any) -> None:  # noqa: ANN401 - asyncio's signature
        self.written += data

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True

    def get_write_buffer_size(self) -> int:
        return 0


class Leaderless(Guard):
    """A guard that belongs to no running node: it keeps what it is told."""

    received: list[Message]
    leading = False  # there is no library to ask

    def receive(self, peer: int, message: Message) -> None:
        self.received.append(message | {"from": peer})


def made(node_id: int, clock: Callable[[], float], *, port: int = 1) -> RaftTransport:
    """Return the transport of one of two nodes, neither of which leads."""
    peer = 3 - node_id
    guard = Leaderless(
        node_id=node_id,
        peer_ids=[peer],
        profile=PROFILE,
        journal=CheckedJournal(Checks(pytest.fail), node_id),
        clock=clock,
        rng=Random(node_id),
    )
    guard.received = []
    node = RaftTransport(
        identity=Identity(bytes(32), "edge1", PROFILE.lease_s, node_id),
        own=[ADDRESSES[node_id]],
        peers={peer: [ADDRESSES[peer]]},
        port=port,
        guard=guard,
        kick=lambda: None,
    )
    node.accepting = True
    return node


class Pair:
    """Two transports and the connection between them."""

    def __init__(self) -> None:
        self.now = 50.0
        self.transports = {node_id: made(node_id, lambda: self.now) for node_id in ADDRESSES}
        self.pipes = {node_id: Pipe(str(ADDRESSES[3 - node_id])) for node_id in ADDRESSES}
        self.ends = {
            node_id: Connection(owner, path=0, peer=2 if node_id == 1 else None)
            for node_id, owner in self.transports.items()
        }
        for node_id in (2, 1):  # the dialling end speaks first
            self.ends[node_id].connection_made(self.pipes[node_id])
        for _ in range(4):
            self.exchange()

    def received(self, node_id: int) -> list[Message]:
        """Return what a node's guard was told."""
        guard = self.transports[node_id]._guard
        assert isinstance(guard, Leaderless)
        return guard.received

    def exchange(self) -> None:
        """Let each end read what the other wrote, unless the connection is gone."""
        if any(pipe.aborted for pipe in self.pipes.values()):
            return
        for node_id, pipe in self.pipes.items():
            data, pipe.written = pipe.written, b""
            if data:
                self.ends[3 - node_id].data_received(data)

    def idle(self, duration_s: float) -> None:
        """Let time pass with nothing to say."""
        for _ in range(round(2 * duration_s / PROFILE.beacon_s)):
            self.now += PROFILE.beacon_s / 2
            for owner in self.transports.values():
                owner.tick()
            self.exchange()


@pytest.mark.parametrize("keepalives", [True, False])
def test_vote_request_after_ten_quiet_seconds_arrives_at_once(
    keepalives: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pair = Pair()
    if not keepalives:
        write = Connection.write
        monkeypatch.setattr(
            Connection, "write", lambda end, data: data == connections.KEEPALIVE or write(end, data)
        )
    pair.idle(10.0)
    request = {"type": "request_vote", "term": 7, "last_log_index": 3, "last_log_term": 6}
    pair.transports[1].send(2, request | {"transfer": False})
    pair.exchange()
    arrived = [m["term"] for m in pair.received(2)]
    assert arrived == ([7] if keepalives else [])
