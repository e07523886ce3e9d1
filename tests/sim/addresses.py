"""Floating addresses of a simulated kernel, which takes its time by how many there are."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from hanat.core import actions as do
from hanat.core import inputs as told
from tests.sim.storage import Disk

if TYPE_CHECKING:
    from tests.sim.process import Process

ADDING_S = (0.0, 0.06)  # two of them, or a thousand; more than a lease of the fastest profile
MANY_S_MIN = 0.03


class Addresses:
    """All floating addresses of a node: they come after a while, and go at once.

    Attributes:
        there: Whether the last one is there.
        adding_s: How long the kernel takes to add them.
    """

    def __init__(self, node: Process) -> None:
        self._node, self._slices = node, Disk(node)
        self._rng = Random(node.world.seed * 1000 + node.node_id)
        self._removals = 0
        self.there = False
        self.adding_s = ADDING_S

    def take(self, action: do.AddAddresses | do.RemoveAddresses) -> None:
        """Add or remove; the end of an addition is told, also of one that was given up."""
        if isinstance(action, do.RemoveAddresses):
            self._removals += 1
            self.there = False
            return
        removals = self._removals
        few = self._rng.random() < 0.5
        self._slices.work_s = (0.0, 0.0) if few else self.adding_s

        def added() -> None:
            self.there = removals == self._removals

        self._slices(added, lambda _: self._node.feed(told.ActionDone(action)))
