"""Snapshots on their way from the leader to a follower that is behind the log's beginning.

The leader offers a snapshot with an empty piece; the follower answers from where it wants
it: from the start, or from where the same snapshot broke off with an earlier connection.
Pieces then follow each other in a window, each answered when it is stored, so that the
slower of disk and wire sets the pace and the leader hears that the follower lives.

None of this reaches the library before a snapshot is whole, checked by its digest and on
disk under its final name. Then it takes it over in one step, and is asked whether it did:
by itself it would report a failure as a success. A snapshot that is not needed any more
is not installed, or a log that is ahead of it would be lost.

The heartbeats that the follower gets meanwhile renew timers as ever; pieces do not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from hanat.errors import ConsensusError, JournalError, SnapshotError, WireError
from hanat.raft.compaction import holds

if TYPE_CHECKING:
    from hanat.raft.compaction import Readable, Snapshots
    from hanat.raft.durability import Durability
    from hanat.raft.library import LibraryNode
    from hanat.raft.messages import Message
    from hanat.raft.snapshot import Snapshot

log = logging.getLogger(__name__)

PIECE_BYTES = 256 * 1024
WINDOW_PIECES = 4
RETRY_S = 1.0


class Host(Protocol):
    """What of the guard a transfer needs."""

    nodes: Mapping[int, LibraryNode]
    durability: Durability
    raft: Any
    wire: Any
    clock: Callable[[], float]

    @property
    def term(self) -> int:
        """The Raft term."""
        ...

    @property
    def leading(self) -> bool:
        """Whether this node is the leader."""
        ...

    @property
    def leader(self) -> int | None:
        """Who leads this term, as far as known here."""
        ...

    def installed(self, peer: int, index: int) -> None:
        """Note that a follower holds everything up to an index."""
        ...

    def install(self, peer: int, index: int) -> bool:
        """Have the library take over the snapshot; say whether it did."""
        ...


@dataclass(slots=True)
class _Outgoing:
    reader: Readable
    term: int
    last: tuple[int, int]
    sent: int = 0
    stored: int = 0
    reading: bool = False
    wanted: bool = False  # the follower said from where


@dataclass(slots=True)
class _Incoming:
    peer: int
    term: int  # of whoever sent the newest piece
    last: tuple[int, int]
    digest: bytes
    size: int
    taken: int = 0  # handed to the disk
    stored: int = 0

    @property
    def idle(self) -> bool:
        """Whether it waits for more, and the disk is not at it."""
        return self.taken == self.stored < self.size

    @property
    def leader(self) -> tuple[int, int]:
        """Whom to answer, and in which term."""
        return self.peer, self.term


class Transfers:
    """Both ends of all transfers of one node.

    Args:
        host: The guard.
        snapshots: What is sent and replaced.
    """

    def __init__(self, host: Host, snapshots: Snapshots) -> None:
        self._host, self._snapshots = host, snapshots
        self._outgoing: dict[int, _Outgoing] = {}
        self._incoming: _Incoming | None = None
        self._not_before: dict[int, float] = {}  # for peers that refused one
        snapshots.receiving = lambda: self._incoming is not None

    @property
    def active(self) -> bool:
        """Whether a snapshot is under way, in either direction."""
        return bool(self._outgoing) or self._incoming is not None

    def settle(self) -> None:
        """End what came to nothing without a word; call it often.

        Somebody else leads, or the follower got entries: nobody ends such a transfer,
        and the log is not compacted during one.
        """
        for peer in sorted(self._outgoing):
            self.sending(peer)
        incoming = self._incoming
        if incoming is not None and incoming.idle and not self._needed(incoming):
            self._incoming = None

    def disconnected(self, peer: int) -> None:
        """Note that the connection to a peer is gone; what it stored stays stored."""
        self._end(peer)

    def receive(self, peer: int, message: Message) -> None:
        """Take a message about a snapshot."""
        if message["type"] == "snapshot":
            self._on_piece(peer, message)
        else:
            self._on_ack(peer, message)

    # ------------------------------------------------------------------- the leader

    def sending(self, peer: int) -> bool:
        """Say whether a peer is being sent a snapshot."""
        outgoing = self._outgoing.get(peer)
        host = self._host
        if outgoing is not None and (outgoing.term != host.term or not host.leading):
            self._end(peer)
        return peer in self._outgoing

    def start(self, peer: int) -> None:
        """Offer the current snapshot to a peer, unless one is under way."""
        host = self._host
        if self.sending(peer) or not host.leading or self._snapshots.spoiled:
            return
        if host.clock() < self._not_before.get(peer, 0.0):
            return
        last = self._snapshots.current
        try:
            reader = self._snapshots.store.open()
        except OSError as error:
            log.warning("snapshot peer=%d action=send found=%r", peer, str(error))
            reader = None
        if reader is None or last is None:
            self._snapshots.spoiled = last is not None
            return
        self._outgoing[peer] = _Outgoing(reader, self._host.term, last)
        self._send(peer, self._outgoing[peer], 0, b"")

    def _end(self, peer: int) -> None:
        outgoing = self._outgoing.pop(peer, None)
        if outgoing is not None and not outgoing.reading:
            outgoing.reader.close()

    def _send(self, peer: int, outgoing: _Outgoing, offset: int, data: bytes) -> None:
        reader = outgoing.reader
        message: Message = {"type": "snapshot", "term": outgoing.term, "last": outgoing.last}
        message |= {"size": reader.size, "digest": reader.digest, "offset": offset, "data": data}
        self._host.wire.send(peer, message)

    def _on_ack(self, peer: int, message: Message) -> None:
        outgoing = self._outgoing.get(peer)
        if outgoing is None or message["term"] != self._host.term or not self._host.leading:
            return
        if message["offset"] > outgoing.reader.size:
            raise WireError(f"node {peer} has {message['offset']} bytes of a shorter snapshot")
        match message["kind"]:
            case "installed":
                self._end(peer)
                self._host.installed(peer, message["index"])
            case "refused" | "damaged" as kind:
                self._end(peer)
                self._not_before[peer] = self._host.clock() + RETRY_S
                if kind == "damaged":
                    log.warning("snapshot peer=%d action=replace found='damaged'", peer)
                    self._snapshots.spoiled = True
            case kind:
                outgoing.stored = message["offset"]
                if kind == "from_here":
                    outgoing.sent, outgoing.wanted = message["offset"], True
                self._read(peer, outgoing)

    def _read(self, peer: int, outgoing: _Outgoing) -> None:
        """Send the next piece if the window allows."""
        offset, reader = outgoing.sent, outgoing.reader
        in_flight = offset - outgoing.stored
        if outgoing.reading or not outgoing.wanted or offset >= reader.size:
            return
        if in_flight >= WINDOW_PIECES * PIECE_BYTES:
            return
        outgoing.reading = True
        pieces: list[bytes] = []

        def done(error: BaseException | None) -> None:
            outgoing.reading = False
            if self._outgoing.get(peer) is not outgoing:
                reader.close()
                return
            if error is not None or not pieces[0]:
                log.warning("snapshot peer=%d action=read found=%r", peer, str(error or "end"))
                self._end(peer)
                self._snapshots.spoiled = outgoing.last == self._snapshots.current
                return
            if outgoing.sent == offset:
                outgoing.sent += len(pieces[0])
                self._send(peer, outgoing, offset, pieces[0])
            self._read(peer, outgoing)

        self._snapshots.background(lambda: pieces.append(reader.read(offset, PIECE_BYTES)), done)

    # ----------------------------------------------------------------- the follower

    def _on_piece(self, peer: int, message: Message) -> None:
        host, (index, term) = self._host, message["last"]
        if message["term"] < host.term:
            host.wire.send(peer, {"type": "stale_term", "term": host.term})
            return
        unfit = host.durability.failure is not None
        if message["term"] > host.term or host.leader != peer or unfit:
            self._answer((peer, message["term"]), "refused")
            return
        applied = int(host.raft.raftLastApplied)
        if applied >= index or holds(host.durability, index, term):
            self._hold_already((peer, message["term"]), max(index, applied), needed=index)
            return
        incoming = self._expected(peer, message)
        if incoming is None:
            self._answer((peer, message["term"]), "refused")
        elif not message["data"] or message["offset"] != incoming.taken:
            self._answer((peer, message["term"]), "from_here", offset=incoming.taken)
        else:
            self._store(incoming, message)

    def _answer(
        self, leader: tuple[int, int], kind: str, *, index: int = 0, offset: int = 0
    ) -> None:
        """Answer a leader in the term in which it asked.

        It waits for the answer; a refusal shows nothing that would have to be on disk.
        """
        peer, term = leader
        message: Message = {"type": "snapshot_ack", "kind": kind, "term": term}
        message |= {"index": index, "offset": offset}
        if not self._host.durability.may_send():
            message |= {"kind": "refused", "index": 0, "offset": 0}
        self._host.wire.send(peer, message)

    def _hold_already(self, leader: tuple[int, int], known: int, *, needed: int) -> None:
        """Tell the leader what is known to match: what is applied is committed, and it has that.

        Only of what is on disk; if that is less than the snapshot, it asks again.
        """
        limit = self._host.durability.limit
        known = known if limit is None else min(known, limit)
        kind = "installed" if known >= needed else "refused"
        self._answer(leader, kind, index=known if known >= needed else 0)

    def _expected(self, peer: int, message: Message) -> _Incoming | None:
        """Return what a piece belongs to; None if it has to wait for other work."""
        incoming = self._incoming
        if incoming is not None and incoming.digest == message["digest"]:
            if incoming.taken == incoming.size:
                return None  # all there: it is being checked
            incoming.peer, incoming.term = peer, message["term"]
            return incoming
        if self._snapshots.busy if incoming is None else not incoming.idle:
            return None
        self._incoming = _Incoming(
            peer, message["term"], message["last"], message["digest"], message["size"]
        )
        return self._incoming

    def _store(self, incoming: _Incoming, message: Message) -> None:
        offset, data = message["offset"], message["data"]
        incoming.taken += len(data)

        def done() -> None:
            incoming.stored += len(data)
            self._answer(incoming.leader, "stored", offset=incoming.stored)
            if incoming.stored == incoming.size:
                self._check(incoming)

        self._work(incoming, lambda: self._snapshots.store.receive(data, offset), done)

    def _work(
        self, incoming: _Incoming, work: Callable[[], None], done: Callable[[], None]
    ) -> None:
        """Do slow work for what comes in; if that fails, it does not come in."""

        def ended(error: BaseException | None) -> None:
            if self._incoming is not incoming:
                return
            if error is None:
                done()
            elif isinstance(error, (OSError, SnapshotError)):
                log.warning("snapshot index=%d found=%r", incoming.last[0], str(error))
                self._incoming = None
                damaged = isinstance(error, SnapshotError) and error.damaged
                self._answer(incoming.leader, "damaged" if damaged else "refused")
            else:
                raise error

        self._snapshots.background(work, ended)

    def _check(self, incoming: _Incoming) -> None:
        found: list[Snapshot] = []
        store = self._snapshots.store

        def checked() -> None:
            if found[0].last[1:] != incoming.last or not self._needed(incoming):
                self._incoming = None
                self._answer(incoming.leader, "refused")
                return
            self._work(incoming, store.adopt, lambda: self._install(incoming, found[0]))

        self._work(incoming, lambda: found.append(store.received()), checked)

    def _needed(self, incoming: _Incoming) -> bool:
        applied = int(self._host.raft.raftLastApplied)
        return applied < incoming.last[0] and not holds(self._host.durability, *incoming.last)

    def _install(self, incoming: _Incoming, found: Snapshot) -> None:
        """Let the library take it over, and tell the leader if it did."""
        self._snapshots.adopted(found)
        try:
            done = (
                self._needed(incoming)
                and self._host.durability.failure is None
                and self._host.install(incoming.peer, incoming.last[0])
            )
        except JournalError:  # `durability` has noted it
            done = False
        self._snapshots.check()
        if not done and not self._snapshots.pending:
            # The state is that of the snapshot and the log is not: a restart brings both.
            raise ConsensusError(f"snapshot index={incoming.last[0]}: the log did not follow it")
        self._incoming = None
        kind = "installed" if done else "refused"
        self._answer(incoming.leader, kind, index=incoming.last[0])
