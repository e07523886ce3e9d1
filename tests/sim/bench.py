"""One real node among peers whose every word a test says.

The node runs in the simulated world with its own timers; what it sends is recorded
and goes nowhere, what the peers say arrives at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hanat.core.beacon import Beacon, Heard, Promised
from hanat.raft.guard import Guard
from hanat.raft.messages import NO_OP, Entry, Message, wrap
from hanat.raft.state import Flows, encode
from tests.sim.process import Process
from tests.sim.run import cluster, converged, holders
from tests.sim.world import World

ME = 1
STEP_S = 0.005
QUIET_S = 0.6  # longer than a node keeps quiet after its start


def with_and_without(broken: type[Guard]) -> pytest.MarkDecorator:
    """Run a test with the guard, and with one that lacks a repair."""
    return pytest.mark.parametrize(
        "guard", [pytest.param(Guard, id="repaired"), pytest.param(broken, id=broken.__name__)]
    )


def settled(guard: type[Guard] = Guard, *, seed: int = 1) -> tuple[World, int]:
    """Return a cluster of three real nodes with one holder, and who that is."""
    world = cluster(seed=seed, guard=guard)
    assert world.run_until(lambda: converged(world), within_s=10), tell(world)
    world.run(0.5)
    (holder,) = holders(world)
    return world, holder


def tell(world: World) -> str:
    """Return the seed and what happened, for a failure's message."""
    return f"seed={world.seed}\n" + "\n".join(world.story)


class Subject(Process):
    """The node that is looked at: its beacons go to the bench, not to the network."""

    bench: Bench

    def beacon(self, peer: int, beacon: Beacon, message: Message | None) -> None:
        self.exchange.seal(peer, beacon)
        self.bench.told_beacon(peer, beacon, message)


class Leaderless(Guard):
    """A guard without a library."""

    leading = False


class Puppet(Process):
    """A peer that only says what the test says."""

    def start(self) -> None:
        self.alive = True
        self.guard = self._make_guard()  # takes the news of connections, nothing else

    def receive(self, peer: int, message: Message) -> None: ...


def command(uid: int, *, size: int = 8, term: int = 0) -> bytes:
    """Return a log entry: a batch of flows."""
    return wrap(encode(Flows(term, 0, uid.to_bytes(8, "big") + bytes(size - 8))))


def entries_of(term: int, first: int, last: int) -> list[Entry]:
    """Return entries of one term, one an index."""
    return [(command(index), index, term) for index in range(first, last + 1)]


def fill(process: Process, entries: list[Entry], *, term: int) -> None:
    """Give a node that was never started a log."""
    process.journal.add(NO_OP, 1, 0)
    for entry in entries:
        process.journal.add(*entry)
    process.journal.setCurrentTerm(term, None)


class Bench:
    """A started node, quiet no more, that has heard of nobody.

    Attributes:
        sent: What the node said since the last `take`, with whom it was said to.
        told: Its beacons, to whom, and what message they carried.
        acks: Peers that acknowledge each append, and promise when asked, at once.
        unfit: Those of them that say they may not hold the addresses.
    """

    def __init__(
        self,
        guard: type[Guard],
        *,
        nodes: int = 3,
        me: int = ME,
        entries: list[Entry] | None = None,
        term: int = 0,
        prepare: Callable[[Process], None] = lambda _: None,
    ) -> None:
        self.world = World(seed=1, node_ids=tuple(range(1, 1 + nodes)))
        self.me = me
        self.node = Subject(self.world, me, profile="default", rate=1.0, guard=guard)
        self.node.bench = self
        self.sent: list[tuple[int, Message]] = []
        self.told: list[tuple[int, Beacon, Message | None]] = []
        self.heard = 0
        self.acks: set[int] = set()
        self.unfit: set[int] = set()
        self.world.tap = self._tap
        if entries is not None:
            fill(self.node, entries, term=term)
        prepare(self.node)
        for peer in self.world.node_ids:
            if peer != me:
                Puppet(self.world, peer, profile="default", rate=1.0, guard=Leaderless).start()
        self.node.start()

    def _tap(self, source: int, target: int, message: Message) -> bool:
        assert source == self.me
        self.sent.append((target, dict(message)))
        if target in self.acks and message["type"] == "append_entries":
            self.world.after(0.0005, self.acknowledge, target, dict(message))
        return False

    def told_beacon(self, peer: int, beacon: Beacon, message: Message | None) -> None:
        """Record a beacon of the node, and answer it for the peers that acknowledge."""
        self.told.append((peer, beacon, message))
        if peer in self.acks and beacon.asks:
            promise = Promised(beacon.term, 1)
            answer = Beacon(term=beacon.term, promised=promise, fit=peer not in self.unfit)
            self.world.after(0.0005, self.hear, peer, answer, self.node.clock())

    # ------------------------------------------------------------------ the node

    @property
    def guard(self) -> Guard:
        """The node's guard."""
        return self.node.guard

    @property
    def term(self) -> int:
        """The node's term."""
        return self.node.replica.term

    @property
    def last(self) -> int:
        """The end of the node's log."""
        return self.node.replica.last_index

    def run(self, duration_s: float) -> Bench:
        """Let time pass."""
        self.world.run(duration_s)
        return self

    def tick(self) -> Bench:
        """Let what was said take effect at once."""
        self.world.on(self.node, self.node._tick_now)
        return self

    def take(self, kind: str, to: int | None = None) -> list[Message]:
        """Return what the node said of one kind, and forget all it said."""
        taken = [m for peer, m in self.sent if m["type"] == kind and to in (None, peer)]
        self.sent.clear()
        return taken

    # ------------------------------------------------------------------ the peers

    def say(self, peer: int, kind: str, **fields: Any) -> Bench:  # noqa: ANN401 - a message's fields
        """Let a peer say something to the node."""
        self.world.deliver(peer, self.me, {"type": kind, **fields})
        return self

    def hear(self, peer: int, beacon: Beacon, sent_at: float | None = None) -> Bench:
        """Let the node hear a peer's beacon; it answers one of the node's of that time.

        Who asks for a promise asks for one as long as the node's own profile has it.
        """
        self.heard += 1
        if beacon.asks and not beacon.promise_s:
            lease_s = self.node.configuration.profile.lease_s
            beacon = beacon._replace(promise_s=lease_s)
        heard = Heard(peer, self.heard, beacon, b"", sent_at, sent_at, introduced=False)
        self.world.on(self.node, self.node.guard.hear, heard)
        return self

    def newest(self, peer: int) -> Beacon:
        """Return what the node told a peer last."""
        return next(beacon for to, beacon, _ in reversed(self.told) if to == peer)

    def append(
        self,
        peer: int,
        *,
        term: int,
        after: tuple[int, int],
        entries: list[Entry] | None = None,
        commit: int = 1,
    ) -> Bench:
        """Let a peer append as leader, behind an index of a term."""
        entries = entries or []
        fields = {"prevLogIdx": after[0], "prevLogTerm": after[1], "entries": entries}
        stamp = {"gen": 1, "last": after[0] + len(entries)}
        stamp |= {"term": term, "commit_index": commit}
        return self.say(peer, "append_entries", **fields, **stamp)

    def heartbeat(self, peer: int, *, term: int) -> Bench:
        """Let a peer that leads a term, with the node's own log, be heard."""
        _, index, last_term = self.node.journal[-1]
        self.append(peer, term=term, after=(index, last_term))
        return self.hear(peer, Beacon(term=term, leads=True, asks=True))

    def acknowledge(self, peer: int, append: Message) -> None:
        """Let a peer say that it has all of an append."""
        fields = {"next_node_idx": append["prevLogIdx"] + len(append["entries"]) + 1}
        stamp = {key: append[key] for key in ("term", "gen")}
        flags = {"reset": False, "success": True, "fit": peer not in self.unfit}
        self.say(peer, "next_node_idx", **fields, **stamp, **flags)

    def ask_vote(self, peer: int, *, term: int, transfer: bool = False) -> bool:
        """Let a peer with a longer log ask for a vote; say whether it was given."""
        self.sent.clear()
        log = {"last_log_index": self.last + 9, "last_log_term": term - 1}
        self.say(peer, "request_vote", term=term, transfer=transfer, **log)
        return bool(self.take("response_vote", peer))

    def ask_pre_vote(self, peer: int, *, term: int) -> bool:
        """Let a peer with a longer log ask whether it would be voted for."""
        self.sent.clear()
        self.say(peer, "pre_vote", term=term, last=(self.last + 9, term - 1), round=1)
        return bool(self.take("pre_vote_ok", peer))

    def elect(self, *, voters: tuple[int, ...] = (2,)) -> Bench:
        """Let the node win an election by the votes of some peers."""
        for _ in range(400):
            self.run(STEP_S)
            said, self.sent = self.sent, []
            for peer, message in said:
                if peer in voters and message["type"] == "pre_vote":
                    self.say(peer, "pre_vote_ok", round=message["round"])
                if peer in voters and message["type"] == "request_vote":
                    self.say(peer, "response_vote", term=message["term"])
            if self.guard.leading:
                return self
        raise AssertionError("nobody was elected in two seconds")
