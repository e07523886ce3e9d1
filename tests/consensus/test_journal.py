"""The journal holds what was put into it, across restarts, and nothing else."""

from __future__ import annotations

import contextlib
import errno
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec, module_from_spec
from itertools import count
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanat.consensus.background import Done, at_once
from hanat.consensus.codec import NO_OP, wrap
from hanat.consensus.journal import Journal, open_journal
from hanat.consensus.library import SyncObjConf
from hanat.errors import JournalError, StartupError
from tests.consensus.disks import Failing, Full, Quick
from tests.consensus.journals import OPERATIONS, Model, fill, opened, vote_of, write_log

ADD_UNTIL_KILLED = """
import sys
from pathlib import Path
from hanat.consensus.codec import wrap
from hanat.consensus.journal import open_journal
journal = open_journal(Path(sys.argv[1]))
for index in range(1, 1 << 30):
    journal.add(wrap(bytes(20000)), index, 1)
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
        journal = open_journal(place, files=Quick(), segment_bytes_max=400)
        journal.recovered()
        for number, step in enumerate(steps, 1):
            if step[0] == "reopen":
                journal.close()
                journal = open_journal(place, files=Quick(), segment_bytes_max=400)
            elif step[0] == "kill":
                place = Path(shutil.copytree(place, Path(root) / str(number)))
                journal.close()
                journal = open_journal(place, files=Quick(), segment_bytes_max=400)
            else:
                model.perform(step, journal)
                model = model.after(step)
            assert model.holds(journal)
            assert len(journal) == len(model.entries)
            assert journal.report == ""
            assert not journal.lost_tail_possible
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

    journal = open_journal(tmp_path)
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


def test_full_segment_is_followed_by_the_next(tmp_path: Path) -> None:
    model = write_log(tmp_path, 30)
    names = sorted(path.name for path in (tmp_path / "journal").glob("*.log"))
    assert len(names) > 3
    assert names[0] == "00000000000000000001.log"
    with opened(tmp_path) as journal:
        assert model.holds(journal)


def test_head_cut_frees_whole_segments(tmp_path: Path) -> None:
    write_log(tmp_path, 30)
    with opened(tmp_path) as journal:
        journal.trim(25, at_once, raised)
        assert journal[0][1] == 26
    first = min((tmp_path / "journal").glob("*.log"))
    assert 1 < int(first.stem) <= 26


class Slow(Quick):
    """Lets something happen during its next sync; counts them."""

    def __init__(self) -> None:
        self.during: Callable[[], None] | None = None
        self.syncs = 0

    def sync(self, fd: int) -> None:  # noqa: ARG002 - nothing is synced
        self.syncs += 1
        during, self.during = self.during, None
        if during is not None:
            during()


def test_append_does_not_wait_for_a_cut_that_runs_beside_it(tmp_path: Path) -> None:
    files, jobs = Slow(), Later()
    with opened(tmp_path, files=files) as journal:
        fill(journal, Model(), ["add"] * 30)
        journal.sync()
        journal.trim(20, jobs, raised)
        before = files.syncs

        def append() -> None:  # while the other thread saves where the log starts
            loop = Thread(target=journal.add, args=(NO_OP, 31, 9))
            loop.start()
            loop.join(timeout=5)
            assert not loop.is_alive(), "it waits for the disk"

        files.during = append
        jobs.finish()
        assert files.syncs == before + 1
        assert journal[-1] == (NO_OP, 31, 9)


@pytest.mark.parametrize("change", ["clear", "cut tail"])
def test_cut_of_the_head_gives_way_to_what_was_changed_meanwhile(
    tmp_path: Path, change: str
) -> None:
    jobs = Later()
    with opened(tmp_path) as journal:
        fill(journal, Model(), ["add"] * 30)
        journal.trim(20, jobs, raised)
        if change == "clear":
            journal.clear()
        else:
            journal.deleteEntriesFrom(1)
        first = journal[-1][1] + 1 if len(journal) else 9
        for index in range(first, first + 3):
            journal.add(NO_OP, index, 20)
        jobs.finish()
        log = journal[:]
    with opened(tmp_path) as journal:
        assert journal[-3:] == log[-3:]
        assert journal[0][1] <= log[0][1]


def test_content_of_entries_is_stored_without_pickle(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.add(wrap(b"what a node proposed"), 1, 1)
    (segment,) = (tmp_path / "journal").glob("*.log")
    assert b"what a node proposed" in segment.read_bytes()
    assert wrap(b"what a node proposed") not in segment.read_bytes()


def test_entry_that_leaves_a_gap_is_a_broken_invariant(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.add(NO_OP, 1, 1)
        with pytest.raises(AssertionError, match="entry 3 follows 1"):
            journal.add(NO_OP, 3, 1)
        assert len(journal) == 1


def test_what_add_returned_for_survives_a_killed_process(tmp_path: Path) -> None:
    with opened(tmp_path):
        pass
    command = [sys.executable, "-c", ADD_UNTIL_KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(200):
            acknowledged = int(process.stdout.readline())
        process.kill()
        acknowledged = int((process.stdout.readlines() or [b"%d" % acknowledged])[-1])
    with open_journal_of(tmp_path) as journal:
        assert acknowledged <= len(journal) <= acknowledged + 1
        assert not journal.lost_tail_possible


def open_journal_of(data_dir: Path) -> contextlib.closing[Journal]:
    return contextlib.closing(open_journal(data_dir))


# ------------------------------------------------------------------- machine crash


def test_restart_of_the_machine_may_have_lost_the_tail_until_it_is_recovered(
    tmp_path: Path,
) -> None:
    model = write_log(tmp_path, 3)
    for _ in range(2):  # a restart of the process does not recover anything
        with opened(tmp_path, boot_id="second boot") as journal:
            assert journal.lost_tail_possible
            assert model.holds(journal)
    with opened(tmp_path, boot_id="second boot") as journal:
        journal.recovered()
        assert not journal.lost_tail_possible
    with opened(tmp_path, boot_id="second boot") as journal:
        assert not journal.lost_tail_possible


def test_machine_is_known_by_the_kernels_boot_id(tmp_path: Path) -> None:
    with open_journal_of(tmp_path / "0") as journal:
        journal.recovered()
    with open_journal_of(tmp_path / "0") as journal:
        assert not journal.lost_tail_possible
        shutil.copytree(tmp_path / "0", tmp_path / "1")
    with opened(tmp_path / "1", boot_id="another boot") as journal:
        assert journal.lost_tail_possible


def test_new_journal_may_be_one_that_was_lost(tmp_path: Path) -> None:
    for _ in range(2):
        with open_journal_of(tmp_path) as journal:
            assert journal.lost_tail_possible
    with open_journal_of(tmp_path) as journal:
        journal.recovered()
    with open_journal_of(tmp_path) as journal:
        assert not journal.lost_tail_possible


def test_restart_of_the_machine_in_good_order_loses_nothing(tmp_path: Path) -> None:
    model = write_log(tmp_path / "0", 3)
    with opened(tmp_path / "0"):
        pass
    for boot_id in ("second boot", "third boot"):
        with opened(tmp_path / "0", boot_id=boot_id) as journal:
            assert not journal.lost_tail_possible
            model = fill(journal, model, ["add"])
            shutil.copytree(tmp_path / "0", tmp_path / boot_id)
    with opened(tmp_path / "third boot", boot_id="fourth boot") as journal:
        assert journal.lost_tail_possible


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
        assert not journal.lost_tail_possible
        journal.join((1, 2, 3, 4, 5))
    with open_journal_of(tmp_path) as journal:
        assert journal.lost_tail_possible
    journal = open_journal(tmp_path)
    with pytest.raises(StartupError, match="nodes 1, 2, 3, 4, 5, and a majority of them is left"):
        journal.admit((1, 2))
    with open_journal_of(tmp_path) as journal:  # closed in good order
        journal.admit((1, 2, 3))
        assert journal.members == (1, 2, 3, 4, 5)


# ------------------------------------------------------------------- failing disks


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_entry_that_does_not_fit_is_refused_and_fits_later(tmp_path: Path, code: int) -> None:
    disk = Failing(code)
    with opened(tmp_path, files=disk) as journal:
        journal.add(NO_OP, 1, 1)
        disk.fail_at, disk.lasting = disk.changes + 1, True
        for _ in range(2):
            with pytest.raises(JournalError, match="append entry 2 to the journal"):
                journal.add(wrap(b"two"), 2, 1)
        assert len(journal) == 1
        disk.fail_at = None
        journal.add(wrap(b"zwei"), 2, 1)
        assert journal[:] == [(NO_OP, 1, 1), (wrap(b"zwei"), 2, 1)]
    with opened(tmp_path) as journal:
        assert journal[:] == [(NO_OP, 1, 1), (wrap(b"zwei"), 2, 1)]
        assert journal.report == ""


def test_full_disk_leaves_no_part_of_an_entry_behind(tmp_path: Path) -> None:
    disk = Failing()
    with opened(tmp_path / "alive", files=disk) as journal:
        journal.add(NO_OP, 1, 1)
        disk.fail_at = disk.changes + 1
        with pytest.raises(JournalError, match="append entry 2"):
            journal.add(wrap(bytes(1000)), 2, 1)
        journal.add(wrap(b"short"), 2, 1)
        shutil.copytree(tmp_path / "alive", tmp_path / "killed")
    with opened(tmp_path / "killed") as journal:
        assert journal[:] == [(NO_OP, 1, 1), (wrap(b"short"), 2, 1)]
        assert journal.report == ""


def test_nothing_is_appended_before_a_failed_vote_is_durable(tmp_path: Path) -> None:
    disk = Failing(errno.EIO)
    with opened(tmp_path / "alive", files=disk) as journal:
        journal.add(NO_OP, 1, 1)
        disk.fail_at = disk.changes + 1
        with pytest.raises(JournalError, match="save term 7"):
            journal.setCurrentTerm(7, 2)
        disk.fail_at = disk.changes + 1
        with pytest.raises(JournalError, match="append entry 2"):
            journal.add(NO_OP, 2, 7)
        assert len(journal) == 1
        journal.add(NO_OP, 2, 7)
        shutil.copytree(tmp_path / "alive", tmp_path / "killed")
    with opened(tmp_path / "killed") as journal:
        assert vote_of(journal) == (7, 2)
        assert len(journal) == 2


@pytest.mark.parametrize("change", [1, 2, 3])  # write, sync, write the other
def test_failing_disk_never_tears_both_copies_of_the_vote(tmp_path: Path, change: int) -> None:
    disk = Failing(errno.EIO)
    with opened(tmp_path / "alive", files=disk) as journal:
        disk.fail_at, disk.lasting = disk.changes + change, True
        for term in (7, 8, 9):
            with pytest.raises(JournalError):
                journal.setCurrentTerm(term, 2)
        shutil.copytree(tmp_path / "alive", tmp_path / "killed")
        disk.fail_at = None
    with opened(tmp_path / "killed") as journal:
        assert vote_of(journal) in {(0, None), (7, 2)}


def test_nothing_is_accepted_after_a_failed_sync(tmp_path: Path) -> None:
    disk = Failing(errno.EIO)
    with opened(tmp_path, files=disk) as journal:
        journal.add(NO_OP, 1, 1)
        disk.fail_at = disk.changes + 1
        for refused in (journal.sync, journal.sync, lambda: journal.add(NO_OP, 2, 1)):
            with pytest.raises(JournalError, match="sync the journal"):
                refused()


def test_broken_journal_is_written_anew(tmp_path: Path) -> None:
    model = write_log(tmp_path, 20, synced=10)
    disk = Failing(errno.EIO)
    with opened(tmp_path, files=disk) as journal:
        model = fill(journal, model, ["add", "trim", "add"])
        disk.fail_at, disk.lasting = disk.changes + 1, True
        for refused in (journal.sync, journal.repair, lambda: journal.add(NO_OP, 90, 9)):
            with pytest.raises(JournalError):
                refused()
        disk.fail_at = None
        journal.repair()
        assert model.holds(journal)
        model = fill(journal, model, ["add"] * 3)
    with opened(tmp_path) as journal:
        assert model.holds(journal)
        assert journal.report == ""
        assert not journal.lost_tail_possible


def test_killed_while_a_broken_journal_is_written_anew_counts_as_having_lost_it(
    tmp_path: Path,
) -> None:
    model = write_log(tmp_path / "alive", 20)
    disk = Failing(errno.EIO)
    outcomes: set[tuple[int, bool]] = set()
    with opened(tmp_path / "alive", files=disk) as journal:
        disk.fail_at = disk.changes + 1
        with pytest.raises(JournalError):
            journal.sync()
        for change in count(1):
            disk.fail_at, disk.lasting = disk.changes + change, True
            try:
                journal.repair()
                break
            except JournalError:
                pass
            with opened(shutil.copytree(tmp_path / "alive", tmp_path / str(change))) as found:
                assert tuple(found[:]) == model.entries[: len(found)]
                outcomes.add((len(found), found.lost_tail_possible))
        disk.fail_at = None
        assert model.holds(journal)
    assert (20, False) in outcomes
    assert all(length == 20 or lost for length, lost in outcomes), outcomes


def test_disk_with_little_room_is_not_fit_and_nothing_is_left_of_the_trial(tmp_path: Path) -> None:
    disk = Full()
    with opened(tmp_path, files=disk) as journal:
        disk.full = True
        with pytest.raises(JournalError, match="write again to the journal"):
            journal.repair()
        disk.full = False
        journal.repair()
    assert sorted(path.name for path in (tmp_path / "journal").iterdir()) == ["lock", "vote"]


# ------------------------------------------------------------------- refused at start


def test_second_hanat_on_one_data_dir_is_refused(tmp_path: Path) -> None:
    refused = pytest.raises(StartupError, match="another hanat uses it; stop the other one")
    with opened(tmp_path), refused:
        open_journal(tmp_path)
    with opened(tmp_path):
        pass


@pytest.mark.parametrize(
    ("node_id", "cluster", "found"),
    [(2, "berlin", "it belongs to node 1"), (1, "hamburg", "it belongs to cluster 'berlin'")],
)
def test_journal_of_another_node_or_cluster_is_refused(
    tmp_path: Path, node_id: int, cluster: str, found: str
) -> None:
    open_journal(tmp_path, node_id=1, cluster="berlin").close()
    with pytest.raises(StartupError, match=found):
        open_journal(tmp_path, node_id=node_id, cluster=cluster)
    open_journal(tmp_path, node_id=1, cluster="berlin").close()


def test_journal_of_nobody_is_adopted(tmp_path: Path) -> None:
    open_journal(tmp_path).close()
    open_journal(tmp_path, node_id=1, cluster="berlin").close()
    with pytest.raises(StartupError, match="it belongs to node 1"):
        open_journal(tmp_path, node_id=2)


def test_segment_of_another_node_is_refused(tmp_path: Path) -> None:
    for node_id in (1, 2):
        journal = open_journal(tmp_path / str(node_id), node_id=node_id)
        journal.add(NO_OP, 1, 1)
        journal.close()
    name = "journal/00000000000000000001.log"
    shutil.copy(tmp_path / "2" / name, tmp_path / "1" / name)
    with pytest.raises(StartupError, match="it belongs to node 2, not to 1"):
        open_journal(tmp_path / "1", node_id=1)


def test_data_dir_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StartupError, match=r"state.*: Not a directory; make the data directory"):
        open_journal(tmp_path / "state")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EIO])
def test_disk_that_cannot_be_written_is_refused(tmp_path: Path, code: int) -> None:
    disk = Failing(code)
    disk.fail_at = 1
    with pytest.raises(StartupError, match="make the data directory readable and writable"):
        open_journal(tmp_path, files=disk)
    open_journal(tmp_path).close()
