"""A damaged journal is refused with words and left alone, or loses a torn tail only."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hanat.consensus.codec import NO_OP
from hanat.consensus.segments import HEADER_BYTES, MARKER
from hanat.consensus.vote import COPY_BYTES
from hanat.errors import StartupError
from tests.consensus.journals import Model, fill, opened, vote_of, write_log

ENTRIES = 12


def contents(data_dir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (data_dir / "journal").iterdir()}


def restore(data_dir: Path, was: dict[str, bytes]) -> None:
    directory = data_dir / "journal"
    for path in directory.iterdir():
        path.unlink()
    for name, data in was.items():
        (directory / name).write_bytes(data)


def segments_of(data_dir: Path) -> list[Path]:
    return sorted((data_dir / "journal").glob("*.log"))


def refusal(data_dir: Path, *, boot_id: str = "first boot") -> str:
    """Return the error of opening; the files must be as they were."""
    was = contents(data_dir)
    with pytest.raises(StartupError) as caught, opened(data_dir, boot_id=boot_id):
        pass
    assert contents(data_dir) == was
    assert "move it away while both other nodes run" in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------- every byte


@pytest.mark.parametrize("boot_id", ["first boot", "second boot"])
@pytest.mark.parametrize("synced", [0, 7])
def test_no_flipped_byte_ever_gives_another_content(
    tmp_path: Path, boot_id: str, synced: int
) -> None:
    model = write_log(tmp_path, ENTRIES, synced=synced)
    was = contents(tmp_path)
    refused = cut = 0
    for name, data in was.items():
        for position in range(0, len(data), 1 if name.endswith(".log") else 11):
            restore(tmp_path, was)
            flipped = bytearray(data)
            flipped[position] ^= 1 << position % 8
            (tmp_path / "journal" / name).write_bytes(flipped)
            try:
                with opened(tmp_path, boot_id=boot_id) as journal:
                    assert vote_of(journal) == model.vote
                    assert model.begins(journal), (name, position)
                    if len(journal) < len(model.entries):
                        cut += 1
                        assert name.endswith(".log")
                        assert f"behind entry {len(journal)}" in journal.report
                        assert boot_id == "second boot" or len(journal) == ENTRIES - 1
            except StartupError:
                refused += 1
                assert contents(tmp_path) == was | {name: bytes(flipped)}
    assert refused
    assert cut


def test_any_cut_off_end_loses_entries_from_the_end_only(tmp_path: Path) -> None:
    model = write_log(tmp_path, ENTRIES)
    was = contents(tmp_path)
    newest = segments_of(tmp_path)[-1]
    for size in range(len(was[newest.name])):
        restore(tmp_path, was)
        newest.write_bytes(was[newest.name][:size])
        with opened(tmp_path) as journal:
            assert model.begins(journal)
            assert journal[0] == model.entries[0]
        with opened(tmp_path) as journal:
            assert journal.report == ""


def test_last_record_that_is_whole_but_wrong_may_have_been_acknowledged(tmp_path: Path) -> None:
    write_log(tmp_path, 3)
    change(-1)(segments_of(tmp_path)[0])
    for _ in range(2):
        with opened(tmp_path) as journal:
            assert len(journal) == 2
            assert journal.lost_tail_possible


def test_beginning_of_a_record_was_never_acknowledged(tmp_path: Path) -> None:
    write_log(tmp_path, 3)
    segment = segments_of(tmp_path)[0]
    segment.write_bytes(segment.read_bytes()[:-1])
    with opened(tmp_path) as journal:
        assert len(journal) == 2
        assert "cut off" in journal.report
        assert not journal.lost_tail_possible


# ------------------------------------------------------------------- one by one


def change(position: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[position] ^= 0xFF
        path.write_bytes(data)

    return damage


@pytest.mark.parametrize(
    ("number", "damage", "found"),
    [
        (0, change(0), "this is not a file of hanat, it starts with"),
        (0, change(8), "it has format 254, this hanat reads format 1"),
        (0, change(20), "its header is incomplete or damaged"),
        (1, change(20), "its header is incomplete or damaged; later entries are there"),
        (0, change(HEADER_BYTES + 50), "the record of entry 2 is incomplete or its checksum"),
        (1, Path.unlink, "should follow"),
        (0, Path.unlink, "the segment with entry 1, the start of the log, is missing"),
        (0, lambda path: path.rename(path.with_name("1.log")), "is not the name of a segment"),
        (0, lambda path: shutil.copy(path, f"{path}.bak"), "hanat makes no such file"),
        (0, lambda path: path.write_bytes(path.read_bytes()[:-1]), "incomplete or its checksum"),
    ],
)
def test_damage_is_refused_with_words(
    tmp_path: Path, number: int, damage: Callable[[Path], object], found: str
) -> None:
    write_log(tmp_path, ENTRIES)
    damage(segments_of(tmp_path)[number])
    assert found in refusal(tmp_path)


def test_segment_of_an_older_log_does_not_fit_in(tmp_path: Path) -> None:
    write_log(tmp_path / "a", ENTRIES)
    write_log(tmp_path / "b", ENTRIES, made=90)  # the same lengths, other contents
    old, new = segments_of(tmp_path / "a"), segments_of(tmp_path / "b")
    assert [path.name for path in old] == [path.name for path in new]
    shutil.copy(new[1], old[1])
    assert "it does not continue the segment before" in refusal(tmp_path / "a")


def test_record_of_an_older_log_does_not_fit_in(tmp_path: Path) -> None:
    write_log(tmp_path / "a", 3)
    write_log(tmp_path / "b", 3, made=90)
    (old,), (new,) = segments_of(tmp_path / "a"), segments_of(tmp_path / "b")
    data, other = old.read_bytes(), new.read_bytes()
    third = data.rindex(MARKER)
    assert third == other.rindex(MARKER)
    old.write_bytes(data[:third] + other[third:])
    assert "the record of entry 3 does not continue the one before" in refusal(tmp_path / "a")


def test_lost_vote_is_refused(tmp_path: Path) -> None:
    write_log(tmp_path, 1)
    (tmp_path / "journal" / "vote").unlink()
    assert "the file `vote` is missing" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "both copies of term and vote are damaged (0 bytes)"),
        (bytes(2 * COPY_BYTES), "this is not a file of hanat"),
        (b"hanatvot\x09\x00", "it has format 9, this hanat reads format 2"),
        (b"hanatvot\x02\x00", "both copies of term and vote are damaged (10 bytes)"),
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


@pytest.mark.parametrize("boot_id", ["first boot", "second boot"])
def test_synced_entries_that_are_missing_are_damage(tmp_path: Path, boot_id: str) -> None:
    with opened(tmp_path) as journal:
        fill(journal, Model(), ["add"] * 2)
        segment = segments_of(tmp_path)[0]
        size = segment.stat().st_size
    with opened(tmp_path) as journal:  # closing syncs
        journal.add(NO_OP, 3, 1)
    segment.write_bytes(segment.read_bytes()[:size])
    assert "the log ends with entry 2, but 3 had been synced" in refusal(tmp_path, boot_id=boot_id)
