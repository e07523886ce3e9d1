"""What of a journal is on disk, in memory: for lost power and slow disks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from hanat.consensus.background import Background, Done
from tests.sim.checks import CheckedJournal, Checks

if TYPE_CHECKING:
    from tests.sim.process import Process


class Storage(CheckedJournal):
    """A journal that knows up to where it is durable; term and vote always are."""

    def __init__(self, checks: Checks, node_id: int) -> None:
        super().__init__(checks, node_id)
        self.durable = 0

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

    def _at_most(self, last: int) -> None:
        self.durable = min(self.durable, last)
        self._reached = min(getattr(self, "_reached", 0), last)

    def lose_power(self, rng: Random) -> None:
        """Keep what is durable, and perhaps more."""
        if len(self) == 0:
            return
        first, last = self[0][1], self[-1][1]
        kept = rng.randint(min(max(self.durable, first - 1), last), last)
        self._at_most(kept)
        super(CheckedJournal, self).deleteEntriesFrom(kept + 1 - first)  # a crash, no decision


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
