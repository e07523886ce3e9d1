"""Brings what this node saw of holders into the replicated history.

Only a leader can propose. Another node sends its events to the leader it follows, again
each second until it sees them in the log, where each counts once. A leader proposes each
once in its term, and few that wait for a commit: where nothing is committed for a day, the
log would else have 260,000 of them. What was not told when
this process ends is lost, but for a node that is told to end: it proposes while it still
leads. So an event of a crashed holder is never there; its successor's is.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from typing import Any

from hanat.config.settings import NodeSettings
from hanat.core.beacon import Heard
from hanat.core.history import (
    EVENTS_MAX,
    Event,
    Taking,
    Witness,
    decode,
    in_order,
    is_settled,
    last_takeover,
    words,
)
from hanat.core.node_snapshot import NodeSnapshot
from hanat.core.peer_trace import PeerTrace, TraceRecorder, silence_s
from hanat.core.status import Role
from hanat.daemon.worker_link import WorkerLink
from hanat.raft.guard import Guard
from hanat.raft.messages import Message
from hanat.raft.replica import Replica
from hanat.raft.state import Happened

log = logging.getLogger(__name__)

PENDING_MAX = 50
PROPOSED_MAX = 200  # of all nodes, that wait for a commit
REPEAT_S = 1.0
RECENT_EVENTS = 32  # among these the last takeover is looked for: all would cost 5 ms of the loop


@dataclass(frozen=True, slots=True)
class HistoryRecorderParts:
    """Where a node's history comes from.

    Attributes:
        heard_at: Returns when a peer was heard last on a path, None if never.
        clock: Seconds of CLOCK_BOOTTIME.
        wall: Seconds since 1970.
        frames: Returns how many announcements were sent since the start.
    """

    settings: NodeSettings
    replica: Replica
    guard: Guard
    heard_at: Callable[[int, int | None], float | None]
    worker: WorkerLink
    clock: Callable[[], float]
    wall: Callable[[], float]
    frames: Callable[[], int]


class HistoryRecorder:
    """Watches this node, tells what it saw, and shows what all told.

    Args:
        parts: Where it comes from.
        witness: Makes events.
        snapshot: Returns what the node is now.
        origin: Incarnation of this process.
        kick: Called when something was proposed.
    """

    def __init__(
        self,
        parts: HistoryRecorderParts,
        witness: Witness,
        *,
        snapshot: Callable[[], NodeSnapshot],
        origin: int,
        kick: Callable[[], None],
    ) -> None:
        self._parts, self._witness, self._snapshot = parts, witness, snapshot
        self._origin, self._kick = origin, kick
        self._serial = 0
        others = [peer for peer in parts.settings.peers if peer != parts.settings.myself]
        silence = silence_s(parts.guard.profile)
        self._watches = {peer.node_id: TraceRecorder(silence) for peer in others}
        self._paths = {peer.node_id: range(len(peer.addresses)) for peer in others}
        self._taking: tuple[NodeSnapshot, int] | None = None  # and the frames before
        self._pending: deque[Happened] = deque(maxlen=PENDING_MAX)
        self._told_at = 0.0
        self._proposed: set[tuple[int, int]] = set()  # in the term, and not applied
        self._proposed_term = 0
        parts.guard.on_event = self._forwarded

    # ----------------------------------------------------------------- watching

    def died(self, peer: int) -> None:
        """A peer's supervisor said that its daemon is dead."""
        self._watches[peer].died(self._parts.clock())

    def hear(self, said: Heard) -> None:
        """Note what a peer says of having led."""
        self._watches[said.peer].hear(said, self._parts.clock(), self._heard_at(said.peer))

    def entered(self, was: Role) -> None:
        """Note that this node entered a role."""
        now = self._snapshot()
        self._parts.guard.shut = now.role is not Role.ACTIVE
        if now.role is Role.TAKEOVER:
            self._witness.elected(now, self._signs())
        if now.role is Role.ACTIVE:
            self._taking = now, self._parts.frames()
        elif was is Role.ACTIVE:
            self._finish_taking()
            event = self._witness.gave_up(now, self._parts.wall())
            if event is not None:
                self._add(event)

    def look(self) -> None:
        """Tell what there is to tell, if this is a moment for it."""
        self._finish_taking()
        if self._pending and is_settled(self._snapshot()):
            self._tell()

    def _finish_taking(self) -> None:
        if self._taking is None:
            return
        (snapshot, frames), self._taking = self._taking, None
        flows = self._parts.worker.status()
        last = last_takeover(islice(self._newest(), RECENT_EVENTS))
        taking = Taking(
            previous=None if last is None else last.node_id,
            previous_term=0 if last is None else last.term,
            wall_s=self._parts.wall(),
            frames=self._parts.frames() - frames,
            flows=flows.flows,
            complete=flows.complete,
        )
        self._add(self._witness.took_over(snapshot, taking))

    def _signs(self) -> dict[int, PeerTrace]:
        return {peer: watch.sign(self._heard_at(peer)) for peer, watch in self._watches.items()}

    def _heard_at(self, peer: int) -> tuple[float | None, ...]:
        return tuple(self._parts.heard_at(peer, path) for path in self._paths[peer])

    # ------------------------------------------------------------------ telling

    def _add(self, event: Event) -> None:
        self._serial += 1
        self._pending.append(Happened(self._origin, self._serial, event.encode()))
        self._told_at = 0.0
        names = {peer.node_id: peer.name for peer in self._parts.settings.peers}
        log.info("history term=%d %r", event.term, words(event, names))

    def _tell(self) -> None:
        parts, now = self._parts, self._parts.clock()
        if now - self._told_at < REPEAT_S:
            return
        self._told_at = now
        leader = parts.replica.leader
        for happened in self._pending:
            if parts.replica.leading:
                self._propose(happened)
            elif leader is not None:
                fields = {"serial": happened.serial, "event": happened.event}
                message: Message = {"type": "event", "origin": happened.origin, **fields}
                parts.guard.wire.send(leader, message)

    def _propose(self, happened: Happened) -> None:
        """Propose an event, once in a term."""
        replica = self._parts.replica
        if replica.term != self._proposed_term:
            self._proposed_term = replica.term
            self._proposed.clear()
        name = happened.origin, happened.serial
        if name in self._proposed or len(self._proposed) >= PROPOSED_MAX:
            return
        if replica.propose(happened):
            self._proposed.add(name)
            self._kick()

    def _forwarded(self, message: Message) -> None:
        """Propose what a peer told."""
        happened = Happened(message["origin"], message["serial"], message["event"])
        if happened in self._parts.replica.state.events:
            return
        self._propose(happened)

    def applied(self, happened: Happened) -> None:
        """An event is in the log."""
        self._proposed.discard((happened.origin, happened.serial))
        if happened in self._pending:
            self._pending.remove(happened)

    def restored(self) -> None:
        """The log has become that of a snapshot."""
        known = self._parts.replica.state.events
        for happened in [happened for happened in self._pending if happened in known]:
            self._pending.remove(happened)

    # ------------------------------------------------------------------ showing

    def _newest(self) -> Iterator[Event]:
        """Return what the log has and this version understands, newest first."""
        found = (_decoded(entry.event) for entry in reversed(self._parts.replica.state.events))
        return (event for event in found if event is not None)

    def show(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest events, oldest first; see `api.backend.Backend.history`."""
        names = {peer.node_id: peer.name for peer in self._parts.settings.peers}
        newest = list(islice(self._newest(), limit))[::-1]
        return [_document(event, names) for event in in_order(newest)]


_decoded = lru_cache(maxsize=EVENTS_MAX)(decode)


def _document(event: Event, names: dict[int, str]) -> dict[str, Any]:
    previous = event.previous
    return {
        "at": datetime.fromtimestamp(event.at_s, UTC).isoformat(timespec="milliseconds"),
        "at_s": event.at_s,
        "term": event.term,
        "node": names.get(event.node_id, f"node {event.node_id}"),
        "node_id": event.node_id,
        "what": event.what,
        "why": event.why,
        "found": event.found,
        "previous": None if previous is None else names.get(previous, f"node {previous}"),
        "silent_s": list(event.silent_s),
        "without_s": event.without_s,
        "elected_s": event.elected_s,
        "announcements": event.frames,
        "flows": event.flows,
        "complete": event.complete,
        "held_s": event.held_s,
        "text": words(event, names),
    }
