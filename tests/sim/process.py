"""One node of the simulation: the real core, guard, library and state machine.

The kernel is modelled by what matters to a packet: until when the gate lets this
node answer, in true time, whatever the process does; and whether it has the
addresses.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

from hanat.core import actions as do
from hanat.core import inputs as told
from hanat.core.beacon import Beacon, Died, Heard
from hanat.core.configuration import nominal_lease_s
from hanat.core.identity import Identity
from hanat.core.members import drops_majority, members_of
from hanat.core.node import Node
from hanat.core.outcomes import Failed
from hanat.core.status import Role
from hanat.errors import WireError
from hanat.net.death_notice import seal_release
from hanat.net.freshness import Exchange, Stranger
from hanat.raft.guard import Guard
from hanat.raft.messages import decode, encode
from hanat.raft.replica import Replica
from hanat.raft.slow_work import Background
from hanat.raft.state import Barrier, Command, Flows, Holder, NewConfiguration
from tests.sim import slices
from tests.sim.addresses import Addresses
from tests.sim.clocks import clock_watch
from tests.sim.examples import configuration
from tests.sim.refusing import NO_PEER, REFUSED, Refusing
from tests.sim.snapshots import CountingState, MemoryStore
from tests.sim.storage import Disk, Storage
from tests.sim.world import World

TRANSFER_ATTEMPTS = 15
TICK_S_MIN = 0.001
CARRIES_ERROR = 0.01  # rate of the node's clock
RULESETS_S = (0.0002, 0.15)  # to read a configuration, and to install one
BURST_S = 0.002  # how long a busy event loop may gather messages before it ticks


class Process:
    """A node that can be killed, paused and restarted; its journal survives.

    Args:
        world: Where it lives.
        node_id: Who it is.
        profile: Name of its timing.
        rate: Speed of its clock, 1 for true time.
        guard: What repairs the library; a broken one shows what a repair is for.
    """

    gate_enforced = True  # False: the kernel forgets to end the right to answer
    watch_clock = members_told = True  # False: nobody looks at rates; at member lists
    exchange_class = Exchange  # a broken one shows what it is for

    def __init__(
        self,
        world: World,
        node_id: int,
        *,
        profile: str,
        rate: float,
        guard: type[Guard] = Guard,
    ) -> None:
        self.world, self.node_id, self.rate, self.raw_rate = world, node_id, rate, rate
        self.offset = world.rng.uniform(0, 1000)
        self.configuration = configuration(profile)
        self.members = members_of(world.node_ids)  # in its file
        self.guard_class = guard
        self.journal: Any = Storage(world.checks, node_id)
        self.store: Any = MemoryStore()
        self.padding = 0  # of the state, in MiB
        self.kept_entries = 5  # of the log before a cut
        self.lacking_s_max = 0.0  # for how long it lacks flows after a start or a snapshot
        # A thread for each.
        self.disk, self.snapshot_disk, self.rulesets = Disk(self), Disk(self), Disk(self)
        self.rulesets.work_s = RULESETS_S
        self.background: Background = self.disk
        self.alive = self.paused = self.gone = False
        self.refusing = Refusing(self)
        # True time; the kernel keeps both when the process dies.
        self.answers_until = self.carries_until = 0.0
        self.addresses = Addresses(self)
        self.withdraw_s: float | None = 0.0  # how long that takes the kernel; None: it refuses
        self.applied: list[int] = []
        self.inbox: list[bytes] = []  # datagrams that wait for the process to run
        self.held: list[Callable[[], None]] = []  # what its threads were at when it was paused
        self.incarnation = 0
        world.processes[node_id] = self

    @property
    def busy(self) -> bool:
        """Whether the process does not run, so that nothing is read."""
        return self.paused

    def clock(self) -> float:
        """Seconds of this node's clock."""
        return self.world.now * self.rate + self.offset

    @property
    def role(self) -> Role | None:
        """The node's role, None when it does not run."""
        return self.core.snapshot().role if self.alive else None

    @property
    def ready(self) -> bool:
        """Whether the node leads and has applied its barrier, so that it may propose."""
        return self.replica.leading and self.replica.state.term == self.replica.term

    # ---------------------------------------------------------------- life

    def start(self) -> None:
        """Start, or start again with what the journal kept; it may refuse the member list."""
        if drops_majority(self.journal.members, self.members):
            return
        self.alive, self.paused, self.held, self.applied, self.inbox = True, False, [], [], []
        self.incarnation, self.checked_index = self.incarnation + 1, 0
        self.queue: deque[told.Input] = deque()
        self.todo: deque[do.Action] = deque()
        self.stepping = self.stalled = self.failed = self.kicked = False
        self.timer, self.tick_number, self.tick_due = self.refusing.of_next_process()
        self.world.on(self, self._build)
        self._lack_flows()
        self.world.tell(f"{self.node_id} start")
        for link in self.world.links.values():
            if self.node_id in link.ends:
                self.world.after(0.01, self.world.connect, link)
        self._tick(self.incarnation, 0)

    def _make_guard(self) -> Guard:
        return self.guard_class(
            node_id=self.node_id,
            peer_ids=[i for i in self.members if i != self.node_id],
            profile=self.configuration.profile,
            journal=self.journal,
            clock=self.clock,
            rng=self.world.election_rng(self),
        )

    def _identity(self, members: tuple[int, ...]) -> Identity:
        profile, name = self.configuration.profile, self.configuration.name
        return Identity(bytes(32), name, nominal_lease_s(profile), self.node_id, members)

    def _make_exchange(self) -> Exchange:
        return self.exchange_class(
            self._identity(self.members if self.members_told else ()),
            incarnation=self.world.rng.getrandbits(63) + 1,
            peer_ids=[i for i in self.members if i != self.node_id],
            clock=self.clock,
        )

    def _build(self) -> None:
        self.guard = self._make_guard()
        self.exchange = self._make_exchange()
        self.guard.durability.background = self.background
        self.guard.clock_watch = clock_watch(self) if self.watch_clock else None
        self.core = Node(node_id=self.node_id, configuration=self.configuration, now=self.clock())
        state = self.state = CountingState()
        state.padding, self.applied = self.padding, state.uids
        self.guard.durability.kept_entries = self.kept_entries
        self.replica = Replica(
            self.guard, on_input=self.feed, on_command=self._command, store=self.store, state=state
        )
        self.replica.snapshots.background = self.snapshot_disk
        self.replica.snapshots.restored = self._restored
        self.guard.bind(self.replica.machine, self)
        for action in self.core.start():
            self._execute(action)  # a gate that it cannot shut ends by itself

    def kill(self, how: str = "killed") -> None:
        """End the process at once; the kernel keeps gate and addresses."""
        self.world.tell(f"{self.node_id} {how}")
        self.alive = False
        if isinstance(self.journal, Storage):
            self.journal.crash(self.store)
        for link in self.world.links.values():
            if self.node_id in link.ends:
                link.believes[self.node_id] = 0
                self.world.break_link(link)

    def lose_power(self) -> None:
        """End the whole machine at once."""
        self.kill()
        self.world.tell(f"{self.node_id} lost its power")
        self.answers_until = min(self.answers_until, self.world.now)
        self.carries_until = min(self.carries_until, self.world.now)
        self.addresses.there = False

    def crash(self, *, noticed_s: float) -> None:
        """End the daemon; its supervisor withdraws the right to answer, then says so.

        Only if it could: else the others wait for the end of their promises.
        """
        release = seal_release(self._identity(()), self.exchange.incarnation)
        self.kill()

        def release_lease() -> None:
            self.answers_until = min(self.answers_until, self.world.now)
            for _ in range(3):
                for peer in self.members:
                    if peer != self.node_id:
                        self.world.datagram(self.node_id, peer, release)

        if self.withdraw_s is not None:
            self.world.after(noticed_s + self.withdraw_s, release_lease)

    def pause(self, duration_s: float) -> None:
        """Let the process stand still for a while."""
        self.world.tell(f"{self.node_id} paused for {duration_s:.3f}")
        self.paused = True
        self.kicked = False
        self.world.after(duration_s, self._resume, self.incarnation)

    def _resume(self, incarnation: int) -> None:
        if self.alive and incarnation == self.incarnation:
            self.paused = False
            if self.stalled:
                self.world.on(self, self._work)
            held, self.held = self.held, []
            for finish in held:
                finish()
            self._tick(incarnation, self.tick_number)
            self.world.flush(self.node_id)

    # ------------------------------------------------------------- the loop

    def _tick(self, incarnation: int, number: int) -> None:
        if not self.alive or self.paused:
            return
        if (incarnation, number) != (self.incarnation, self.tick_number):
            return
        self.world.on(self, self._tick_now)
        self._tick_later()

    def _tick_later(self) -> None:
        self.tick_number += 1
        delay_s = max(TICK_S_MIN, self.guard.deadline - self.clock())
        self.tick_due = self.clock() + delay_s
        self.world.after(delay_s / self.rate, self._tick, self.incarnation, self.tick_number)

    def _tick_now(self) -> None:
        slices.tick(self)
        self._check()

    def beacon(self, peer: int, beacon: Beacon, message: dict[str, Any] | None) -> None:
        """Send a beacon: the guard's wire."""
        payload = b"" if message is None else encode(message)
        self.world.datagram(self.node_id, peer, self.exchange.seal(peer, beacon, payload=payload))

    def receive_datagram(self, data: bytes) -> None:
        """Take a datagram, as the daemon does."""
        try:
            said = self.exchange.open(data, path=0)
        except WireError:
            return
        match said:
            case Stranger(peer, mark):
                answer = self.exchange.seal(peer, self.guard.view(peer), echo=mark)
                self.world.datagram(self.node_id, peer, answer)
            case Heard(peer, payload=payload):
                self.guard.hear(said)
                if payload:
                    self.receive(peer, decode(payload))
                elif self.tick_due <= self.clock() + self.configuration.profile.beacon_s / 2:
                    self._kick_soon()  # the node is awake anyway
                elif self.guard.deadline <= self.clock():
                    self._kick_soon()
            case Died(peer):
                self.guard.died(peer)
                self._kick_soon()
            case None:
                pass

    def send(self, peer: int, message: dict[str, Any]) -> bool:
        """Send a message: the guard's wire."""
        return self.world.send(self.node_id, peer, message)

    def queued(self, peer: int) -> int:
        """Return how many bytes are on their way to a peer: the guard's wire."""
        return self.world.queued(self.node_id, peer)

    def receive(self, peer: int, message: dict[str, Any]) -> None:
        """Take a message; a burst of them takes effect together, as in the daemon."""
        self.guard.receive(peer, message)
        self._kick_soon()

    def _kick_soon(self) -> None:
        if not self.kicked:
            self.kicked = True
            delay_s = self.world.rng.uniform(0.0, BURST_S)
            self.world.after(delay_s, self._kick, self.incarnation)

    def _kick(self, incarnation: int) -> None:
        if not self.alive or incarnation != self.incarnation:
            return
        self.kicked = False
        if not self.paused:
            self.world.on(self, self._tick_now)
            self._tick_later()

    def propose(self, uid: int) -> bool:
        """Propose a numbered command; the world notes when it is acknowledged."""

        def done(committed: bool) -> None:  # noqa: FBT001 - called by the log
            if committed:
                self.world.acknowledged.add(uid)

        command = Flows(self.replica.term, 0, uid.to_bytes(8, "big"))
        return bool(self.world.on(self, self.replica.propose, command, done))

    def _command(self, command: Command) -> None:
        if isinstance(command, NewConfiguration):
            self._restored()

    def _lack_flows(self) -> None:
        """Be without all flows for a while, as a flow worker that waits for a resync."""
        if not self.lacking_s_max:
            return
        self.guard.complete = False
        self.world.after(
            self.world.rng.uniform(0, self.lacking_s_max), self._have_flows, self.incarnation
        )

    def _have_flows(self, incarnation: int) -> None:
        if self.alive and incarnation == self.incarnation:
            self.guard.complete = True

    def _restored(self) -> None:
        self._lack_flows()
        if self.replica.state.revision:
            revision = self.replica.state.revision
            self.feed(told.ConfigurationCommitted(revision))
            read = told.ConfigurationApplied(revision, self.refusing.configuration())
            self.rulesets(lambda: None, lambda _: self.feed(read))

    def compact(self) -> None:
        """Let the node write a snapshot and cut its log."""
        self.replica.machine.forceLogCompaction()

    def feed(self, item: told.Input) -> None:
        """Let the core take an input and carry out what it wants."""
        self.queue.append(item)
        if not self.stepping:
            self._work()

    def _work(self) -> None:
        self.stepping = True
        while self.todo or self.queue:
            if not self.todo:
                self._step(self.queue.popleft())
            elif self._stalls(self.todo[0]):
                return  # goes on here
            else:
                self._carry_out(self.todo.popleft())
        self.stepping = False
        self._arm_timer()

    def _step(self, item: told.Input) -> None:
        was = self.core.snapshot()
        self.todo.extend(self.core.step(item, self.clock()))
        self.failed = False
        now = self.core.snapshot()
        if was.role is not now.role:
            self.world.tell(
                f"{self.node_id} {was.role.value}→{now.role.value} "
                f"term={now.term} reason={now.reason.value}"
            )

    def _stalls(self, action: do.Action) -> bool:
        """Say whether the process stands still in the kernel now, before an action's effect."""
        if not self.withdraw_s or not isinstance(action, do.WithdrawGate | do.ShutGate):
            return False
        self.stalled = not self.stalled
        if self.stalled:
            self.pause(self.withdraw_s)
        return self.stalled

    def _carry_out(self, action: do.Action) -> None:
        if self.failed and not isinstance(action, do.CLEANUP):
            return
        self.stalled = False
        found = self.refusing.found(action) or self._execute(action)
        self.failed |= found is not None
        if found is None and isinstance(action, do.InstallRuleset | do.AddAddresses):
            return  # its outcome comes later
        self.queue.append(told.ActionFailed(action, found) if found else told.ActionDone(action))

    def _arm_timer(self) -> None:
        self.timer += 1
        deadline = self.core.deadline
        if deadline is not None:
            delay_s = max(0.0, deadline - self.clock()) / self.rate
            self.world.after(delay_s, self._due, self.timer, self.incarnation)

    def _due(self, timer: int, incarnation: int) -> None:
        if not self.alive or incarnation != self.incarnation or timer != self.timer:
            return
        if self.paused:
            self.world.after(0.01, self._due, timer, incarnation)
            return
        self.world.on(self, self.feed, told.TimerDue())

    # ------------------------------------------------------------- the kernel

    def _execute(self, action: do.Action) -> Failed | None:  # noqa: C901, PLR0912 - one arm an action
        match action:
            case do.ArmGate():
                self._arm(action)
            case do.WithdrawGate() | do.ShutGate() if self.withdraw_s is None:
                return REFUSED
            case do.WithdrawGate():
                self.answers_until = min(self.answers_until, self.world.now)
            case do.ShutGate():
                self.answers_until = min(self.answers_until, self.world.now)
                self.carries_until = min(self.carries_until, self.world.now)
            case do.InstallRuleset():
                self.refusing.install(action)
            case do.AddAddresses() | do.RemoveAddresses():
                self.addresses.take(action)
            case do.SettleFlows(term):
                self.queue.append(told.FlowsSettled(term))
            case do.FlushFlows():
                self.queue.append(told.FlowsFlushed())
            case do.ProposeBarrier(term):
                self.replica.propose_once(Barrier(term, self.node_id))
            case do.ProposeHolder(term):
                self.replica.propose_once(Holder(term, self.node_id))
            case do.ProposeConfiguration():
                self.replica.propose_once(NewConfiguration(self.replica.state.revision, "text"))
            case do.TransferLeadership(to):
                self._transfer(to, TRANSFER_ATTEMPTS, (self.incarnation, self.replica.term))
            case do.StepDown(stand):
                self.replica.step_down(stand=stand)
            case do.SetFitness(fitness):
                self.replica.set_fitness(fitness)
            case _:
                pass
        return None

    def _arm(self, action: do.ArmGate) -> None:
        left_s = action.answers_until - self.clock()
        if left_s <= 0:
            return
        self.answers_until = self.world.now + left_s / self.rate
        if not self.gate_enforced:
            self.answers_until = math.inf
        carries_s = (action.carries_until - self.clock()) / self.rate
        self.carries_until = self.world.now + carries_s
        grace_s = self.configuration.profile.grace_s * self.raw_rate / self.rate
        if carries_s > left_s / self.rate + grace_s * (1 + CARRIES_ERROR):
            self.world.violate(f"{self.node_id} carries for {carries_s:.3f} s, grace {grace_s}")
        self._check_alone()

    def _transfer(self, to: tuple[int, ...], attempts: int, when: tuple[int, int]) -> None:
        if not self.alive or when != (self.incarnation, self.replica.term):
            return
        if self.paused:
            self.world.after(0.01, self._transfer, to, attempts, when)
            return
        if self.world.on(self, self.replica.transfer, to):
            return
        if attempts == 0:
            failed = told.ActionFailed(do.TransferLeadership(to), NO_PEER)
            self.world.on(self, self.feed, failed)
            return
        delay_s = self.configuration.profile.beacon_s
        self.world.after(delay_s, self._transfer, to, attempts - 1, when)

    # ------------------------------------------------------------- invariants

    def _check_alone(self) -> None:
        for other in self.world.processes.values():
            if other is not self and other.answers_until > self.world.now + 1e-9:
                both_s = min(other.answers_until, self.answers_until) - self.world.now
                self.world.violate(
                    f"two answer: {self.node_id} and {other.node_id} for {both_s * 1000:.2f} ms"
                )

    def _check(self) -> None:
        first_index = self.journal[0][1]
        start = max(self.checked_index + 1, first_index)
        for index in range(start, self.replica.applied_index + 1):
            entry = self.journal[index - first_index]
            self.world.checks.applied(self.node_id, entry, term=self.replica.term)
        self.checked_index = self.replica.applied_index
        if self.replica.leading:
            if self.replica.term not in self.world.leaders:
                self.world.checks.elected(self.node_id, self.journal, term=self.replica.term)
            first = self.world.leaders.setdefault(self.replica.term, self.node_id)
            if first != self.node_id:
                both = f"{first} and {self.node_id}"
                self.world.violate(f"two leaders in term {self.replica.term}: {both}")
