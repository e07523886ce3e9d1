"""Open the journal of a node, or make it: the room it will ever need is taken at once.

Nothing is changed before all files were read and found to belong together.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hanat.errors import StartupError
from hanat.raft.files import FILES, Files
from hanat.raft.hard_state import CLUSTER_BYTES_MAX, HardState, HardStateFile
from hanat.raft.journal import Journal
from hanat.raft.log import (
    LOG_FILE_BYTES,
    NAMES,
    Loaded,
    LogFiles,
    allocate,
    damage,
    load,
    old_format,
)
from hanat.raft.log_records import HEADER_BYTES


def open_journal(
    data_dir: Path,
    *,
    node_id: int = 0,
    cluster: str = "",
    files: Files = FILES,
    log_bytes: int = LOG_FILE_BYTES,
) -> Journal:
    """Open or create the journal of a node.

    Args:
        data_dir: The node's data directory; made if it is missing.
        node_id: Whose journal it must be, 0 if that does not matter.
        cluster: Of which cluster, empty if that does not matter.
        files: How to change the disk.
        log_bytes: Size of each file of the log, when they are made.

    Raises:
        StartupError: Another hanat uses it, it is another node's, it is damaged, or it
            cannot be read or written, or there is no room. No file was changed.
    """
    assert len(cluster.encode()) <= CLUSTER_BYTES_MAX, f"cluster name {cluster!r} is too long"
    directory = data_dir / "journal"
    lock: int | None = None
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o750)
        lock = _lock(directory, files)
        return _open(directory, files, lock, HardState(node_id=node_id, cluster=cluster), log_bytes)
    except BaseException as error:
        if lock is not None:
            files.close(lock)
        if isinstance(error, OSError):
            raise _cannot_open(directory, error) from error
        raise


def _lock(directory: Path, files: Files) -> int:
    try:
        return files.lock(directory / "lock")
    except BlockingIOError as error:
        raise StartupError(
            tried=f"open the journal {directory}",
            found="another hanat uses it",
            to_do="stop the other one, or give each node a data_dir of its own",
        ) from error


def _cannot_open(directory: Path, error: OSError) -> StartupError:
    return StartupError(
        tried=f"open the journal {directory}",
        found=f"{error.filename or directory}: {error.strerror or error}",
        to_do="make the data directory readable and writable for hanat, on a disk with 100 MiB "
        "free before the first start: it takes all its room then",
    )


def _open(directory: Path, files: Files, lock: int, present: HardState, log_bytes: int) -> Journal:
    """Open the locked journal; `present` is what is true of the node now."""
    _refuse_strangers(directory)
    path = directory / "vote"
    if path.exists():
        file = HardStateFile.load(path, files)
    else:
        # Perhaps it is not new, but lost.
        file = _create(directory, files, replace(present, recovering=True), log_bytes)
    descriptors: list[int] = []
    try:
        _check_owner(directory, present, file.value)
        _check_files(directory)
        loaded = load(directory, file)
        descriptors = [files.open(directory / name) for name in NAMES]
        _resume(file, present, loaded)
    except BaseException:
        for fd in descriptors:
            files.close(fd)
        file.close()
        raise
    size = min((directory / name).stat().st_size for name in NAMES)
    log = LogFiles(files, descriptors, vote=file, loaded=loaded, size=size)
    return Journal(log, file, loaded=loaded, name=directory, unlock=lambda: files.close(lock))


def _create(directory: Path, files: Files, vote: HardState, log_bytes: int) -> HardStateFile:
    """Make the files; `vote` comes last, so without it nothing of them counts."""
    for name in NAMES:
        path = directory / name
        if path.exists() and any(path.read_bytes()[:HEADER_BYTES]):
            raise damage(path, "it is part of a log, but the file `vote` is missing")
    for name in NAMES:
        allocate(files, directory / name, log_bytes)
    file = HardStateFile.create(directory / "vote", files, vote)
    files.sync_names(directory.parent)
    return file


def _refuse_strangers(directory: Path) -> None:
    if (error := old_format(directory)) is not None:
        raise error
    ours = {"lock", "vote", *NAMES}
    for path in sorted(directory.iterdir()):
        if path.name.removesuffix(".new") not in ours:
            raise damage(path, "hanat makes no such file")


def _check_files(directory: Path) -> None:
    for name in NAMES:
        if not (directory / name).exists():
            raise damage(directory / name, "it is missing")


def _check_owner(directory: Path, present: HardState, was: HardState) -> None:
    for name, mine, its in (
        ("node", present.node_id, was.node_id),
        ("cluster", present.cluster, was.cluster),
    ):
        if mine and its and mine != its:
            raise StartupError(
                tried=f"open the journal {directory} for {name} {mine!r}",
                found=f"it belongs to {name} {its!r}",
                to_do="correct data_dir, the node or the cluster's name",
            )


def _resume(file: HardStateFile, present: HardState, loaded: Loaded) -> None:
    """Note what is true from now on."""
    was = file.value
    vote = replace(
        was,
        node_id=present.node_id or was.node_id,
        cluster=present.cluster or was.cluster,
        recovering=was.recovering or was.volatile,
        volatile=False,
    )
    if was.volatile:
        found = "the disk failed, and what was acknowledged meanwhile went with the process"
        loaded.report = "; ".join(filter(None, (loaded.report, found)))
    if not file.whole or vote != was:
        file.save(vote)
