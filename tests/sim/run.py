"""One seed: faults for a while, then peace, then judgement."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

from chaos.observe.run_history import Fact
from hanat.core import inputs as told
from hanat.core.configuration import GateKind
from hanat.core.status import Role
from hanat.raft.guard import Guard
from tests.sim.examples import configuration
from tests.sim.liveness import Liveness
from tests.sim.process import Process
from tests.sim.storage import SLOW_S, WORK_S
from tests.sim.troubles import TROUBLES
from tests.sim.world import World

CLOCK_RATE_ERROR = 0.01
FAULTS_S = 8.0
PEACE_S_MAX = 10.0
SETTLED_S = 2.5  # a node whose disk failed tries again each second, then it has to catch up
FAULT_EVERY_S = 0.5
COMMAND_EVERY_S = (0.01, 3.0)  # busy or idle: only an idle cluster lets a lagging node stand
COMPACT_EVERY_S = 0.3
REPLAY_EVERY_S = 0.01
FIVE_NODES_EVERY = 8  # seeds of a swarm
TERMS_MAX = 60  # two faults a second for eight seconds explain no more


@dataclass(frozen=True)
class Result:
    """What one seed showed."""

    seed: int
    violations: tuple[str, ...]
    story: tuple[str, ...]
    commands: int
    terms: int
    facts: tuple[Fact, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether every invariant held."""
        return not self.violations


def nodes_of(seed: int) -> int:
    """Return how many nodes a seed of a swarm has."""
    return 5 if seed % FIVE_NODES_EVERY == 0 else 3


LACKING_S_MAX = 3.0  # until a resync has told a node everything


def cluster(
    *,
    seed: int,
    profile: str = "default",
    guard: type[Guard] = Guard,
    nodes: int = 3,
    process: type[Process] = Process,
    gates: Iterable[GateKind] = (),
) -> World:
    """Return a started cluster of nodes whose clocks differ in rate.

    Args:
        seed: Of what is random.
        profile: Its name.
        guard: What decides about promises and votes.
        nodes: How many.
        process: What a node is.
        gates: Of the first nodes; those of the others have timeouts.
    """
    world = World(seed=seed, node_ids=tuple(range(1, 1 + nodes)))
    for node_id in world.node_ids:
        rate = 1 + world.rng.uniform(-CLOCK_RATE_ERROR, CLOCK_RATE_ERROR) / 2
        process(world, node_id, profile=profile, rate=rate, guard=guard)
    for node, kind in zip(world.processes.values(), gates, strict=False):
        node.configuration = configuration(profile, kind)
    for node in world.processes.values():
        node.start()
    return world


def holders(world: World) -> list[int]:
    """Return who is ACTIVE."""
    return [i for i, p in world.processes.items() if p.role is Role.ACTIVE]


def present(world: World) -> list[Process]:
    """Return the nodes that are not away for ever."""
    return [p for p in world.processes.values() if not p.gone]


def converged(world: World) -> bool:
    """Say whether all that are not gone run, follow one holder and have applied the same.

    The holder has its addresses: what its kernel refused it tries again after some seconds.
    """
    processes = present(world)
    if not all(p.alive and not p.paused for p in processes) or len(holders(world)) != 1:
        return False
    if not all(p.addresses.there for p in processes if p.role is Role.ACTIVE):
        return False
    return (
        len({(p.replica.term, p.replica.leader, p.replica.applied_index) for p in processes}) == 1
    )


def run_seed(
    seed: int,
    *,
    profile: str = "default",
    guard: type[Guard] = Guard,
    compact: bool = False,
    nodes: int | None = None,
    process: type[Process] = Process,
) -> Result:
    """Run one seed and judge it.

    Args:
        seed: Fixes every draw.
        profile: Timing.
        guard: What repairs the library; a broken one shows what a repair is for.
        compact: Nodes cut their logs now and then.
        nodes: How many; None: as the seed says.
        process: What they are; some record what they apply.
    """
    count = nodes or nodes_of(seed)
    world = cluster(
        seed=seed, profile=profile, guard=guard, nodes=count, process=process,
        gates=gates_of(seed, count),
    )  # fmt: skip
    return _run(world, compact=compact)


def gates_of(seed: int, nodes: int) -> list[GateKind]:
    """Return what ends the rights of each node: all the same in half of the seeds, or mixed."""
    draw = Random(f"gates of {seed}")
    if draw.random() < 0.5:
        return [draw.choice(list(GateKind))] * nodes
    return draw.choices(list(GateKind), k=nodes)


def run_without_one(seed: int, *, profile: str = "default", compact: bool = False) -> Result:
    """Run one seed of three nodes of which one leaves early, and never comes back."""
    world = cluster(seed=seed, profile=profile, gates=gates_of(seed, 3))
    world.at(world.now + 0.9, _leave, world.processes[1 + seed % 3])
    return _run(world, compact=compact)


def _run(world: World, *, compact: bool) -> Result:
    seed = world.seed
    for node in world.processes.values():
        node.lacking_s_max = LACKING_S_MAX
    if compact:
        world.after(0.5, _compact_now_and_then, world, Random(seed))
    client = _Client(world)
    nemesis = _Nemesis(world)
    world.after(0.0, client.go)
    world.after(1.0, nemesis.go)
    world.after(1.0, Liveness(world).look)
    world.run(1.0 + FAULTS_S)
    nemesis.stop()
    client.stop()
    if not world.run_until(lambda: converged(world), within_s=PEACE_S_MAX):
        if not _explained(world):
            roles = {i: p.role and p.role.value for i, p in world.processes.items()}
            world.violate(f"not converged {PEACE_S_MAX:.0f} s after the faults ended: {roles}")
    else:
        world.run(SETTLED_S)
        judge(world)
    return Result(
        seed,
        tuple(world.violations),
        tuple(world.story),
        len(client.sent),
        len(world.leaders),
        tuple(world.facts),
    )


def _compact_now_and_then(world: World, rng: Random) -> None:
    process = world.processes[rng.choice(world.node_ids)]
    if process.alive and not process.paused:
        process.compact()
    world.after(rng.expovariate(1 / COMPACT_EVERY_S), _compact_now_and_then, world, rng)


def _explained(world: World) -> bool:
    """Say whether less than a majority is left that has forgotten nothing.

    A node whose disk failed, and that ended before it worked again, waits for the one that is gone.
    """
    remember = [p for p in present(world) if not p.guard.recovery.needed]
    return len(remember) <= len(world.node_ids) // 2 and len(present(world)) < len(world.node_ids)


def _leave(process: Process) -> None:
    process.gone = True
    process.kill()


def judge(world: World) -> None:
    """Check what holds when all nodes run and agree; the world notes what does not."""
    if len(world.leaders) > TERMS_MAX:
        world.violate(f"{len(world.leaders)} terms, at most {TERMS_MAX} are explained")
    applied = [tuple(p.applied) for p in present(world)]
    if len(set(applied)) != 1:
        world.violate(f"applied commands differ: {[len(a) for a in applied]}")
    for process in present(world):
        lost = world.acknowledged - set(process.applied)
        if lost:
            world.violate(f"{process.node_id} lacks acknowledged commands {sorted(lost)[:5]}")
        # They come behind the shut gate of one that is just being elected.
        opening = process.role is Role.TAKEOVER
        if not opening and process.addresses.there != (process.role is Role.ACTIVE):
            world.violate(f"{process.node_id} has addresses={process.addresses.there}")


def _all(undos: list[Callable[[], None]]) -> None:
    for undo in undos:
        undo()


class _Client:
    """Proposes numbered commands to whoever leads."""

    def __init__(self, world: World) -> None:
        self._world, self._on = world, True
        self._every_s = world.rng.choice(COMMAND_EVERY_S)
        self.sent: list[int] = []

    def go(self) -> None:
        if not self._on:
            return
        self._world.after(self._world.rng.expovariate(1 / self._every_s), self.go)
        for process in self._world.processes.values():
            if process.alive and not process.paused and process.ready:
                self.sent.append(len(self.sent))
                process.propose(self.sent[-1])

    def stop(self) -> None:
        self._on = False


class _Nemesis:
    """Induces faults, and ends all of them when it stops."""

    def __init__(self, world: World) -> None:
        self._world, self._on = world, True
        self._undo: dict[int, Callable[[], None]] = {}
        self._number = 0
        self._replaying = 0

    def go(self) -> None:
        if not self._on:
            return
        rng = self._world.rng
        self._world.after(rng.expovariate(1 / FAULT_EVERY_S), self.go)
        node_id = rng.choice(self._world.node_ids)
        fault = rng.choice(
            [
                self.kill,
                self.crash,
                self.pause,
                self.isolate,
                self.deafen,
                self.part,
                self.sever,
                self.lose,
                self.choke,
                self.unplug,
                self.move,
                self.cut_power,
                self.slow_disk,
                self.fail_disk,
                self.replay,
                self.hold_gate,
                self.trouble,
                self.trouble,
                self.trouble,
            ]
        )
        fault(self._world.processes[node_id])

    def stop(self) -> None:
        self._on = False
        for number in list(self._undo):
            self._end(number)

    def _for(self, seconds: float, undo: Callable[[], None]) -> None:
        self._number += 1
        self._undo[self._number] = undo
        self._world.after(seconds, self._end, self._number)

    def _end(self, number: int) -> None:
        undo = self._undo.pop(number, None)
        if undo is not None:
            undo()

    def kill(self, process: Process) -> None:
        if process.alive:
            process.kill()
            self._for(self._world.rng.uniform(0.05, 2.0), process.start)

    def cut_power(self, process: Process) -> None:
        """Cut the power of a node, often of others at the same time, now and then of all."""
        count = self._world.rng.choice([1, 1, 2, len(self._world.node_ids)])
        others = self._world.rng.sample(self._world.node_ids, count - 1)
        for node_id in dict.fromkeys([process.node_id, *others]):
            self._cut(self._world.processes[node_id])

    def _cut(self, process: Process) -> None:
        if process.alive:
            process.lose_power()
            self._for(self._world.rng.uniform(0.05, 2.0), process.start)

    def slow_disk(self, process: Process) -> None:
        self._world.tell(f"{process.node_id} disk slow")
        process.disk.work_s = process.snapshot_disk.work_s = SLOW_S

        def end() -> None:
            process.disk.work_s = process.snapshot_disk.work_s = WORK_S

        self._for(self._world.rng.uniform(0.2, 2.0), end)

    def fail_disk(self, process: Process) -> None:
        """Let parts of a disk take nothing for a while."""
        journal, store = process.journal, process.store
        parts = self._world.rng.choice(
            [[journal.disk], [journal.facts], [store], [journal.disk, journal.facts, store]]
        )
        names = [type(part).__name__ for part in parts]
        self._world.tell(f"{process.node_id} disk fails: {names}")
        for part in parts:
            part.failing = True

        def end() -> None:
            for part in parts:
                part.failing = False

        self._for(self._world.rng.uniform(0.2, 2.0), end)

    def replay(self, _process: Process) -> None:
        """Send again what was ever sent, for a while: also of processes long gone."""
        self._world.tell("recorded datagrams are sent again")
        self._replaying += 1

        def end() -> None:
            self._replaying -= 1

        self._replay()
        self._for(self._world.rng.uniform(0.05, 2.0), end)

    def trouble(self, process: Process) -> None:
        """Make nodes hindered or unsafe."""
        self._world.rng.choice(TROUBLES)(self._world, process, self._for)

    def _replay(self) -> None:
        if self._replaying:
            self._world.replay(self._world.rng, self._world.rng.choice([1, 10]))
            self._world.after(REPLAY_EVERY_S, self._replay)

    def hold_gate(self, process: Process) -> None:
        """Let the holder's kernel refuse to withdraw rights, or take long; then give a reason to.

        It is silenced by the end that its right has in the kernel, and nobody may count on less.
        """
        (process,) = [self._world.processes[i] for i in holders(self._world)[:1]] or [process]
        withdraw_s = self._world.rng.choice([None, None, 0.02, 0.1, 0.5])
        self._world.tell(f"{process.node_id} withdraws in {withdraw_s}")
        process.withdraw_s = withdraw_s

        def end() -> None:
            process.withdraw_s = 0.0

        self._for(self._world.rng.uniform(0.2, 2.0), end)
        self._world.rng.choice([self.move, self.unplug, self.crash])(process)

    def crash(self, process: Process) -> None:
        if process.alive:
            process.crash(noticed_s=self._world.rng.choice([0.001, 0.01, 0.2]))
            self._for(self._world.rng.uniform(0.5, 2.0), process.start)

    def pause(self, process: Process) -> None:
        if process.alive and not process.paused:
            process.pause(self._world.rng.choice([0.02, 0.08, 0.15, 0.5, 1.5]))

    def _block(self, pairs: list[tuple[int, int]]) -> None:
        undos = [self._world.block(*pair) for pair in pairs]
        self._for(self._world.rng.uniform(0.05, 2.0), lambda: _all(undos))

    def isolate(self, process: Process) -> None:
        me = process.node_id
        others = [i for i in self._world.node_ids if i != me]
        self._world.tell(f"{me} isolated")
        self._block([(me, o) for o in others] + [(o, me) for o in others])

    def deafen(self, process: Process) -> None:
        me = process.node_id
        pairs = [(o, me) for o in self._world.node_ids if o != me]
        if self._world.rng.random() < 0.5:
            pairs = [(me, o) for _, me in pairs[:1] for o in self._world.node_ids if o != me]
        self._world.tell(f"one way: {pairs} blocked")
        self._block(pairs)

    def part(self, process: Process) -> None:
        me = process.node_id
        other = self._world.rng.choice([i for i in self._world.node_ids if i != me])
        self._world.tell(f"{me} and {other} cut apart")
        self._block([(me, other), (other, me)])

    def sever(self, process: Process) -> None:
        other = self._world.rng.choice([i for i in self._world.node_ids if i != process.node_id])
        self._world.tell(f"{process.node_id}-{other} connection broken")
        self._world.break_link(self._world.link(process.node_id, other))

    def lose(self, process: Process) -> None:
        """Lose a share of the datagrams in one direction, or all of both: connections go on."""
        other = self._world.rng.choice([i for i in self._world.node_ids if i != process.node_id])
        share = self._world.rng.choice([0.1, 0.3, 0.6, 1.0])
        ends = self._world.link(process.node_id, other).directions
        sources = list(ends) if self._world.rng.random() < 0.5 else [process.node_id]
        self._world.tell(f"{process.node_id}-{other}: {share:.0%} of datagrams of {sources} lost")
        for source in sources:
            ends[source].loss = share

        def heal() -> None:
            for source in sources:
                ends[source].loss = 0.0

        self._for(self._world.rng.uniform(0.05, 2.0), heal)

    def choke(self, process: Process) -> None:
        """Stop the connections of a node, in one direction or both: datagrams pass."""
        me = process.node_id
        pairs = [(o, me) for o in self._world.node_ids if o != me]
        if self._world.rng.random() < 0.5:
            pairs += [(me, o) for o, _ in pairs]
        self._world.tell(f"connections stuck: {pairs}")
        undos = [self._world.stick(*pair) for pair in pairs]
        self._for(self._world.rng.uniform(0.05, 2.0), lambda: _all(undos))

    def unplug(self, process: Process) -> None:
        if not process.alive or process.paused:
            return
        self._world.tell(f"{process.node_id} public carrier lost")
        incarnation = process.incarnation
        self._carrier(process, incarnation, carrier=False)
        self._for(
            self._world.rng.uniform(0.2, 2.0),
            lambda: self._carrier(process, incarnation, carrier=True),
        )

    def _carrier(self, process: Process, incarnation: int, *, carrier: bool) -> None:
        if process.alive and process.incarnation == incarnation:
            observed = told.CarrierObserved("public", carrier)
            self._world.on(process, process.feed, observed)

    def move(self, process: Process) -> None:
        if process.role is Role.ACTIVE and not process.paused:
            self._world.tell(f"{process.node_id} switchover requested")
            self._world.on(process, process.feed, told.SwitchoverRequested(None))
