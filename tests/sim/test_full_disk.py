"""A node whose disk takes nothing: what it may still say, and that it recovers by itself."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from hanat.consensus.durability import RETRY_S
from hanat.consensus.guard import Guard
from hanat.consensus.journal import open_journal
from hanat.core.status import Role
from tests.consensus.disks import Failing, Full
from tests.sim import repairs
from tests.sim.bench import Bench, entries_of, tell, with_and_without
from tests.sim.process import Process
from tests.sim.run import converged, holders
from tests.sim.world import World

ENTRIES = entries_of(1, 2, 5)


class Dying(Failing):
    """A disk that takes nothing at all while `full`."""

    @property
    def full(self) -> bool:
        return self.fail_at is not None

    @full.setter
    def full(self, full: bool) -> None:
        self.fail_at, self.lasting = (self.changes if full else None), full


def bench_on(disk: Full | Failing, data_dir: Path, guard: type[Guard] = Guard) -> Bench:
    """Return a started node on a disk, which holds its first entry."""

    def prepare(process: Process) -> None:
        process.journal = open_journal(data_dir, node_id=process.node_id, files=disk)
        process.journal.recovered()

    bench = Bench(guard, prepare=prepare)
    bench.heartbeat(2, term=1).run(0.6)
    bench.take("next_node_idx")
    return bench


@pytest.mark.parametrize(
    "disk", [Full(), Dying(), Dying(errno.EROFS)], ids=["full", "EIO", "EROFS"]
)
def test_follower_acknowledges_nothing_that_it_could_not_store(
    disk: Full | Dying, tmp_path: Path
) -> None:
    bench = bench_on(disk, tmp_path)
    disk.full = True
    for _ in range(3):
        bench.append(2, term=1, after=(1, 0), entries=ENTRIES, commit=5).tick()
        bench.append(2, term=1, after=(5, 1), commit=5).tick()
    said = bench.take("next_node_idx", to=2)
    # It is heard that it lives, and it asks for nothing to be sent again.
    assert [(m["success"], m["reset"]) for m in said] == [(False, False)] * 5
    assert (bench.last, bench.node.replica.applied_index) == (1, 1)
    assert "room" in bench.node.core.hindrances[0] or "disk" in bench.node.core.hindrances[0]
    disk.full = False
    bench.run(RETRY_S + 0.1)
    assert bench.node.core.hindrances == ()
    bench.take("next_node_idx")
    bench.append(2, term=1, after=(5, 1), commit=5)
    bench.append(2, term=1, after=(1, 0), entries=ENTRIES, commit=5)
    reset, acknowledged = bench.take("next_node_idx", to=2)
    assert reset["reset"]
    assert (acknowledged["success"], acknowledged["next_node_idx"]) == (True, 6)


@with_and_without(repairs.WithoutWriteAhead)
def test_vote_that_could_not_be_saved_is_not_given(guard: type[Guard], tmp_path: Path) -> None:
    disk = Dying()
    bench = bench_on(disk, tmp_path, guard)
    bench.run(0.3)
    disk.full = True
    assert bench.ask_vote(2, term=50) is (guard is not Guard)
    disk.full = False
    bench.run(RETRY_S + 0.1)
    assert bench.node.core.hindrances == ()
    assert bench.node.journal.getCurrentTerm() == bench.term
    assert not bench.ask_vote(3, term=50)  # this process knows what it gave
    assert bench.ask_vote(3, term=60)


def test_node_that_cannot_write_neither_stands_nor_encourages_others(tmp_path: Path) -> None:
    disk = Full()
    bench = bench_on(disk, tmp_path)
    disk.full = True
    bench.append(2, term=1, after=(1, 0), entries=ENTRIES)
    bench.run(0.05).take("pre_vote")
    bench.run(RETRY_S / 2)
    assert not bench.ask_pre_vote(3, term=9)
    assert not bench.ask_vote(3, term=9)
    assert bench.take("pre_vote") == []
    disk.full = False
    bench.run(2 * RETRY_S)
    assert bench.take("pre_vote") != []


@pytest.mark.parametrize("disk_of", [Full, Dying])
def test_holder_with_a_full_disk_hands_over_and_takes_part_again(
    disk_of: type[Full | Dying], tmp_path: Path
) -> None:
    world = World(seed=1)
    disks = {node_id: disk_of() for node_id in world.node_ids}
    for node_id, disk in disks.items():
        process = Process(world, node_id, profile="default", rate=1.0)
        process.journal = open_journal(tmp_path / str(node_id), node_id=node_id, files=disk)
        process.start()
    assert world.run_until(lambda: converged(world), within_s=10), tell(world)
    (holder,) = holders(world)
    disks[holder].full = True
    world.processes[holder].propose(1)
    others = [i for i in world.node_ids if i != holder]
    assert world.run_until(lambda: holders(world) in ([i] for i in others), within_s=1), tell(world)
    (successor,) = holders(world)
    world.processes[successor].propose(2)
    world.run(3 * RETRY_S)
    assert holders(world) == [successor], tell(world)
    assert world.acknowledged == {2}
    assert world.processes[holder].core.hindrances != ()
    assert world.processes[holder].role is Role.BACKUP
    disks[holder].full = False
    assert world.run_until(lambda: converged(world), within_s=2 * RETRY_S), tell(world)
    world.run(RETRY_S)
    assert world.processes[holder].core.hindrances == ()
    assert [p.applied for p in world.processes.values()] == [[2], [2], [2]]
    assert world.violations == []
