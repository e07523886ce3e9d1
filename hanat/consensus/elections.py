"""Who may campaign, who gets a vote: elections without surprises, under the library.

The library starts an election only when it sees a connected peer. So it sees none
until a *pre-vote* was won, or until the leader ordered this node to campaign; an
isolated node never raises its term, and a healed partition moves nothing. Votes
and pre-votes are refused while a leader was heard (`core.lease`); a vote counts
once a voter and term; who leads or stands in an older term is told, not ignored.

Source: Ongaro, "Consensus: Bridging Theory and Practice", 2014, sections 3.10
(transfer), 4.2.3 and 9.6 (pre-vote); the library's issue 84.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import count
from random import Random  # noqa: TID251 - as a type: the source is a parameter
from typing import TYPE_CHECKING, Protocol

from hanat.consensus.durability import Durability
from hanat.consensus.library import LibraryNode, Transport
from hanat.core.configuration import PROFILES, Profile
from hanat.core.lease import Lease, Promise

if TYPE_CHECKING:
    from hanat.consensus.codec import Message
    from hanat.consensus.journal import Log

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


class Elections(Transport):  # type: ignore[misc] # the library is untyped
    """The library's transport, as far as it is about leaders.

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
        self.durability = Durability(journal, clock)
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

    def _settle(self) -> None:
        """After anything that may have changed the role."""
        if self.leading:
            self._campaign_until = 0.0  # elected: what the campaign was allowed is over
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

    @property
    def _ordered(self) -> bool:
        """Whether the leader of this term ordered this node to campaign just now.

        Its heartbeats go on until it is deposed; they must not call the order off.
        """
        return self._transfer_term == self.term and self.clock() <= self._campaign_until

    def _refuses(self, candidate: int) -> bool:
        """Say whether helping the candidate would break a promise or the own lease.

        Also if this node cannot remember whom it helped.
        """
        if not self.durability.fit:
            return True
        now = self.clock()
        if max(self.lease.until, self._held_until) > now:
            return True
        return self.promise.binds(candidate=candidate, now=now)

    def _on_request_vote(self, node: LibraryNode, message: Message) -> None:
        if not self.durability.fit:
            return
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
        if not self.durability.fit:
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

    def _renew(self, peer: int, sent_at: float) -> None:
        now = self.clock()
        if sent_at > now or not self.leading:
            return  # a time of another incarnation of this node
        if self.lease.acknowledged(peer=peer, term=self.term, sent_at=sent_at, now=now):
            self.lease_changed(self.term, self.lease.until)

    def heard(self, leader: int, term: int) -> bool:
        """Note a message of the leader; return True when it may count on a promise."""
        now = self.clock()
        if leader != self.promise.leader:
            self._patience_s = self._draw_patience()
        promised = self.promise.heard(leader=leader, term=term, now=now)
        self._wait(now, 1)
        if not self._ordered:
            self._show_peers(visible=False)
        return promised

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
