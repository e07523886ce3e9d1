"""A world whose network is always the same, so that a transcript shows decisions and no luck.

Delays are what they are on the average, nothing is lost, late or repeated but by a command. So a
beacon more or less moves no line; the random seeds of `tests.sim` are for what luck can do.
"""

from __future__ import annotations

import logging
import re
from random import Random
from typing import TYPE_CHECKING

from hanat.raft import library
from tests.sim.liveness import Liveness
from tests.sim.world import World

if TYPE_CHECKING:
    from tests.scenarios.router import Router
    from tests.sim.process import Process

QUIET_LOGGERS = ("hanat.daemon.history_recorder",)  # `history` shows it


class Steady(Random):
    """Draws what is drawn on the average."""

    def __init__(self) -> None:
        super().__init__(1)

    def random(self) -> float:
        """Return the middle."""
        return 0.5

    def uniform(self, a: float, b: float) -> float:
        """Return the middle."""
        return (a + b) / 2


class _Log(logging.Handler):
    """Takes what the parts of the daemon log."""

    def __init__(self, world: Telling) -> None:
        super().__init__(logging.INFO)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        running = self._world.running
        if running is not None and record.name not in QUIET_LOGGERS:
            self._world.tell(f"{running.node_id} {record.getMessage()}")


class Telling(World):
    """A world that tells an operator what happens.

    Attributes:
        answering: Who began to answer last, when, and for how long nobody did before.
    """

    def __init__(self, *, seed: int, node_ids: tuple[int, ...]) -> None:
        super().__init__(seed=seed, node_ids=node_ids)
        self.rng = Steady()
        library.prepare(clock=self._library_clock, uniform=self.rng.random)
        self._told: list[str] = []
        self._log = _Log(self)
        self.answering: tuple[Router, float, float | None] | None = None

    def begin(self) -> None:
        """Take logs, and see whether somebody holds whenever somebody could."""
        logger = logging.getLogger("hanat")
        logger.addHandler(self._log)
        self._level = logger.level
        logger.setLevel(logging.INFO)
        Liveness(self).look()

    def close(self) -> None:
        """Take no logs any more."""
        logger = logging.getLogger("hanat")
        logger.removeHandler(self._log)
        logger.setLevel(self._level)

    def election_rng(self, process: Process) -> Random:
        """Return what draws when a node stands for election: all that a seed decides."""
        return Random(f"{self.seed} {process.node_id} {process.incarnation}")

    def ms(self, at: float) -> str:
        """Return a time as a transcript shows it."""
        return f"{(at - 100) * 1000:.0f} ms"

    def tell(self, text: str) -> None:
        """Note what happened; a line that begins with the number of a node is that node's."""
        super().tell(text)
        self._told.append(f"{self.ms(self.now):>9}  {re.sub(r'^(?=[0-9] )', 'r', text)}")

    def take(self) -> list[str]:
        """Return what was told since this was asked last."""
        told, self._told = self._told, []
        return told

    def begins_to_answer(self, router: Router, last: float | None) -> None:
        """A node answers, and nobody did just before."""
        gap_s = None if last is None else self.now - last
        self.answering = router, self.now, gap_s
        self.tell(f"{router.node_id} answers{after(gap_s)}")


def after(gap_s: float | None) -> str:
    """Return for how long nobody answered, in words."""
    return "" if gap_s is None else f", nobody answered for {gap_s * 1000:.0f} ms"
