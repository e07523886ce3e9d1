"""The simulated world: time, the network, and what a packet would see.

One heap of events drives everything; a seed fixes every draw, so a run repeats
exactly. Nodes are real (`process.Process`): the core, the guard, the library.
What is modelled is the network between them and the kernel's gate.

Messages are in order on one connection and in one direction, as over TCP. A
connection that breaks loses a random rest of each direction, each end notices
at its own time, and it is made anew. A blocked direction delivers late when the
block ends, unless the connection is given up first.

Datagrams (beacons) are lost, repeated and delayed each by itself, so that they change
their order; a blocked direction loses them. All that were ever sent are recorded, also
those that were lost, and may be sent again at any time.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations, count
from typing import TYPE_CHECKING, Any, TypeVar

from chaos.observe.run_history import Fact
from hanat.raft import library
from hanat.raft.messages import decode, encode
from tests.sim.checks import Checks

if TYPE_CHECKING:
    from tests.sim.process import Process

T = TypeVar("T")

DELAY_S = (0.0002, 0.004)
GIVE_UP_S = 1.0
LATE_S = (0.004, 0.05)  # of a datagram that takes a detour
LATE_SHARE = REPEAT_SHARE = 0.02
INBOX_MAX = 200  # datagrams that a socket keeps for a process that does not run
RECONNECT_S = (0.001, 0.1)


@dataclass
class Direction:
    """What one end sends to the other."""

    queue: deque[tuple[float, bytes]] = field(default_factory=deque)
    newest: float = 0.0
    blocks: int = 0
    stuck: int = 0  # blocks of the connection alone
    loss: float = 0.0  # share of datagrams


class Link:
    """The connection between two nodes, broken or not."""

    def __init__(self, ends: tuple[int, int]) -> None:
        self.ends = ends
        self.number = 0  # of the connection; each end believes in one, 0 for none
        self.believes = dict.fromkeys(ends, 0)
        self.directions = {end: Direction() for end in ends}

    def other(self, end: int) -> int:
        """Return the far end."""
        return self.ends[1] if end == self.ends[0] else self.ends[0]


class World:
    """Time, network and nodes of one run."""

    def __init__(self, *, seed: int, node_ids: tuple[int, ...] = (1, 2, 3)) -> None:
        self.rng = random.Random(seed)
        self.seed = seed
        self.now = 100.0
        self.node_ids = node_ids
        self._heap: list[tuple[float, int, Callable[..., object], tuple[object, ...]]] = []
        self._order = count()
        self.processes: dict[int, Process] = {}
        self.links = {pair: Link(pair) for pair in combinations(node_ids, 2)}
        self.violations: list[str] = []
        self.story: list[str] = []
        self.facts: list[Fact] = []  # of nodes that record
        self.leaders: dict[int, int] = {}  # term → who led it first
        self.checks = Checks(self.violate)
        self.acknowledged: set[int] = set()  # numbers of commands whose proposer was told
        # The test's hand on the wire: sees each message, and keeps it from the network
        # by returning False; `deliver` may hand it over later, in any order.
        self.tap: Callable[[int, int, dict[str, Any]], bool] = lambda *_: True
        self.datagram_tap: Callable[[int, int, bytes], bool] = lambda *_: True
        self.recorded: list[tuple[int, bytes]] = []  # datagrams, for whom
        self._running: Process | None = None
        library.prepare(clock=self._library_clock, uniform=self.rng.random)

    def _library_clock(self) -> float:
        assert self._running is not None, "the library asked for the time outside a node"
        return self._running.clock()

    def on(self, process: Process, call: Callable[..., T], *args: object) -> T:
        """Call something of a node: the library then reads that node's clock."""
        was, self._running = self._running, process
        try:
            return call(*args)
        finally:
            self._running = was

    @property
    def running(self) -> Process | None:
        """The node of which something is being called."""
        return self._running

    def election_rng(self, _process: Process) -> random.Random:
        """Return what draws when a node stands for election."""
        return random.Random(self.rng.random())

    def tell(self, text: str) -> None:
        """Add a line to the story."""
        self.story.append(f"{self.now - 100:9.4f} {text}")

    def violate(self, text: str) -> None:
        """Note that an invariant does not hold."""
        self.tell(f"VIOLATION {text}")
        self.violations.append(f"{self.now - 100:.4f} {text}")

    # --------------------------------------------------------------------- time

    def at(self, when: float, call: Callable[..., object], *args: object) -> None:
        """Call later, at a time."""
        heapq.heappush(self._heap, (when, next(self._order), call, args))

    def after(self, delay_s: float, call: Callable[..., object], *args: object) -> None:
        """Call later, after a while."""
        self.at(self.now + delay_s, call, *args)

    def run(self, duration_s: float) -> None:
        """Let time pass."""
        end = self.now + duration_s
        while self._heap and self._heap[0][0] <= end:
            self.now, _, call, args = heapq.heappop(self._heap)
            call(*args)
        self.now = end

    def run_until(self, condition: Callable[[], bool], *, within_s: float) -> bool:
        """Let time pass until a condition holds; False if it does not in time."""
        end = self.now + within_s
        while not condition():
            if not self._heap or self._heap[0][0] > end:
                self.now = end
                return condition()
            self.now, _, call, args = heapq.heappop(self._heap)
            call(*args)
        return True

    # ------------------------------------------------------------------ network

    def link(self, a: int, b: int) -> Link:
        """Return the connection of a pair."""
        return self.links[min(a, b), max(a, b)]

    def send(self, source: int, target: int, message: dict[str, Any]) -> bool:
        """Send a message, through the real codec."""
        link = self.link(source, target)
        if not link.believes[source]:
            return False
        if link.believes[source] != link.number:
            return True  # written into a connection that is dead already
        if not self.tap(source, target, message):
            return True
        direction = link.directions[source]
        due = max(direction.newest, self.now + self.rng.uniform(*DELAY_S))
        direction.newest = due
        direction.queue.append((due, encode(message)))
        self.at(due, self._deliver, link, source, link.number)
        return True

    def queued(self, source: int, target: int) -> int:
        """Return how many bytes are on their way."""
        return sum(len(data) for _, data in self.link(source, target).directions[source].queue)

    def deliver(self, source: int, target: int, message: dict[str, Any]) -> None:
        """Hand a message over at once, past network and order, but through the codec."""
        process = self.processes[target]
        self.on(process, process.receive, source, decode(encode(message)))

    def _deliver(self, link: Link, source: int, number: int) -> None:
        direction = link.directions[source]
        target = link.other(source)
        process = self.processes[target]
        if link.number != number or direction.blocks or direction.stuck or process.busy:
            return
        while direction.queue and direction.queue[0][0] <= self.now:
            _, data = direction.queue.popleft()
            if process.alive and link.believes[target] == number:
                self.on(process, process.receive, source, decode(data))

    def datagram(self, source: int, target: int, data: bytes) -> None:
        """Send a datagram: it arrives late, twice or never."""
        self.recorded.append((target, data))
        direction = self.link(source, target).directions[source]
        if not self.datagram_tap(source, target, data) or direction.blocks:
            return
        for _ in range(1 + (self.rng.random() < REPEAT_SHARE)):
            if self.rng.random() >= direction.loss:
                late = LATE_S if self.rng.random() < LATE_SHARE else DELAY_S
                self.after(self.rng.uniform(*late), self._arrive, target, data)

    def replay(self, rng: random.Random, count: int) -> None:
        """Send recorded datagrams again: one after the other as once said, or any."""
        start = rng.randrange(max(1, len(self.recorded) - count))
        chosen = self.recorded[start : start + count]
        if rng.random() < 0.5:
            chosen = rng.choices(self.recorded, k=count) if self.recorded else []
        for target, data in chosen:
            self.after(rng.uniform(*DELAY_S), self._arrive, target, data)

    def _arrive(self, target: int, data: bytes) -> None:
        process = self.processes[target]
        if process.alive and process.busy:
            if len(process.inbox) < INBOX_MAX:
                process.inbox.append(data)
        elif process.alive:
            self.on(process, process.receive_datagram, data)

    def flush(self, node_id: int) -> None:
        """Deliver what waited for a node or behind a block."""
        process = self.processes[node_id]
        if not process.busy:
            inbox, process.inbox = process.inbox, []
            for data in inbox:
                self.after(0.0, self._arrive, node_id, data)
        for link in self.links.values():
            if node_id in link.ends:
                for end in link.ends:
                    self.after(0.0, self._deliver, link, end, link.number)

    def block(self, source: int, target: int) -> Callable[[], None]:
        """Stop one direction; return what ends the block."""
        link = self.link(source, target)
        link.directions[source].blocks += 1
        number = link.number

        def give_up() -> None:
            if link.number == number and link.directions[source].blocks:
                self.break_link(link)

        def end() -> None:
            link.directions[source].blocks -= 1
            self.flush(target)

        self.after(GIVE_UP_S, give_up)
        return end

    def stick(self, source: int, target: int) -> Callable[[], None]:
        """Stop one direction of a connection, not the datagrams; return what ends that."""
        direction = self.link(source, target).directions[source]
        direction.stuck += 1

        def end() -> None:
            direction.stuck -= 1
            self.flush(target)

        return end

    def break_link(self, link: Link) -> None:
        """Break a connection; what was in flight is lost from a random point on."""
        number = link.number
        link.number = next(self._order) + 1_000_000  # nobody believes in this one
        for end in link.ends:
            link.directions[end].queue.clear()
            self.after(self.rng.uniform(0.0, 0.1), self._notice, link, end, number)

    def _notice(self, link: Link, end: int, number: int) -> None:
        if link.believes[end] == number and number:
            link.believes[end] = 0
            process = self.processes[end]
            if process.alive:
                self.on(process, process.guard.peer_disconnected, link.other(end))
        self.after(self.rng.uniform(*RECONNECT_S), self.connect, link)

    def connect(self, link: Link) -> None:
        """Make the connection anew if both ends can."""
        processes = [self.processes[end] for end in link.ends]
        if link.believes[link.ends[0]] == link.number and link.number:
            return
        blocked = any(d.blocks or d.stuck for d in link.directions.values())
        blocked |= not _accept(*processes)
        if blocked or not all(p.alive and not p.busy for p in processes):
            self.after(RECONNECT_S[1], self.connect, link)
            return
        link.number = next(self._order) + 1
        for end, process in zip(link.ends, processes, strict=True):
            link.directions[end].queue.clear()
            link.directions[end].newest = self.now
            link.believes[end] = link.number
            self.on(process, process.guard.peer_connected, link.other(end))


def _accept(a: Process, b: Process) -> bool:
    """Say whether two nodes make a connection, as `hanat.net.secure_stream` decides."""
    known = a.node_id in b.members and b.node_id in a.members
    return known and (a.members == b.members or not a.members_told)
