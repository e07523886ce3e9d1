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
- *voters*: one vote a voter and term.
- *promises*: votes and pre-votes are refused while a leader was heard (`core.lease`).
- *pre-vote*: the library sees no connected peers, so cannot campaign, until a
  majority would vote for it. An isolated node never raises its term.
- *stale terms*: who leads or stands in an older term is told, not ignored.

Source: Ongaro, "Consensus: Bridging Theory and Practice", 2014, sections 3.4,
4.2.3, 9.6; the library's issues 84, 166, 167, 197, 201.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from itertools import count
from random import Random  # noqa: TID251 - as a type: the source is a parameter
from typing import TYPE_CHECKING, Protocol

from hanat.consensus.library import LibraryNode, Transport
from hanat.core.configuration import PROFILES, Profile
from hanat.core.lease import Lease, Promise
from hanat.errors import WireError

if TYPE_CHECKING:
    from hanat.consensus.codec import Entry, Message
    from hanat.consensus.journal import Log

SLICE_ENTRIES_MAX = 1000
SLICE_BYTES_MAX = 256 * 1024
WINDOW_SLICES = 4
# How long the library may see its peers, in leases: after a won pre-vote long enough for
# one campaign (its own timer is 0.80 to 0.85), after a transfer for a repeated one.
CAMPAIGN_LEASES = 0.8
TRANSFER_LEASES = 1.7
INELIGIBLE_DELAY = 10  # in leases: an ineligible node stands only when nobody else does


class Wire(Protocol):
    """What carries messages to peers."""

    def send(self, peer: int, message: Message) -> bool:
        """Send to a peer; False when there is no connection."""
        ...


class RaftView(Protocol):
    """The public part of the library's object that the guard reads."""

    raftCurrentTerm: int  # noqa: N815 - the library's name
    raftCommitIndex: int  # noqa: N815 - the library's name

    def _isLeader(self) -> bool: ...  # noqa: N802 - the library's name


@dataclass(slots=True)
class Outgoing:
    """What we know, as leader of a term, about one follower on one connection.

    Attributes:
        generation: Grows at each rewind; answers to older ones do not rewind again.
        sent: Highest index put on the wire since the last rewind.
        ends: Last index of each slice in flight, oldest first.
    """

    term: int
    generation: int
    sent: int
    ends: list[int] = field(default_factory=list)


class Guard(Transport):  # type: ignore[misc] # the library is untyped
    """The library's transport, with the repairs, over any `Wire`.

    Args:
        node_id: This node.
        peer_ids: The other nodes.
        profile: Timing.
        journal: The log, shared with the library.
        clock: Seconds of CLOCK_BOOTTIME.
        rng: For election timers.
    """

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
        super().__init__(None, None, [])
        self.node_id = node_id
        self.nodes: Mapping[int, LibraryNode] = {p: LibraryNode(p) for p in sorted(peer_ids)}
        self.quorum = (len(peer_ids) + 1) // 2 + 1
        self.profile, self.journal, self.clock, self.rng = profile, journal, clock, rng
        self.raft: RaftView
        self.wire: Wire
        now = clock()
        # Before this start the node may have promised under another profile.
        quiet_s = max(known.lease_s for known in PROFILES.values())
        self.promise = Promise(duration_s=profile.lease_s, quiet_s=quiet_s, now=now)
        self.lease = Lease(
            duration_s=profile.lease_s, margin_s=profile.margin_s, quorum=self.quorum
        )
        self.lease_changed: Callable[[int, float], None] = lambda _term, _until: None
        self.eligible = True
        self.eligible_peers: set[int] = set()  # as they said in their newest reply
        self._held_until = 0.0
        self._numbers = count(1)
        self._connections: dict[int, int] = {}  # peer → number of its connection
        self._outgoing: dict[int, Outgoing] = {}
        self._answering: tuple[int | None, float | None] | None = None
        self._peers_visible = False
        self._campaign_until = 0.0
        self._voters: set[int] = set()
        self._voters_term = -1
        self._round, self._round_voters = 0, {node_id}
        self._transfer_term: int | None = None
        self._patience_s = self._draw_patience()
        self._stand_at = now + profile.lease_s + self._patience_s

    def bind(self, raft: RaftView, wire: Wire) -> None:
        """Connect the guard to the library's object and to what carries messages."""
        self.raft, self.wire = raft, wire

    @property
    def term(self) -> int:
        """The Raft term of this node."""
        return self.raft.raftCurrentTerm

    @property
    def leading(self) -> bool:
        """Whether this node is the leader."""
        return self.raft._isLeader()  # noqa: SLF001 - the library has no public name for it

    @property
    def last_index(self) -> int:
        """Index of the newest entry of the log."""
        return int(self.journal[-1][1])

    @property
    def connected(self) -> Collection[int]:
        """Peers with a connection."""
        return self._connections.keys()

    def _draw_patience(self) -> float:
        """Return how long after a promise's end to ask for pre-votes.

        Drawn once a leader and once a round: a draw at each heartbeat, with the latest
        kept, would make all nodes late and alike.
        """
        return self.rng.uniform(0.1, 1.0) * self.profile.lease_s

    def _wait(self, now: float, leases: float) -> None:
        """Do not stand for election before that time and this node's patience."""
        if not self.eligible:
            leases += INELIGIBLE_DELAY
        due = now + leases * self.profile.lease_s + self._patience_s
        self._stand_at = max(self._stand_at, due)

    # ------------------------------------------------------------------- sending

    def send(self, node: LibraryNode, message: Message) -> bool:
        """Send what the library wants sent, repaired."""
        peer: int = node.id
        match message["type"]:
            case "append_entries":
                if "prevLogIdx" not in message:
                    return False  # snapshots: the log is never cut yet
                return self._send_append(peer, message["prevLogIdx"])
            case "next_node_idx":
                generation, sent_at = self._answering or (None, None)
                message |= {"term": self.term, "gen": generation, "ts": sent_at}
                message["eligible"] = self.eligible
            case "request_vote":
                message["transfer"] = self._transfer_term == self.term - 1
            case "timeout_now":
                self.lease.give_up(self.term)
            case "apply_command" | "apply_command_response":
                # Leadership was lost between proposal and tick. Commands are not
                # forwarded: the proposer hears of it and decides anew.
                return False
            case _:
                pass
        return self.wire.send(peer, message)

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
        entries: list[Entry] = []
        if previous < last and len(outgoing.ends) < WINDOW_SLICES:
            entries = self._slice(previous + 1)
        message: Message = {
            "type": "append_entries",
            "term": self.term,
            "commit_index": self.raft.raftCommitIndex,
            "prevLogIdx": previous,
            "prevLogTerm": self._entry(previous)[2],
            "entries": entries,
            "gen": outgoing.generation,
            "ts": self.clock(),
            "last": last,
        }
        if not self.wire.send(peer, message):
            return False
        if entries:
            outgoing.sent = entries[-1][1]
            outgoing.ends.append(outgoing.sent)
        return True

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

    def receive(self, peer: int, message: Message) -> None:
        """Take a message from a peer: check, change or answer it, or pass it on."""
        node = self.nodes[peer]
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
            case "pre_vote_ok":
                self._on_pre_vote_ok(node, message)
            case "stale_term":
                self._raise_term(node, message["term"])
            case _:
                raise WireError(f"message type {message['type']!r} is not for a node")
        self._settle()

    def _settle(self) -> None:
        """After anything that may have changed the role."""
        if self.leading:
            return
        if self.lease.until:
            # The gate may be open until then: nobody is helped before, not even by
            # a vote that arrives in the same burst as the news of the higher term.
            self._held_until = max(self._held_until, self.lease.until)
            self.lease.revoke()
        if self._peers_visible and self.clock() > self._campaign_until:
            self._show_peers(visible=False)

    def _raise_term(self, node: LibraryNode, term: int) -> None:
        """Raise the library's term, by a vote request that it can never grant."""
        if term > self.term:
            invented = {"type": "request_vote", "term": term, "last_log_index": 0}
            self._onMessageReceived(node, invented | {"last_log_term": -1})

    def step_down(self) -> None:
        """Stop leading; the next term belongs to whoever is elected."""
        self._held_until = max(self._held_until, self.lease.until)
        self.lease.give_up(self.term)
        if self.leading:
            self._wait(self.clock(), 1)
            self._raise_term(LibraryNode(0), self.term + 1)  # nobody's id: the vote is invented
            self._settle()

    def _on_next(self, node: LibraryNode, message: Message) -> None:
        if message["term"] != self.term or not self.leading:
            self._raise_term(node, message["term"])
            return
        self.eligible_peers.discard(node.id)
        if message["eligible"]:
            self.eligible_peers.add(node.id)
        outgoing = self._outgoing_to(node.id, message["next_node_idx"] - 1)
        if message["reset"]:
            if message["gen"] != outgoing.generation:
                message["reset"] = False  # answers something sent before the last rewind
            else:
                outgoing.generation = next(self._numbers)
                outgoing.sent = max(message["next_node_idx"] - 1, self.journal[0][1])
                outgoing.ends.clear()
        if message["success"] and message["gen"] is None:
            return
        outgoing.ends = [end for end in outgoing.ends if end >= message["next_node_idx"]]
        self._onMessageReceived(node, message)
        if message["ts"] is not None:
            self._renew(node.id, message["ts"])
        self._continue(node.id, outgoing)

    def _continue(self, peer: int, outgoing: Outgoing) -> None:
        """Send the next slice as soon as the window allows."""
        if self.leading and outgoing.sent < self.last_index:
            self._send_append(peer, None)

    def _renew(self, peer: int, sent_at: float) -> None:
        now = self.clock()
        if sent_at > now or not self.leading:
            return  # a time of another incarnation of this node
        if self.lease.acknowledged(peer=peer, term=self.term, sent_at=sent_at, now=now):
            self.lease_changed(self.term, self.lease.until)

    def _on_append(self, node: LibraryNode, message: Message) -> None:
        if message["term"] < self.term:
            self.wire.send(node.id, {"type": "stale_term", "term": self.term})
            return
        now = self.clock()
        if node.id != self.promise.leader:
            self._patience_s = self._draw_patience()
        promised = self.promise.heard(leader=node.id, term=message["term"], now=now)
        self._answering = (message["gen"], message["ts"] if promised else None)
        self._wait(now, 1)
        if not self._ordered:
            self._show_peers(visible=False)
        try:
            self._append(node, message)
        finally:
            self._answering = None

    @property
    def _ordered(self) -> bool:
        """Whether the leader of this term ordered this node to campaign just now.

        Its heartbeats go on until it is deposed; they must not call the order off.
        """
        return self._transfer_term == self.term and self.clock() <= self._campaign_until

    def _append(self, node: LibraryNode, message: Message) -> None:
        first: int = self.journal[0][1]
        last = self.last_index
        previous: int = message["prevLogIdx"]
        entries: list[Entry] = message["entries"]
        verified = previous + len(entries)
        message["commit_index"] = min(message["commit_index"], verified)
        if first <= previous < last and self._entry(previous)[2] == message["prevLogTerm"]:
            known = 0
            while (
                known < len(entries)
                and entries[known][1] <= last
                and self._entry(entries[known][1])[2] == entries[known][2]
            ):
                known += 1
            if known == len(entries):  # nothing new, nothing in conflict
                self._heartbeat(node, message)
                acknowledgement = {"type": "next_node_idx", "next_node_idx": verified + 1}
                self.send(node, acknowledgement | {"reset": False, "success": True})
                return
            if known:
                message["prevLogIdx"], message["prevLogTerm"] = entries[known - 1][1:]
                message["entries"] = entries[known:]
        self._onMessageReceived(node, message)

    def _heartbeat(self, node: LibraryNode, message: Message) -> None:
        """Renew timer, leader, term and a verified commit index, nothing else."""
        kept = {key: message[key] for key in ("type", "term", "commit_index")}
        self._onMessageReceived(node, kept)

    # ----------------------------------------------------------------- elections

    def _refuses(self, candidate: int) -> bool:
        """Say whether helping the candidate would break a promise or the own lease."""
        now = self.clock()
        if max(self.lease.until, self._held_until) > now:
            return True
        return self.promise.binds(candidate=candidate, now=now)

    def _on_request_vote(self, node: LibraryNode, message: Message) -> None:
        sent_by_leader = message["transfer"] and self._released_for(message["term"])
        if self._refuses(node.id) and not sent_by_leader:
            return
        if message["term"] < self.term:
            self.wire.send(node.id, {"type": "stale_term", "term": self.term})
            return
        self._wait(self.clock(), 0)
        self._onMessageReceived(node, message)

    def _released_for(self, term: int) -> bool:
        if self.leading:
            return self.lease.until == 0.0 and term == self.term + 1
        return self.promise.released_for(term)

    def _on_response_vote(self, node: LibraryNode, message: Message) -> None:
        if self._voters_term != message["term"]:
            self._voters, self._voters_term = {self.node_id}, message["term"]
        if node.id in self._voters:
            return
        self._voters.add(node.id)
        if message["term"] == self.term and len(self._voters) >= self.quorum:
            self._show_peers(visible=True)  # about to win: it must see its peers
        self._onMessageReceived(node, message)

    def _on_timeout_now(self, node: LibraryNode, message: Message) -> None:
        # A late one, of a holder long replaced, must not make voters break the promise
        # that they gave to the next.
        promise = self.promise
        if (message["term"], node.id) != (self.term, promise.leader) or promise.term != self.term:
            return
        self._onMessageReceived(node, message)
        self._transfer_term = self.term
        self._campaign(TRANSFER_LEASES)

    def _on_pre_vote(self, node: LibraryNode, message: Message) -> None:
        if message["term"] < self.term or (message["term"] == self.term and self.leading):
            self.wire.send(node.id, {"type": "stale_term", "term": self.term})
            return
        index, term = message["last"]
        _, own_index, own_term = self.journal[-1]
        if self._refuses(node.id) or (term, index) < (own_term, own_index):
            return
        self.wire.send(node.id, {"type": "pre_vote_ok", "round": message["round"]})

    def _on_pre_vote_ok(self, node: LibraryNode, message: Message) -> None:
        if message["round"] != self._round or self.leading or self._refuses(self.node_id):
            return
        self._round_voters.add(node.id)
        if len(self._round_voters) >= self.quorum:
            self._campaign(CAMPAIGN_LEASES)

    def _campaign(self, leases: float) -> None:
        self._campaign_until = self.clock() + leases * self.profile.lease_s
        self._show_peers(visible=True)

    def _show_peers(self, *, visible: bool) -> None:
        """Let the library see its peers: it campaigns only when it sees one."""
        if visible == self._peers_visible:
            return
        self._peers_visible = visible
        for peer in sorted(self._connections):
            (self._onNodeConnected if visible else self._onNodeDisconnected)(self.nodes[peer])

    def before_tick(self) -> None:
        """Do what is due by time; call it before each tick of the library."""
        now = self.clock()
        self._settle()
        if self.leading:
            self._stand_at = 0.0
            self._wait(now, 1)
            if not self.nodes and self.lease.alone(term=self.term, now=now):
                self.lease_changed(self.term, self.lease.until)
            return
        if now <= self._stand_at or self._refuses(self.node_id):
            return
        self._patience_s = self._draw_patience()
        self._wait(now, 0)
        self._round = next(self._numbers)
        self._round_voters = {self.node_id}
        _, index, term = self.journal[-1]
        message: Message = {"type": "pre_vote", "term": self.term + 1, "last": (index, term)}
        for peer in sorted(self._connections):
            self.wire.send(peer, message | {"round": self._round})

    # --------------------------------------------------------------- connections

    def peer_connected(self, peer: int) -> None:
        """Note a new connection, or another path, to a peer."""
        if peer in self._connections:
            self.peer_disconnected(peer)
        self._connections[peer] = next(self._numbers)
        if self._peers_visible:
            self._onNodeConnected(self.nodes[peer])

    def peer_disconnected(self, peer: int) -> None:
        """Note that the connection to a peer is gone."""
        if self._connections.pop(peer, None) and self._peers_visible:
            self._onNodeDisconnected(self.nodes[peer])
        self._outgoing.pop(peer, None)
