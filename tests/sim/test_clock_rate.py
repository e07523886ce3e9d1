"""Clocks that are slewed by 10 %: what was promised is still kept, and nobody holds by them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hanat.core import inputs as told
from hanat.core.beacon import Beacon
from hanat.core.node import Node
from hanat.raft.elections import Elections
from hanat.raft.guard import Guard
from hanat.raft.promises import Promises
from tests.sim.bench import Bench, tell
from tests.sim.clocks import slew
from tests.sim.process import Process
from tests.sim.run import cluster, converged, holders
from tests.sim.world import World

SLOW, FAST = 0.9, 1.1
SLEWED_S = 2.0
Patch = pytest.MonkeyPatch
Schedule = Callable[[int], World]


def no_watch(patch: Patch) -> None:
    patch.setattr(Process, "watch_clock", False)


def votes(patch: Patch) -> None:
    """Vote and stand whatever the clock does."""
    patch.setattr(Elections, "able", property(lambda guard: guard.durability.fit))


def holds(patch: Patch) -> None:
    """Hold, and renew the lease, whatever the clock does."""
    step = Node.step

    def deaf(node: Node, item: told.Input, now: float) -> object:
        return () if isinstance(item, told.SafetyObserved) else step(node, item, now)

    patch.setattr(Node, "step", deaf)
    renew = Promises._renew

    def trusting(guard: Promises, peer: int, term: int, sent_at: float) -> None:
        watch, guard.clock_watch = guard.clock_watch, None
        renew(guard, peer, term, sent_at)
        guard.clock_watch = watch

    patch.setattr(Promises, "_renew", trusting)


def steady(seed: int) -> tuple[World, int]:
    world = cluster(seed=seed, profile="calm")
    assert world.run_until(lambda: converged(world), within_s=10), tell(world)
    world.run(world.rng.uniform(1.0, 1.5))
    (holder,) = holders(world)
    return world, holder


def isolate(world: World, node_id: int) -> None:
    for other in world.node_ids:
        if other != node_id:
            world.block(node_id, other)
            world.block(other, node_id)


def holder_is_slow(seed: int) -> World:
    world, holder = steady(seed)
    slew(world.processes[holder], SLOW)
    world.run(world.rng.uniform(0.5, SLEWED_S))
    isolate(world, holder)
    world.run(3.0)
    return world


def all_at_once(seed: int) -> World:
    world, holder = steady(seed)
    for node_id, process in world.processes.items():
        slew(process, SLOW if node_id == holder else FAST)
    world.run(world.rng.uniform(0.0, SLEWED_S))
    isolate(world, holder)
    world.run(3.0)
    return world


SCHEDULES: tuple[Schedule, ...] = (holder_is_slow, all_at_once)
LEFT_OUT: tuple[tuple[Callable[[Patch], None], Schedule], ...] = (
    (no_watch, all_at_once),
    (holds, holder_is_slow),
)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("seed", range(1, 7))
def test_slewed_clocks_never_give_two_holders(seed: int, schedule: Schedule) -> None:
    world = schedule(seed)
    assert world.violations == [], tell(world)


@pytest.mark.parametrize(("leave_out", "schedule"), LEFT_OUT)
def test_each_condition_is_needed(
    leave_out: Callable[[Patch], None], schedule: Schedule, monkeypatch: Patch
) -> None:
    leave_out(monkeypatch)
    assert any(schedule(seed).violations for seed in range(1, 9))


def votes_before_the_end_of_its_promise() -> bool:
    """Say whether a node whose clock begins to run fast keeps what it promised, in true time."""
    bench = Bench(Guard).run(0.7)
    lease_s = bench.node.configuration.profile.lease_s
    bench.hear(2, Beacon(term=6, leads=True, asks=True))
    assert bench.guard.promise.leader == 2
    slew(bench.node, FAST)
    bench.run(0.95 * lease_s)  # by its own clock that is longer than the lease
    assert bench.guard.promise.until < bench.node.clock()
    return bench.ask_vote(3, term=9)


def test_promise_is_kept_by_a_clock_that_begins_to_run_fast(monkeypatch: Patch) -> None:
    assert not votes_before_the_end_of_its_promise()
    votes(monkeypatch)
    assert votes_before_the_end_of_its_promise()


def test_slewed_follower_promises_nothing() -> None:
    world, holder = steady(2)
    follower = next(p for i, p in world.processes.items() if i != holder)
    slew(follower, FAST)
    world.run(1.0)
    assert follower.guard.promise.until < follower.clock()
    assert holders(world) == [holder]  # the other one is enough
