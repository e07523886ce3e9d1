"""The few facts that a node must remember whatever happens: term, vote, which log counts.

A node that forgets its vote can elect two leaders in one term, so every change is
durable before the call returns. The file holds the facts twice, a page apart. A change
writes and syncs one copy, then writes the other without a sync: it reaches the disk when
the kernel likes (vm.dirty_expire_centisecs, 30 s), and the next change begins with it. So
the only good copy is never written to: a torn write leaves the facts from before a change
that nobody was told of. And once both copies are on the disk, either may rot.

What is given up for one sync instead of two, since an election waits for it: when the
machine crashes before the other copy is on the disk and the synced one rots as well,
the newest facts are forgotten, with them perhaps a vote.

Considered: two slots used in turn (as many syncs, but a rotten newest slot always
looks like an interrupted write, and the vote is forgotten); a new file and a rename
(twice as slow as two copies that are both synced: it changes metadata).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from struct import Struct
from threading import Lock
from typing import Any, Self

from hanat.core import members
from hanat.core.feature_level import LEVEL, OLDEST, is_readable, readable
from hanat.core.members import Members
from hanat.errors import StartupError
from hanat.raft.files import Files

MAGIC = b"hanatvot"
COPY_BYTES = 4096  # a page and a physical sector: one torn write cannot reach both copies
COPIES = 2
CLUSTER_BYTES_MAX = 32

_HEAD = Struct("<8sH")
_COPY = Struct(f"<8sHQI32sQqQQQB{members.BYTES}s")
_CHECK = Struct("<I")

MOVE_AWAY = (
    "keep the directory {directory} for an investigation: move it away while both other "
    "nodes run, and start again; the node then fetches everything from them"
)
NEWER_LEVEL = (
    "install the hanat that wrote it, or the next one: there is no way back once an upgrade is "
    "finished"
)
OTHER_FORMAT = (
    "start the hanat that wrote it, or upgrade as docs/operations.md says: save what `hanat config "
    "show` prints as every node's cluster_file, stop all nodes, move journal and snapshot in "
    "{directory} away on each, and start all"
)


@dataclass(frozen=True, slots=True)
class HardState:
    """What a node remembers besides its log.

    Attributes:
        node_id: Whose journal it is, 0 while unknown.
        cluster: Name of the cluster, empty while unknown.
        term: Newest term this node heard of.
        voted_for: Node that got the vote of that term.
        epoch: Grows whenever something of the log is overwritten.
        begun: Epoch in which the file of the log that counts was begun, 0 while it is empty.
        durable: The log was synced up to this entry; less than that is damage.
        active: Which file of the log counts.
        recovering: What was acknowledged may be missing: the journal is new, or was damaged.
        volatile: It will be missing when the process ends: entries are acknowledged that
            are in memory only, since the disk fails.
        members: All nodes, as counted when this one last took part; empty while unknown.
        level: In which feature level this is written (`core.feature_level`).
    """

    node_id: int = 0
    cluster: str = ""
    term: int = 0
    voted_for: int | None = None
    epoch: int = 0
    begun: int = 0
    durable: int = 0
    active: int = 0
    recovering: bool = False
    volatile: bool = False
    members: Members = ()
    level: int = OLDEST


class HardStateFile:
    """The file that holds a `HardState`, open for changes.

    Attributes:
        whole: Both copies say the same; `save` makes them.
        level: The feature level to write, from the next change on.
    """

    def __init__(self, files: Files, fd: int, *, value: HardState, number: int) -> None:
        self._files, self._fd = files, fd
        self.whole = False
        self._doubtful = 0  # the copy to write next: never the only good one
        self.value, self._number, self.level = value, number, value.level
        self._changing = Lock()  # the loop saves votes, a thread what becomes of the log

    @classmethod
    def create(cls, path: Path, files: Files, value: HardState) -> Self:
        """Create the file; it appears whole or not at all."""
        new = path.with_suffix(".new")
        made = cls(files, files.open(new, create=True), value=value, number=0)
        for _ in range(COPIES):  # both on disk: no later change needs room
            made.save(value)
        files.rename(new, path)
        files.sync_names(path.parent)
        return made

    @classmethod
    def load(cls, path: Path, files: Files) -> Self:
        """Open the file; one copy may be damaged or behind.

        Raises:
            StartupError: Neither copy can be read.
            OSError: The file cannot be read.
        """
        data = path.read_bytes()
        copies = [data[start : start + COPY_BYTES] for start in (0, COPY_BYTES)]
        read = [_unpack(copy) for copy in copies]
        good = [found for found in read if found is not None]
        if not good:
            raise _unreadable(path, data)
        newest = max(good, key=lambda found: found[0])
        made = cls(files, files.open(path), value=newest[1], number=newest[0])
        made.whole = read == [newest, newest]
        made._doubtful = int(read[0] == newest)
        return made

    def save(self, value: HardState) -> None:
        """Make `value` durable.

        Raises:
            OSError: It may be durable or not; call again.
        """
        self._number += 1
        packed = _pack(value, self._number)
        self.whole = False
        self._files.write(self._fd, packed, self._doubtful * COPY_BYTES)
        self._files.sync(self._fd)
        # The other one, against a block that goes bad, may reach the disk when it likes: an
        # election waits for one sync, and the next `save` begins with this copy.
        self._doubtful = 1 - self._doubtful
        self._files.write(self._fd, packed, self._doubtful * COPY_BYTES)
        self.value, self.whole = value, True

    def remember(self, **changed: Any) -> None:  # noqa: ANN401 - the fields of Vote
        """Change facts durably; of any thread.

        Raises:
            OSError: They may be durable or not, and do not count in this process.
        """
        with self._changing:
            self.save(replace(self.value, **changed, level=self.level))

    def close(self) -> None:
        """Close the file."""
        self._files.close(self._fd)


def _pack(value: HardState, number: int) -> bytes:
    voted_for = -1 if value.voted_for is None else value.voted_for
    body = _COPY.pack(
        MAGIC, value.level, number, value.node_id, value.cluster.encode(), value.term, voted_for,
        value.epoch, value.begun, value.durable,
        value.recovering | value.volatile << 1 | value.active << 2, members.pack(value.members),
    )  # fmt: skip
    return (body + _CHECK.pack(zlib.crc32(body))).ljust(COPY_BYTES, b"\0")


def _unpack(copy: bytes) -> tuple[int, HardState] | None:
    """Return number and content of a copy, None if it is not whole."""
    body, rest = copy[: _COPY.size], copy[_COPY.size :]
    if len(copy) < COPY_BYTES or rest[: _CHECK.size] != _CHECK.pack(zlib.crc32(body)):
        return None
    magic, level = _HEAD.unpack_from(body)
    if magic != MAGIC or not is_readable(level):
        return None
    (_, _, number, node_id, cluster, term, voted_for, epoch, begun, durable, flags,
     listed) = _COPY.unpack(body)  # fmt: skip
    value = HardState(
        node_id=node_id,
        cluster=cluster.rstrip(b"\0").decode(),
        term=term,
        voted_for=None if voted_for < 0 else voted_for,
        epoch=epoch,
        begun=begun,
        durable=durable,
        active=flags >> 2 & 1,
        recovering=bool(flags & 1),
        volatile=bool(flags & 2),
        members=members.unpack(listed),
        level=level,
    )
    return number, value


def other_level(data_dir: Path, level: int) -> str:
    """Return what to do with a file of a feature level that this version does not read."""
    return NEWER_LEVEL if level > LEVEL else OTHER_FORMAT.format(directory=data_dir)


def _unreadable(path: Path, data: bytes) -> StartupError:
    found = f"both copies of term and vote are damaged ({len(data)} bytes)"
    if len(data) >= _HEAD.size:
        magic, level = _HEAD.unpack_from(data)
        if magic != MAGIC:
            found = f"this is not a file of hanat, it starts with {data[:8]!r}"
        elif not is_readable(level):
            found = f"it has feature level {level}, this hanat reads {readable()}"
            to_do = other_level(path.parent.parent, level)
            return StartupError(tried=f"read term and vote from {path}", found=found, to_do=to_do)
    to_do = MOVE_AWAY.format(directory=path.parent)
    return StartupError(tried=f"read term and vote from {path}", found=found, to_do=to_do)
