"""What of a journal is on disk, in memory: for lost power and slow disks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from hanat.consensus.background import Background, Done
from hanat.errors import HanatError
from tests.sim.checks import CheckedJournal, Checks

if TYPE_CHECKING:
    from tests.sim.process import Process

WORK_S = (0.0002, 0.003)
SLOW_S = (0.3, 1.0)


class Storage(CheckedJournal):
    """A journal that knows up to where it is durable; term and vote always are."""

    def __init__(self, checks: Checks, node_id: int) -> None:
        super().__init__(checks, node_id)
        self.durable = 0
        self.forgetful = False

    @property
    def lost_tail_possible(self) -> bool:
        """Whether the power was lost, and no leader caught up with since."""
        return self.forgetful

    def recovered(self) -> None:
        """Note that it holds all again."""
        self.forgetful = False

    @property
    def durable_index(self) -> int:
        """What a sync made durable, and nothing has cut off since."""
        return self.durable

    def sync(self) -> None:
        """Make all of it durable."""
        self.durable = self[-1][1] if len(self) else 0

    def sync_in(self, background: Background, done: Done) -> None:
        """Make what there is now durable; a cut meanwhile makes it less."""
        self._reached = self[-1][1]

        def ended(error: BaseException | None) -> None:
            self.durable = max(self.durable, self._reached)
            done(error)

        background(lambda: None, ended)

    def deleteEntriesFrom(self, entryFrom: int) -> None:  # noqa: N802, N803 - the library's names
        """Remove the entries from a position on."""
        super().deleteEntriesFrom(entryFrom)
        self._at_most(self[-1][1] if len(self) else 0)

    def clear(self) -> None:
        """Forget every entry."""
        super().clear()
        self.durable = self._reached = 0

    def forget(self) -> None:
        """Note that it may have lost what it had."""
        self.forgetful = True

    def trim(self, position: int, background: Background, done: Done) -> None:
        """Cut the head off; what is kept is synced first."""
        self.deleteEntriesTo(position)
        self.sync_in(background, done)

    def _at_most(self, last: int) -> None:
        self.durable = min(self.durable, last)
        self._reached = min(getattr(self, "_reached", 0), last)

    def lose_power(self, rng: Random) -> None:
        """Keep what is durable, and perhaps more."""
        self.forgetful = True
        if len(self) == 0:
            return
        first, last = self[0][1], self[-1][1]
        kept = rng.randint(min(max(self.durable, first - 1), last), last)
        self._at_most(kept)
        super(CheckedJournal, self).deleteEntriesFrom(kept + 1 - first)  # a crash, no decision


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
            if error is None:
                work()
            self.node.world.on(self.node, done, error)
