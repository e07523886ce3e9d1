"""The numbers of programs at devices, noted in a table of nftables and in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from hanat.kernel.program_notes import ProgramNotes
from tests.kernel.namespaces import run

pytestmark = pytest.mark.kernel


def test_file_of_notes_takes_no_more_room_when_the_disk_is_full(
    inside: str,  # noqa: ARG001 - the namespace has no table of notes
    tmp_path: Path,
) -> None:
    file = tmp_path / "data" / "programs"
    notes = ProgramNotes(file.parent)
    for number in (7, 3, *range(10**9, 10**9 + 300)):
        notes._write(file, notes._in_file() | {number})
    assert notes.read() == set(range(10**9 + 300 - 256, 10**9 + 300))
    assert file.stat().st_size == 4096


def test_notes_of_before_the_machine_started_and_torn_ones_are_nothing(
    inside: str,  # noqa: ARG001 - the namespace has no table of notes
    tmp_path: Path,
) -> None:
    file = tmp_path / "programs"
    ProgramNotes(tmp_path)._write(file, frozenset({7}))
    written = file.read_text()
    for text in (written.replace("-", "+"), "", "7", written[:40] + "x", "\xff"):
        file.write_text(text)
        assert ProgramNotes(tmp_path).read() == set()
    assert ProgramNotes(tmp_path / "none").read() == set()


def test_disk_that_fails_keeps_no_number_out_of_the_table(inside: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    notes = ProgramNotes(tmp_path / "file")  # of no folder
    notes.add(7)
    assert notes.is_in_table(7)
    run("nft delete table inet hanat_notes", inside)
    assert not ProgramNotes(None).is_in_table(7)
