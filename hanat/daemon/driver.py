"""The loop around the core: take an input, step, carry out, publish, re-arm the timer.

There is one queue. Whatever an action leads to (its outcome, a new leader seen
while proposing) is appended to it, so the core is never entered twice at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

from hanat.core.actions import CLEANUP, Action
from hanat.core.inputs import ActionDone, ActionFailed, Input, RulesetDrifted, TimerDue
from hanat.core.node import Node
from hanat.core.node_snapshot import NodeSnapshot
from hanat.core.outcomes import Done, Failed, Outcome, Pending
from hanat.core.status import Role

log = logging.getLogger(__name__)


class Executor(Protocol):
    """What carries actions out."""

    def execute(self, action: Action) -> Outcome:
        """Carry out one action, or begin to."""
        ...


class Driver:
    """Feeds the core and carries out what it wants.

    Args:
        node: The core.
        executor: Carries out its actions.
        clock: Seconds of CLOCK_BOOTTIME.
        loop: Keeps the one timer.
    """

    def __init__(
        self,
        node: Node,
        executor: Executor,
        *,
        clock: Callable[[], float],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._node, self._executor, self._clock, self._loop = node, executor, clock, loop
        self._queue: deque[Input] = deque()
        self._running = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._snapshot: NodeSnapshot | None = None  # made when somebody asks
        self._watchers: list[Callable[[], None]] = []
        self._role_watchers: list[Callable[[Role], None]] = []

    @property
    def snapshot(self) -> NodeSnapshot:
        """The newest state of the node."""
        if self._snapshot is None:
            self._snapshot = self._node.snapshot()
        return self._snapshot

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call `watcher` after each burst of inputs."""
        self._watchers.append(watcher)

    def watch_role(self, watcher: Callable[[Role], None]) -> None:
        """Call `watcher` with the role before when one was entered, before anything is done."""
        self._role_watchers.append(watcher)

    def begin(self) -> None:
        """Carry out what must happen before the first input."""
        for action in self._node.start():
            self._carry_out(action)
        self._run()

    def feed(self, item: Input) -> None:
        """Take an input; it is handled before this returns, unless one is being handled."""
        self._queue.append(item)
        if not self._running:
            self._run()

    def _run(self) -> None:
        self._running = True
        try:
            while self._queue:
                self._step(self._queue.popleft())
        finally:
            self._running = False
        for watcher in self._watchers:
            watcher()
        self._arm_timer()

    def _step(self, item: Input) -> None:
        node = self._node
        role, since = node.role, node.role_since
        unsafe, hindrances = node.unsafe, node.hindrances
        actions = node.step(item, self._clock())
        self._snapshot = None
        if isinstance(item, ActionFailed):
            failed_action, why = type(item.action).__name__, item.failure
            log.error("action=%s cause=%s found=%r", failed_action, why.cause, why.detail)
        if isinstance(item, RulesetDrifted) and actions:
            log.warning("ruleset found=%r action=installed_again", "; ".join(item.found))
        if node.unsafe != unsafe:
            log.warning("unsafe=%s why=%r", bool(node.unsafe), "; ".join(node.unsafe))
        if node.hindrances != hindrances:
            log.warning("hindered=%s why=%r", bool(node.hindrances), "; ".join(node.hindrances))
        if (node.role, node.role_since) != (role, since):
            self._log_role(role, since)
            for watcher in self._role_watchers:
                watcher(role)
        failed = False
        for action in actions:
            if not failed or isinstance(action, CLEANUP):
                failed |= not self._carry_out(action)

    def _carry_out(self, action: Action) -> bool:
        match self._executor.execute(action):
            case Failed() as failure:
                self._queue.append(ActionFailed(action, failure))
                return False
            case Done():
                self._queue.append(ActionDone(action))
            case Pending():
                pass
        return True

    def _log_role(self, was: Role, since: float) -> None:
        now = self.snapshot
        log.info(
            "role=%s was=%s term=%d reason=%s after_ms=%.0f",
            now.role.value,
            was.value,
            now.term,
            now.reason.value,
            (now.role_since - since) * 1000,
        )

    def _arm_timer(self) -> None:
        deadline = self._node.deadline
        if self._timer is not None:
            # An early timer serves: a holder's deadline moves on with each renewal. Not one that
            # is overdue: the loop's clock stands still while the machine is suspended.
            if deadline is not None and max(self._timer_at, self._clock()) <= deadline:
                return
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            self._timer_at = deadline
            delay_s = max(0.0, deadline - self._clock())
            self._timer = self._loop.call_later(delay_s, self._due)

    def _due(self) -> None:
        self._timer = None
        if self._node.deadline is None or self._node.deadline > self._clock():
            self._arm_timer()
        else:
            self.feed(TimerDue())

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
