"""The repairs that make PySyncObj safe, made from outside in its transport.

Every message passes here before the library sees it, so it can be checked,
changed, answered or invented; no private attribute of the library is touched.
What goes wrong without each part:

- *generations*: a reply carries the term and the generation of what it answers.
  Without, late replies of an earlier term or before a rewind move match and next
  index (a leader can commit alone).
- *pacing*: we decide what each follower gets next, in slices of bounded size with
  a bounded window. The library rewinds to every acknowledgement and sends all
  that is in flight again, or packs the whole rest of the log into one message.
- *prefix*: entries that match are kept. The library deletes everything behind the
  point where a message starts, also what is committed.
- *clamp*: the commit index never passes what the very message verified.

What concerns leaders and votes is in `elections`.

Source: Ongaro, "Consensus: Bridging Theory and Practice", 2014, section 3.4; the
library's issues 166, 167, 197, 201.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random  # noqa: TID251 - as a type: the source is a parameter
from typing import TYPE_CHECKING

from hanat.core.configuration import Profile
from hanat.errors import JournalError, WireError
from hanat.raft.compaction import NoStore, Snapshots
from hanat.raft.durability import Matches
from hanat.raft.elections import Elections
from hanat.raft.library import LibraryNode
from hanat.raft.promises import HEARTBEAT_BEACONS, RaftView, Wire
from hanat.raft.snapshot_transfer import Transfers
from hanat.raft.state import State

if TYPE_CHECKING:
    from hanat.raft.journal import Log
    from hanat.raft.messages import Entry, Message

SLICE_ENTRIES_MAX = 1000
SLICE_BYTES_MAX = 256 * 1024
WINDOW_SLICES = 4
# What a node hears that took part last under another member list.
ABOUT_ELECTIONS = frozenset(
    {"request_vote", "response_vote", "pre_vote", "pre_vote_ok", "pre_vote_if_all", "stale_term"}
)
# Sent when leadership was lost between proposal and tick: the proposer hears of it, and decides
# anew.
NOT_FORWARDED = frozenset({"apply_command", "apply_command_response"})


@dataclass(slots=True)
class Outgoing:
    """What we know, as leader of a term, about one follower on one connection.

    Attributes:
        generation: Grows at each rewind; answers to older ones do not rewind again.
        sent: Highest index put on the wire since the last rewind.
        ends: Last index of each slice in flight, oldest first.
        told: Index sent and commit index in the newest message.
        told_at: When that was, seconds of CLOCK_BOOTTIME.
    """

    term: int
    generation: int
    sent: int
    ends: list[int] = field(default_factory=list)
    told: tuple[int, int] = (-1, -1)
    told_at: float = 0.0


class Guard(Elections):
    """The library's transport, with the repairs, over any `Wire`.

    Attributes:
        stirred: The library has heard something; whoever ticks it makes this False.
        asked_at: When it last wanted something appended, seconds of CLOCK_BOOTTIME.
    """

    stirred = True
    asked_at = 0.0
    _answering: int | None = None  # the generation of what is being answered
    _installing = False

    def __init__(
        self,
        *,
        node_id: int,
        peer_ids: Collection[int],
        profile: Profile,
        journal: Log,
        clock: Callable[[], float],
        rng: Random,
    ) -> None:
        super().__init__(
            node_id=node_id,
            peer_ids=peer_ids,
            profile=profile,
            journal=journal,
            clock=clock,
            rng=rng,
        )
        self._outgoing: dict[int, Outgoing] = {}
        self._matches = Matches(self.quorum)
        # The replica brings its own.
        self.transfers = Transfers(self, Snapshots(NoStore(), self.durability, State))
        self._held: tuple[int, Message] | None = None  # an acknowledgement that waits, to whom
        self._answered_at = 0.0  # when this node last told a leader what it has
        self.on_event: Callable[[Message], None] = lambda _: None  # told by a peer, for the log
        # Of servers, from a peer: what it wants proposed, and how it sees them.
        self.on_records: Callable[[int, bytes], None] = lambda _peer, _records: None
        self.on_views: Callable[[int, bytes], None] = lambda _peer, _views: None

    def bind(self, raft: RaftView, wire: Wire) -> None:
        """Connect the guard to the library's object and to what carries messages."""
        super().bind(raft, wire)
        self.durability.on_durable = self._release

    # ------------------------------------------------------------------- sending

    def send(self, node: LibraryNode, message: Message) -> bool:
        """Send what the library wants sent, repaired."""
        peer: int = node.id
        silent = self._installing or message["type"] in NOT_FORWARDED
        if silent or not self.durability.may_send():
            return False
        match message["type"]:
            case "append_entries":
                self.asked_at = self.clock()
                if "prevLogIdx" not in message:
                    # The library wants to send a snapshot, and would ask again and again.
                    self._send_snapshot(peer)
                    self._rewind_library(peer)
                    return False
                return self._send_append(peer, message["prevLogIdx"])
            case "next_node_idx":
                message |= {"term": self.term, "gen": self._answering, "fit": self.fit}
                if message["reset"]:
                    message["next_node_idx"] = self._first_in_doubt(message["next_node_idx"])
                return self._acknowledge(peer, message)
            case "request_vote" | "response_vote" | "timeout_now":
                self.send_about_votes(peer, message)
                return True
            case _:
                pass
        return self.wire.send(peer, message)

    def _first_in_doubt(self, index: int) -> int:
        """Return from where on to ask for entries, when the one at `index` is not the leader's.

        The library goes back by one entry for each answer: a tail of hundreds of entries of
        a leader that was cut off took longer than new leaders wait for a commit. All entries of
        its term are in doubt, but none that is committed (Ongaro and Ousterhout, "In Search of
        an Understandable Consensus Algorithm", 2014, section 5.3).
        """
        first = self.journal[0][1]
        begin = max(first, self.raft.raftCommitIndex) + 1
        if not begin < index <= self.last_index:
            return index
        term = self.journal[index - first][2]
        return begin + bisect_left(
            range(begin, index), term, key=lambda i: self.journal[i - first][2]
        )

    def _acknowledge(self, peer: int, message: Message) -> bool:
        held = self._hold_back(peer, message)
        if held and self.clock() - self._answered_at < self.profile.beacon_s:
            return True  # the leader knows that this node lives, and waits for its disk
        self._answered_at = self.clock()
        return self.wire.send(peer, message)

    def _hold_back(self, peer: int, message: Message) -> bool:
        """Acknowledge only what is durable, the rest later; say whether there is a rest."""
        limit = self.durability.limit
        if not message["success"] or limit is None or message["next_node_idx"] <= limit + 1:
            return False
        self._held = (peer, dict(message))
        message["next_node_idx"] = limit + 1
        return True

    def _release(self) -> None:
        """Say, and count, what has become durable."""
        if self.leading:
            self._tell_matches()
        elif self._held is not None:
            (peer, message), self._held = self._held, None
            if message["term"] == self.term and self.durability.may_send():
                self._hold_back(peer, message)
                self._answered_at = self.clock()
                self.wire.send(peer, message)

    def _tell_matches(self) -> None:
        """Let the library count what followers hold, as far as it may."""
        last = self.last_index
        limit = self.durability.limit
        limit = last if limit is None else limit
        for peer, index in self._matches.countable(term=self.term, limit=limit).items():
            count: Message = {"type": "next_node_idx", "next_node_idx": index + 1}
            count |= {"reset": False, "success": True}
            self._onMessageReceived(self.nodes[peer], count)

    def _outgoing_to(self, peer: int, sent: int) -> Outgoing:
        outgoing = self._outgoing.get(peer)
        if outgoing is None or outgoing.term != self.term:
            outgoing = Outgoing(self.term, next(self._numbers), sent)
            self._outgoing[peer] = outgoing
        return outgoing

    def _send_append(self, peer: int, library_previous: int | None) -> bool:
        """Send the next slice if the window allows, else a heartbeat."""
        last = self.last_index
        outgoing = self._outgoing_to(peer, last if library_previous is None else library_previous)
        previous = min(outgoing.sent, last)
        if previous < self.journal[0][1] or self.transfers.sending(peer):
            self._send_snapshot(peer)
            previous = last
        entries: list[Entry] = []
        if previous < last and len(outgoing.ends) < WINDOW_SLICES:
            entries = self._slice(previous + 1)
        now = self.clock()
        told = (outgoing.sent, self.raft.raftCommitIndex)
        if not entries and told == outgoing.told and now - outgoing.told_at < self._quiet_s:
            return True  # the library asks once a command: nothing new, and no beacon is due
        message: Message = {
            "type": "append_entries",
            "term": self.term,
            "commit_index": self.raft.raftCommitIndex,
            "prevLogIdx": previous,
            "prevLogTerm": self._entry(previous)[2],
            "entries": entries,
            "gen": outgoing.generation,
            "last": last,
        }
        if not self.wire.send(peer, message):
            return False
        if entries:
            outgoing.sent = entries[-1][1]
            outgoing.ends.append(outgoing.sent)
        outgoing.told, outgoing.told_at = (outgoing.sent, message["commit_index"]), now
        if entries:
            self._continue(peer, outgoing)
        return True

    @property
    def _quiet_s(self) -> float:
        return self.profile.beacon_s / 2

    def _slice(self, first: int) -> list[Entry]:
        start = first - self.journal[0][1]
        entries: list[Entry] = []
        size = 0
        for entry in self.journal[start : start + SLICE_ENTRIES_MAX]:
            size += len(entry[0])
            if entries and size > SLICE_BYTES_MAX:
                break
            entries.append(entry)
        return entries

    def _entry(self, index: int) -> Entry:
        entry: Entry = self.journal[index - self.journal[0][1]]
        return entry

    # ----------------------------------------------------------------- receiving

    def _onMessageReceived(self, node: LibraryNode, message: Message) -> None:  # noqa: N802 - the library's name
        self.stirred = True
        super()._onMessageReceived(node, message)

    def receive(self, peer: int, message: Message) -> None:
        """Take a message from a peer: check, change or answer it, or pass it on.

        Raises:
            WireError: No node that keeps to the rules says this; nothing was changed.
        """
        self._check_term(peer, message.get("term", 0))
        if self.durability.moved and message["type"] not in ABOUT_ELECTIONS:
            return
        with suppress(JournalError):  # `durability` has noted it
            self._receive(self.nodes[peer], message)
        self._settle()

    def _receive(self, node: LibraryNode, message: Message) -> None:  # noqa: C901, PLR0912 - one arm a kind
        match message["type"]:
            case "append_entries":
                self._on_append(node, message)
            case "next_node_idx":
                self._on_next(node, message)
            case "request_vote":
                self._on_request_vote(node, message)
            case "response_vote":
                self._on_response_vote(node, message)
            case "timeout_now":
                self._on_timeout_now(node, message)
            case "pre_vote":
                self._on_pre_vote(node, message)
            case "pre_vote_ok" | "pre_vote_if_all":
                self._on_pre_vote_ok(node, message)
            case "stale_term":
                self._raise_term(node, message["term"])
            case "snapshot" | "snapshot_ack":
                self.transfers.receive(node.id, message)
            case "event":
                self.on_event(message)
            case "records":
                self.on_records(node.id, message["records"])
            case "views":
                self.on_views(node.id, message["views"])
            case _:
                raise WireError(f"message type {message['type']!r} is not for a node")

    def _on_next(self, node: LibraryNode, message: Message) -> None:
        if message["term"] != self.term or not self.leading:
            self._raise_term(node, message["term"])
            return
        self._answered[node.id] = (message["fit"], self.clock())
        if message["success"] and message["next_node_idx"] > self.last_index + 1:
            raise WireError(
                f"node {node.id} acknowledges index {message['next_node_idx'] - 1}, the log of "
                f"its leader, node {self.node_id}, ends at {self.last_index}"
            )
        outgoing = self._outgoing_to(node.id, message["next_node_idx"] - 1)
        if message["reset"]:
            if message["gen"] != outgoing.generation:
                message["reset"] = False  # answers something sent before the last rewind
            else:
                outgoing.generation = next(self._numbers)
                outgoing.sent = message["next_node_idx"] - 1
                outgoing.ends.clear()
                outgoing.told = (-1, -1)
                if outgoing.sent < self.journal[0][1]:
                    self._send_snapshot(node.id)
                    message["reset"] = False
        if message["success"] and message["gen"] is None:
            return
        outgoing.ends = [end for end in outgoing.ends if end >= message["next_node_idx"]]
        if message["success"]:
            index = message["next_node_idx"] - 1
            self._matches.note(term=self.term, peer=node.id, index=index)
            if self.durability.limit is not None:
                message["success"] = False  # it is told what it may count
                self._tell_matches()
        self._onMessageReceived(node, message)
        self._continue(node.id, outgoing)

    def _send_snapshot(self, peer: int) -> None:
        """Send what the log does not have any more; meanwhile nothing but heartbeats."""
        self._outgoing_to(peer, self.last_index).sent = self.last_index
        self.transfers.start(peer)

    def _rewind_library(self, peer: int) -> None:
        """Keep the library from looking for entries that a follower lacks: we do that."""
        message = {"type": "next_node_idx", "next_node_idx": self.last_index + 1}
        self._onMessageReceived(self.nodes[peer], message | {"reset": True, "success": False})

    def installed(self, peer: int, index: int) -> None:
        """Note that a follower holds everything up to an index, by a snapshot."""
        outgoing = self._outgoing_to(peer, index)
        outgoing.generation, outgoing.sent = next(self._numbers), index
        outgoing.ends.clear()
        message = {"type": "next_node_idx", "next_node_idx": index + 1, "term": self.term}
        count = {"reset": False, "success": True, "gen": outgoing.generation, "fit": True}
        self._on_next(self.nodes[peer], message | count)

    def install(self, peer: int, index: int) -> bool:
        """Have the library take over the snapshot that is in place; say whether it did.

        What it answers by itself, with success whatever happened, is not sent.
        """
        if self.leading or self.leader != peer:
            return False  # whoever leads now sends its own
        self._installing = True
        try:
            message = {"type": "append_entries", "term": self.term, "commit_index": 0}
            self._onMessageReceived(self.nodes[peer], message | {"serialized": b""})
        finally:
            self._installing = False
        return bool(self.raft.raftLastApplied == index)

    def _continue(self, peer: int, outgoing: Outgoing) -> None:
        """Send the next slices as soon as the window allows."""
        if self.leading and outgoing.sent < self.last_index and len(outgoing.ends) < WINDOW_SLICES:
            self._send_append(peer, None)

    def _on_append(self, node: LibraryNode, message: Message) -> None:
        if message["term"] < self.term:
            self.say(node.id, {"type": "stale_term", "term": self.term})
            return
        if self.leading and message["term"] == self.term:
            raise WireError(
                f"node {node.id} leads term {self.term}, which this node {self.node_id} leads: a "
                "vote was given twice; is the id of one node in use on two machines?"
            )
        _check_order(node.id, message)
        if not self.mesh_knows(node.id) and node.id not in self.dead:
            # No promise, but no reason to stand before its next heartbeat either.
            heartbeat_s = HEARTBEAT_BEACONS * self.profile.beacon_s
            self.candidacy.wait(self.clock() + self.profile.lease_s + heartbeat_s)
            self._followed()
        self._answering = message["gen"]
        try:
            self._append(node, message)
        finally:
            self._answering = None
        limit = self.durability.limit
        if limit is None or limit >= self.journal[0][1]:
            newest = self.journal[-1] if limit is None else self._entry(limit)
            self.recovery.appended(term=message["term"], leader_last=message["last"], newest=newest)

    def _append(self, node: LibraryNode, message: Message) -> None:
        first: int = self.journal[0][1]
        last = self.last_index
        previous: int = message["prevLogIdx"]
        entries: list[Entry] = message["entries"]
        verified = previous + len(entries)
        message["commit_index"] = min(message["commit_index"], verified)
        if self.durability.mute:
            self._only_hear(node, message)
            return
        if previous < first:  # what is cut off here is committed
            if verified <= first:
                self._hold_already(node, message, verified)
                return
            entries = message["entries"] = [e for e in entries if e[1] > first]
            previous = message["prevLogIdx"] = first
            message["prevLogTerm"] = self.journal[0][2]
        if first <= previous < last and self._entry(previous)[2] == message["prevLogTerm"]:
            known = 0
            while (
                known < len(entries)
                and entries[known][1] <= last
                and self._entry(entries[known][1])[2] == entries[known][2]
            ):
                known += 1
            if known == len(entries):  # nothing new, nothing in conflict
                self._hold_already(node, message, verified)
                return
            conflict = entries[known][1]
            if conflict <= min(self.raft.raftCommitIndex, last):
                raise WireError(
                    f"node {node.id} has another entry at index {conflict} than this node, which "
                    "knows its own to be committed; one of the two logs is damaged"
                )
            if known:
                message["prevLogIdx"], message["prevLogTerm"] = entries[known - 1][1:]
                message["entries"] = entries[known:]
        self._onMessageReceived(node, message)

    def _hold_already(self, node: LibraryNode, message: Message, verified: int) -> None:
        self._heartbeat(node, message)
        acknowledgement = {"type": "next_node_idx", "next_node_idx": verified + 1}
        self.send(node, acknowledgement | {"reset": False, "success": True})

    def _only_hear(self, node: LibraryNode, message: Message) -> None:
        """Acknowledge no entry, and do not ask for more."""
        self._heartbeat(node, message | {"commit_index": 0})
        heard = {"type": "next_node_idx", "next_node_idx": self.last_index + 1}
        self.send(node, heard | {"reset": False, "success": False})

    def _heartbeat(self, node: LibraryNode, message: Message) -> None:
        """Renew timer, leader, term and a verified commit index, nothing else."""
        kept = {key: message[key] for key in ("type", "term", "commit_index")}
        self._onMessageReceived(node, kept)

    # --------------------------------------------------------------- connections

    def peer_connected(self, peer: int) -> None:
        """Note a new connection, or another path: what was in flight may be lost."""
        super().peer_connected(peer)
        if self.leading:
            self._send_append(peer, None)

    def peer_disconnected(self, peer: int) -> None:
        """Note that the connection to a peer is gone: what was in flight may be lost."""
        super().peer_disconnected(peer)
        self._outgoing.pop(peer, None)
        self.transfers.disconnected(peer)


def _check_order(peer: int, message: Message) -> None:
    """Refuse entries of terms that no log can have in this order."""
    terms = [message["prevLogTerm"], *(entry[2] for entry in message["entries"]), message["term"]]
    if terms != sorted(terms):
        raise WireError(f"node {peer} appends entries whose terms do not ascend to its own")
