"""What is acknowledged is on disk: the acknowledgement waits for it, nothing else does."""

from __future__ import annotations

from functools import partial

import pytest

from hanat.raft.durability import RETRY_S
from hanat.raft.guard import Guard
from hanat.raft.messages import Entry, wrap
from hanat.raft.state import NewConfiguration, encode
from tests.sim import repairs
from tests.sim.bench import Bench, command, entries_of, fill, settled, tell, with_and_without
from tests.sim.process import Process
from tests.sim.run import holders
from tests.sim.storage import SLOW_S, Later, Storage

CONFIGURATION: Entry = (wrap(encode(NewConfiguration(0, "text"))), 4, 1)
ENTRIES = [*entries_of(1, 2, 3), CONFIGURATION, *entries_of(1, 5, 6)]


def slow(
    guard: type[Guard] = Guard, *, nodes: int = 3, entries: list[Entry] | None = None
) -> tuple[Bench, Later]:
    """Return a started node whose disk syncs when the test says so; its first entry is there."""
    disk = Later()

    def prepare(process: Process) -> None:
        process.background, disk.node = disk, process
        process.journal = Storage(process.world.checks, process.node_id)
        if entries is not None:
            fill(process, entries, term=1)

    bench = Bench(guard, nodes=nodes, prepare=prepare)
    bench.run(0.05)
    if entries is None:
        disk.finish()
        bench.take("next_node_idx")
    return bench, disk


def acknowledged(bench: Bench) -> list[int]:
    """Return up to which entries the node acknowledged, reply by reply."""
    return [m["next_node_idx"] - 1 for m in bench.take("next_node_idx") if m["success"]]


@with_and_without(repairs.WithoutDurability)
def test_follower_acknowledges_what_is_durable(guard: type[Guard]) -> None:
    bench, disk = slow(guard)
    bench.append(2, term=1, after=(1, 0), entries=ENTRIES).tick()
    assert acknowledged(bench) == ([1] if guard is Guard else [6])
    if guard is Guard:
        disk.finish()
        assert acknowledged(bench) == [6]


def test_all_that_arrives_meanwhile_is_one_more_sync() -> None:
    bench, disk = slow()
    bench.append(2, term=1, after=(1, 0), entries=entries_of(1, 2, 3)).tick()
    for index in range(4, 40):
        bench.append(2, term=1, after=(index - 1, 1), entries=entries_of(1, index, index)).tick()
    assert len(disk) == 1
    # It says once a beacon that it lives, and no more.
    assert set(acknowledged(bench)) <= {1}
    disk.finish()
    assert acknowledged(bench) == [3]
    assert len(disk) == 1
    disk.finish()
    assert acknowledged(bench) == [39]
    assert len(disk) == 0


def test_idle_node_syncs_nothing() -> None:
    bench, disk = slow()
    for _ in range(20):
        bench.heartbeat(2, term=1).run(0.05)
    disk.finish()
    for _ in range(20):
        bench.heartbeat(2, term=1).run(0.05)
    assert len(disk) == 0


def test_leader_hears_that_a_node_with_a_slow_disk_lives() -> None:
    bench, _ = slow()
    bench.append(2, term=1, after=(1, 0), entries=ENTRIES).tick()
    for _ in range(5):
        bench.run(0.1)
        bench.take("next_node_idx")
        bench.append(2, term=1, after=(6, 1)).tick()
        assert acknowledged(bench) == [1]


def test_acknowledgement_that_waited_is_not_given_in_another_term() -> None:
    bench, disk = slow()
    bench.append(2, term=1, after=(1, 0), entries=ENTRIES).tick()
    bench.run(0.6)
    assert bench.ask_vote(3, term=9)
    disk.finish()
    assert acknowledged(bench) == []


def test_what_was_cut_is_not_waited_for() -> None:
    bench, disk = slow()
    bench.append(2, term=1, after=(1, 0), entries=ENTRIES).tick()
    disk.finish()
    bench.take("next_node_idx")
    bench.append(3, term=2, after=(3, 1)).append(3, term=2, after=(2, 1), entries=[]).tick()
    assert acknowledged(bench) == [3, 2]
    bench.append(3, term=2, after=(3, 1), entries=entries_of(2, 4, 4)).tick()
    disk.finish()
    assert acknowledged(bench)[-1] == 4


@with_and_without(repairs.WithoutTermsFirst)
def test_no_entry_reaches_the_disk_before_its_term(guard: type[Guard]) -> None:
    bench, disk = slow(guard)
    journal = bench.node.journal
    journal.facts.failing = True
    bench.append(2, term=7, after=(1, 0), entries=entries_of(7, 2, 3)).tick()
    disk.finish()
    assert (journal.disk.entries[-1][2] <= journal.facts.value.term) is (guard is Guard)


def test_failed_sync_acknowledges_nothing_and_is_repaired() -> None:
    bench, disk = slow()
    bench.node.journal.facts.failing = True
    bench.append(2, term=0, after=(1, 0), entries=entries_of(0, 2, 6)).tick()
    bench.take("next_node_idx")
    bench.node.journal.disk.failing = True
    disk.finish()
    disk.finish()  # the note
    bench.tick()
    assert "input/output error" in " ".join(bench.node.core.hindrances).lower()
    bench.append(2, term=0, after=(6, 0)).tick()
    assert acknowledged(bench) == []
    bench.node.journal.disk.failing = bench.node.journal.facts.failing = False
    bench.run(RETRY_S + 0.1)
    disk.finish()
    bench.append(2, term=0, after=(6, 0)).tick()
    assert acknowledged(bench)[-1] == 6
    assert list(bench.node.core.hindrances) == []


# ------------------------------------------------------------------------- the leader


def leading(guard: type[Guard] = Guard) -> tuple[Bench, Later]:
    """Return a leader that has an entry in its log, not durable."""
    bench, disk = slow(guard)
    ready(bench, disk)
    bench.node.replica.propose(NewConfiguration(7, "text"))
    bench.run(0.05)
    return bench, disk


@with_and_without(repairs.WithoutDurability)
def test_leader_counts_itself_when_its_disk_has_it(guard: type[Guard]) -> None:
    bench, disk = leading(guard)
    bench.acks = {2}
    bench.node.replica.machine._applyCommand(command(9), None)
    bench.run(0.2)
    committed = bench.node.replica.commit_index
    assert (committed == bench.last - 2) is (guard is Guard)
    if guard is Guard:
        for _ in range(2):
            disk.finish()
            bench.run(0.2)
        assert bench.node.replica.commit_index == bench.last


def test_followers_are_enough_without_the_leaders_disk() -> None:
    bench, disk = leading()
    bench.acks = {2, 3}
    bench.run(0.2)
    assert bench.node.replica.commit_index == bench.last
    assert len(disk) == 1


def ready(bench: Bench, disk: Later) -> None:
    """Let the node lead, with everything committed and on disk."""
    bench.elect()
    bench.acks = {2}
    for _ in range(4):  # until it has proposed its own configuration
        bench.run(0.1)
        disk.finish()
    assert bench.node.replica.commit_index == bench.last
    bench.acks = set()


@pytest.mark.parametrize("seed", range(1, 5))
def test_one_slow_disk_slows_nobody(seed: int) -> None:
    world, holder = settled(seed=seed)
    slow_one = world.processes[holder if seed % 2 else holder % 3 + 1]
    slow_one.disk.work_s = SLOW_S
    world.run(1.0)
    assert holders(world) == [holder]
    for uid in range(50):
        assert world.processes[holder].propose(uid)
        everything = partial(world.acknowledged.issuperset, range(uid + 1))
        assert world.run_until(everything, within_s=0.1), tell(world)
    assert holders(world) == [holder]
    assert world.violations == []


@pytest.mark.parametrize("text", ["", "text"])
def test_node_that_is_alone_syncs_before_it_counts(text: str) -> None:
    bench, disk = slow(nodes=1)
    bench.run(1.0)
    assert bench.guard.leading
    bench.node.replica.propose(NewConfiguration(bench.node.replica.state.revision, text))
    bench.run(0.1)
    assert bench.node.replica.commit_index == bench.last
    assert bench.node.journal.durable_index == bench.last
    assert len(disk) == 0
