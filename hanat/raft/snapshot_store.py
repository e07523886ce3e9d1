"""Where a node keeps its snapshots: two files of fixed size, used in turn.

    snapshot.0   snapshot.1

Both are made at full size before the first start, so a full disk does not stop a snapshot. A
file has a head with a number and the size, then the snapshot. The one with the highest number
that is whole counts; the next one overwrites the other. The current one is kept in memory, too:
it is sent from there, and it counts there when the disk fails. Then it is on disk before
the head of the log goes from there (`flush`).

Everything here may take long and runs in a thread, except `open`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from errno import EFBIG
from pathlib import Path
from struct import Struct
from threading import Lock

from hanat.errors import SnapshotError, StartupError
from hanat.raft import snapshot
from hanat.raft.files import FILES, Files
from hanat.raft.log import allocate
from hanat.raft.snapshot import Snapshot

NAMES = ("snapshot.0", "snapshot.1")
# A configuration and the two last entries, of at most 4 MiB each, and the history.
SNAPSHOT_FILE_BYTES = 16 << 20
MAGIC = b"hanatslt"
_HEAD = Struct("<8sQQ")  # magic, number, size of the snapshot
_CHECK = Struct("<I")
HEAD_BYTES = _HEAD.size + _CHECK.size


@dataclass(frozen=True, slots=True)
class Reader:
    """A snapshot open for sending; it stays what it is when a newer one replaces it."""

    data: bytes

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return len(self.data)

    @property
    def digest(self) -> bytes:
        """What names it."""
        return snapshot.digest_of(self.data)

    def read(self, offset: int, size: int) -> bytes:
        """Return a piece of it."""
        return self.data[offset : offset + size]

    def close(self) -> None:
        """End reading."""


class SnapshotStore:
    """The snapshots of one node on disk.

    Args:
        data_dir: The node's data directory; locked by its journal.
        cluster: Whose they must be.
        files: How to change the disk.
        size: Of each file, when they are made.

    Attributes:
        report: What was wrong at the start, empty if nothing was.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        cluster: str,
        files: Files = FILES,
        size: int = SNAPSHOT_FILE_BYTES,
    ) -> None:
        self.cluster, self._files, self._size = cluster, files, size
        self._directory = data_dir / "snapshot"
        self._changing = Lock()
        self._current: bytes | None = None
        self._file = self._number = 0  # where the newest on disk is, and which it is
        self._saved = True
        self._incoming = bytearray()
        self.report = ""

    @property
    def trigger(self) -> str:
        """A path that is a file if there is a snapshot: the library looks at it."""
        return "" if self._current is None else str(self._path(self._file))

    def load(self) -> Snapshot | None:
        """Make the files if they are missing; return the current snapshot, None if there is none.

        Raises:
            StartupError: It is not this cluster's or not this version's, or the disk
                cannot be read or written, or has no room.
        """
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o750)
            for name in NAMES:
                if not (self._directory / name).exists():
                    allocate(self._files, self._directory / name, self._size)
            self._files.sync_names(self._directory)
            return self._newest()
        except OSError as error:
            raise StartupError(
                tried=f"open the snapshots in {self._directory}",
                found=error.strerror or str(error),
                to_do="make the data directory readable and writable for hanat, on a disk with "
                "100 MiB free before the first start: it takes all its room then",
            ) from error

    def _newest(self) -> Snapshot | None:
        found: list[tuple[int, int, bytes]] = []
        for file in range(len(NAMES)):
            data = self._path(file).read_bytes()
            number, size = _unpack_head(data)
            if number:
                found.append((number, file, data[HEAD_BYTES : HEAD_BYTES + size]))
        for number, file, data in sorted(found, reverse=True):
            try:
                newest = snapshot.decode(data, self.cluster, received=True)
            except SnapshotError as error:
                if not error.damaged:
                    raise StartupError(
                        tried=f"read the snapshot {self._path(file)}",
                        found=str(error),
                        to_do="install the hanat that wrote it, or the next one; if the file is "
                        "not wanted, move it away, and start again",
                    ) from error
                self.report = f"{self._path(file)}: {error}; the one before counts"
                self._number = max(self._number, number)
                continue
            self._file, self._number, self._current = file, max(self._number, number), data
            return newest
        return None

    def write(self, parts: Iterable[bytes]) -> None:
        """Make a snapshot the current one; if the disk fails, in memory, until `flush`.

        Raises:
            OSError: It is too large; the old one is the current one.
        """
        data = b"".join(parts)
        if HEAD_BYTES + len(data) > self._size:
            raise OSError(EFBIG, f"a snapshot of {len(data)} bytes, its file has {self._size}")
        with self._changing:
            self._current, self._saved = data, False

    def flush(self) -> None:
        """Make sure that the current snapshot is on disk.

        Raises:
            OSError: It is not.
        """
        with self._changing:
            if not self._saved and self._current is not None:
                self._save(self._current)
                self._saved = True

    def open(self) -> Reader | None:
        """Return the current snapshot for sending, None if there is none."""
        return None if self._current is None else Reader(self._current)

    # ----------------------------------------------------------------- receiving

    def receive(self, data: bytes, offset: int) -> None:
        """Take a piece of what the leader sends; one at offset 0 begins anew.

        Raises:
            OSError: It is more than a file takes.
        """
        if HEAD_BYTES + offset + len(data) > self._size:
            raise OSError(EFBIG, "the snapshot is larger than its file")
        del self._incoming[offset:]
        assert len(self._incoming) == offset, "a piece without a beginning"
        self._incoming += data

    def received(self) -> Snapshot:
        """Return what was received, checked.

        Raises:
            SnapshotError: It is not a whole snapshot of this cluster.
        """
        return snapshot.decode(bytes(self._incoming), self.cluster, received=True)

    def adopt(self) -> None:
        """Make what was received the current snapshot, on disk.

        Raises:
            OSError: It is not; the old one is.
        """
        data = bytes(self._incoming)
        with self._changing:
            self._save(data)
            self._current, self._saved = data, True
        self._incoming = bytearray()

    def _save(self, data: bytes) -> None:
        """Write into the file that does not count, and let it count."""
        number, file = self._number + 1, 1 - self._file
        head = _HEAD.pack(MAGIC, number, len(data))
        head += _CHECK.pack(zlib.crc32(head))
        fd = self._files.open(self._path(file))
        try:
            self._files.write(fd, head + data, 0)
            self._files.sync(fd)
        finally:
            self._files.close(fd)
        self._file, self._number = file, number

    def _path(self, file: int) -> Path:
        return self._directory / NAMES[file]


def _unpack_head(data: bytes) -> tuple[int, int]:
    """Return number and size of the snapshot in a file, 0 and 0 if there is none."""
    if len(data) < HEAD_BYTES or _CHECK.unpack_from(data, _HEAD.size)[0] != zlib.crc32(
        data[: _HEAD.size]
    ):
        return 0, 0
    _, number, size = _HEAD.unpack_from(data)
    return number, size
