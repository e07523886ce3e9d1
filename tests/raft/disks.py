"""Disks for tests of the journal: without syncs, watched, failing, losing power."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from hanat.raft.files import Files


class Quick(Files):
    """The real disk, but nothing is synced: for tests that end before the power does."""

    def sync(self, fd: int) -> None: ...

    def sync_names(self, directory: Path) -> None: ...


class Watched(Quick):
    """Calls `changed` after each change, and in the middle of each write."""

    def __init__(self) -> None:
        self.changed: Callable[[], None] = lambda: None

    def open(self, path: Path, *, create: bool = False) -> int:
        fd = super().open(path, create=create)
        if create:
            self.changed()
        return fd

    def write(self, fd: int, data: bytes, offset: int) -> None:
        super().write(fd, data[: len(data) // 2], offset)
        self.changed()
        super().write(fd, data[len(data) // 2 :], offset + len(data) // 2)
        self.changed()

    def rename(self, old: Path, new: Path) -> None:
        super().rename(old, new)
        self.changed()


class Failing(Quick):
    """Fails change number `fail_at` and, if `lasting`, all that follow; counts them."""

    def __init__(self, code: int = errno.ENOSPC) -> None:
        self.code = code
        self.changes = 0
        self.fail_at: int | None = None
        self.lasting = False

    def _change(self) -> None:
        self.changes += 1
        if self.fail_at is None or self.changes < self.fail_at:
            return
        if self.lasting or self.changes == self.fail_at:
            raise OSError(self.code, os.strerror(self.code))

    def open(self, path: Path, *, create: bool = False) -> int:
        if create:
            self._change()
        return super().open(path, create=create)

    def write(self, fd: int, data: bytes, offset: int) -> None:
        try:
            self._change()
        except OSError:
            super().write(fd, data[: min(len(data) // 2, 60)], offset)
            raise
        super().write(fd, data, offset)

    def sync(self, fd: int) -> None:
        self._change()
        super().sync(fd)

    def sync_names(self, directory: Path) -> None:
        self._change()
        super().sync_names(directory)

    def rename(self, old: Path, new: Path) -> None:
        self._change()
        super().rename(old, new)


class Full(Quick):
    """Takes nothing that needs room while it is `full`; what is there can be overwritten."""

    def __init__(self) -> None:
        self.full = False

    def open(self, path: Path, *, create: bool = False) -> int:
        fd = super().open(path, create=create)
        if create:
            self._need_room(fd, 1)
        return fd

    def write(self, fd: int, data: bytes, offset: int) -> None:
        self._need_room(fd, offset + len(data))
        super().write(fd, data, offset)

    def _need_room(self, fd: int, size: int) -> None:
        if self.full and size > os.fstat(fd).st_size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@dataclass
class _Inode:
    """Content that survives a power loss, and changes that may not."""

    safe: bytes = b""
    changes: list[tuple[int, bytes | None]] = field(default_factory=list)

    def after(self, changes: list[tuple[int, bytes | None]]) -> bytes:
        content = bytearray(self.safe)
        for offset, data in changes:
            content.extend(bytes(max(0, offset - len(content))))
            if data is None:
                del content[offset:]
            else:
                content[offset : offset + len(data)] = data
        return bytes(content)


class LosingPower(Files):
    """Keeps apart what was synced; `lose_power` writes what a disk may hold then.

    Of the unsynced changes of a file either a beginning survives, the last one
    possibly torn, or any part of them, in pages of 16 bytes; of the unsynced
    changes of names any part.
    """

    def __init__(self) -> None:
        self.changed: Callable[[], None] = lambda: None
        self._inodes: dict[int, _Inode] = {}
        self._open: dict[int, int] = {}
        self._names: dict[str, int] = {}
        self._safe_names: dict[str, int] = {}
        self._name_changes: list[tuple[str, int | None]] = []

    def open(self, path: Path, *, create: bool = False) -> int:
        fd = super().open(path, create=create)
        if path.name not in self._names:
            number = len(self._inodes)
            self._inodes[number] = _Inode()
            self._rename(path.name, number)
        self._open[fd] = self._names[path.name]
        if create:
            self._inodes[self._open[fd]].changes.append((0, None))
            self.changed()
        return fd

    def write(self, fd: int, data: bytes, offset: int) -> None:
        super().write(fd, data, offset)
        self._inodes[self._open[fd]].changes.append((offset, data))
        self.changed()

    def sync(self, fd: int) -> None:
        inode = self._inodes[self._open[fd]]
        inode.safe, inode.changes = inode.after(inode.changes), []
        self.changed()

    def sync_names(self, directory: Path) -> None:  # noqa: ARG002 - there is one
        self._safe_names, self._name_changes = dict(self._names), []
        self.changed()

    def rename(self, old: Path, new: Path) -> None:
        super().rename(old, new)
        self._rename(new.name, self._names[old.name])
        self._rename(old.name, None)
        self.changed()

    def _rename(self, name: str, number: int | None) -> None:
        self._name_changes.append((name, number))
        _apply(self._names, [(name, number)])

    def lose_power(self, rng: Random, directory: Path) -> None:
        """Write into an empty directory what may be left."""
        names = dict(self._safe_names)
        _apply(names, [change for change in self._name_changes if rng.random() < 0.5])
        for name, number in names.items():
            inode = self._inodes[number]
            (directory / name).write_bytes(inode.after(_survivors(rng, inode.changes)))


def _apply(names: dict[str, int], changes: list[tuple[str, int | None]]) -> None:
    for name, number in changes:
        if number is None:
            names.pop(name, None)
        else:
            names[name] = number


def _survivors(
    rng: Random, changes: list[tuple[int, bytes | None]]
) -> list[tuple[int, bytes | None]]:
    if rng.random() < 0.5:
        kept = changes[: rng.randint(0, len(changes))]
        if kept and kept[-1][1] is not None:
            offset, data = kept[-1]
            kept[-1] = (offset, data[: rng.randint(0, len(data))] if data else data)
        return kept
    pages: list[tuple[int, bytes | None]] = []
    for offset, data in changes:
        if data is None:
            pages.append((offset, None))
        else:
            pages += [(offset + at, data[at : at + 16]) for at in range(0, len(data), 16)]
    return [page for page in pages if rng.random() < 0.8]
