"""Why nobody holds the floating addresses, as far as one node knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hanat.core.node_snapshot import NodeSnapshot
from hanat.core.status import PeerStatus, Role


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a node knows.

    Attributes:
        node: Its name.
        quorum: It is connected to a majority, itself included.
        can_vote: It can vote and store.
        leader: Name of the leader that it follows, None if it knows none.
    """

    node: str
    quorum: bool
    can_vote: bool
    leader: str | None
    peers: Sequence[PeerStatus]


def why_nobody(snapshot: NodeSnapshot, known: Circumstances, now: float) -> tuple[str, ...]:
    """Return sentences for an operator, the most likely cause first.

    Args:
        snapshot: Of the node.
        known: What else it knows.
        now: Seconds of the clock of the snapshot.
    """
    found: list[str] = []
    if not known.quorum:
        away = ", ".join(peer.name for peer in known.peers if not peer.connected)
        found.append(f"{known.node} sees no majority: no connection to {away}")
    elif known.leader is None:
        found.append("no leader: an election is under way, or no node can win one")
    elif known.leader == known.node:
        found.append(_of_leader(snapshot, known.node, now))
    elif any(peer.name == known.leader and peer.handicap is None for peer in known.peers):
        wait = "another node stands when its promise to it is over"
        found.append(f"nothing is heard of {known.leader}, which led: {wait}")
    else:
        found.append(f"{known.leader} leads, but does not hold the addresses: see its status")
    if not known.can_vote:
        found.append(f"{known.node} cannot vote: {_own(snapshot) or 'it started just now'}")
    elif snapshot.unsafe:
        found.append(f"{known.node} must not hold: {'; '.join(snapshot.unsafe)}")
    for peer in known.peers:
        if peer.connected and not peer.fit:
            why = "it is unsafe" if peer.unsafe else "it cannot vote, or started just now"
            found.append(f"{peer.name} cannot take over: {why}; see its status")
    return tuple(found)


def _own(snapshot: NodeSnapshot) -> str:
    return "; ".join((*snapshot.unsafe, *snapshot.hindrances))


def _of_leader(snapshot: NodeSnapshot, node: str, now: float) -> str:
    if snapshot.unsafe:
        return f"{node} leads and must not hold: {'; '.join(snapshot.unsafe)}"
    if snapshot.role is Role.RELEASING:
        return f"{node} has given the addresses up ({snapshot.reason.value}), nobody took over yet"
    if snapshot.lease_until <= now:
        return f"{node} leads without a lease: no majority answers its beacons in time"
    return f"{node} leads and waits: for its log to commit, its flows or its ruleset"
