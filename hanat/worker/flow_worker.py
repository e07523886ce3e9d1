"""The flow worker: from the holder's kernel into the log, from the log into a kernel."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from hanat.core.endings import Ended, Ending
from hanat.core.flow_scope import ReplicationScope
from hanat.core.flow_selection import FlowQuery
from hanat.core.flows import FlowTable, Row, ServerKey
from hanat.core.reconcile import Rules
from hanat.core.status import FlowStatus
from hanat.core.table_pressure import TableAlarm, TableStatistics
from hanat.errors import KernelError
from hanat.kernel.ports import Conntrack, Routes
from hanat.worker.backup import BackupSide
from hanat.worker.client_batch import is_of_clients
from hanat.worker.client_set_sync import ClientSets
from hanat.worker.client_tracker import ClientTracker
from hanat.worker.flow_batch import is_end
from hanat.worker.flow_ending import EndingQueue, Told
from hanat.worker.flow_query import Query
from hanat.worker.holder import HolderSide
from hanat.worker.reconciliation import Reconciled, Reconciliation
from hanat.worker.traffic_counter import TrafficCounter
from hanat.worker.window import Propose
from hanat.worker.worker_channel import Answer

log = logging.getLogger(__name__)

COMPLAIN_S = 60.0
NO_DIGITS = str.maketrans("", "", "0123456789")  # the same alarm, whatever its figures


def _nobody_asked(_counts: Mapping[str, int]) -> None:
    return


class FlowWorker:
    """Both sides over one kernel; a node changes sides.

    Args:
        conntrack: The kernel's table.
        routes: Its routing table.
        propose: Appends a batch of a term to the log: ``propose(term, batch, done)``;
            returns False when this node does not lead.
        completed: Called with whether this kernel has all committed flows, when that
            changes; it has not at first.
        clock: Seconds of CLOCK_BOOTTIME.
        client_sets: This kernel's, of services with persistence; None: they are left alone.

    Attributes:
        accounting: Counts what services carry while this node captures.
    """

    def __init__(
        self,
        conntrack: Conntrack,
        routes: Routes,
        *,
        propose: Propose,
        completed: Callable[[bool], None],
        clock: Callable[[], float],
        client_sets: ClientSets | None = None,
    ) -> None:
        self._conntrack, self._routes = conntrack, routes
        self._rules = Rules()
        self._reconciliation: Reconciliation | None = None
        self._reconciles_later: Reconciled | None = None
        self.ended = 0
        self._was_whole = False  # when it began to capture
        self._clock, self._alarm = clock, TableAlarm()
        self._complained_at: dict[str, float] = {}
        self._table = FlowTable()
        self._clients = ClientTracker(client_sets, clock)
        self._holder = HolderSide(conntrack, self._table, self._clients, propose, clock)
        self.accounting = TrafficCounter(conntrack)
        self._holder.opened = self.accounting.opened
        self._backup = BackupSide(conntrack, self._table, completed)
        self._endings = EndingQueue(
            conntrack, end=self._end, local=self._local, idle=self._reconcile_now
        )

    def set_scope(self, scope: ReplicationScope) -> None:
        """Change what counts."""
        if scope == self._holder.scope:
            return
        self._backup.scope = self.accounting.scope = scope
        self._table.listen(scope.ports)
        self._holder.set_scope(scope)
        if not self._holder.active:
            self._backup.load()

    def set_level(self, level: int) -> None:
        """Propose batches in a feature level from now on."""
        self._holder.level = self._clients.level = level

    def start_capture(self, term: int) -> None:
        """Begin to read changes; they are proposed as batches of `term`.

        Raises:
            NotPermittedError: CAP_NET_ADMIN is missing.
        """
        self._clients.hold(holds=True)
        if not self._holder.active:
            self._was_whole, self._holder.has_read = self._backup.complete, False
        self._holder.start(term)
        self.accounting.start()
        self._backup.note(complete=True)  # this kernel's table is what counts now
        self._reconcile(_nobody_asked)  # what the former holder left

    def stop_capture(self) -> None:
        """Read what waits, then stop; what was proposed and not committed counts as dropped."""
        if self._holder.active:
            self._holder.stop()
            self._clients.hold(holds=False)
            self.accounting.stop()
            self._endings.stop()
            self._reconcile_now()
            self._backup.forget()  # until the next holder has told everything

    def flush(self, done: Callable[[], None]) -> None:
        """Propose everything captured so far and call `done` once it is committed."""
        self._holder.flush(done)

    def resync(self) -> None:
        """Tell everything, as holder; see `HolderSide.resync`."""
        self._holder.resync()

    def resync_for_peer(self, *, again: bool) -> None:
        """A peer lacks flows; see `HolderSide.resync_for_peer`."""
        self._holder.resync_for_peer(again=again)

    def install(self, batch: bytes) -> None:
        """Install a committed batch of another node; never raises."""
        if is_of_clients(batch):
            self._clients.install(batch)
            return
        self._backup.install(batch)
        if is_end(batch):  # everything was told, of clients too
            self._clients.sweep()

    def forget(self) -> None:
        """Note that committed batches may have been missed."""
        self._backup.forget()

    def query(
        self, selection: FlowQuery, *, limit: int, kill: bool, done: Callable[[Answer], None]
    ) -> None:
        """Look flows up, in steps; as holder delete them everywhere.

        Args:
            selection: Which.
            limit: How many to return at most.
            kill: Delete them.
            done: Takes the answer.
        """

        def found(records: list[bytes]) -> str:
            if kill and not self._holder.kill(records):
                return "this node stopped holding meanwhile; ask the holder for the rest"
            return ""

        Query(
            self._conntrack.walk(), self._holder.scope, selection,
            limit=limit, found=found, done=done,
        ).step()  # fmt: skip

    def reconcile(self, rules: Rules, done: Reconciled) -> None:
        """End flows that do not fit rules that were just installed, in steps.

        Args:
            rules: In force.
            done: Takes how many ended, by reason; at once if this node does not hold.
        """
        self._rules = rules.after(self._rules)
        self._clients.configure(rules)
        self._reconcile(done)

    def end_connections(self, endings: Sequence[Ending], done: Told) -> None:
        """End connections of servers that went down, into maintenance or away, in steps.

        Args:
            endings: Whose; the rules in force lead no new flow there.
            done: Takes how many ended, of each; none if this node does not hold.
        """
        if self._holder.active:
            self._endings.ask(endings, done)
        else:
            done([Ended()] * len(endings))

    def _local(self) -> frozenset[bytes]:
        scope = self._holder.scope
        return scope.own | scope.addresses

    def _reconcile(self, done: Reconciled) -> None:
        """Begin at the start of the table; what is under way tells what it did.

        Endings that were asked for before come first: they know the policy of services that are
        gone, whose connections would be deleted here.
        """
        if self._reconciliation is not None:
            self._reconciliation.stop()
            self._reconciliation = None
        later, self._reconciles_later = self._reconciles_later, None
        if later is not None:
            later({})
        if self._endings.busy:
            self._reconciles_later = done
        else:
            self._begin_to_reconcile(done)

    def _reconcile_now(self) -> None:
        later, self._reconciles_later = self._reconciles_later, None
        if later is not None:
            self._begin_to_reconcile(later)

    def _begin_to_reconcile(self, done: Reconciled) -> None:
        if not self._holder.active or not self._rules.devices:
            done({})
            return
        self._reconciliation = Reconciliation(
            self._conntrack, self._routes, self._rules, end=self._end, done=done
        )
        self._reconciliation.begin()

    def _end(self, expired: list[bytes], reset: list[bytes]) -> bool:
        if expired and not self._holder.kill(expired):
            return False
        if reset and not self._holder.reset(reset):
            return False
        self.ended += len(expired) + len(reset)
        return True

    def status(self) -> FlowStatus:
        """Return the counters; what the kernel has to tell is read first."""
        holder, backup = self._holder, self._backup
        holder.collect()
        table, alarms = self._look_at_table()
        return FlowStatus(
            captured=holder.captured,
            committed=holder.committed,
            pending=holder.pending,
            received=backup.received,
            installed=backup.installed,
            deleted=backup.deleted,
            clashed=backup.clashed,
            failed=backup.failed,
            repaired=backup.repaired,
            dropped=holder.dropped,
            overruns=holder.overruns,
            lag_s=holder.lag_s,
            kernel_entries=table.entries,
            kernel_limit=table.limit,
            uninserted=table.uninserted,
            table_drops=table.dropped,
            alarms=alarms,
            flows=len(self._table),
            complete=backup.complete,
            resyncs=holder.resyncs,
            ended=self.ended,
            clients=len(self._clients),
            clients_refused=self._clients.refused,
        )

    def _look_at_table(self) -> tuple[TableStatistics, tuple[str, ...]]:
        now = self._clock()
        alarms: tuple[str, ...]
        try:
            table = self._conntrack.statistics()
        except KernelError as error:
            table, alarms = TableStatistics(), (str(error),)
        else:
            alarms = self._alarm.look(table, now)
        for alarm in alarms:
            kind = alarm.translate(NO_DIGITS)
            if now >= self._complained_at.get(kind, float("-inf")) + COMPLAIN_S:
                self._complained_at[kind] = now
                log.error("flowsync alarm=%r", alarm)
        return table, alarms

    def keys(self) -> list[bytes]:
        """Return what identifies each flow, in any order; see `FlowTable.keys`."""
        return self._table.keys()

    @property
    def whole(self) -> bool:
        """Whether the flows known here are all that this kernel has, as far as is known.

        They are not while a worker that was started again reads the kernel's table, or is told.
        """
        if self._holder.active:
            return self._was_whole or self._holder.has_read
        return self._backup.complete

    def report(self) -> list[Row]:
        """Return the flows of each server on each listen; see `FlowTable.report`."""
        return self._table.report()

    def counts(self) -> Mapping[ServerKey, int]:
        """Return the number of flows of each server on each listen that has any."""
        return self._table.counts()
