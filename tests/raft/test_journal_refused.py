"""Journals that are not opened, and what the error says."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from hanat.errors import StartupError
from hanat.raft.journal_opening import open_journal
from hanat.raft.messages import NO_OP
from tests.raft.disks import Failing
from tests.raft.journals import LOG_BYTES, kill, opened


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
    open_journal(tmp_path, node_id=1, cluster="berlin", log_bytes=LOG_BYTES).close()
    with pytest.raises(StartupError, match=found):
        open_journal(tmp_path, node_id=node_id, cluster=cluster)
    open_journal(tmp_path, node_id=1, cluster="berlin").close()


def test_journal_of_nobody_is_adopted(tmp_path: Path) -> None:
    open_journal(tmp_path, log_bytes=LOG_BYTES).close()
    open_journal(tmp_path, node_id=1, cluster="berlin").close()
    with pytest.raises(StartupError, match="it belongs to node 1"):
        open_journal(tmp_path, node_id=2)


def test_log_of_another_node_is_refused(tmp_path: Path) -> None:
    for node_id in (1, 2):
        journal = open_journal(tmp_path / str(node_id), node_id=node_id, log_bytes=LOG_BYTES)
        journal.add(NO_OP, 1, 1)
        journal.sync()
        kill(journal)
    shutil.copy(tmp_path / "2/journal/log.1", tmp_path / "1/journal/log.1")
    with pytest.raises(StartupError, match="it belongs to node 2, not to 1"):
        open_journal(tmp_path / "1", node_id=1)


@pytest.mark.parametrize("vote", [b"", b"hanatvot\x02\x00".ljust(8192, b"\0")])
def test_journal_of_the_format_before_is_refused_with_what_to_do(
    tmp_path: Path, vote: bytes
) -> None:
    directory = tmp_path / "journal"
    directory.mkdir()
    (directory / "vote").write_bytes(vote)
    if not vote:
        (directory / "00000000000000000001.log").write_bytes(b"hanatlog")
    was = {path.name: path.read_bytes() for path in directory.iterdir()}
    with pytest.raises(StartupError, match=r"stop all nodes, move journal and snapshot in"):
        open_journal(tmp_path)
    (directory / "lock").unlink()
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == was


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
    open_journal(tmp_path, log_bytes=LOG_BYTES).close()
