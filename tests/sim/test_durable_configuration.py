"""A configuration is on disk before anybody counts it; flows wait for no disk."""

from __future__ import annotations

import pytest

from hanat.consensus.codec import Entry, wrap
from hanat.consensus.durability import RETRY_S
from hanat.consensus.guard import Guard
from hanat.consensus.state import NewConfiguration, encode
from hanat.errors import JournalError
from tests.sim import repairs
from tests.sim.bench import Bench, command, entries_of, fill, with_and_without
from tests.sim.process import Process
from tests.sim.storage import Later, Storage

CONFIGURATION: Entry = (wrap(encode(NewConfiguration(0, "text"))), 4, 1)
ENTRIES = [*entries_of(1, 2, 3), CONFIGURATION, *entries_of(1, 5, 6)]
FAILED = JournalError(tried="sync", found="input/output error", to_do="repair it")


def slow(
    guard: type[Guard] = Guard, *, nodes: int = 3, entries: list[Entry] | None = None
) -> tuple[Bench, Later]:
    """Return a started node whose disk syncs when the test says so."""
    disk = Later()

    def prepare(process: Process) -> None:
        process.background, disk.node = disk, process
        process.journal = Storage(process.world.checks, process.node_id)
        if entries is not None:
            fill(process, entries, term=1)

    bench = Bench(guard, nodes=nodes, prepare=prepare)
    bench.run(0.05)
    return bench, disk


def acknowledged(bench: Bench) -> list[int]:
    """Return up to which entries the node acknowledged, reply by reply."""
    return [m["next_node_idx"] - 1 for m in bench.take("next_node_idx") if m["success"]]


@with_and_without(repairs.WithoutDurableConfiguration)
def test_follower_acknowledges_a_configuration_when_it_is_durable(guard: type[Guard]) -> None:
    bench, disk = slow(guard)
    bench.append(2, term=1, after=(1, 0), entries=ENTRIES)
    assert acknowledged(bench) == ([3] if guard is Guard else [6])
    if guard is Guard:
        disk.finish()
        assert acknowledged(bench) == [6]


def test_follower_waits_for_no_disk_with_flows() -> None:
    bench, disk = slow()
    bench.append(2, term=1, after=(1, 0), entries=entries_of(1, 2, 9))
    assert acknowledged(bench) == [9]
    assert len(disk) == 0


def test_second_configuration_waits_for_a_sync_of_its_own() -> None:
    bench, disk = slow()
    bench.append(2, term=1, after=(1, 0), entries=ENTRIES)
    bench.append(2, term=1, after=(6, 1), entries=[(CONFIGURATION[0], 7, 1)])
    assert acknowledged(bench) == [3, 3]
    disk.finish()
    assert acknowledged(bench) == [6]
    disk.finish()
    assert acknowledged(bench) == [7]


def test_acknowledgement_that_waited_is_not_given_in_another_term() -> None:
    bench, disk = slow()
    bench.append(2, term=1, after=(1, 0), entries=ENTRIES)
    bench.run(0.6)
    assert bench.ask_vote(3, term=9)
    disk.finish()
    assert acknowledged(bench) == []


def test_cut_configuration_is_not_waited_for() -> None:
    bench, _ = slow()
    bench.append(2, term=1, after=(1, 0), entries=ENTRIES)
    bench.take("next_node_idx")
    bench.append(3, term=2, after=(3, 1), entries=entries_of(2, 4, 4))
    assert acknowledged(bench) == [4]


def test_failed_sync_acknowledges_nothing_and_is_repaired() -> None:
    bench, disk = slow()
    bench.append(2, term=1, after=(1, 0), entries=ENTRIES)
    bench.take("next_node_idx")
    disk.finish(FAILED)
    bench.tick()
    assert list(bench.node.core.hindrances) == [str(FAILED)]
    bench.heartbeat(2, term=1)
    assert acknowledged(bench) == []
    bench.run(RETRY_S + 0.1)
    disk.finish()  # the repair
    bench.run(0.1)
    disk.finish()
    assert list(bench.node.core.hindrances) == []
    assert 6 in acknowledged(bench)


def test_what_an_earlier_process_left_unsynced_is_synced_first() -> None:
    bench, disk = slow(entries=ENTRIES)
    bench.heartbeat(2, term=1)
    assert acknowledged(bench) == [0]
    disk.finish()
    assert acknowledged(bench) == [6]


# ------------------------------------------------------------------------- the leader


def leading(guard: type[Guard] = Guard) -> tuple[Bench, Later]:
    """Return a leader that has a configuration in its log, not durable."""
    bench, disk = slow(guard)
    ready(bench, disk)
    bench.node.replica.propose(NewConfiguration(7, "text"))
    bench.run(0.05)
    return bench, disk


@with_and_without(repairs.WithoutDurableConfiguration)
def test_leader_counts_itself_for_a_configuration_when_it_is_durable(guard: type[Guard]) -> None:
    bench, disk = leading(guard)
    bench.acks = {2}
    bench.node.replica.machine._applyCommand(command(9), None)
    bench.run(0.2)
    committed = bench.node.replica.commit_index
    assert (committed == bench.last - 2) is (guard is Guard)
    if guard is Guard:
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
    bench.run(0.1)  # until it has proposed its own configuration
    disk.finish()
    bench.run(0.1)
    assert bench.node.replica.commit_index == bench.last
    bench.acks = set()


def test_leader_waits_for_no_disk_with_flows() -> None:
    bench, disk = slow()
    ready(bench, disk)
    bench.acks = {2}
    bench.node.replica.machine._applyCommand(command(9), None)
    bench.run(0.1)
    assert bench.node.replica.commit_index == bench.last
    assert len(disk) == 0


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
