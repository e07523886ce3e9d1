"""The journal holds what was put into it, across restarts, and nothing else."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec, module_from_spec
from itertools import count
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanat.errors import JournalError, StartupError
from hanat.raft.journal import Journal
from hanat.raft.journal_opening import open_journal
from hanat.raft.library import SyncObjConf
from hanat.raft.log import LOG_FILE_BYTES
from hanat.raft.messages import NO_OP, wrap
from hanat.raft.slow_work import Done, at_once
from hanat.raft.snapshot_store import SnapshotStore
from tests.raft.disks import Failing, Full, LosingPower, Quick
from tests.raft.journals import (
    LOG_BYTES,
    OPERATIONS,
    Model,
    fill,
    kill,
    opened,
    vote_of,
    write_log,
)

SYNC_UNTIL_KILLED = """
import sys
from pathlib import Path
from random import Random
from hanat.raft.messages import wrap
from hanat.raft.journal_opening import open_journal
journal = open_journal(Path(sys.argv[1]))
for index in range(1, 1 << 30):
    journal.add(wrap(bytes(20000)), index, 1)
    journal.sync()
    print(index, flush=True)
"""


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(st.sampled_from((*OPERATIONS, "reopen", "kill")), st.integers(0, 999)),
        max_size=40,
    )
)
def test_journal_is_a_list_that_survives_restarts(steps: list[tuple[str, int]]) -> None:
    model = Model()
    with tempfile.TemporaryDirectory() as root:
        place = Path(root) / "0"
        journal = open_journal(place, files=Quick(), log_bytes=LOG_BYTES)
        journal.recovered()
        for number, step in enumerate(steps, 1):
            if step[0] == "reopen":
                journal.close()
                journal = open_journal(place, files=Quick(), log_bytes=LOG_BYTES)
            elif step[0] == "kill":
                journal.sync()
                place = Path(shutil.copytree(place, Path(root) / str(number)))
                journal.close()
                journal = open_journal(place, files=Quick(), log_bytes=LOG_BYTES)
            else:
                model.perform(step, journal)
                model = model.after(step)
            assert model.holds(journal)
            assert len(journal) == len(model.entries)
            assert journal.report == ""
            assert not journal.recovering
        journal.close()


class Later:
    """Work beside the loop that is done when the test says so."""

    def __init__(self) -> None:
        self._jobs: list[tuple[Callable[[], None], Done]] = []

    def __call__(self, work: Callable[[], None], done: Done) -> None:
        self._jobs.append((work, done))

    def finish(self) -> None:
        for work, done in self._jobs:
            at_once(work, done)
        self._jobs.clear()


def raised(error: BaseException | None) -> None:
    if error is not None:
        raise error


def test_first_entry_of_the_library_is_index_1(tmp_path: Path) -> None:
    # A copy of the module: simulations replace its clock and more, for the whole process.
    spec = find_spec("pysyncobj.syncobj")
    assert spec is not None
    assert spec.loader is not None
    fresh = module_from_spec(spec)
    spec.loader.exec_module(fresh)
    fresh.__dict__["createJournal"] = lambda journal: journal
    journal = open_journal(tmp_path, log_bytes=LOG_BYTES)
    settings = SyncObjConf(autoTick=False, journalFile=journal)
    machine = fresh.SyncObj(None, [], settings)
    machine.destroy()
    machine.doTick()
    with opened(tmp_path) as again:
        assert again[:] == [(NO_OP, 1, 0)]


def test_saved_commit_index_is_not_believed(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.setRaftCommitIndex(7)
        journal.onOneSecondTimer()
        assert journal.getRaftCommitIndex() == 1
    with opened(tmp_path) as journal:
        assert journal.getRaftCommitIndex() == 1


def test_what_was_added_is_durable_when_a_sync_has_ended(tmp_path: Path) -> None:
    jobs = Later()
    with opened(tmp_path) as journal:
        fill(journal, Model(), ["add"] * 5)
        assert (journal.durable_index, journal.behind) == (0, True)
        journal.sync_in(jobs, raised)
        fill(journal, Model(following=6, made=5), ["add"] * 3)
        assert journal.durable_index == 0
        jobs.finish()
        assert (journal.durable_index, journal.behind) == (5, True)
        journal.sync_in(jobs, raised)
        jobs.finish()
        assert (journal.durable_index, journal.behind) == (8, False)


@pytest.mark.parametrize("change", ["clear", "cut tail"])
def test_what_is_cut_during_a_sync_is_not_durable(tmp_path: Path, change: str) -> None:
    jobs = Later()
    with opened(tmp_path) as journal:
        fill(journal, Model(), ["add"] * 30)
        journal.sync_in(jobs, raised)
        if change == "clear":
            journal.clear()
        else:
            journal.deleteEntriesFrom(3)
        first = journal[-1][1] + 1 if len(journal) else 9
        for index in range(first, first + 3):
            journal.add(NO_OP, index, 20)
        jobs.finish()
        assert journal.durable_index == (0 if change == "clear" else 3)
        log = journal[:]
    with opened(tmp_path) as journal:
        assert journal[:] == log


def test_cut_of_the_head_uses_the_other_file(tmp_path: Path) -> None:
    model = write_log(tmp_path, 30)
    files = [tmp_path / "journal" / name for name in ("log.0", "log.1")]
    with opened(tmp_path) as journal:
        for _ in range(4):
            was = [path.read_bytes() for path in files]
            model = fill(journal, model, ["add"] * 4)
            journal.trim(4)
            model = model.after(("trim", 4))
            journal.sync()
            assert sum(path.read_bytes() != old for path, old in zip(files, was, strict=True)) == 1
            assert journal.durable_index == journal[-1][1]
    with opened(tmp_path) as journal:
        assert journal[:] == list(model.entries)
    assert {path.stat().st_size for path in files} == {LOG_BYTES}


def test_content_of_entries_is_stored_as_it_is(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.add(wrap(b"what a node proposed"), 1, 1)
    log = b"".join(path.read_bytes() for path in (tmp_path / "journal").glob("log.*"))
    assert b"what a node proposed" in log


def test_entry_that_leaves_a_gap_is_a_broken_invariant(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.add(NO_OP, 1, 1)
        with pytest.raises(AssertionError, match="entry 3 follows 1"):
            journal.add(NO_OP, 3, 1)
        assert len(journal) == 1


def test_what_was_synced_survives_a_killed_process(tmp_path: Path) -> None:
    with open_journal_of(tmp_path) as journal:
        journal.recovered()
    command = [sys.executable, "-c", SYNC_UNTIL_KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(200):
            acknowledged = int(process.stdout.readline())
        process.kill()
        acknowledged = int((process.stdout.readlines() or [b"%d" % acknowledged])[-1])
    with open_journal_of(tmp_path) as journal:
        assert acknowledged <= len(journal) <= acknowledged + 1
        assert not journal.recovering


def open_journal_of(data_dir: Path) -> contextlib.closing[Journal]:
    return contextlib.closing(open_journal(data_dir))


def test_new_journal_may_be_one_that_was_lost(tmp_path: Path) -> None:
    for _ in range(2):
        with contextlib.closing(open_journal(tmp_path, log_bytes=LOG_BYTES)) as journal:
            assert journal.recovering
    with contextlib.closing(open_journal(tmp_path, log_bytes=LOG_BYTES)) as journal:
        journal.recovered()
    with opened(tmp_path) as journal:
        assert not journal.recovering


def test_entries_in_memory_only_are_missed_after_the_process(tmp_path: Path) -> None:
    write_log(tmp_path, 3)
    with opened(tmp_path) as journal:
        journal.mark_volatile(volatile=True)
        assert not journal.recovering  # not yet
    with opened(tmp_path) as journal:
        assert journal.recovering
        assert "the disk failed" in journal.report
        journal.recovered()
    with opened(tmp_path) as journal:
        assert not journal.recovering
        journal.mark_volatile(volatile=True)
        journal.mark_volatile(volatile=False)
    with opened(tmp_path) as journal:
        assert not journal.recovering


# ---------------------------------------------------------------------- member list


def test_member_list_is_kept_and_one_without_most_of_its_nodes_is_refused(tmp_path: Path) -> None:
    with open_journal_of(tmp_path) as journal:
        journal.admit((1, 2, 3))
        assert journal.members == ()  # it is new
        journal.join((1, 2, 3))
        journal.recovered()
    with open_journal_of(tmp_path) as journal:
        journal.admit((1, 2, 3, 4, 5))
        assert journal.members == (1, 2, 3)  # until the node takes part under the new one
        assert not journal.recovering
        journal.join((1, 2, 3, 4, 5))
    with open_journal_of(tmp_path) as journal:
        assert journal.recovering
    journal = open_journal(tmp_path)
    with pytest.raises(StartupError, match="nodes 1, 2, 3, 4, 5, and a majority of them is left"):
        journal.admit((1, 2))
    with open_journal_of(tmp_path) as journal:  # closed in good order
        journal.admit((1, 2, 3))
        assert journal.members == (1, 2, 3, 4, 5)


# ------------------------------------------------------------------- full disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, with little more room than a node takes."""
    size = 2 * LOG_FILE_BYTES + 2 * (16 << 20) + (1 << 20)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "hanat-test", str(tmp_path)]
    subprocess.run(mount, check=True)
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


@pytest.mark.kernel
def test_full_disk_stops_neither_log_nor_vote_nor_snapshot(small_disk: Path) -> None:
    data_dir = small_disk / "data"
    with open_journal_of(data_dir) as journal:
        store = SnapshotStore(data_dir, cluster="")
        assert store.load() is None
        with (
            (small_disk / "ballast").open("wb", buffering=0) as ballast,
            contextlib.suppress(OSError),
        ):
            while True:
                ballast.write(bytes(4096))
        index = 0
        for turn in range(12):  # some 24 MiB each: both files are used, more than once
            journal.setCurrentTerm(turn + 1, 1)
            for _ in range(1200):
                index += 1
                journal.add(wrap(os.urandom(20_000)), index, turn + 1)
            journal.sync()
            store._current, store._saved = bytes(12 << 20), False
            journal.before_cut = store.flush
            journal.trim(len(journal) - 10)
            journal.sync()
            assert journal.durable_index == index
        log, vote = journal[:], vote_of(journal)
    with open_journal_of(data_dir) as journal:
        assert (journal[:], vote_of(journal)) == (log, vote)


def test_no_start_without_the_room_that_will_be_needed(tmp_path: Path) -> None:
    disk = Full()
    disk.full = True
    with pytest.raises(StartupError, match=r"No space left.*100 MiB free before the first start"):
        open_journal(tmp_path, files=disk, log_bytes=LOG_BYTES)
    with pytest.raises(StartupError, match=r"No space left.*100 MiB free before the first start"):
        SnapshotStore(tmp_path, cluster="", files=disk, size=LOG_BYTES).load()
    disk.full = False
    open_journal(tmp_path, files=disk, log_bytes=LOG_BYTES).close()


def test_log_that_outgrows_its_file_is_refused_until_it_was_cut(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        model = fill(journal, Model(), ["add"] * 20 + ["sync"])
        journal.add(wrap(bytes(LOG_BYTES)), 21, 9)
        for _ in range(2):
            with pytest.raises(JournalError, match="longer than its file"):
                journal.sync()
        assert journal.durable_index == 20
        journal.deleteEntriesFrom(20)
        journal.sync()
        assert model.holds(journal)


# ------------------------------------------------------------------- failing disks


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_failed_sync_makes_nothing_durable_and_the_next_writes_all(
    tmp_path: Path, code: int
) -> None:
    model = write_log(tmp_path / "alive", 20, first=10)
    disk = Failing(code)
    with opened(tmp_path / "alive", files=disk) as journal:
        journal.sync()
        model = fill(journal, model, ["add", "trim", "add"])
        disk.fail_at, disk.lasting = disk.changes + 1, True
        for _ in range(3):
            with pytest.raises(JournalError, match="write entries to the journal"):
                journal.sync()
            assert journal.durable_index == 20
            assert journal.behind
        disk.fail_at = None
        journal.sync()
        assert journal.durable_index == 22
        shutil.copytree(tmp_path / "alive", tmp_path / "killed")
    with opened(tmp_path / "killed") as journal:
        assert model.holds(journal)
        assert journal.report == ""


class Forgetting(LosingPower):
    """A disk whose kernel says once that a sync failed, and then takes the pages for clean."""

    failing = False

    def sync(self, fd: int) -> None:
        if self.failing:
            self._inodes[self._open[fd]].changes.clear()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync(fd)


def test_what_a_process_before_could_not_sync_is_written_anew(tmp_path: Path) -> None:
    disk = Forgetting()
    journal = open_journal(tmp_path / "alive", files=disk, log_bytes=LOG_BYTES)
    journal.recovered()
    fill(journal, Model(), ["add"] * 3 + ["sync"])
    journal.setCurrentTerm(5, 1)
    fill(journal, Model(following=4, made=3), ["add"] * 2)
    disk.failing = True
    with pytest.raises(JournalError, match="write entries"):
        journal.sync()
    kill(journal)
    disk.failing = False
    with opened(tmp_path / "alive", files=disk) as journal:
        assert (journal[-1][1], journal.durable_index) == (5, 3)
        journal.sync()
        assert journal.durable_index == 5
        (tmp_path / "left/journal").mkdir(parents=True)
        disk.lose_power(Random(1), tmp_path / "left/journal")
        with opened(tmp_path / "left") as left:
            assert left[:] == journal[:]


def test_killed_while_the_log_is_written_anew_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    model = write_log(tmp_path / "alive", 20)
    disk = Failing(errno.EIO)
    outcomes: set[int] = set()
    with opened(tmp_path / "alive", files=disk) as journal:
        model = fill(journal, model, ["add"])
        journal.trim(5)
        for change in count(1):
            disk.fail_at, disk.lasting = disk.changes + change, True
            with contextlib.suppress(JournalError):
                journal.sync()
                break
            with opened(shutil.copytree(tmp_path / "alive", tmp_path / str(change))) as found:
                assert found[-1] in (model.entries[-2], model.entries[-1])
                assert not found.recovering
                outcomes.add(len(found))
        disk.fail_at = None
    assert 20 in outcomes
    assert outcomes <= {16, 20}


@pytest.mark.parametrize("change", [1, 2, 3])  # write, sync, write the other
def test_failing_disk_never_tears_both_copies_of_the_vote(tmp_path: Path, change: int) -> None:
    disk = Failing(errno.EIO)
    with opened(tmp_path / "alive", files=disk) as journal:
        disk.fail_at, disk.lasting = disk.changes + change, True
        for term in (7, 8, 9):
            with pytest.raises(JournalError, match=f"save term {term}"):
                journal.setCurrentTerm(term, 2)
        shutil.copytree(tmp_path / "alive", tmp_path / "killed")
        disk.fail_at = None
    with opened(tmp_path / "killed") as journal:
        assert vote_of(journal) in {(0, None), (7, 2)}
