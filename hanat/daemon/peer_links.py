"""Connections and datagrams together: what the guard speaks through."""

from __future__ import annotations

from dataclasses import dataclass

from hanat.core.beacon import Beacon
from hanat.net.udp import MeshSockets
from hanat.raft.connections import RaftTransport
from hanat.raft.guard import Guard
from hanat.raft.messages import Message, encode


@dataclass(frozen=True, slots=True)
class PeerLinks:
    """Implements `raft.promises.Wire`."""

    transport: RaftTransport
    mesh: MeshSockets
    guard: Guard

    def send(self, peer: int, message: Message) -> bool:
        """Send a message over the connection; say whether there is one."""
        return self.transport.send(peer, message)

    def queued(self, peer: int) -> int:
        """Return how many bytes wait for the connection."""
        return self.transport.queued(peer)

    def beacon(self, peer: int, beacon: Beacon, message: Message | None) -> None:
        """Send a datagram, with a small message or without."""
        level = self.guard.level()
        self.mesh.send(peer, beacon, b"" if message is None else encode(message, level))
