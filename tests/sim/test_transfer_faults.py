"""Snapshots between nodes whose disks or peers fail: nothing uncommitted, and no standstill."""

from __future__ import annotations

import pytest

from hanat.errors import ConsensusError, JournalError
from hanat.raft import compaction
from hanat.raft.guard import Guard
from tests.sim.bench import Bench, entries_of, settled
from tests.sim.snapshots import MemoryReader, MemoryStore
from tests.sim.storage import Later
from tests.sim.test_compaction import COMMANDS, propose, with_a_late_follower
from tests.sim.test_pieces import answers, made, offer

LAST = 80


def failing_before_the_install(tail: int) -> Bench:
    """Return a follower with a tail of term 1, whose disk fails when a snapshot is adopted."""
    bench = Bench(Guard, entries=entries_of(1, 2, tail), term=1).run(0.6)
    node = bench.node
    bench.append(2, term=2, after=(300, 2)).tick()
    later = Later()
    later.node = node
    node.replica.snapshots.background = later
    data = made(LAST, 2, uids=3)
    offer(bench, data, term=2, last=LAST)
    while not node.store.adopted:
        if not len(later):
            bench.run(0.02)
            offer(bench, data, term=2, last=LAST)
        incoming = node.guard.transfers._incoming
        if incoming is not None and incoming.stored == len(data):
            error = JournalError(tried="sync", found="EIO", to_do="replace it")
            node.guard.durability._log_error = node.guard.durability._failed(error)
            node.guard.durability._retry_at = float("inf")
        later.finish()
    return bench.run(0.1)


@pytest.mark.parametrize("tail", [5, 60, 200])
def test_disk_that_fails_before_the_install_commits_nothing(tail: int) -> None:
    node = failing_before_the_install(tail).node
    assert node.replica.commit_index == 1
    assert node.applied == []


def test_log_that_does_not_follow_its_snapshot_ends_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(Guard, entries=entries_of(1, 2, 60), term=1).run(0.6)
    bench.append(2, term=2, after=(300, 2)).tick()

    def clear() -> None:
        raise JournalError(tried="cut", found="EIO", to_do="replace it")

    monkeypatch.setattr(bench.node.journal, "clear", clear)

    def take_it() -> None:
        offer(bench, made(LAST, 2, uids=3), term=2, last=LAST)
        bench.run(0.5)

    with pytest.raises(ConsensusError, match="did not follow"):
        take_it()
    assert bench.node.replica.commit_index == 1


class Unreadable(MemoryReader):
    """A file with a bad sector."""

    def read(self, offset: int, size: int) -> bytes:
        if offset >= 1 << 18:
            raise OSError(5, "Input/output error")
        return super().read(offset, size)


@pytest.mark.parametrize("found", ["bad sector", "nothing"])
def test_leader_that_cannot_read_its_snapshot_makes_another(
    monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    world, holder, late = with_a_late_follower(padding=2)
    bad = world.processes[holder].store.current

    def opened(store: MemoryStore) -> MemoryReader | None:
        if store.current is None or (found == "nothing" and store.current is bad):
            return None
        return (Unreadable if store.current is bad else MemoryReader)(store.current)

    monkeypatch.setattr(MemoryStore, "open", opened)
    world.processes[late].start()
    world.run(30)
    assert world.processes[late].store.adopted == 1


def test_snapshot_whose_beginning_rots_is_replaced() -> None:
    world, holder, late = with_a_late_follower(padding=2)
    store = world.processes[holder].store
    store.current = bytes(4096) + store.current[4096:]
    world.processes[late].start()
    world.run(30)
    assert world.processes[late].store.adopted == 1


def test_snapshot_that_is_long_in_writing_is_written_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, holder = settled()
    propose(world, holder, 0, COMMANDS)
    world.run(2)
    process = world.processes[holder]
    process.snapshot_disk.work_s = (1.5, 1.5)
    monkeypatch.setattr(compaction, "LOG_ENTRIES_MAX", 30)
    written = process.store.written
    for number in range(40):
        world.run(0.1)
        if number < 30 and number % 3 == 0:
            process.propose(COMMANDS + number)
    world.run(3)
    assert process.store.written - written == 1


def test_snapshot_of_a_peer_that_does_not_lead_is_refused() -> None:
    bench = Bench(Guard, entries=entries_of(1, 2, 5), term=1).run(0.6)
    bench.append(3, term=2, after=(90, 2)).tick()
    offer(bench, made(LAST, 2, uids=3), term=2, last=LAST)
    assert answers(bench)[-1][0] == "refused"
    assert bench.node.store.adopted == 0
