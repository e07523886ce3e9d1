"""One node's copy of the replicated log, and its events.

Wraps the library's object: the rest of hanat proposes bytes and hears of
leaders, leases and applied commands, as inputs of the core. Whoever owns a
`Replica` calls `tick` often (half a heartbeat) and after each burst of messages.

What was committed takes effect in slices, with a turn of the owner's loop between them: a
node that starts, or that was behind, would otherwise apply all of its log in one tick. What
waits for a commit is bounded: a log without a majority grows, and cannot be cut.

"The leader is ready" means that its own barrier of this term is applied: only
then has it seen every entry that was ever committed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

from hanat import __version__
from hanat.core.beacon import Beacon
from hanat.core.eligibility import Fitness
from hanat.core.histogram import Histogram
from hanat.core.inputs import (
    BarrierApplied,
    ClaimHeard,
    FlowsObserved,
    HolderApplied,
    Input,
    JournalObserved,
    LeaderObserved,
    LeaseObserved,
    PeersObserved,
    SafetyObserved,
)
from hanat.errors import ConsensusError, JournalError
from hanat.raft import state as entries
from hanat.raft.compaction import NoStore, Snapshots, Store
from hanat.raft.guard import Guard
from hanat.raft.library import LibraryNode, SyncObj, SyncObjConf
from hanat.raft.messages import NO_OP, unwrap, wrap
from hanat.raft.promises import HEARTBEAT_BEACONS
from hanat.raft.snapshot_transfer import Transfers
from hanat.raft.state import Barrier, Command, FeatureLevel, Holder, State, may_be_applied

ENTRY_BYTES_MAX = 4 << 20  # must fit a frame, see session.FRAME_BYTES_MAX
COMMIT_BOUNDS_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
APPLIED_MAX = 100  # entries in a slice: 5 ms at 50 us each
CLOSED_BEACONS = 2  # a hand-over is tried again within one
UNCOMMITTED_MAX = 1024  # entries; some 30 wait in service
NEVER_S = 1e9
Strange = tuple[int, int, int]  # index, feature level and kind of an entry


class _Machine(SyncObj):  # type: ignore[misc] # the library is untyped
    """The library's object; its entries are `messages.wrap`ped bytes, not pickled calls."""

    def __init__(
        self, apply: Callable[[bytes], None], guard: Guard, configuration: SyncObjConf
    ) -> None:
        self._apply, self._log = apply, guard.durability
        self.strange: Strange | None = None  # where applying stopped
        me, peers = LibraryNode(guard.node_id), list(guard.nodes.values())
        super().__init__(me, peers, configuration, transport=guard)

    @property
    def behind(self) -> bool:
        """Whether something is committed and not applied that can be."""
        end = self.raftCommitIndex if self.strange is None else self.strange[0] - 1
        return bool(self.raftLastApplied < end)

    def _applicable_to(self, last: int) -> int:
        """Return up to which index entries can be applied, of those up to `last`."""
        begin = self._log[0][1] if len(self._log) else 1
        for index in range(self.raftLastApplied + 1, min(last + 1, begin + len(self._log))):
            data = unwrap(self._log[index - begin][0])
            if data is not None and not may_be_applied(data):
                self.strange = index, data[0], data[1]
                return index - 1
        self.strange = None
        return last

    def _SyncObj__applyLogEntries(self) -> bool:  # noqa: N802 - the library's, mangled
        """Apply a slice of what is committed: the library would apply all of it."""
        committed = self.raftCommitIndex
        bound = self._applicable_to(min(committed, self.raftLastApplied + APPLIED_MAX))
        if committed <= bound:
            return bool(super()._SyncObj__applyLogEntries())
        self._SyncObj__raftCommitIndex = bound
        try:
            return bool(super()._SyncObj__applyLogEntries())
        finally:
            # What takes effect may make the library hear of more.
            self._SyncObj__raftCommitIndex = max(committed, self._SyncObj__raftCommitIndex)

    def _SyncObj__doApplyCommand(self, command: bytes) -> None:  # noqa: N802 - the library's, mangled
        """Apply a committed entry; a no-op of the library means nothing."""
        data = unwrap(command)
        if data is not None:
            self._apply(data)


class Replica:
    """The replicated log of one node.

    Args:
        guard: The repaired transport; its wire may be connected later.
        on_input: Takes what the core must hear.
        on_command: Takes each command that took effect, in log order.
        store: Where snapshots are kept; without one the log grows for ever.
        state: The state machine.

    Raises:
        StartupError: The snapshot is somebody else's, or cannot be read.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        on_input: Callable[[Input], None],
        on_command: Callable[[Command], None],
        store: Store | None = None,
        state: State | None = None,
    ) -> None:
        self.state = state or State()
        self._guard = guard
        self.snapshots = Snapshots(store or NoStore(), guard.durability, lambda: self.state)
        self.snapshots.open()
        guard.transfers = Transfers(guard, self.snapshots)
        self._on_input, self._on_command = on_input, on_command
        self._observed: tuple[int, int | None] = (0, None)
        self._proposed = False
        self._closed_for = 0, 0.0  # in which term, and until when
        self.commits = Histogram(COMMIT_BOUNDS_S)
        self._journal, self._complete = "", True
        self._peers: PeersObserved | None = PeersObserved((), electable=False)
        self._clock_found = ""
        self._strange: Strange | None = None
        self._rank = sum(peer < guard.node_id for peer in guard.nodes)
        guard.level_in_force = lambda: self.state.written_level
        guard.misled = lambda: on_input(ClaimHeard())
        guard.lease_changed = lambda term, until: on_input(LeaseObserved(term, until))
        library = _configuration_for(guard, self.snapshots)
        self._machine = _Machine(self._apply, guard, library)

    @property
    def machine(self) -> Any:  # noqa: ANN401 - the library is untyped; only the guard and the simulation look inside
        """The library's object."""
        return self._machine

    @property
    def term(self) -> int:
        """The Raft term."""
        return int(self._machine.raftCurrentTerm)

    @property
    def leader(self) -> int | None:
        """Who leads this term, as far as known here."""
        node = self._machine._getLeader()  # noqa: SLF001 - the library has no public name for it
        return None if node is None else int(node.id)

    @property
    def leading(self) -> bool:
        """Whether this node is the leader."""
        return self._guard.leading

    @property
    def commit_index(self) -> int:
        """Highest index known to be committed."""
        return int(self._machine.raftCommitIndex)

    @property
    def applied_index(self) -> int:
        """Highest index applied here."""
        return int(self._machine.raftLastApplied)

    @property
    def last_index(self) -> int:
        """Highest index in the log."""
        return self._guard.last_index

    def propose(self, command: Command, done: Callable[[bool], None] | None = None) -> bool:
        """Append a command; only the leader can.

        Args:
            command: What to append.
            done: Called once with True when it is applied here, False when it was
                replaced; not called at all if this node dies or loses track of it, so
                the caller keeps a deadline.

        Returns:
            False if this node does not lead, or hands leadership on, or its log is too long, or
            too much waits for a commit; then `done` is not called.

        Raises:
            ConsensusError: The command is too large for an entry.
        """
        if not self._appends or self._guard.durability.crowded:
            return False
        if not self._room and not isinstance(command, Barrier | Holder):
            return False  # those two are once a term, and end the waiting
        data = self._encoded(command)
        if len(data) > ENTRY_BYTES_MAX:
            raise ConsensusError(f"an entry of {len(data)} bytes; at most {ENTRY_BYTES_MAX} fit")
        began = self._guard.clock()

        def applied(_result: object, error: int) -> None:
            if error == 0:
                self.commits.observe(self._guard.clock() - began)
            if done is not None:
                done(error == 0)

        self._machine._applyCommand(wrap(data), applied)  # noqa: SLF001 - the library has no public name for it
        self._proposed = True
        return True

    def propose_once(self, command: Command) -> None:
        """Append a command unless it is in the log, in this term; see `propose`.

        Nobody hears what became of it: whoever needs it asks again until it took effect.
        """
        if not self._appended(wrap(self._encoded(command))):
            self.propose(command)

    def _encoded(self, command: Command) -> bytes:
        return entries.encode(command, self._guard.level())

    def _appended(self, data: bytes) -> bool:
        log, term = self._guard.durability, self.term
        for position in reversed(range(len(log))):
            entry = log[position]
            if entry[2] != term:
                return False
            if entry[0] == data:
                return True
        return False

    def tick(self) -> None:
        """Let time and received messages take effect; report what changed."""
        self._guard.before_tick()
        self._guard.transfers.settle()
        # In this order: `wanted` says yes once in a while, which must not be in vain.
        blocked = self._guard.transfers.active and not self._guard.durability.crowded
        if not blocked and self.snapshots.wanted(
            now=self._guard.clock(), rank=self._rank, leading=self.leading
        ):
            appends = self._appends and self._room and self._machine.strange is None
            if appends and (self.snapshots.spoiled or self.snapshots.outgrown):
                # The library makes no second snapshot up to the same entry.
                self._machine._applyCommand(NO_OP, None)  # noqa: SLF001 - the library has no public name for it
            self._machine.forceLogCompaction()
            self._proposed = True
        if self._due:
            self._do_tick()
        self._observe()
        if self._proposed:  # by what was observed: it need not wait for the next tick
            self._do_tick()
        self._guard.durability.tick()

    @property
    def _due(self) -> bool:
        """Whether the library has anything to do; a leader's quiet tick is a tenth of its cost."""
        guard = self._guard
        return (
            not self.leading
            or self._proposed
            or guard.stirred
            or self.behind
            or guard.durability.failure is not None
            or self.snapshots.busy
            or guard.clock() - guard.asked_at >= HEARTBEAT_BEACONS * guard.profile.beacon_s
        )

    @property
    def handing_on(self) -> bool:
        """Whether this leader hands leadership on: nothing is appended meanwhile."""
        term, until = self._closed_for
        return self._guard.handed_on or (term == self.term and self._guard.clock() < until)

    @property
    def _appends(self) -> bool:
        """Whether this node leads and does not hand on."""
        return self.leading and not self.handing_on

    @property
    def _room(self) -> bool:
        """Whether more may wait for a commit."""
        return self.last_index - self.commit_index < UNCOMMITTED_MAX

    @property
    def behind(self) -> bool:
        """Whether more is to take effect: tick again when the loop has had its turn."""
        return self._machine.behind

    def _do_tick(self) -> None:
        self._proposed = self._guard.stirred = False
        with suppress(JournalError):  # `durability` has noted it
            self._machine.doTick(0)
        self.snapshots.check()

    def _observe(self) -> None:
        observed = (self.term, self.leader)
        if observed != self._observed:
            self._observed = observed
            self._on_input(LeaderObserved(*observed))
            if until := self._guard.lease.until:
                # Promised in the same burst as the votes: when nobody knew who leads.
                self._on_input(LeaseObserved(self.term, until))
        if self._guard.complete is not self._complete:
            self._complete = self._guard.complete
            self._on_input(FlowsObserved(self._complete))
        peers = self._seen()
        if peers != self._peers:
            self._peers = peers
            self._on_input(peers)
        journal = self._guard.durability.found
        if journal != self._journal:
            self._journal = journal
            self._on_input(JournalObserved(journal))
        clock = self._guard.clock_found
        if clock != self._clock_found:
            self._clock_found = clock
            self._on_input(SafetyObserved("clock", clock))
        if self._machine.strange != self._strange:
            self._strange = self._machine.strange
            self._on_input(SafetyObserved("log", _newer(self._strange)))

    def _seen(self) -> PeersObserved:
        """Return what a leader must know of its peers."""
        if not self.leading:
            return PeersObserved((), electable=False)
        return PeersObserved(self._guard.seen(self._guard.connected), self._guard.electable)

    @property
    def fit_peers(self) -> dict[int, int]:
        """Connected peers that can stand in for a holder, and their handicaps."""
        connected = self._guard.connected
        return {p: h for p, h in self._guard.fit_peers.items() if p in connected}

    @property
    def can_vote(self) -> bool:
        """Whether this node can vote and store."""
        return self._guard.can_vote

    @property
    def beacons(self) -> dict[int, Beacon]:
        """What peers said of themselves just now."""
        return self._guard.alive()

    @property
    def complete_peers(self) -> frozenset[int]:
        """Peers that said in a recent beacon that they have all flows."""
        return frozenset(self._guard.complete_peers)

    def transfer(self, to: Collection[int]) -> bool:
        """Hand leadership to the first of some peers that has the whole log.

        Args:
            to: The first choice first; empty for anybody, the best first.

        Returns:
            False if nobody suitable has the whole log; then the lease goes on. Nothing is appended
            for two beacons, or no peer would ever have it: ask again until then.
        """
        until = self._guard.clock() + CLOSED_BEACONS * self._guard.profile.beacon_s
        self._closed_for = self.term, until
        if self._proposed:  # it is not in the log yet, and no peer has it; the next tick appends it
            return False
        fit = self.fit_peers
        best = sorted(fit, key=lambda peer: (fit[peer], peer))
        return any(self._transfer_to(peer) for peer in to or best or self._guard.connected)

    def _transfer_to(self, peer: int) -> bool:
        accepted: list[bool] = []
        node = self._guard.nodes.get(peer)
        if node is None or not self.leading:
            return False
        self._machine.transferLeadership(node, lambda _result, error: accepted.append(error == 0))
        return accepted == [True]

    def step_down(self, *, stand: bool = False) -> None:
        """Stop leading; with `stand`, stand for the next term as any other node."""
        self._guard.step_down(stand=stand)
        self._observe()

    def set_fitness(self, fitness: Fitness) -> None:
        """Say what speaks against this node."""
        self._guard.set_fitness(fitness)
        self._peers = None  # the core waits for what they answer

    def _apply(self, data: bytes) -> None:
        command = self.state.apply(data)
        if command is None:
            return
        self._on_command(command)
        if isinstance(command, FeatureLevel):
            self.snapshots.level_rose()
        if isinstance(command, Barrier) and command.node_id == self._guard.node_id:
            self._on_input(BarrierApplied(command.term))
        if isinstance(command, Holder) and command.node_id == self._guard.node_id:
            self._on_input(HolderApplied(command.term))


def _configuration_for(guard: Guard, snapshots: Snapshots) -> SyncObjConf:
    """Return the library's settings: our timer, not the library's, decides elections."""
    profile = guard.profile
    return SyncObjConf(
        autoTick=False,
        journalFile=guard.durability,
        serializer=snapshots,
        deserializer=snapshots,
        fullDumpFile=snapshots.store.trigger,
        appendEntriesPeriod=HEARTBEAT_BEACONS * profile.beacon_s,
        # Longer than the guard ever lets it see its peers: only the guard says when to stand.
        raftMinTimeout=4 * HEARTBEAT_BEACONS * profile.beacon_s,
        raftMaxTimeout=5 * HEARTBEAT_BEACONS * profile.beacon_s,
        # Nor let it give up by itself: `Elections._fall_back` asks whether others could lead.
        leaderFallbackTimeout=NEVER_S,
        connectionTimeout=3600.0,
        # Never let the library split a batch or an entry: the guard slices.
        appendEntriesUseBatch=False,
        appendEntriesBatchSizeBytes=1 << 30,
        commandsWaitLeader=False,
        dynamicMembershipChange=False,
        useFork=False,
        # The log is cut by us, never by the library's own count or clock.
        logCompactionMinEntries=1 << 60,
        logCompactionMinTime=1 << 30,
        password=None,
    )


def _newer(strange: Strange | None) -> str:
    """Return what an operator must know of an entry that a later version made."""
    if strange is None:
        return ""
    index, level, kind = strange
    return (
        f"entry {index} of the log is of feature level {level} and kind {kind}, which hanat "
        f"{__version__} does not know: install the version that wrote it"
    )
