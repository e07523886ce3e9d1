"""Between the flow worker and the replicated log."""

from __future__ import annotations

import sys
from collections.abc import Callable

from hanat.consensus.guard import Guard
from hanat.consensus.replica import Replica
from hanat.consensus.state import Flows
from hanat.flowsync.client import FlowClient

FLOW_WORKER = (sys.executable, "-m", "hanat.daemon.flows")
RESYNC_S = 2.0  # at most so often, for peers that lack flows


class Replication:
    """Passes batches on, both ways, and says which node has all flows.

    Args:
        replica: The replicated log.
        guard: Tells the peers.
        origin: Incarnation of this process: who proposed a batch does not install it.
        kick: Called when something was proposed.

    Attributes:
        worker: The flow worker; `start` it.
    """

    def __init__(
        self, replica: Replica, guard: Guard, *, origin: int, kick: Callable[[], None]
    ) -> None:
        self._replica, self._guard, self._origin, self._kick = replica, guard, origin, kick
        self._resync_at = 0.0
        guard.complete = False
        self.worker = FlowClient(FLOW_WORKER, propose=self._propose, completed=self._completed)

    def apply(self, flows: Flows) -> None:
        """Take a committed batch."""
        if flows.origin != self._origin:
            self.worker.install(flows.batch)

    def help_incomplete(self, now: float) -> None:
        """As holder, tell everything to who says that it lacks flows."""
        if now >= self._resync_at and self._replica.leading and self._guard.incomplete_peers:
            self._resync_at = now + RESYNC_S
            self.worker.resync()

    def _propose(self, term: int, batch: bytes, done: Callable[[bool], None]) -> bool:
        proposed = self._replica.propose(Flows(term, self._origin, batch), done)
        if proposed:
            self._kick()
        return proposed

    def _completed(self, complete: bool) -> None:  # noqa: FBT001 - called by the worker
        self._guard.complete = complete
        self._guard.tell_all()
