"""A node whose disk takes nothing: what it may still say, and that it recovers by itself."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from hanat.raft.durability import RETRY_S
from hanat.raft.guard import Guard
from hanat.raft.journal_opening import open_journal
from hanat.raft.messages import Entry, wrap
from hanat.raft.state import NewConfiguration, encode
from tests.raft.disks import Failing
from tests.sim import repairs
from tests.sim.bench import Bench, entries_of, fill, settled, tell, with_and_without
from tests.sim.process import Process
from tests.sim.run import converged, holders
from tests.sim.storage import Storage
from tests.sim.test_durable import acknowledged, slow
from tests.sim.world import World

ENTRIES = entries_of(1, 2, 5)
CONFIGURATION: Entry = (wrap(encode(NewConfiguration(0, "text"))), 4, 1)


class Dying(Failing):
    """A disk that takes nothing at all while `dead`."""

    @property
    def dead(self) -> bool:
        return self.fail_at is not None

    @dead.setter
    def dead(self, dead: bool) -> None:
        self.fail_at, self.lasting = (self.changes if dead else None), dead


def bench_on(disk: Dying, data_dir: Path, guard: type[Guard] = Guard) -> Bench:
    """Return a started node on a disk, which holds its first entry."""

    def prepare(process: Process) -> None:
        process.journal = open_journal(
            data_dir, node_id=process.node_id, files=disk, log_bytes=1 << 16
        )
        process.journal.recovered()

    bench = Bench(guard, prepare=prepare)
    bench.heartbeat(2, term=1).run(0.6)
    bench.take("next_node_idx")
    return bench


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_node_that_can_leave_no_note_acknowledges_nothing(code: int, tmp_path: Path) -> None:
    disk = Dying(code)
    bench = bench_on(disk, tmp_path)
    disk.dead = True
    bench.append(2, term=1, after=(1, 0), entries=ENTRIES, commit=5).run(0.1)
    bench.take("next_node_idx")
    for _ in range(3):
        bench.append(2, term=1, after=(5, 1), commit=5).tick()
        bench.append(2, term=1, after=(5, 1), entries=entries_of(1, 6, 7)).tick()
    said = bench.take("next_node_idx", to=2)
    # It is heard that it lives, and it asks for nothing to be sent again.
    assert [(m["success"], m["reset"]) for m in said] == [(False, False)] * 6
    assert bench.last == 5
    assert "tries again each second" in bench.node.core.hindrances[0]
    assert not bench.guard.can_vote
    disk.dead = False
    bench.run(RETRY_S + 0.2)
    assert bench.node.core.hindrances == ()
    bench.append(2, term=1, after=(5, 1), entries=entries_of(1, 6, 7)).run(0.1)
    assert acknowledged(bench)[-1] == 7


@with_and_without(repairs.WithoutWriteAhead)
def test_vote_that_could_not_be_saved_is_not_given(guard: type[Guard], tmp_path: Path) -> None:
    disk = Dying(errno.EIO)
    bench = bench_on(disk, tmp_path, guard)
    bench.run(0.3)
    disk.dead = True
    assert bench.ask_vote(2, term=50) is (guard is not Guard)
    disk.dead = False
    bench.run(RETRY_S + 0.1)
    assert bench.node.core.hindrances == ()
    assert bench.node.journal.getCurrentTerm() == bench.term
    assert not bench.ask_vote(3, term=50)  # this process knows what it gave
    assert bench.ask_vote(3, term=60)


def test_node_that_can_leave_no_note_neither_stands_nor_encourages_others(tmp_path: Path) -> None:
    disk = Dying(errno.EIO)
    bench = bench_on(disk, tmp_path)
    disk.dead = True
    bench.append(2, term=1, after=(1, 0), entries=ENTRIES)
    bench.run(0.05).take("pre_vote")
    bench.run(RETRY_S / 2)
    assert not bench.ask_pre_vote(3, term=9)
    assert not bench.ask_vote(3, term=9)
    assert bench.take("pre_vote") == []
    disk.dead = False
    bench.run(2 * RETRY_S)
    assert bench.take("pre_vote") != []


def test_vote_that_cannot_be_written_holds_back_no_entry_of_a_term_that_is_on_disk() -> None:
    bench = Bench(Guard)
    bench.heartbeat(2, term=1).run(0.6)
    bench.take("next_node_idx")
    bench.node.journal.facts.failing = True
    bench.guard.durability.recovered()
    assert not bench.guard.durability.fit
    for index in range(2, 40):
        bench.append(
            2, term=1, after=(index - 1, min(index - 2, 1)), entries=entries_of(1, index, index)
        )
        bench.run(0.05)
    assert acknowledged(bench)[-1] == 39
    bench.node.journal.facts.failing = False
    bench.run(RETRY_S + 0.1)
    assert bench.guard.durability.fit


def test_failed_vote_is_tried_again_beside_the_loop() -> None:
    # A disk may take half a minute to fail; a lease does not last that long.
    bench, disk = slow()
    journal = bench.node.journal
    bench.run(0.6)
    journal.facts.failing = True
    assert not bench.ask_vote(2, term=50)
    journal.facts.failing = False
    bench.run(2 * RETRY_S)
    assert journal.getCurrentTerm() < 50
    assert not bench.ask_vote(2, term=50)
    disk.finish()
    assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (50, 2)
    assert bench.ask_vote(2, term=50)


# -------------------------------------------------------------------- from memory


def failing(guard: type[Guard] = Guard) -> Bench:
    """Return a started node whose log cannot be written, but term, vote and notes can."""
    bench = Bench(guard)
    bench.heartbeat(2, term=1).run(0.6)
    bench.take("next_node_idx")
    bench.node.journal.disk.failing = True
    return bench


@with_and_without(repairs.WithoutNote)
def test_node_whose_disk_fails_goes_on_from_memory_and_leaves_a_note(guard: type[Guard]) -> None:
    bench = failing(guard)
    bench.append(2, term=1, after=(1, 0), entries=ENTRIES).run(0.1)
    assert acknowledged(bench)[-1] == 5
    assert "write entries to" in bench.node.core.hindrances[0]
    if guard is Guard:
        assert "if it is restarted now, it may not vote at first" in bench.node.core.hindrances[0]
    bench.node.kill()
    bench.node.journal.disk.failing = False
    bench.node.start()
    assert bench.last == 1
    assert bench.guard.recovery.needed is (guard is Guard)


@with_and_without(repairs.WithoutWaitingForTheNote)
def test_nothing_is_acknowledged_from_memory_before_the_note_is_on_disk(
    guard: type[Guard],
) -> None:
    bench, disk = slow(guard)
    bench.node.journal.disk.failing = True
    bench.append(2, term=1, after=(1, 0), entries=ENTRIES).tick()
    bench.take("next_node_idx")
    disk.finish()  # the sync; the note waits
    assert (acknowledged(bench) == []) is (guard is Guard)
    if guard is Guard:
        disk.finish()
        assert bench.node.journal.facts.value.volatile
        assert acknowledged(bench) == [5]


@with_and_without(repairs.WithoutConfigurationsOnDisk)
def test_configuration_and_what_follows_is_never_acknowledged_from_memory(
    guard: type[Guard],
) -> None:
    bench = failing(guard)
    entries = [*entries_of(1, 2, 3), CONFIGURATION, *entries_of(1, 5, 6)]
    bench.append(2, term=1, after=(1, 0), entries=entries).run(0.1)
    assert acknowledged(bench)[-1] == (3 if guard is Guard else 6)
    bench.node.journal.disk.failing = False
    bench.run(RETRY_S + 0.1)
    bench.append(2, term=1, after=(6, 1)).run(0.1)
    assert acknowledged(bench)[-1] == 6
    assert bench.node.core.hindrances == ()


def test_configuration_that_was_read_is_not_acknowledged_from_memory() -> None:
    # A process before this one wrote it, and perhaps could not sync: it may never be on disk.
    def prepare(process: Process) -> None:
        process.journal = Storage(process.world.checks, process.node_id)
        fill(process, [*entries_of(1, 2, 3), CONFIGURATION, *entries_of(1, 5, 6)], term=1)
        process.journal.disk.entries = process.journal[:]
        process.journal.crash(process.store)
        process.journal.disk.failing = True

    bench = Bench(Guard, prepare=prepare)
    bench.run(0.1)
    for _ in range(3):
        bench.append(2, term=1, after=(6, 1)).run(0.1)
    assert acknowledged(bench)[-1] == 3
    bench.node.journal.disk.failing = False
    bench.run(RETRY_S + 0.1)
    bench.append(2, term=1, after=(6, 1)).run(0.1)
    assert acknowledged(bench)[-1] == 6


def test_note_is_taken_back_when_all_that_was_acknowledged_is_on_disk() -> None:
    bench = failing()
    bench.append(2, term=1, after=(1, 0), entries=ENTRIES).run(0.1)
    facts = bench.node.journal.facts
    assert facts.value.volatile
    bench.node.journal.disk.failing = False
    while facts.value.volatile:
        bench.run(0.001)
    assert bench.node.journal.disk.entries == bench.node.journal[:]
    bench.node.kill()
    bench.node.start()
    assert bench.last == 5
    assert not bench.guard.recovery.needed


def test_log_in_memory_is_cut_and_follows_its_snapshot_to_the_disk() -> None:
    bench = failing()
    store, disk = bench.node.store, bench.node.journal.disk
    store.failing = True
    bench.append(2, term=1, after=(1, 0), entries=entries_of(1, 2, 60), commit=60).run(0.1)
    bench.node.compact()
    bench.run(0.3)
    assert bench.node.journal[0][1] > 50
    disk.failing = False  # but not the snapshot's
    bench.run(2 * RETRY_S)
    assert disk.entries[0][1] == 1
    store.failing = False
    bench.run(RETRY_S + 0.1)
    assert disk.entries[0][1] > 50
    assert store.saved is not None
    bench.node.kill()
    bench.node.start()
    assert (bench.last, bench.node.applied[-1:]) == (60, [60])
    assert not bench.guard.recovery.needed


# ------------------------------------------------------------------------ all of them


@pytest.mark.parametrize("broken", [1, 2, 3])
@pytest.mark.parametrize("parts", ["log", "all"])
def test_holder_serves_whatever_disks_fail(broken: int, parts: str) -> None:
    world, holder = settled(seed=broken)
    others = [i for i in world.node_ids if i != holder]
    victims = [holder, *others][-broken:]  # the holder's last: hindered, it would go

    def fail(failing: bool) -> None:  # noqa: FBT001
        for node_id in victims:
            process = world.processes[node_id]
            process.journal.disk.failing = failing
            if parts == "all":
                process.journal.facts.failing = process.store.failing = failing

    fail(failing=True)
    propose_all(world, range(5))
    world.run(3.0)
    if parts == "log" or broken == 1:
        assert len(holders(world)) == 1, tell(world)
    if parts == "log":
        propose_all(world, range(5, 10))
        world.run(0.5)
        assert set(range(5, 10)) <= world.acknowledged, tell(world)
    fail(failing=False)
    assert world.run_until(lambda: converged(world), within_s=10), tell(world)
    world.run(2 * RETRY_S)
    assert not any(p.journal.facts.value.volatile for p in world.processes.values())
    assert [p.core.hindrances for p in world.processes.values()] == [(), (), ()]
    assert world.violations == []


def propose_all(world: World, uids: range) -> None:
    for uid in uids:
        for process in world.processes.values():
            if process.ready:
                process.propose(uid)
        world.run(0.05)
