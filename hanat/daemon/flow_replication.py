"""Between the flow worker and the replicated log."""

from __future__ import annotations

import socket
from collections.abc import Callable
from subprocess import DEVNULL, Popen

from hanat.core.configuration import Address, Configuration
from hanat.core.flow_scope import scope_of
from hanat.daemon import realtime
from hanat.daemon.totals_keeper import TotalsKeeper
from hanat.daemon.worker_link import WorkerLink
from hanat.raft.guard import Guard
from hanat.raft.replica import Replica
from hanat.raft.state import Flows
from hanat.supervisor.supervisor import python_command
from hanat.worker.client_batch import is_of_clients
from hanat.worker.flow_batch import is_mark

FLOW_WORKER = "hanat.worker"
RESYNC_SOON_S = 1.0  # at most so often, when another peer begins to lack flows
# For those that still do, ever less often. The first time soon: of a peer whose worker died it
# is told at once, and one that is being started hears nothing of what is told then.
RESYNC_S, RESYNC_S_MAX = 3.0, 60.0


class FlowReplication:
    """Passes batches on, both ways, and says which node has all flows.

    Args:
        replica: The replicated log.
        guard: Tells the peers.
        origin: Incarnation of this process: who proposed a batch does not install it.
        kick: Called when something was proposed.
        wall: Seconds since 1970.

    Attributes:
        worker: The flow worker.
        totals: What services carried, as it counts as the holder, and as the peers say.
        figures: Returns them, of a server or a service.
    """

    def __init__(
        self,
        replica: Replica,
        guard: Guard,
        *,
        origin: int,
        kick: Callable[[], None],
        wall: Callable[[], float],
    ) -> None:
        self._replica, self._guard, self._origin, self._kick = replica, guard, origin, kick
        self._own: frozenset[Address] = frozenset()
        self._known_index = replica.last_index
        self._resync_at, self._resync_s, self._resynced_at = 0.0, RESYNC_S, 0.0
        self._lacking: set[int] = set()
        self._again = False  # a peer began to lack flows, perhaps in the middle of a resync
        guard.complete = False
        self.worker = WorkerLink(_spawn, propose=self._propose, completed=self._completed)
        self.totals = TotalsKeeper(guard, replica, wall=wall)
        self.worker.on_added, self.figures = self.totals.count, self.totals.figures

    def start(self, configuration: Configuration, own: frozenset[Address]) -> None:
        """Start the flow worker; `own` are the addresses of this machine."""
        self._own = own
        self.totals.begin()
        self.configure(configuration)
        self.worker.start()

    def configure(self, configuration: Configuration) -> None:
        """Replicate what a configuration says."""
        self.worker.set_scope(scope_of(configuration, self._own))
        self.totals.configure(configuration)

    def apply(self, flows: Flows) -> None:
        """Take a committed batch."""
        if flows.origin == self._origin:
            return
        # While an entry is being applied, the index is that of the one before.
        if self._replica.applied_index >= self._known_index:
            self.worker.install(flows.batch)
        elif not is_mark(flows.batch):
            # From before this node started. The holder tells everything anyway; if there is
            # none, because all lost their power, this is what is left.
            self.worker.keep(flows.batch)

    def look(self, now: float) -> None:
        """See whether the worker lives; as holder, tell everything to who lacks flows."""
        self.worker.look()
        self.totals.look(now)
        if not self._replica.leading:
            self._lacking = set()
            return
        was, self._lacking = self._lacking, self._guard.incomplete_peers
        if self._lacking - was:
            self._again = True
            self._resync_at, self._resync_s = self._resynced_at + RESYNC_SOON_S, RESYNC_S
        if not self._lacking or now < self._resync_at:
            return
        self._resynced_at, self._resync_at = now, now + self._resync_s
        # One that still lacks flows after that has another trouble.
        self._resync_s = min(2 * self._resync_s, RESYNC_S_MAX)
        self.worker.resync(again=self._again)
        self._again = False

    def _propose(self, term: int, batch: bytes, done: Callable[[bool], None]) -> bool:
        entry = Flows(term, self._origin, batch, is_of_clients(batch))
        proposed = self._replica.propose(entry, done)
        if proposed:
            self._kick()
        return proposed

    def _completed(self, complete: bool) -> None:  # noqa: FBT001 - called by the worker
        self._guard.complete = complete
        self._guard.tell_all()


def _spawn(theirs: socket.socket) -> Popen[bytes]:
    with realtime.ordinary_children():
        return Popen(
            [*python_command(FLOW_WORKER), str(theirs.fileno())],
            stdin=DEVNULL,
            pass_fds=[theirs.fileno()],
        )
