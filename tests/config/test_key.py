"""The cluster key on disk."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from hanat.config import Keys, add_key, drop_accepted, generate_key, read_keys, use_accepted
from hanat.errors import EXIT_REFUSED, RefusedError, StartupError


def test_a_generated_key_can_be_read_and_is_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "cluster.key"

    generate_key(path)

    assert read_keys(path) == Keys(bytes.fromhex(path.read_text().strip()))
    assert len(read_keys(path).used) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_two_keys_differ(tmp_path: Path) -> None:
    generate_key(tmp_path / "a")
    generate_key(tmp_path / "b")

    assert read_keys(tmp_path / "a") != read_keys(tmp_path / "b")


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "cluster.key"
    path.write_text("precious")

    with pytest.raises(RefusedError, match="exists") as caught:
        generate_key(path)

    assert path.read_text() == "precious"
    assert caught.value.exit_code == EXIT_REFUSED


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_a_key_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "cluster.key"
    generate_key(path)
    path.chmod(mode)

    with pytest.raises(StartupError, match=rf'mode {mode:04o}.*"chmod 600 {path}"'):
        read_keys(path)


@pytest.mark.parametrize("content", [b"", b"abc", b"0" * 63, b"0" * 65, b"g" * 64, b"\xff" * 64])
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cluster.key"
    path.write_bytes(content)
    path.chmod(0o600)

    with pytest.raises(StartupError, match="64 hexadecimal digits"):
        read_keys(path)


def test_an_absent_key_is_reported_with_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"No such file.*hanat keygen"):
        read_keys(tmp_path / "cluster.key")


def test_a_directory_or_a_fifo_is_no_key(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)

    for path in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(StartupError, match="not a regular file"):
            read_keys(path)


def test_a_key_is_not_written_into_nowhere(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="No such file"):
        generate_key(tmp_path / "absent" / "cluster.key")


def test_a_key_is_changed_in_three_rounds(tmp_path: Path) -> None:
    path = tmp_path / "cluster.key"
    generate_key(path)
    old = read_keys(path).used
    both = add_key(path)
    assert (both.used, read_keys(path)) == (old, both)
    assert both.accepted not in {b"", old}
    new = both.accepted
    assert use_accepted(path) == read_keys(path) == Keys(new, old)
    assert drop_accepted(path) == read_keys(path) == Keys(new)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_rounds_in_another_order_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cluster.key"
    generate_key(path)
    before = read_keys(path)
    for change in (use_accepted, drop_accepted):
        with pytest.raises(RefusedError, match="has one only"):
            change(path)
    with pytest.raises(RefusedError, match="has it already"):
        add_key(path, before.used)
    add_key(path)
    with pytest.raises(RefusedError, match="has two"):
        add_key(path)
    assert read_keys(path).used == before.used


def test_three_keys_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cluster.key"
    path.write_text(f"{'0' * 64}\n{'1' * 64}\n{'2' * 64}\n")
    path.chmod(0o600)
    with pytest.raises(StartupError, match="3 lines"):
        read_keys(path)


def test_the_same_key_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cluster.key"
    path.write_text(f"{'a' * 64}\n{'A' * 64}\n")
    path.chmod(0o600)
    with pytest.raises(StartupError, match="the same key twice"):
        read_keys(path)


def test_a_change_that_cannot_be_written_leaves_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cluster.key"
    generate_key(path)
    before = path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StartupError, match="No space left"):
        add_key(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
