"""The journal after a crash between any two changes of the disk, and after a full disk."""

from __future__ import annotations

import errno
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from hanat.consensus.background import Done
from hanat.consensus.journal import Journal
from hanat.errors import JournalError, StartupError
from tests.consensus.disks import Failing, LosingPower, Watched
from tests.consensus.journals import Model, fill, opened, operations, vote_of, write_log

STEPS = 30
REPLAY = "pytest tests/consensus/test_journal_crash.py -k 'seed{}'"


@pytest.mark.parametrize("seed", range(6), ids="seed{}".format)
def test_killed_process_leaves_the_log_before_or_after_the_operation(
    tmp_path: Path, seed: int
) -> None:
    print(f"seed={seed}", REPLAY.format(seed))  # noqa: T201 - shown when it fails
    rng, disk = Random(seed), Watched()
    crashes = 0

    def crash() -> None:
        nonlocal crashes
        crashes += 1
        copy = tmp_path / f"crash{crashes}"
        shutil.copytree(tmp_path / "alive", copy)
        with opened(copy) as journal:
            assert_before_or_after(journal, before, after)
            assert_goes_on(copy, journal)
        shutil.rmtree(copy)

    before = after = Model()
    with opened(tmp_path / "alive", files=disk) as journal:
        for operation in operations(rng, STEPS):
            after = before.after(operation)
            disk.changed = crash
            before.perform(operation, journal)
            before = after
            crash()
        disk.changed = lambda: None
    assert crashes > 3 * STEPS


def assert_before_or_after(journal: Journal, before: Model, after: Model) -> None:
    assert vote_of(journal) in (before.vote, after.vote)
    found = tuple(journal[:])
    if after.entries and after.entries == before.entries[: len(after.entries)]:
        # A tail is cut segment by segment: a beginning of the old log is left.
        assert len(found) >= len(after.entries)
        assert found == before.entries[: len(found)]
    else:
        assert found in (before.entries, after.entries)


def assert_goes_on(data_dir: Path, journal: Journal, *, boot_id: str = "first boot") -> None:
    """Append to what is left and find it again."""
    following = journal[-1][1] + 1 if len(journal) else 1
    model = Model(tuple(journal[:]), journal.durable_index, vote_of(journal), following, made=1000)
    model = fill(journal, model, ["add"] * 4 + ["vote"])
    journal.close()
    with opened(data_dir, boot_id=boot_id) as again:
        assert model.holds(again)
        assert not again.lost_tail_possible or journal.report


@pytest.mark.parametrize("seed", range(12), ids="seed{}".format)
def test_lost_power_leaves_a_beginning_of_the_log_with_all_that_was_synced(
    tmp_path: Path, seed: int
) -> None:
    print(f"seed={seed}", REPLAY.format(seed))  # noqa: T201 - shown when it fails
    rng, disk = Random(seed), LosingPower()
    seen: Counter[str] = Counter()
    begun = False

    def crash() -> None:
        if rng.random() < 0.6 or not begun:
            return
        seen["crashes"] += 1
        copy = tmp_path / f"crash{seen['crashes']}"
        (copy / "journal").mkdir(parents=True)
        disk.lose_power(rng, copy / "journal")
        with opened(copy, boot_id="second boot") as journal:
            assert_left_by_power(journal, before, after)
            seen["cut"] += bool(journal.report)
            seen["shorter"] += len(journal) < len(before.entries)
            journal.recovered()
            assert_goes_on(copy, journal, boot_id="second boot")
        shutil.rmtree(copy)

    before = after = Model()
    with opened(tmp_path / "alive", files=disk) as journal:
        begun, disk.changed = True, crash
        for operation in operations(rng, STEPS):
            after = before.after(operation)
            before.perform(operation, journal)
            before = after
            crash()
        disk.changed = lambda: None
    print(seen)  # noqa: T201 - shown when it fails
    assert seen["crashes"] > STEPS
    assert seen["shorter"]


def assert_left_by_power(journal: Journal, before: Model, after: Model) -> None:
    assert journal.lost_tail_possible
    assert vote_of(journal) in (before.vote, after.vote)
    # A tail is cut segment by segment, so synced entries go one segment at a time.
    durable = min(before.durable, after.durable)
    assert replace(before, durable=durable).begins(journal) or after.begins(journal)


@pytest.mark.parametrize("seed", range(6), ids="seed{}".format)
def test_what_a_sync_beside_made_durable_survives_lost_power(tmp_path: Path, seed: int) -> None:
    print(f"seed={seed}", REPLAY.format(seed))  # noqa: T201 - shown when it fails
    rng, disk = Random(seed), LosingPower()
    works: list[Callable[[], None]] = []
    ends: list[Done] = []
    crashes = counted = 0

    def background(work: Callable[[], None], done: Done) -> None:
        works.append(work)
        ends.append(done)

    def crash() -> None:
        nonlocal crashes
        crashes += 1
        copy = tmp_path / f"crash{crashes}"
        (copy / "journal").mkdir(parents=True)
        disk.lose_power(rng, copy / "journal")
        durable = [entry for entry in journal[:] if entry[1] <= journal.durable_index]
        with opened(copy, boot_id="second boot") as left:
            assert left[:][: len(durable)] == durable
        shutil.rmtree(copy)

    model = Model()
    with opened(tmp_path / "alive", files=disk) as journal:
        for operation in operations(rng, 60):
            model.perform(operation, journal)
            model = model.after(operation)
            if not ends and rng.random() < 0.6:
                journal.sync_in(background, lambda _: None)
            elif works and rng.random() < 0.6:
                works.pop()()
            elif ends and not works and rng.random() < 0.6:
                was = journal.durable_index
                ends.pop()(None)
                counted += journal.durable_index > was
            crash()
        for end in ends:
            end(OSError())
    assert counted > 2


def test_crash_while_the_journal_is_made_leaves_a_new_one(tmp_path: Path) -> None:
    disk = Watched()
    copies: list[Path] = []
    disk.changed = lambda: copies.append(
        shutil.copytree(tmp_path / "alive", tmp_path / str(len(copies)))
    )
    with opened(tmp_path / "alive", files=disk) as journal:
        journal.add(*Model().next_entry)
        disk.changed = lambda: None
    for copy in copies:
        with opened(copy) as journal:
            assert len(journal) in (0, 1)
            journal.recovered()
            assert_goes_on(copy, journal)
    assert len(copies) > 10


def test_crash_while_a_lost_tail_is_cut_off_changes_nothing_of_what_is_left(
    tmp_path: Path,
) -> None:
    model = write_log(tmp_path / "alive", 20)
    second = sorted((tmp_path / "alive/journal").glob("*.log"))[1]
    data = second.read_bytes()
    second.write_bytes(data[:100] + bytes(16) + data[116:])  # a page that was never written
    disk = Watched()
    copies: list[Path] = []
    disk.changed = lambda: copies.append(
        shutil.copytree(tmp_path / "alive", tmp_path / str(len(copies)))
    )
    with opened(tmp_path / "alive", files=disk, boot_id="second boot") as journal:
        disk.changed = lambda: None
        left = journal[:]
        assert "cut off" in journal.report
    assert 0 < len(left) < 20
    assert tuple(left) == model.entries[: len(left)]
    for copy in copies:
        with opened(copy, boot_id="second boot") as journal:
            assert journal[:] == left
            assert journal.lost_tail_possible
    assert len(copies) > 5


@pytest.mark.parametrize("seed", range(6), ids="seed{}".format)
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "for ever"])
def test_failing_disk_refuses_and_leaves_the_log_before_or_after(
    tmp_path: Path, seed: int, *, lasting: bool
) -> None:
    print(f"seed={seed}", REPLAY.format(seed))  # noqa: T201 - shown when it fails
    rng = Random(seed)
    steps = list(operations(rng, STEPS))
    for fail_at in range(1, 80):
        data_dir = tmp_path / str(fail_at)
        disk = Failing(rng.choice((errno.ENOSPC, errno.EIO)))
        disk.fail_at, disk.lasting = fail_at, lasting
        before = after = Model()
        try:
            with opened(data_dir, files=disk) as journal:
                for step in steps:
                    after = before.after(step)
                    before.perform(step, journal)
                    before = after
                disk.fail_at = None
        except (JournalError, StartupError):
            pass
        with opened(data_dir) as journal:
            assert_before_or_after(journal, before, after)


@pytest.mark.parametrize("seed", range(6), ids="seed{}".format)
def test_journal_goes_on_after_the_disk_is_free_again(tmp_path: Path, seed: int) -> None:
    print(f"seed={seed}", REPLAY.format(seed))  # noqa: T201 - shown when it fails
    rng, disk = Random(seed), Failing()
    model = Model()
    with opened(tmp_path, files=disk) as journal:
        for _ in range(60):
            disk.fail_at = disk.changes + rng.randint(1, 6)
            disk.lasting = rng.random() < 0.5
            operation = (rng.choice(("add", "add", "add", "vote")), rng.randrange(1000))
            try:
                model.perform(operation, journal)
            except JournalError:
                disk.fail_at = None
                model.perform(operation, journal)
            model = model.after(operation)
            assert tuple(journal[:]) == model.entries
        disk.fail_at = None
    with opened(tmp_path) as journal:
        assert model.holds(journal)
        assert journal.report == ""
