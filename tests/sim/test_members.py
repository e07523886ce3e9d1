"""Member lists that differ: a half-done growth, a node replaced by another id.

With three nodes in one file and five in another there are two majorities. Each condition
that keeps them from both being used is left out once, and then there are two that answer,
or two leaders of one term, or committed entries are lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from hanat.core import members as core_members
from hanat.core.beacon import Beacon
from hanat.errors import JournalError
from hanat.raft.durability import Durability
from hanat.raft.elections import Elections
from hanat.raft.guard import Guard
from tests.sim import process as sim_process
from tests.sim.bench import Bench, entries_of, fill, tell
from tests.sim.process import Process
from tests.sim.run import holders
from tests.sim.world import World

OLD, NEW = (1, 2, 3), (1, 2, 3, 4, 5)
Patch = pytest.MonkeyPatch


def nothing(_patch: Patch) -> None: ...


def list_not_told(patch: Patch) -> None:
    patch.setattr(Process, "members_told", False)


def list_not_kept(patch: Patch) -> None:
    patch.setattr(Durability, "moved", False)


def majority_is_enough(patch: Patch) -> None:
    """Count votes of a majority where all must have saved the new list."""
    patch.setattr(Elections, "_wants_all", False)


def any_list_accepted(patch: Patch) -> None:
    patch.setattr(sim_process, "drops_majority", lambda _old, _new: False)


class Lists:
    """Nodes whose files list different members."""

    def __init__(self, seed: int, node_ids: tuple[int, ...]) -> None:
        self.world = World(seed=seed, node_ids=node_ids)
        for node_id in node_ids:
            process = Process(self.world, node_id, profile="default", rate=1.0)
            process.journal.lost()  # it is new

    def start(self, members: tuple[int, ...], node_ids: Iterable[int] | None = None) -> None:
        """Start nodes anew with a member list."""
        for node_id in node_ids or members:
            process = self.world.processes[node_id]
            if process.alive:
                process.kill()
            process.members = members
            process.start()

    def stop(self, *node_ids: int) -> None:
        for node_id in node_ids:
            if self.world.processes[node_id].alive:
                self.world.processes[node_id].kill()

    def serves(self, *among: int) -> bool:
        """Say whether one of these nodes comes to hold the addresses, and all follow it."""

        def settled() -> bool:
            found = [i for i in holders(self.world) if i in among]
            processes = [self.world.processes[i] for i in among]
            leaders = {p.replica.leader if p.alive else None for p in processes}
            forgetful = any(p.alive and p.guard.recovery.needed for p in processes)
            return len(found) == 1 and leaders == set(found) and not forgetful

        return self.world.run_until(settled, within_s=5)

    @property
    def two(self) -> bool:
        """Whether two nodes answered, or what is committed was lost."""
        return bool(self.world.violations)


def cluster_of(members: tuple[int, ...], *, seed: int = 1, extra: tuple[int, ...] = ()) -> Lists:
    lists = Lists(seed, tuple(sorted({*members, *extra})))
    lists.start(members)
    assert lists.serves(*members), tell(lists.world)
    return lists


# ---------------------------------------------------------------------- what goes well


def test_half_done_growth_that_is_taken_back_costs_nothing() -> None:
    lists = cluster_of(OLD, extra=NEW)
    lists.start(NEW, [3, 4, 5])
    lists.world.run(1.0)
    assert holders(lists.world) in ([1], [2]), tell(lists.world)
    lists.start(OLD, [3])
    assert lists.serves(*OLD), tell(lists.world)
    assert not lists.two, tell(lists.world)


def test_node_is_replaced_by_another_id_with_all_nodes_stopped() -> None:
    lists = cluster_of(OLD, extra=(4,))
    lists.stop(*OLD)
    lists.start((1, 2, 4))
    assert lists.serves(1, 2, 4), tell(lists.world)


def test_list_without_a_majority_of_the_old_nodes_does_not_start() -> None:
    lists = cluster_of(OLD, extra=NEW)
    lists.stop(*OLD)
    lists.start((1, 4, 5))
    lists.world.run(3.0)
    assert not lists.world.processes[1].alive
    assert holders(lists.world) == []


# ------------------------------------------------------------------- what is left out


def half_done_growth(seed: int) -> Lists:
    """One node is restarted with five, and asks the others, which run with three, for votes."""
    lists = cluster_of(OLD, seed=seed, extra=NEW)
    world = lists.world
    lists.stop(*OLD)
    apart = [world.block(1, 2), world.block(2, 1)]
    lists.start(OLD, [1, 2])
    lists.start(NEW, [3, 4, 5])
    world.run_until(lambda: holders(world) == [3], within_s=2)
    for end in apart:
        end()
    for old in (1, 2):
        world.block(3, old)
        world.block(old, 3)
    world.run(2.0)
    return lists


def half_done_shrinking(seed: int) -> Lists:
    """Two nodes are restarted with three, the three others go on with five."""
    lists = cluster_of(NEW, seed=seed)
    lists.start(OLD, [1, 2])
    lists.world.run(3.0)
    return lists


def taken_back_when_some_had_voted(seed: int) -> Lists:
    """All of five answer a candidate, but two vote late, and are restarted with three."""
    lists = cluster_of(OLD, seed=seed, extra=NEW)
    lists.stop(*OLD)
    world, late = lists.world, {2, 3}
    campaigns: list[int] = []

    def tap(source: int, target: int, message: dict[str, object]) -> bool:
        if message["type"] == "request_vote":
            campaigns.append(source)
        return not (campaigns and target in late)

    world.tap = tap
    world.datagram_tap = lambda _source, target, _data: not (campaigns and target in late)
    lists.start(NEW)
    world.run_until(lambda: bool(campaigns), within_s=2)
    world.run(0.3)
    for old in (2, 3):
        for new in (1, 4, 5):
            world.block(old, new)
    world.tap, world.datagram_tap = lambda *_: True, lambda *_: True
    lists.start(OLD, late)
    world.run(2.0)
    return lists


def two_of_three_left_out(seed: int) -> Lists:
    """One node is restarted with two new ones, the two others go on with it in their files."""
    lists = cluster_of(OLD, seed=seed, extra=(4, 5))
    lists.start((3, 4, 5))
    lists.world.run(3.0)
    return lists


LEFT_OUT: tuple[tuple[Callable[[Patch], None], Callable[[int], Lists]], ...] = (
    (list_not_told, half_done_growth),
    (list_not_kept, half_done_shrinking),
    (majority_is_enough, taken_back_when_some_had_voted),
    (any_list_accepted, two_of_three_left_out),
)


@pytest.mark.parametrize("schedule", [schedule for _, schedule in LEFT_OUT])
@pytest.mark.parametrize("seed", range(1, 5))
def test_lists_that_differ_never_give_two_holders(
    seed: int, schedule: Callable[[int], Lists]
) -> None:
    lists = schedule(seed)
    assert len(holders(lists.world)) <= 1
    assert not lists.two, tell(lists.world)


@pytest.mark.parametrize(("leave_out", "schedule"), LEFT_OUT)
def test_each_condition_is_needed(
    leave_out: Callable[[Patch], None], schedule: Callable[[int], Lists], monkeypatch: Patch
) -> None:
    leave_out(monkeypatch)
    assert any(schedule(seed).two for seed in range(1, 9))


# ------------------------------------------------------------------- one node alone


def moved_bench() -> Bench:
    """Return a started node, quiet no more, that took part last with other nodes."""

    def prepare(process: Process) -> None:
        fill(process, entries_of(1, 2, 3), term=1)
        process.journal.members = (1, 2, 4)

    return Bench(Guard, prepare=prepare).run(0.6)


def test_node_with_another_list_neither_promises_nor_acknowledges() -> None:
    # The leader may be one that all others have left: with this node it would be a majority.
    bench = moved_bench()
    bench.hear(2, Beacon(term=6, leads=True, asks=True))
    bench.sent.clear()
    bench.append(2, term=6, after=(3, 1), entries=entries_of(6, 4, 4))
    bench.run(0.02)
    assert all(beacon.promised is None for _, beacon, _ in bench.told)
    assert bench.take("next_node_idx") == []
    assert bench.guard.recovery.needed


def test_node_that_cannot_save_the_new_list_does_not_vote() -> None:
    bench = moved_bench()
    log = {"last_log_index": bench.last, "last_log_term": 9}

    def fail(_members: tuple[int, ...]) -> None:
        raise JournalError(tried="save", found="no space", to_do="make room")

    bench.node.journal.join = fail
    bench.say(2, "request_vote", term=9, transfer=False, all=True, **log)
    assert bench.take("response_vote") == []


def test_vote_with_all_others_saves_the_new_list() -> None:
    bench = moved_bench()
    log = {"last_log_index": bench.last, "last_log_term": 9}
    bench.say(2, "request_vote", term=9, transfer=False, all=False, **log)
    assert bench.take("response_vote") == []
    bench.say(2, "request_vote", term=9, transfer=False, all=True, **log)
    assert bench.take("response_vote") != []
    assert bench.node.journal.members == OLD
    assert bench.guard.recovery.needed  # it may lack what was agreed on without it


KEEPING = ((OLD, OLD), (OLD, NEW), (NEW, OLD), (OLD, (1, 2, 4)), ((1,), OLD), ((), NEW))
DROPPING = ((OLD, (1, 4, 5)), (OLD, (1,)), (NEW, (1, 2, 6)))


@pytest.mark.parametrize("change", KEEPING + DROPPING)
def test_change_that_drops_a_majority_is_known(
    change: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    assert core_members.drops_majority(*change) is (change in DROPPING)
