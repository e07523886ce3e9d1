"""The system calls of the journal, in one object that tests replace.

Only calls that change a disk are here, so that a test can stop the world after
each of them, lose what was not synced, or let one of them fail.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

FILE_MODE = 0o640


class Files:
    """The real file system; every method may raise OSError."""

    def open(self, path: Path, *, create: bool = False) -> int:
        """Return a descriptor to read and write; `create` empties what is there."""
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_TRUNC if create else 0)
        return os.open(path, flags, FILE_MODE)

    def write(self, fd: int, data: bytes, offset: int) -> None:
        """Write all of `data`; after an error any part of it may be there."""
        done = os.pwrite(fd, data, offset)
        while done < len(data):  # a disk that is nearly full takes a part without an error
            done += os.pwrite(fd, data[done:], offset + done)

    def sync(self, fd: int) -> None:
        """Make data and size of a file durable."""
        os.fdatasync(fd)

    def sync_names(self, directory: Path) -> None:
        """Make durable which names a directory has."""
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name, atomically."""
        old.rename(new)

    def lock(self, path: Path) -> int:
        """Return a descriptor that keeps everybody else from the same lock.

        Raises:
            BlockingIOError: Somebody else has it.
        """
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise
        return fd

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)


FILES = Files()
