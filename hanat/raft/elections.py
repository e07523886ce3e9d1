"""Who may campaign, who gets a vote: elections without surprises, under the library.

The library starts an election only when it sees a connected peer. So it sees none
until a *pre-vote* was won, or until the leader ordered this node to campaign; an
isolated node never raises its term, and a healed partition moves nothing. Votes
and pre-votes are refused while a leader was heard (`core.lease`); a vote counts
once a voter and term; who leads or stands in an older term is told, not ignored.
When a node stands is `core.election`.

Everything about votes is sent on the connection and as datagrams, and again until
it is answered: whichever arrives first counts.

Source: Ongaro, "Consensus: Bridging Theory and Practice", 2014, sections 3.10
(transfer), 4.2.3 and 9.6 (pre-vote); the library's issue 84.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import count
from random import Random  # noqa: TID251 - as a type: the source is a parameter
from typing import TYPE_CHECKING

from hanat.core.beacon import NOBODY
from hanat.core.configuration import Profile
from hanat.core.eligibility import Rival, outdone, rank
from hanat.raft.library import LibraryNode
from hanat.raft.promises import STEPPED_DOWN_LEASES, Promises

if TYPE_CHECKING:
    from hanat.raft.journal import Log
    from hanat.raft.messages import Message

# How long the library may see its peers, in leases: less than its own timer, so that one
# won pre-vote allows one campaign.
CAMPAIGN_LEASES = 0.4
FALLBACK_LEASES = 10  # a leader whose connections are dead for this long makes room
ROUND_BEACONS = 2  # how long a pre-vote is asked for
STALLED_BEACONS = 3  # a node that did not run for this long hears what waited, then judges
# Who follows looks at its timers when it hears a beacon; this is for when it does not.
FOLLOWER_BEACONS = 1.25
REPEATS = 4  # in a beacon: how often a vote is asked for again


class Elections(Promises):
    """The library's transport, as far as it is about leaders; arguments as `Promises`."""

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
        self._numbers = count(1)
        self._connections: dict[int, int] = {}  # peer → number of its connection
        self._peers_visible = False
        self._campaign_until = 0.0
        self._vote_request: Message | None = None
        self._voters: set[int] = set()
        self._voters_term = -1
        self._round, self._round_until = 0, 0.0
        self._round_voters: set[int] = set()
        self._round_others: set[int] = set()  # that vote only if all nodes take part
        self._unanimous_term: int | None = None
        self._transfer_term: int | None = None
        self._ahead_until = 0.0  # until then this node stands before one whose log is behind
        self._asked_at = 0.0
        self._ticked_at = clock()

    @property
    def last_index(self) -> int:
        """Index of the newest entry of the log."""
        return int(self.journal[-1][1])

    @property
    def connected(self) -> Collection[int]:
        """Peers with a connection."""
        return self._connections.keys()

    @property
    def connections(self) -> Mapping[int, int]:
        """Peers with a connection, and its number: another one is a new connection."""
        return self._connections

    def _settle(self) -> None:
        """After anything that may have changed the role."""
        super()._settle()
        if self.leading:
            self._campaign_until = 0.0  # elected: what the campaign was allowed is over
            self.recovery.elected()
        elif self._peers_visible and self.clock() > self._campaign_until:
            self._show_peers(visible=False)

    def _followed(self) -> None:
        super()._followed()
        if not self._ordered:
            self._round_until = self._campaign_until = 0.0
            self._show_peers(visible=False)

    def step_down(self, *, stand: bool = False) -> None:
        """Stop leading, and free the others of their promises: the gate is shut.

        The next term belongs to whoever is elected.

        Args:
            stand: It may well be this node: it stands as soon as any other.
        """
        self.held_until = max(self.held_until, self.lease.until)
        self.lease.give_up(self.term)
        self._make_room(stand=stand)

    def _make_room(self, *, stand: bool = False) -> None:
        """Stop leading; whoever promised this node something is bound as long as before."""
        if self.leading:
            if not stand:
                self.candidacy.wait(self.clock() + STEPPED_DOWN_LEASES * self.profile.lease_s)
            self._raise_term(LibraryNode(0), self.term + 1)  # nobody's id: the vote is invented
            self._settle()
            self.tell_all()

    @property
    def handed_on(self) -> bool:
        """Whether this leader ordered a peer to lead: then it appends nothing more in its term.

        The peer stands with the log it has; with one more entry the others refuse it their
        votes. Source: Ongaro 2014, section 3.10.
        """
        return self.leading and self.successor != NOBODY

    def send_about_votes(self, peer: int, message: Message) -> None:
        """Send a message of the library that is about who leads."""
        match message["type"]:
            case "request_vote":
                message["transfer"] = self._transfer_term == self.term - 1
                message["all"] = self._unanimous_term == self.term - 1
                self._vote_request = message
            case "response_vote":
                # Who gets this vote should have time to win.
                self._round_until = 0.0
                self.candidacy.wait(self.clock() + CAMPAIGN_LEASES * self.profile.lease_s)
            case "timeout_now":
                self.lease.give_up(self.term)
                self.candidacy.wait(self.clock() + self.profile.lease_s)
                self.successor = peer
                self.tell_all()
            case _:
                pass
        self.say(peer, message)

    # ---------------------------------------------------------------- being asked

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
        if not self.able:
            return True
        now = self.clock()
        if max(self.lease.until, self.held_until) > now:
            return True
        return self.promise.binds(candidate=candidate, now=now)

    def _on_request_vote(self, node: LibraryNode, message: Message) -> None:
        if not self.able or (self.recovery.needed and not message["all"]):
            return
        sent_by_leader = message["transfer"] and self._released_for(message["term"])
        if self._refuses(node.id) and not sent_by_leader:
            return
        if message["all"] and not self.durability.join():
            return
        if message["term"] < self.term:
            self.say(node.id, {"type": "stale_term", "term": self.term})
            return
        if (message["term"], node.id) == (self.term, self.durability.getVotedForNodeId()):
            self.say(node.id, {"type": "response_vote", "term": self.term})  # asked again
            return
        self._onMessageReceived(node, message)

    def _released_for(self, term: int) -> bool:
        if self.leading:
            return self.lease.until == 0.0 and term == self.term + 1
        return self.promise.released_for(term)

    def _on_pre_vote(self, node: LibraryNode, message: Message) -> None:
        voted_for = self.durability.getVotedForNodeId()
        taken = self.leading or voted_for not in {None, node.id}
        if message["term"] < self.term or (message["term"] == self.term and taken):
            self.say(node.id, {"type": "stale_term", "term": self.term})
            return
        if self._refuses(node.id):
            return
        index, term = message["last"]
        _, own_index, own_term = self.journal[-1]
        if (term, index) < (own_term, own_index):
            self._ahead_until = self.clock() + self.profile.beacon_s  # no use in waiting for it
            return
        kind = "pre_vote_if_all" if self.recovery.needed else "pre_vote_ok"
        self.say(node.id, {"type": kind, "round": message["round"]})

    # ------------------------------------------------------------------- standing

    def _on_response_vote(self, node: LibraryNode, message: Message) -> None:
        if message["term"] != self.term:
            return  # late; it must not let a voter of this term count again
        if self._voters_term != self.term:
            self._voters, self._voters_term = {self.node_id}, self.term
        if node.id in self._voters:
            return
        self._voters.add(node.id)
        if self._wants_all:
            self._count_if_all(message)
            return
        if len(self._voters) >= self.quorum:
            self._show_peers(visible=True)  # about to win: it must see its peers
        self._onMessageReceived(node, message)

    @property
    def _wants_all(self) -> bool:
        return self._unanimous_term == self.term - 1

    def _count_if_all(self, message: Message) -> None:
        """Let the library count votes when all are there: each voter has saved who they are."""
        if len(self._voters) <= len(self.nodes):
            return
        self._show_peers(visible=True)
        for peer in self._voters - {self.node_id}:
            self._onMessageReceived(self.nodes[peer], dict(message))

    def _on_timeout_now(self, node: LibraryNode, message: Message) -> None:
        # A late one, of a holder long replaced, must not make voters break the promise
        # that they gave to the next.
        promise = self.promise
        if (message["term"], node.id) != (self.term, promise.leader) or promise.term != self.term:
            return
        if not self.able or self.recovery.needed:
            return
        self._transfer_term = self.term
        self._campaign()

    def _on_pre_vote_ok(self, node: LibraryNode, message: Message) -> None:
        now = self.clock()
        if message["round"] != self._round or now > self._round_until:
            return
        if self.leading or self._refuses(self.node_id):
            return
        sure = message["type"] == "pre_vote_ok"
        (self._round_voters if sure else self._round_others).add(node.id)
        self._decide_round()

    def _decide_round(self) -> None:
        """Campaign if enough nodes would vote for this one."""
        enough = len(self._round_voters) >= self.quorum and not self.recovery.needed
        unanimous = self._round_voters | self._round_others == {*self.nodes, self.node_id}
        if not enough and not (unanimous and self.durability.join()):
            return
        self._round_until = 0.0
        self._unanimous_term = None if enough else self.term
        self._campaign()

    def _campaign(self) -> None:
        """Let the library stand in its next tick, whatever its own timer says."""
        self._campaign_until = self.clock() + CAMPAIGN_LEASES * self.profile.lease_s
        self._vote_request = None
        self._show_peers(visible=True)
        # It obeys this order from whom it takes for the leader, even from nobody.
        leader = self.raft._getLeader()  # noqa: SLF001 - the library has no public name for it
        self._onMessageReceived(leader, {"type": "timeout_now", "term": self.term})

    def _show_peers(self, *, visible: bool) -> None:
        """Let the library see its peers: it campaigns only when it sees one."""
        if visible == self._peers_visible:
            return
        self._peers_visible = visible
        for peer in sorted(self._connections):
            (self._onNodeConnected if visible else self._onNodeDisconnected)(self.nodes[peer])

    # ----------------------------------------------------------------------- time

    @property
    def _free_at(self) -> float:
        return max(self.promise.until, self.lease.until, self.held_until)

    @property
    def _stand_at(self) -> float:
        ahead = self.clock() < self._ahead_until
        me, rivals = Rival(self.node_id, self.fit, self.handicap), self.rivals()
        return self.candidacy.due(
            free_at=self._free_at,
            rank=0 if ahead else rank(me, rivals),
            # Who recovers is elected by all or not at all: nobody is served by its waiting.
            safe=self.fit or self.recovery.needed,
            worse=not ahead and outdone(me, rivals),
        )

    @property
    def deadline(self) -> float:
        """When to call `before_tick` again at the latest, seconds of the clock."""
        now, beacon_s = self.clock(), self.profile.beacon_s
        if self.leading:
            # A tick for news is not the one for beacons.
            told_at = min((self._told_at.get(peer, 0.0) for peer in self.nodes), default=now)
            return now if self.news else max(now, min(now, told_at) + beacon_s)
        if not self.able or self._free_at > now + FOLLOWER_BEACONS * beacon_s:
            return now + FOLLOWER_BEACONS * beacon_s
        if now <= max(self._round_until, self._campaign_until):
            return now + beacon_s / REPEATS
        return min(now + beacon_s, max(now, self._stand_at))

    def before_tick(self) -> None:
        """Do what is due by time; call it before each tick of the library."""
        now = self.clock()
        stalled = now - self._ticked_at > STALLED_BEACONS * self.profile.beacon_s
        self._ticked_at, self.news = now, False
        if stalled:  # what was said meanwhile is still to be read
            self.candidacy.wait(now + self.profile.beacon_s)
        self._settle()
        self._tell_due(now)
        if self.leading:
            if not self.nodes and self.lease.alone(term=self.term, now=now):
                self.lease_changed(self.term, self.lease.until)
            self._fall_back(now)
        elif now <= max(self._campaign_until, self._round_until):
            self._ask_again(now)
        else:
            self._stand(now)

    def _fall_back(self, now: float) -> None:
        """Step down as leader if nobody answers its connections and another could lead.

        Its beacons may pass, and its lease go on; but it commits nothing. Its gate is still open,
        and the kernel may refuse to shut it: nobody is freed of a promise.
        """
        since = now - FALLBACK_LEASES * self.profile.lease_s
        answering = 1 + sum(at >= since for _, at in self._answered.values())
        if self._led_since < since and answering < self.quorum and self.electable:
            self._make_room()

    def _ask_again(self, now: float) -> None:
        """Ask those that did not answer again; not at each message that arrives meanwhile."""
        if now - self._asked_at < self.profile.beacon_s / REPEATS:
            return
        self._asked_at = now
        if now <= self._campaign_until:
            self._ask_votes()
        else:
            self._ask_pre_votes(self.tell)

    def _stand(self, now: float) -> None:
        if self._round_until or self._campaign_until:  # one just ended without a majority
            self._round_until = self._campaign_until = 0.0
            self.candidacy.failed(now)
        if now < self._free_at or now < self._stand_at or not self.able:
            return
        self._round = next(self._numbers)
        me = {self.node_id}
        self._round_voters, self._round_others = (
            (set(), me) if self.recovery.needed else (me, set())
        )
        self._round_until = now + ROUND_BEACONS * self.profile.beacon_s
        self._asked_at = now
        self._decide_round()
        self._ask_pre_votes(self.say)

    def _ask_pre_votes(self, ask: Callable[[int, Message], None]) -> None:
        _, index, term = self.journal[-1]
        message: Message = {"type": "pre_vote", "term": self.term + 1, "last": (index, term)}
        for peer in self.nodes:
            if peer not in self._round_voters | self._round_others:
                ask(peer, message | {"round": self._round})

    def _ask_votes(self) -> None:
        message = self._vote_request
        if message is None or message["term"] != self.term:
            return
        for peer in self.nodes:
            if self._voters_term != self.term or peer not in self._voters:
                self.tell(peer, message)

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
