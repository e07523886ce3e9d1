"""Where a node keeps its snapshots: one that counts, and those in the making.

    current    the newest whole one
    new        being written by this node
    received   being sent by the leader
    damaged    was current, and could not be read: kept for an investigation

A snapshot becomes `current` by a rename, after it is on disk, and the name is on disk
before anything relies on it. Everything here may take long and runs in a thread, except
`open`. After an error the old one still counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hanat.consensus import snapshot
from hanat.consensus.files import FILES, Files
from hanat.consensus.snapshot import Snapshot
from hanat.errors import SnapshotError, StartupError


@dataclass(frozen=True, slots=True)
class Reader:
    """A snapshot open for sending; it stays what it is when a newer one replaces it.

    Attributes:
        digest: Names it.
    """

    files: Files
    fd: int
    size: int
    digest: bytes

    def read(self, offset: int, size: int) -> bytes:
        """Return a piece of it."""
        return self.files.read(self.fd, size, offset)

    def close(self) -> None:
        """End reading."""
        self.files.close(self.fd)


class SnapshotStore:
    """The snapshots of one node on disk.

    Args:
        data_dir: The node's data directory; locked by its journal.
        cluster: Whose they must be.
        files: How to change the disk.

    Attributes:
        report: What was wrong with the current one at the start, empty if nothing was.
    """

    def __init__(self, data_dir: Path, *, cluster: str, files: Files = FILES) -> None:
        self.cluster, self._files = cluster, files
        self._directory = data_dir / "snapshot"
        self._receiving: int | None = None
        self.report = ""

    @property
    def trigger(self) -> str:
        """A path that is a file if there is a snapshot: the library looks at it."""
        return str(self._path("current"))

    def load(self) -> Snapshot | None:
        """Return the current snapshot, None if there is none that can be read.

        Raises:
            StartupError: It is not this cluster's or not this version's, or the disk
                cannot be read or written.
        """
        path = self._path("current")
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o750)
            if not path.exists():
                return None
            data = path.read_bytes()
            try:
                return snapshot.decode(data, self.cluster)
            except SnapshotError as error:
                if not error.damaged:
                    to_do = "move the file away if it is not wanted, and start again"
                    raise StartupError(
                        tried=f"read the snapshot {path}", found=str(error), to_do=to_do
                    ) from error
                self.report = f"{path}: {error}; it is kept as {self._path('damaged').name!r}"
            self._files.rename(path, self._path("damaged"))
            self._files.sync_names(self._directory)
        except OSError as error:
            raise StartupError(
                tried=f"read the snapshot {path}",
                found=error.strerror or str(error),
                to_do="make the data directory readable and writable for hanat",
            ) from error
        return None

    def write(self, parts: Iterable[bytes]) -> None:
        """Write a snapshot and make it the current one.

        Raises:
            OSError: It is not; the old one is.
        """
        fd = self._files.open(self._path("new"), create=True)
        try:
            offset = 0
            for part in parts:
                self._files.write(fd, part, offset)
                offset += len(part)
            self._files.sync(fd)
        finally:
            self._files.close(fd)
        self._name("new")

    def open(self) -> Reader | None:
        """Return the current snapshot for sending, None if there is none.

        Raises:
            OSError: It cannot be read.
        """
        path = self._path("current")
        if not path.exists():
            return None
        size = path.stat().st_size
        fd = self._files.open(path)
        try:
            end = self._files.read(fd, snapshot.DIGEST_BYTES, size - snapshot.DIGEST_BYTES)
            return Reader(self._files, fd, size, snapshot.digest_of(end))
        except BaseException:
            self._files.close(fd)
            raise

    # ----------------------------------------------------------------- receiving

    def receive(self, data: bytes, offset: int) -> None:
        """Store a piece of what the leader sends; one at offset 0 begins anew.

        Raises:
            OSError: It is not stored.
        """
        if offset == 0:
            self._end_receiving()
            self._receiving = self._files.open(self._path("received"), create=True)
        assert self._receiving is not None, "a piece without a beginning"
        self._files.write(self._receiving, data, offset)

    def received(self) -> Snapshot:
        """Return what was received, on disk and checked.

        Raises:
            SnapshotError: It is not a whole snapshot of this cluster.
            OSError: It cannot be read or synced.
        """
        assert self._receiving is not None, "nothing was received"
        self._files.sync(self._receiving)
        self._end_receiving()
        return snapshot.decode(self._path("received").read_bytes(), self.cluster, received=True)

    def adopt(self) -> None:
        """Make what was received the current snapshot.

        Raises:
            OSError: It is not; the old one is.
        """
        self._name("received")

    def _end_receiving(self) -> None:
        if self._receiving is not None:
            self._files.close(self._receiving)
            self._receiving = None

    def _name(self, name: str) -> None:
        self._files.rename(self._path(name), self._path("current"))
        self._files.sync_names(self._directory)

    def _path(self, name: str) -> Path:
        return self._directory / name
