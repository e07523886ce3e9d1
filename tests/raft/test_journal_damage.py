"""A damaged journal is refused with words and left alone, or loses what was never synced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hanat.errors import StartupError
from hanat.raft.hard_state import COPY_BYTES
from hanat.raft.log_records import HEADER_BYTES, MARKER
from hanat.raft.messages import NO_OP
from tests.raft.journals import fill, opened, vote_of, write_log

ENTRIES = 12
LOG = "log.1"  # the first one that is used


def contents(data_dir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (data_dir / "journal").iterdir()}


def restore(data_dir: Path, was: dict[str, bytes]) -> None:
    for name, data in was.items():
        (data_dir / "journal" / name).write_bytes(data)


def refusal(data_dir: Path) -> str:
    """Return the error of opening; the files must be as they were."""
    was = contents(data_dir)
    with pytest.raises(StartupError) as caught, opened(data_dir):
        pass
    assert contents(data_dir) == was
    return str(caught.value)


# ------------------------------------------------------------------- every byte


@pytest.mark.parametrize("first", [0, 7])
def test_no_flipped_byte_ever_gives_another_content(tmp_path: Path, first: int) -> None:
    model = write_log(tmp_path, ENTRIES, first=first)
    was = contents(tmp_path)
    used = was[LOG].rindex(MARKER) + 200
    refused = cut = 0
    for name, data in was.items():
        positions = range(used) if name == LOG else range(0, min(len(data), 2 * COPY_BYTES), 11)
        for position in positions:
            restore(tmp_path, was)
            flipped = bytearray(data)
            flipped[position] ^= 1 << position % 8
            (tmp_path / "journal" / name).write_bytes(flipped)
            try:
                with opened(tmp_path) as journal:
                    assert vote_of(journal) == model.vote
                    found = tuple(journal[:])
                    assert found == model.entries[: len(found)], (name, position)
                    assert len(found) >= first, (name, position)
                    cut += len(found) < ENTRIES
            except StartupError:
                refused += 1
                assert contents(tmp_path) == was | {name: bytes(flipped)}
    assert refused
    # The last batch: nothing proves that its sync had ended.
    assert cut or not first


def test_batch_that_was_not_written_whole_is_cut_off_and_told(tmp_path: Path) -> None:
    model = write_log(tmp_path, ENTRIES, first=5)
    path = tmp_path / "journal" / LOG
    data = path.read_bytes()
    torn = data.rindex(MARKER)
    path.write_bytes(data[: torn + 30] + bytes(len(data) - torn - 30))
    was = contents(tmp_path)
    with opened(tmp_path) as journal:
        assert tuple(journal[:]) == model.entries[:-1]
    restore(tmp_path, was)
    path.write_bytes(data[: torn + 50] + bytes(len(data) - torn - 50))
    with opened(tmp_path) as journal:
        assert tuple(journal[:]) == model.entries[:-1]
        assert f"cut off what was being written behind entry {ENTRIES - 1}" in journal.report
        fill(journal, model, [])
        journal.add(NO_OP, ENTRIES, 9)
    with opened(tmp_path) as journal:
        assert (journal.report, len(journal), journal[-1]) == ("", ENTRIES, (NO_OP, ENTRIES, 9))


# ------------------------------------------------------------------- one by one


def change(position: int, flip: int = 0xFF) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[position] ^= flip
        path.write_bytes(data)

    return damage


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (change(0), "this is not a file of hanat, it starts with"),
        (change(20), "its header is damaged"),
        (change(HEADER_BYTES + 90), "the record of entry 2 is incomplete or damaged"),
        (Path.unlink, "it is missing"),
        (lambda path: path.with_name("1.bak").touch(), "hanat makes no such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "7 had been synced"),
    ],
)
def test_damage_is_refused_with_words(
    tmp_path: Path, damage: Callable[[Path], object], found: str
) -> None:
    write_log(tmp_path, ENTRIES, first=7)
    damage(tmp_path / "journal" / LOG)
    error = refusal(tmp_path)
    assert found in error
    assert "move it away while both other nodes run" in error


@pytest.mark.parametrize(
    ("flip", "found", "to_do"),
    [
        (0xFF, "it has feature level 250, this hanat reads 5", "install the hanat that wrote it"),
        (0x07, "it has feature level 2, this hanat reads 5", "upgrade as docs/operations.md says"),
    ],
)
def test_log_of_another_version_is_refused_with_words(
    tmp_path: Path, flip: int, found: str, to_do: str
) -> None:
    write_log(tmp_path, ENTRIES, first=7)
    change(8, flip)(tmp_path / "journal" / LOG)
    error = refusal(tmp_path)
    assert found in error
    assert to_do in error


def test_record_of_an_older_log_does_not_fit_in(tmp_path: Path) -> None:
    write_log(tmp_path / "a", 3, first=2)
    write_log(tmp_path / "b", 3, first=2, made=90)  # the same lengths, other contents
    path, other = (tmp_path / name / "journal" / LOG for name in ("a", "b"))
    data = path.read_bytes()
    third = data.rindex(MARKER)
    assert third == other.read_bytes().rindex(MARKER)
    path.write_bytes(data[:third] + other.read_bytes()[third:])
    with opened(tmp_path / "a") as journal:
        assert len(journal) == 2


def test_lost_vote_is_refused(tmp_path: Path) -> None:
    write_log(tmp_path, 1)
    (tmp_path / "journal" / "vote").unlink()
    assert "the file `vote` is missing" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "both copies of term and vote are damaged (0 bytes)"),
        (bytes(2 * COPY_BYTES), "this is not a file of hanat"),
        (b"hanatvot\x09\x00", "it has feature level 9, this hanat reads 5"),
        (b"hanatvot\x05\x00", "both copies of term and vote are damaged (10 bytes)"),
    ],
)
def test_unreadable_vote_is_refused(tmp_path: Path, data: bytes, found: str) -> None:
    write_log(tmp_path, 1)
    (tmp_path / "journal" / "vote").write_bytes(data)
    assert found in refusal(tmp_path)


@pytest.mark.parametrize("copy", [0, 1])
def test_one_damaged_copy_of_the_vote_is_repaired(tmp_path: Path, copy: int) -> None:
    model = write_log(tmp_path, 1)
    change(copy * COPY_BYTES + 30)(tmp_path / "journal" / "vote")
    with opened(tmp_path) as journal:
        assert model.holds(journal)
    change((1 - copy) * COPY_BYTES + 30)(tmp_path / "journal" / "vote")
    with opened(tmp_path) as journal:
        assert model.holds(journal)


def test_synced_entries_that_are_missing_are_damage(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        model = fill(journal, write_log(tmp_path / "other", 2), [])
        for entry in model.entries:
            journal.add(*entry)
        journal.sync()
        size = (tmp_path / "journal" / LOG).read_bytes().rindex(MARKER)
        journal.setCurrentTerm(9, None)  # which notes up to where all was synced
    path = tmp_path / "journal" / LOG
    path.write_bytes(path.read_bytes()[:size].ljust(path.stat().st_size, b"\0"))
    assert "the log ends with entry 1, but 2 had been synced" in refusal(tmp_path)
