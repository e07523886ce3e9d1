"""What a node's kernel refuses, and what makes the node unsafe."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hanat.core import actions as do
from hanat.core import inputs as told
from hanat.core.configuration import Configuration
from hanat.core.outcomes import Cause, Failed

if TYPE_CHECKING:
    from tests.sim.process import Process

REFUSED = Failed(Cause.KERNEL, "refused")
NO_PEER = Failed(Cause.NO_PEER, "nobody has the whole log")


class Refusing:
    """The moods of one node's kernel.

    Attributes:
        rulesets: Texts of configurations that it refuses.
        kinds: Actions that it refuses.
        queue_full: It takes no announcement.
        unsafe: The node was told that it is unsafe.
        announced_at: When it announced last, in true time.
    """

    def __init__(self, node: Process) -> None:
        self._node = node
        self.rulesets: set[str] = set()
        self.kinds: tuple[type[do.Action], ...] = ()
        self.queue_full = self.unsafe = False
        self.announced_at = 0.0
        self._in_force: Configuration | None = None

    def of_next_process(self) -> tuple[int, int, float]:
        """Forget what was in force: a new process does not know. Return its counters, at 0."""
        self._in_force, self.unsafe = None, False
        return 0, 0, 0.0

    def configuration(self) -> Configuration:
        """Return what the newest committed text says: another object each time."""
        return replace(self._node.configuration, name=self._node.replica.state.text)

    def found(self, action: do.Action) -> Failed | None:
        """Return why an action is refused, None if it is not."""
        if isinstance(action, do.ArmGate) and self.unsafe:
            self._node.world.violate(f"{self._node.node_id} is unsafe, and answers")
        if isinstance(action, do.Announce):
            self.announced_at = self._node.world.now
        if isinstance(action, do.Announce) and self.queue_full:
            self._node.queue.append(told.AnnouncementsRefused(action.vips))
        return REFUSED if isinstance(action, self.kinds) else None

    def install(self, action: do.InstallRuleset) -> None:
        """Install a ruleset later, or refuse it: what was in force stays."""
        self._node.rulesets(lambda: None, lambda _: self._installed(action))

    def _installed(self, action: do.InstallRuleset) -> None:
        self._outcome(action)
        core, guard = self._node.core, self._node.guard
        guard.revision, guard.refuses = core.settled, core.refuses

    def refuses(self, configuration: Configuration) -> bool:
        """Say whether the kernel refuses the ruleset of a configuration."""
        return configuration.name in self.rulesets

    def _outcome(self, action: do.InstallRuleset) -> None:
        if self.refuses(action.configuration):
            kept = self._in_force is not None
            self._node.feed(told.ActionFailed(action, REFUSED, kept))
            return
        self._in_force = action.configuration
        self._node.feed(told.ActionDone(action))
