"""The lease of the leader and the promises of the others, carried by beacons.

Every node tells every peer its view, again and again; a follower answers its
leader's beacon at once. What a beacon asks and answers is `core.lease`; this is the
part of the library's transport that says and hears it. Nothing about the lease
travels in the log's own messages: they queue behind bulk data, and one lost
segment costs a retransmission longer than the lease.

A leader asks for promises only while it hears a majority. One that can send but not
receive has no use for them, and they would only keep the others waiting.

Source: Gray & Cheriton, "Leases", SOSP 1989; Ongaro, "Consensus: Bridging Theory and
Practice", 2014, section 6.4.1.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from random import Random  # noqa: TID251 - as a type: the source is a parameter
from typing import TYPE_CHECKING, Protocol

from hanat.core.beacon import NOBODY, NOBODY_HEARD, Beacon, Heard, Promised
from hanat.core.clock_rate import ClockWatch
from hanat.core.configuration import LEASE_S_MAX, Profile
from hanat.core.election import Candidacy
from hanat.core.eligibility import Fitness, Kind, Rival, Seen, electable
from hanat.core.feature_level import OLDEST
from hanat.core.lease import Lease, Promise
from hanat.core.members import members_of
from hanat.errors import WireError
from hanat.raft.durability import Durability
from hanat.raft.library import LibraryNode, Transport
from hanat.raft.rejoin import Rejoin

if TYPE_CHECKING:
    from hanat.raft.journal import Log
    from hanat.raft.messages import Message

GOSSIP_BEACONS = 5  # period between two nodes of which neither leads, while there is a leader
SILENT_BEACONS = 2  # without a beacon of the leader to answer, a follower tells it something
ASK_BEACONS = 3  # a leader that heard no majority for this long does not ask
ALIVE_BEACONS = 3 * GOSSIP_BEACONS  # who was silent for longer takes no turn at elections
TERMS_AHEAD_MAX = 1 << 32  # an election each second for a century
HEARTBEAT_BEACONS = 5  # period of the log's messages when there is nothing to say
# Who steps down stands later than anybody else: who hears it on its connection only, where
# it is heard less often, waits for it for two leases, and then takes its turn.
STEPPED_DOWN_LEASES = 4
# In this time one of them is answered. Less than what a leader waits that has no lease: one
# that hears nobody does not make room for anybody.
ANSWER_HEARTBEATS = 1.5
FRESH_BEACONS = 3  # nobody is given up for on an older word
GONE_BEACONS = 3  # the leader, of which something is due each beacon


class Wire(Protocol):
    """What carries messages to peers."""

    def send(self, peer: int, message: Message) -> bool:
        """Send in order, after what was sent before; False when there is no connection."""
        ...

    def queued(self, peer: int) -> int:
        """Return how many bytes wait here to be sent in order; 0 when there is no connection."""
        ...

    def beacon(self, peer: int, beacon: Beacon, message: Message | None) -> None:
        """Send a beacon, and perhaps a small message, as one datagram that may be lost."""
        ...


class RaftView(Protocol):
    """The public part of the library's object that the guard reads."""

    raftCurrentTerm: int  # noqa: N815 - the library's name
    raftCommitIndex: int  # noqa: N815 - the library's name
    raftLastApplied: int  # noqa: N815 - the library's name

    def _isLeader(self) -> bool: ...  # noqa: N802 - the library's name

    def _getLeader(self) -> LibraryNode | None: ...  # noqa: N802 - the library's name


class Promises(Transport):  # type: ignore[misc] # the library is untyped
    """The library's transport, as far as it is about the lease.

    Args:
        node_id: This node.
        peer_ids: The other nodes.
        profile: Timing.
        journal: The log, shared with the library.
        clock: Seconds of CLOCK_BOOTTIME.
        rng: For elections.
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
        self.profile, self.journal, self.clock = profile, journal, clock
        self.durability = Durability(journal, clock, members=members_of([node_id, *peer_ids]))
        self.recovery = Rejoin(self.durability)
        self.clock_watch: ClockWatch | None = None  # None: the clock is right
        self.raft: RaftView
        self.wire: Wire
        now = clock()
        # Before this start the node may have promised under another profile.
        self.promise = Promise(quiet_s=LEASE_S_MAX, now=now)
        self.lease = Lease(
            duration_s=profile.lease_s, margin_s=profile.margin_s, quorum=self.quorum
        )
        self.lease_changed: Callable[[int, float], None] = lambda _term, _until: None
        self.misled: Callable[[], None] = lambda: None
        self.candidacy = Candidacy(profile, draw=rng.random)
        self.fitness, self._fitness_at = Fitness(), 0.0  # and since when
        self.shut = True  # see `Beacon`
        self.level_in_force: Callable[[], int] = lambda: OLDEST  # as the log has it here
        self.level_heard = OLDEST  # a peer writes what is in force
        self.complete = True
        self.hears = NOBODY_HEARD  # see `Beacon`, as for the next ones
        self.lively = self.answered = self.interfaces = 0
        self._answered: dict[int, tuple[bool, float]] = {}  # peer → fit, by its connection
        self.revision, self.refuses = 0, False  # what this node made of the configuration
        self.held_until = 0.0  # of a lease that this node lost with its term
        self.successor = NOBODY  # whom it ordered to lead
        self._promised: Promised | None = None
        self._views: dict[int, tuple[Beacon, float]] = {}  # peer → newest, when heard
        self.news = False  # a leader heard what it may have to give up for
        self._echoed_at: dict[int, float] = {}  # peer → when its newest echo was sent
        self._told_at: dict[int, float] = {}
        self.dead: set[int] = set()  # peers whose daemon died, until they are heard again
        self._led_term, self._led_since = -1, 0.0
        self._reported_until = 0.0  # of the lease, in this term

    def bind(self, raft: RaftView, wire: Wire) -> None:
        """Connect the guard to the library's object and to what carries messages."""
        self.raft, self.wire = raft, wire

    def level(self) -> int:
        """Return the feature level to write (`core.feature_level`): the log may be behind."""
        return max(self.level_in_force(), self.level_heard, self.durability.level)

    @property
    def term(self) -> int:
        """The Raft term of this node."""
        return self.raft.raftCurrentTerm

    @property
    def leading(self) -> bool:
        """Whether this node is the leader."""
        return self.raft._isLeader()  # noqa: SLF001 - the library has no public name for it

    @property
    def leader(self) -> int | None:
        """Who leads this term, None if this node does not know."""
        node = self.raft._getLeader()  # noqa: SLF001 - the library has no public name for it
        return None if node is None else int(node.id)

    @property
    def clock_right(self) -> bool:
        """Whether the lengths that this node measures may be relied on."""
        return self.clock_watch is None or self.clock_watch.right()

    @property
    def clock_found(self) -> str:
        """What is wrong with the clock, empty if nothing is."""
        return "" if self.clock_watch is None else self.clock_watch.found

    @property
    def able(self) -> bool:
        """Whether this node may vote and stand, as far as disk and clock go."""
        return self.durability.fit and self.clock_right

    @property
    def can_vote(self) -> bool:
        """Whether this node can vote and store.

        A node that just started must not: it may have promised before.
        """
        able = self.able and not self.recovery.needed
        return able and not self.promise.quiet(self.clock())

    @property
    def fit(self) -> bool:
        """Whether this node tells others that it can stand in for a holder."""
        return self.fitness.safe and self.can_vote

    @property
    def handicap(self) -> int:
        """What speaks against this node, as beacons tell it."""
        return self.fitness.handicap | (0 if self.complete else Kind.FLOWS.value)

    def set_fitness(self, fitness: Fitness) -> None:
        """Take what speaks against this node, and let everybody know at once."""
        if fitness != self.fitness:
            self.fitness, self._fitness_at = fitness, self.clock()
            self.tell_all()

    @property
    def fit_peers(self) -> dict[int, int]:
        """Peers heard just now that can stand in, and their handicaps."""
        return {peer: b.handicap for peer, b in self.alive().items() if b.fit}

    def seen(self, connected: Collection[int]) -> tuple[Seen, ...]:
        """Return what was heard of each peer that is alive.

        Args:
            connected: Who can be ordered to stand, and has the log; only these are fit.
        """
        since = self.clock() - FRESH_BEACONS * self.profile.beacon_s
        found = []
        for peer, beacon in self.alive().items():
            # Said in answer to what this node is: both may have met the same trouble, and the
            # peer noticed it a moment later.
            fresh = self._answers(peer) and self._views[peer][1] >= since
            fit = beacon.fit and peer in connected
            found.append(Seen(peer, fit, self._order_of(beacon) if fresh else None))
        return tuple(found)

    def _answers(self, peer: int) -> bool:
        """Say whether a peer's newest word was said in answer to what this node is."""
        return self._echoed_at.get(peer, 0.0) >= self._fitness_at

    def _order_of(self, beacon: Beacon) -> int:
        """Return a peer's handicap: it may refuse our newest revision if it has not tried it."""
        behind = beacon.revision < self.revision
        return beacon.handicap | (Kind.REVISION.value if behind else 0)

    @property
    def electable(self) -> bool:
        """Whether the others, as far as they are heard, could elect one of them."""
        now = self.clock()
        heard = now - self.profile.lease_s
        answered = now - ANSWER_HEARTBEATS * HEARTBEAT_BEACONS * self.profile.beacon_s
        said = {peer: fit for peer, (fit, at) in self._answered.items() if at >= answered}
        said |= {peer: beacon.fit for peer, (beacon, at) in self._views.items() if at >= heard}
        return electable(fit=sum(said.values()), self_fit=self.can_vote, quorum=self.quorum)

    @property
    def complete_peers(self) -> set[int]:
        """Peers heard just now that said they have all flows."""
        return {peer for peer, beacon in self.alive().items() if beacon.complete}

    @property
    def incomplete_peers(self) -> set[int]:
        """Peers heard just now that said they lack flows."""
        return self.alive().keys() - self.complete_peers

    @property
    def revisions(self) -> dict[int, tuple[int, bool]]:
        """What peers heard just now made of the configuration: revision, whether refused."""
        return {peer: (b.revision, b.refuses) for peer, b in self.alive().items()}

    def alive(self) -> dict[int, Beacon]:
        """Return the newest beacon of each peer that was heard not long ago."""
        since = self.clock() - ALIVE_BEACONS * self.profile.beacon_s
        return {peer: beacon for peer, (beacon, at) in self._views.items() if at >= since}

    def rivals(self) -> list[Rival]:
        """Return the peers that may stand in an election now, the lost leader not among them."""
        alive = self.alive()
        leader = self.promise.leader
        if leader is not None and leader in alive:
            beacon, at = self._views[leader]
            now, profile = self.clock(), self.profile
            gone = now - at > GONE_BEACONS * profile.beacon_s
            # Deaf, or it has just given up: not for ever, or ranks would differ.
            silent = not beacon.asks and now < self.promise.until + profile.lease_s
            if gone or silent:
                del alive[leader]
        return [Rival(peer, b.fit, self._order_of(b)) for peer, b in alive.items()]

    def mesh_knows(self, peer: int) -> bool:
        """Say whether a beacon of the peer was heard not long ago."""
        since = self.clock() - ALIVE_BEACONS * self.profile.beacon_s
        return peer in self._views and self._views[peer][1] >= since

    # ------------------------------------------------------------------- telling

    def view(self, peer: int) -> Beacon:
        """Return what to tell a peer now."""
        return Beacon(
            term=self.term,
            leads=self.leading,
            asks=self.asks,
            promise_s=self.profile.lease_s,
            released_term=self.lease.given_up_term,
            successor=self.successor,
            promised=self._promised if self.promise.leader == peer else None,
            fit=self.fit,
            complete=self.complete,
            revision=self.revision,
            refuses=self.refuses,
            handicap=self.handicap,
            unsafe=not self.fitness.safe,
            shut=self.shut,
            hears=self.hears,
            lively=self.lively,
            answered=self.answered,
            interfaces=self.interfaces,
        )

    @property
    def asks(self) -> bool:
        """Whether this node, as leader, asks for promises now."""
        if not self.leading or self.term <= self.lease.given_up_term:
            return False
        now = self.clock()
        heard = sorted([now, *self._echoed_at.values()], reverse=True)
        majority = heard[self.quorum - 1] if len(heard) >= self.quorum else 0.0
        return now - max(majority, self._led_since) <= ASK_BEACONS * self.profile.beacon_s

    def tell(
        self, peer: int, message: Message | None = None, *, beacon: Beacon | None = None
    ) -> None:
        """Send a beacon now (None: what there is to tell), perhaps with a message."""
        self._told_at[peer] = self.clock()
        self.wire.beacon(peer, beacon or self.view(peer), message)

    def tell_all(self) -> None:
        """Send a beacon to everybody now."""
        for peer in self.nodes:
            self.tell(peer)

    def say(self, peer: int, message: Message) -> None:
        """Send a small message both ways, so that it arrives if either works.

        Who gets it may get it twice, in any order.
        """
        self.wire.send(peer, message)
        self.tell(peer, message)

    def _tell_due(self, now: float) -> None:
        """Send the beacons that are due by time."""
        followed = self.promise.leader if now < self.promise.until else None
        same = self.view(NOBODY) if self.leading else None
        for peer in self.nodes:
            if self.leading or followed is None:
                beacons = 1
            else:  # each beacon of a leader is answered, so only silence makes one due
                beacons = SILENT_BEACONS if peer == followed else GOSSIP_BEACONS
            # A little early rather than a whole tick late.
            if now - self._told_at.get(peer, 0.0) >= (beacons - 0.1) * self.profile.beacon_s:
                self.tell(peer, beacon=same)

    # ------------------------------------------------------------------- hearing

    def hear(self, heard: Heard) -> None:
        """Take what a peer says of itself, and answer at once if it needs that.

        It may make something due: look at `deadline`. A holder that lost its carrier waits for
        what its peers answer to that.

        Raises:
            WireError: No node that keeps to the rules says this.
        """
        peer, beacon, now = heard.peer, heard.beacon, self.clock()
        self.level_heard = max(self.level_heard, heard.level)
        self._check_term(peer, beacon.term)
        away = not self.mesh_knows(peer)
        was, answered = self._views.get(peer), self._answers(peer)
        self._views[peer] = (beacon, now)
        if self.leading and (away or (beacon.leads and beacon.term < self.term)):
            self.misled()  # it may have told neighbours that it has the addresses
        if heard.echoed_at is not None:
            self._echoed_at[peer] = max(heard.echoed_at, self._echoed_at.get(peer, 0.0))
        if self.leading and (answered < self._answers(peer) or not _as_before(was, beacon)):
            self.news = True
        if heard.introduced and self.promise.leader == peer:
            self._promised = None  # what it counts from was said by its predecessor
        self.dead.discard(peer)
        leads = beacon.leads
        following = self.promise.binds(candidate=peer, now=now) and not self.leading
        if beacon.term > self.term and not following:
            self._raise_term(self.nodes[peer], beacon.term)
        if beacon.promised is not None and heard.promised_at is not None:
            self._renew(peer, beacon.promised.term, heard.promised_at)
        self.released(peer, beacon.released_term, successor=beacon.successor)
        asked = beacon.asks and beacon.term == self.term and not self.durability.moved
        if asked and not self.leading and self.clock_right:
            if self.promise.heard(
                leader=peer, term=beacon.term, duration_s=beacon.promise_s, now=now
            ):
                self._promised = Promised(beacon.term, heard.sequence)
            self._followed()
        self._settle()
        if leads or heard.introduced:
            self.tell(peer)

    def released(self, peer: int, term: int, *, successor: int = NOBODY) -> None:
        """Note that a peer answers no more by right of a term up to this one."""
        now = self.clock()
        if not self.promise.release(leader=peer, term=term, now=now):
            return
        if successor not in {NOBODY, self.node_id}:
            self.candidacy.wait(now + self.profile.lease_s)

    def died(self, peer: int) -> None:
        """Note that a peer's daemon is dead, and its node has stopped answering."""
        self.dead.add(peer)
        self._views.pop(peer, None)
        self._echoed_at.pop(peer, None)
        self.released(peer, self.promise.term)

    def _renew(self, peer: int, term: int, sent_at: float) -> None:
        if term != self.term or not self.leading or not self.clock_right:
            return
        self.lease.acknowledged(peer=peer, term=term, sent_at=sent_at, now=self.clock())
        # The answers of two peers to one round differ by microseconds.
        if self.lease.until - self._reported_until >= self.profile.beacon_s / 4:
            self._reported_until = self.lease.until
            self.lease_changed(term, self.lease.until)

    def _settle(self) -> None:
        """After anything that may have changed the role."""
        if not self.leading:
            if self.lease.until:
                # The gate may be open until then: nobody is helped before, not even by
                # a vote that arrives in the same burst as the news of the higher term.
                self.held_until = max(self.held_until, self.lease.until)
                self.candidacy.wait(self.clock() + self.profile.lease_s)
                self.lease.revoke()
            if self._led_term == self.term:
                # The library gave up, nobody answers it: its log may be the longest, with
                # entries that are nobody else's, and it would be elected to the same end.
                self._led_term = -1
                self.candidacy.wait(self.clock() + STEPPED_DOWN_LEASES * self.profile.lease_s)
        elif self._led_term != self.term:
            self._led_term, self._led_since = self.term, self.clock()
            self._reported_until = 0.0
            self.successor = NOBODY
            self.candidacy.settled()
            self.tell_all()

    def _followed(self) -> None:
        """Note that this node follows a leader that it heard just now."""
        self.candidacy.settled()

    def _check_term(self, peer: int, term: int) -> None:
        """Refuse a term so far ahead that it can only be a mistake of the peer's.

        It would spread to all nodes and leave no room for the next elections.
        """
        if term > self.term + TERMS_AHEAD_MAX:
            raise WireError(
                f"node {peer} speaks of term {term}, this node of {self.term}: no cluster holds "
                f"that many elections; stop node {peer} and look at its log"
            )

    def _raise_term(self, node: LibraryNode, term: int) -> None:
        """Raise the library's term, by a vote request that it can never grant."""
        if term > self.term:
            invented = {"type": "request_vote", "term": term, "last_log_index": 0}
            self._onMessageReceived(node, invented | {"last_log_term": -1})


def _as_before(was: tuple[Beacon, float] | None, beacon: Beacon) -> bool:
    """Say whether a peer can stand in, and do better, as much as it could at its last word."""
    if was is None:
        return False
    before = was[0]
    return (before.fit, before.handicap, before.revision) == (
        beacon.fit, beacon.handicap, beacon.revision,
    )  # fmt: skip
