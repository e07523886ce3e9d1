"""The journal after a crash between any two changes of the disk, and with a disk that fails."""

from __future__ import annotations

import errno
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from hanat.errors import JournalError, StartupError
from hanat.raft.journal import Journal
from hanat.raft.slow_work import Done
from tests.raft.disks import Failing, LosingPower, Watched
from tests.raft.journals import Model, fill, opened, operations, vote_of

STEPS = 60
REPLAY = "pytest tests/raft/test_journal_crash.py -k 'seed{}'"


@pytest.mark.parametrize("seed", range(6), ids="seed{}".format)
def test_killed_process_leaves_what_was_synced_before_or_after(tmp_path: Path, seed: int) -> None:
    print(f"seed={seed}", REPLAY.format(seed))  # noqa: T201 - shown when it fails
    rng, disk = Random(seed), Watched()
    crashes = 0

    def crash() -> None:
        nonlocal crashes
        crashes += 1
        copy = tmp_path / f"crash{crashes}"
        shutil.copytree(tmp_path / "alive", copy)
        assert_left(copy, before, after)
        shutil.rmtree(copy)

    before = after = Model()
    with opened(tmp_path / "alive", files=disk) as journal:
        for operation in operations(rng, STEPS):
            after = before.after(operation)
            disk.changed = crash
            before.perform(operation, journal)
            before = after
            if operation[0] != "add":
                crash()
        disk.changed = lambda: None
    assert crashes > STEPS


def assert_left(data_dir: Path, before: Model, after: Model) -> None:
    """Check what a crash has left on the way from one model to another, and that it goes on."""
    with opened(data_dir) as journal:
        assert vote_of(journal) in (before.vote, after.vote)
        found = tuple(journal[:])
        assert before.may_leave(found, after), (len(found), len(before.disk), len(after.disk))
        durable = [e for e in before.entries if e[1] <= min(before.durable, after.durable)]
        kept = [e for e in durable if not found or e[1] >= found[0][1]]
        assert set(kept) <= set(found)
        assert not journal.recovering
        following = journal[-1][1] + 1 if len(journal) else 1
        model = Model(found, found, journal.durable_index, vote_of(journal), following, made=1000)
        model = fill(journal, model, ["add"] * 4 + ["vote"])
    with opened(data_dir) as again:
        assert model.holds(again)


@pytest.mark.parametrize("seed", range(12), ids="seed{}".format)
def test_lost_power_leaves_all_that_was_synced(tmp_path: Path, seed: int) -> None:
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
        with opened(copy) as journal:
            seen["cut"] += bool(journal.report)
        assert_left(copy, before, after)
        shutil.rmtree(copy)

    before = after = Model()
    with opened(tmp_path / "alive", files=disk) as journal:
        begun, disk.changed = True, crash
        for operation in operations(rng, 2 * STEPS):
            after = before.after(operation)
            before.perform(operation, journal)
            before = after
            crash()
        disk.changed = lambda: None
    print(seen)  # noqa: T201 - shown when it fails
    assert seen["crashes"] > STEPS


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
        with opened(copy) as left:
            found = left[:]
            assert durable == [e for e in found if e in durable]
        shutil.rmtree(copy)

    def go_on() -> None:
        nonlocal counted
        if works:
            works.pop()()
            return
        was = journal.durable_index
        ends.pop()(None)
        counted += journal.durable_index > was

    model = Model()
    with opened(tmp_path / "alive", files=disk) as journal:
        for operation in operations(rng, 120):
            if operation[0] == "sync":
                continue  # one at a time
            model.perform(operation, journal)
            model = model.after(operation)
            if ends and rng.random() < 0.6:
                go_on()
            elif not ends and journal.behind and rng.random() < 0.6:
                journal.sync_in(background, lambda _: None)
            crash()
        while ends:
            go_on()
    assert counted > 2


def test_crash_while_the_journal_is_made_leaves_a_new_one(tmp_path: Path) -> None:
    disk = Watched()
    copies: list[Path] = []
    disk.changed = lambda: copies.append(
        shutil.copytree(tmp_path / "alive", tmp_path / str(len(copies)))
    )
    with opened(tmp_path / "alive", files=disk) as journal:
        journal.add(*Model().next_entry)
        journal.sync()
        disk.changed = lambda: None
    for copy in copies:
        with opened(copy) as journal:
            assert len(journal) in (0, 1)
            journal.recovered()
        assert_left(copy, Model(), replace(Model(), disk=tuple(journal[:])))
    assert len(copies) > 10


@pytest.mark.parametrize("seed", range(6), ids="seed{}".format)
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "for ever"])
def test_failing_disk_leaves_what_was_synced_before_or_after(
    tmp_path: Path, seed: int, *, lasting: bool
) -> None:
    print(f"seed={seed}", REPLAY.format(seed))  # noqa: T201 - shown when it fails
    rng = Random(seed)
    steps = list(operations(rng, STEPS))
    for fail_at in range(1, 60):
        data_dir = tmp_path / str(fail_at)
        disk = Failing(rng.choice((errno.ENOSPC, errno.EIO)))
        disk.fail_at, disk.lasting = fail_at, lasting
        before = after = Model()
        left: Journal | None = None
        try:
            with opened(data_dir, files=disk) as left:
                for step in steps:
                    after = before.after(step)
                    before.perform(step, left)
                    before = after
                disk.fail_at = None
        except (JournalError, StartupError):
            pass
        with opened(data_dir) as journal:
            found = tuple(journal[:])
            assert vote_of(journal) in (before.vote, after.vote)
            # What closing could write is the log of memory.
            whole = replace(before, disk=tuple(left[:]) if left else ())
            assert before.may_leave(found, after) or before.may_leave(found, whole)


@pytest.mark.parametrize("seed", range(6), ids="seed{}".format)
def test_journal_goes_on_when_the_disk_works_again(tmp_path: Path, seed: int) -> None:
    print(f"seed={seed}", REPLAY.format(seed))  # noqa: T201 - shown when it fails
    rng, disk = Random(seed), Failing(errno.EIO)
    model = Model()
    with opened(tmp_path / "alive", files=disk) as journal:
        for number in range(60):
            disk.fail_at = disk.changes + rng.randint(1, 6)
            disk.lasting = rng.random() < 0.5
            operation = (rng.choice(("add", "add", "sync", "vote", "cut tail")), rng.randrange(999))
            try:
                model.perform(operation, journal)
            except JournalError:
                shutil.copytree(tmp_path / "alive", tmp_path / str(number))
                with opened(tmp_path / str(number)) as left:
                    assert {e for e in model.disk if e[1] <= model.durable} <= set(left[:])
                disk.fail_at = None
                model.perform(operation, journal)
            model = model.after(operation)
            assert tuple(journal[:]) == model.entries
        disk.fail_at = None
    with opened(tmp_path / "alive") as journal:
        assert model.holds(journal)
        assert journal.report == ""
