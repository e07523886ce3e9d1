"""The real journal and the real snapshots of one node, across restarts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hanat.raft.journal_opening import open_journal
from hanat.raft.slow_work import Background, at_once
from hanat.raft.snapshot_store import SnapshotStore
from tests.raft.disks import Quick
from tests.sim.process import Process
from tests.sim.world import World

COMMANDS = 100


def node_on(data_dir: Path, background: Background | None = None) -> Process:
    """Return a started cluster of one node."""
    world = World(seed=1, node_ids=(1,))
    process = Process(world, 1, profile="default", rate=1.0)
    process.journal = open_journal(
        data_dir, node_id=1, cluster="sim", files=Quick(), log_bytes=1 << 16
    )
    process.store = SnapshotStore(data_dir, cluster="sim", files=Quick(), size=1 << 16)
    process.background = background or process.background
    process.start()
    return process


def stopped(process: Process) -> None:
    process.kill()
    process.journal.close()


def filled(data_dir: Path) -> Process:
    """Return a node that has applied commands, with a log cut to its snapshot."""
    process = node_on(data_dir)
    process.world.run(1.0)
    for uid in range(COMMANDS):
        assert process.propose(uid)
    process.world.run(0.1)
    process.compact()
    process.world.run(0.1)
    assert process.journal[0][1] > COMMANDS / 2
    return process


def test_node_goes_on_from_snapshot_and_journal(tmp_path: Path) -> None:
    process = filled(tmp_path)
    for uid in range(COMMANDS, COMMANDS + 5):
        process.propose(uid)
    process.world.run(0.1)
    for _ in range(2):
        stopped(process)
        process = node_on(tmp_path)
        process.world.run(1.0)
        assert process.applied == list(range(COMMANDS + 5))
        assert process.replica.state.revision == 1
    stopped(process)


def test_journal_that_was_not_cut_yet_keeps_its_end(tmp_path: Path) -> None:
    process = node_on(tmp_path)
    process.world.run(1.0)
    for uid in range(COMMANDS):
        process.propose(uid)
    process.world.run(0.1)
    process.guard.durability.kept_entries = 10_000  # killed before the cut
    process.compact()
    process.world.run(0.1)
    process.store.flush()
    for uid in range(COMMANDS, COMMANDS + 5):
        process.propose(uid)
    process.world.run(0.1)
    last = process.replica.last_index
    assert process.journal[0][1] == 1
    stopped(process)
    process = node_on(tmp_path)
    process.world.on(process, process._tick_now)
    assert process.replica.last_index == last
    assert process.journal[0][1] > COMMANDS
    process.world.run(1.0)
    assert process.applied == list(range(COMMANDS + 5))
    stopped(process)


def test_node_that_was_killed_between_snapshot_and_cut_starts(tmp_path: Path) -> None:
    process = node_on(tmp_path / "before")
    process.world.run(1.0)
    for uid in range(COMMANDS):
        process.propose(uid)
    process.world.run(0.1)
    process.guard.durability.kept_entries = 10_000  # killed before the cut
    process.compact()
    process.world.run(0.1)
    process.store.flush()
    shutil.copytree(tmp_path / "before", tmp_path / "after")  # as it is without a last sync
    stopped(process)
    process = node_on(tmp_path / "after", at_once)  # as before the daemon has its threads
    assert process.journal[0][1] > COMMANDS / 2
    process.world.run(1.0)
    assert process.applied == list(range(COMMANDS))
    stopped(process)


@pytest.mark.parametrize("damage", [None, b"", b"hanatsnp"])
def test_journal_whose_snapshot_is_gone_counts_as_lost(
    tmp_path: Path, damage: bytes | None
) -> None:
    stopped(filled(tmp_path))
    for path in (tmp_path / "snapshot").iterdir():
        path.unlink()
        if damage is not None:
            path.write_bytes(damage)
    process = node_on(tmp_path)
    assert process.guard.recovery.needed
    assert (process.replica.last_index, process.applied) == (1, [])
    stopped(process)
