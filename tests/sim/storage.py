"""What of a journal is on disk, for lost power, slow and failing disks.

The journal is the real one (`raft.journal`); the disk below it is memory.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from errno import EIO
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, cast

from hanat.core.members import Members
from hanat.errors import HanatError
from hanat.raft.hard_state import HardState, HardStateFile
from hanat.raft.journal import Journal
from hanat.raft.log import Loaded, LogFiles
from hanat.raft.messages import Entry
from hanat.raft.slow_work import Done
from tests.sim.checks import Checks
from tests.sim.snapshots import MemoryStore

if TYPE_CHECKING:
    from tests.sim.process import Process

WORK_S = (0.0002, 0.003)
SLOW_S = (0.3, 1.0)


class MemoryLog:
    """The log on disk, with what `LogFiles` offers.

    Attributes:
        failing: It takes nothing.
        error: What it says then, an errno.
        torn: How many of the next entries it takes before the power goes.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.failing, self.error = False, EIO
        self.torn: int | None = None

    def append(self, first: int, entries: Sequence[Entry]) -> None:
        self._check()
        self.entries[first - self.entries[0][1] :] = entries[: self.torn]

    def rewrite(self, entries: Sequence[Entry]) -> None:
        self._check()
        if self.torn is None:
            self.entries = list(entries)

    def clear(self) -> None:
        self._check()
        if self.torn is None:
            self.entries = []

    def close(self) -> None: ...

    def _check(self) -> None:
        if self.failing:
            raise OSError(self.error, os.strerror(self.error))


class MemoryVote:
    """Term and vote on disk, with what `HardStateFile` offers."""

    whole = True

    def __init__(self) -> None:
        self.value = HardState()
        self.failing, self.level = False, self.value.level

    def remember(self, **changed: Any) -> None:  # noqa: ANN401 - the fields of Vote
        if self.failing:
            raise OSError(EIO, "Input/output error")
        self.value = replace(self.value, **changed, level=self.level)

    def close(self) -> None: ...


class Storage(Journal):
    """The journal of a simulated node; each change of the log is checked.

    Attributes:
        disk: What of the log survives the process.
        facts: What of term and vote does.
    """

    def __init__(self, checks: Checks, node_id: int) -> None:
        self._checks, self._node_id = checks, node_id
        self._rng = Random(node_id)
        self.disk, self.facts = MemoryLog(), MemoryVote()
        self._open()

    def _open(self) -> None:
        super().__init__(
            cast(LogFiles, self.disk),
            cast(HardStateFile, self.facts),
            loaded=Loaded(entries=list(self.disk.entries)),
            name=Path("simulated"),
            unlock=lambda: None,
        )

    @property
    def members(self) -> Members:
        """All nodes, as counted when this one last took part."""
        return self.facts.value.members

    @members.setter
    def members(self, members: Members) -> None:
        self.facts.value = replace(self.facts.value, members=members)

    def join(self, members: Members) -> None:
        """Note the member list; a node that had none is not one that lost it."""
        self._remember("join", members=members, recovering=self.recovering or self.members != ())

    def lost(self) -> Storage:
        """Count as new: as a journal that was moved away."""
        self.facts.value = replace(self.facts.value, recovering=True)
        return self

    def add(self, command: bytes, index: int, term: int) -> None:
        """Append an entry."""
        before = self[-1][2] if len(self) else (0 if index == 1 else None)
        self._checks.written(self._node_id, (command, index, term), before=before)
        super().add(command, index, term)

    def deleteEntriesFrom(self, entryFrom: int) -> None:  # noqa: N802, N803 - the library's names
        """Remove the entries from a position on."""
        self._checks.removed(self._node_id, self[entryFrom:])
        super().deleteEntriesFrom(entryFrom)

    def crash(self, store: MemoryStore) -> None:
        """End with the process: what is on disk is left; the batch at hand may be, or a part."""
        if self._batch is not None and not self.disk.failing and self._rng.random() < 0.7:
            self.disk.torn = self._rng.choice([0, 1, 2, None])
            self._batch.work()
        self.disk.torn = None
        store.crash()
        facts = self.facts
        facts.value = replace(
            facts.value, recovering=facts.value.recovering or facts.value.volatile, volatile=False
        )
        self._open()


def lose_journal(process: Process) -> None:
    """Move the journal of a node away, and its snapshots."""
    if process.alive:
        process.kill()
    process.journal = Storage(process.world.checks, process.node_id).lost()
    process.store = MemoryStore()


class Disk:
    """Does a node's slow work after a while, in order; longer while the disk is slow.

    Args:
        node: Whose disk; what it did for a process that died is not told to the next.
    """

    def __init__(self, node: Process) -> None:
        self.node = node
        self.work_s = WORK_S
        self._free_at = 0.0
        self._rng = Random(node.world.seed * 100 + node.node_id)

    def __call__(self, work: Callable[[], None], done: Done) -> None:
        start = max(self.node.world.now, self._free_at)
        self._free_at = start + self._rng.uniform(*self.work_s)
        self.node.world.at(self._free_at, self._finish, work, done, self.node.incarnation)

    def _finish(self, work: Callable[[], None], done: Done, incarnation: int) -> None:
        node = self.node
        if not node.alive or node.incarnation != incarnation:
            return
        if node.paused:  # the threads stand still as well
            node.held.append(lambda: self._finish(work, done, incarnation))
            return
        error: BaseException | None = None
        try:
            work()
        except (HanatError, OSError) as raised:
            error = raised
        node.world.on(node, done, error)


class Later:
    """Work of a node that is done when the test says so."""

    def __init__(self) -> None:
        self.node: Process
        self._waiting: deque[tuple[Callable[[], None], Done]] = deque()

    def __call__(self, work: Callable[[], None], done: Done) -> None:
        self._waiting.append((work, done))

    def __len__(self) -> int:
        return len(self._waiting)

    def finish(self, error: BaseException | None = None) -> None:
        """Do what waits, with an outcome."""
        for _ in range(len(self._waiting)):
            work, done = self._waiting.popleft()
            found = error
            if found is None:
                try:
                    work()
                except (HanatError, OSError) as raised:
                    found = raised
            self.node.world.on(self.node, done, found)
