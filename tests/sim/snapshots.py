"""Snapshots in memory, and a state machine that shows what it has applied."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from errno import EIO

from hanat.raft import snapshot
from hanat.raft.snapshot import Snapshot
from hanat.raft.state import Command, Flows, State


class CountingState(State):
    """The real state machine, and the numbers of the commands it took.

    Attributes:
        uids: In the order of the log.
        padding: Content that makes its snapshots larger.
        count: How many entries were applied, whatever they are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.uids: list[int] = []
        self.padding = self.count = 0

    def apply(self, data: bytes) -> Command | None:
        """Apply an entry."""
        command = super().apply(data)
        self.count += 1
        if isinstance(command, Flows):
            self.uids.append(int.from_bytes(command.batch[:8], "big"))
        return command

    def freeze(self) -> Iterator[tuple[bytes, bytes]]:
        """Return the state, in parts."""
        uids = b"".join(uid.to_bytes(8, "big") for uid in self.uids)
        padding = [(b"padding", bytes(1 << 20))] * self.padding
        return iter([*super().freeze(), (b"uids", uids), *padding])

    def restore(self, sections: Mapping[bytes, bytes]) -> None:
        """Take over a state."""
        super().restore(sections)
        uids = sections[b"uids"]
        self.uids[:] = [int.from_bytes(uids[i : i + 8], "big") for i in range(0, len(uids), 8)]


@dataclass(frozen=True)
class MemoryReader:
    """A snapshot open for sending."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    @property
    def digest(self) -> bytes:
        return snapshot.digest_of(self.data)

    def read(self, offset: int, size: int) -> bytes:
        return self.data[offset : offset + size]

    def close(self) -> None: ...


class MemoryStore:
    """The snapshots of one node; what is `saved` survives the process and the power."""

    cluster = "sim"

    def __init__(self) -> None:
        self.current: bytes | None = None
        self.saved: bytes | None = None
        self.failing, self.error = False, EIO  # what it says then
        self.incoming = b""
        self.written = self.adopted = 0

    @property
    def trigger(self) -> str:
        return "" if self.current is None else __file__  # a file that is there

    def load(self) -> Snapshot | None:
        return None if self.current is None else snapshot.decode(self.current, self.cluster)

    def write(self, parts: Iterable[bytes]) -> None:
        self.current = b"".join(parts)
        self.written += 1

    def flush(self) -> None:
        if self.failing:
            raise OSError(self.error, os.strerror(self.error))
        self.saved = self.current

    def crash(self) -> None:
        self.current = self.saved

    def open(self) -> MemoryReader | None:
        return None if self.current is None else MemoryReader(self.current)

    def receive(self, data: bytes, offset: int) -> None:
        if offset == 0:
            self.incoming = b""
        assert len(self.incoming) == offset, (len(self.incoming), offset)
        self.incoming += data

    def received(self) -> Snapshot:
        return snapshot.decode(self.incoming, self.cluster, received=True)

    def adopt(self) -> None:
        if self.failing:
            raise OSError(self.error, os.strerror(self.error))
        self.current = self.saved = self.incoming
        self.adopted += 1
