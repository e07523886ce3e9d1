"""The cluster key on disk."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from hanat.config import generate_key, read_key
from hanat.errors import EXIT_REFUSED, RefusedError, StartupError


def test_a_generated_key_can_be_read_and_is_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "cluster.key"

    generate_key(path)

    assert read_key(path) == bytes.fromhex(path.read_text().strip())
    assert len(read_key(path)) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_two_keys_differ(tmp_path: Path) -> None:
    generate_key(tmp_path / "a")
    generate_key(tmp_path / "b")

    assert read_key(tmp_path / "a") != read_key(tmp_path / "b")


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
        read_key(path)


@pytest.mark.parametrize("content", [b"", b"abc", b"0" * 63, b"0" * 65, b"g" * 64, b"\xff" * 64])
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cluster.key"
    path.write_bytes(content)
    path.chmod(0o600)

    with pytest.raises(StartupError, match="64 hexadecimal digits"):
        read_key(path)


def test_an_absent_key_is_reported_with_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"No such file.*hanat keygen"):
        read_key(tmp_path / "cluster.key")


def test_a_directory_or_a_fifo_is_no_key(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)

    for path in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(StartupError, match="not a regular file"):
            read_key(path)


def test_a_key_is_not_written_into_nowhere(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="No such file"):
        generate_key(tmp_path / "absent" / "cluster.key")
