"""The holder's side of the flow worker: from its kernel into the log.

Changes are gathered for a few milliseconds and proposed as one batch. A bound on batches in
flight keeps a stalled log from filling the memory: while the window is full, changes wait
here and newer ones of the same flow replace older ones.

Changes get lost: the kernel drops events when we are slow, the log drops batches when a
majority is gone, a node comes back with an old table. So the holder tells everything anew at
the start of its term, whenever something was lost, and from time to time anyway (a *resync*):
it reads its kernel's table in slices, between two marks, while changes go on and go first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from hanat.core.feature_level import OLDEST
from hanat.core.flow_scope import ReplicationScope
from hanat.core.flows import (
    ChangeKind,
    FlowTable,
    Run,
    is_established,
    is_over,
    key_of,
    keys_of,
    with_reset,
)
from hanat.errors import KernelError
from hanat.kernel.ports import Capture, Conntrack
from hanat.worker.client_tracker import ClientTracker
from hanat.worker.flow_batch import CHANGES_MAX, Mark, encode, encode_mark
from hanat.worker.resync import Resync
from hanat.worker.timer import Timer
from hanat.worker.waiting import Waiting
from hanat.worker.window import InFlight, Propose, Window
from hanat.worker.young import Young

log = logging.getLogger(__name__)
complaints = logging.getLogger("hanat.complaints")  # clients choose how many flows there are

GATHER_S = 0.005
# Under load an entry of the log carries more: each costs what 100 changes cost.
GATHER_BUSY_S, BUSY_CHANGES = 0.015, 25
WINDOW_BATCHES = 16
READS_MAX = 4  # of some thousand events each; then the loop has its turn
WAITING_CHANGES_MAX = 200_000
RESYNC_WINDOW = WINDOW_BATCHES // 2  # changes go first
RESYNC_WAITING_MAX = 4 * CHANGES_MAX  # read ahead of what the log takes
RESYNC_AGAIN_S = 1.0
RECONCILE_S = 600.0


class HolderSide:
    """Captures and proposes flows.

    Args:
        conntrack: The kernel's table.
        table: What is told.
        clients: Of services with persistence; they are told of between flows.
        propose: See `Window`.
        clock: Seconds of CLOCK_BOOTTIME.

    Attributes:
        scope: What is captured.
        level: The feature level to write (`core.feature_level`).
        has_read: The kernel's table was read to its end, since somebody said that it was not.
        captured, committed, dropped, lag_s, resyncs: See `core.status.FlowStatus`.
    """

    def __init__(
        self,
        conntrack: Conntrack,
        table: FlowTable,
        clients: ClientTracker,
        propose: Propose,
        clock: Callable[[], float],
    ) -> None:
        self._conntrack, self._table, self._clock = conntrack, table, clock
        self._clients, clients.tell = clients, self._drain
        self._window = Window(propose, self._committed)
        self._capture: Capture | None = None
        self._waiting, self._waiting_since = Waiting(), 0.0
        self._young = Young()
        self._maturing = Timer(self._mature)
        self._gathering: asyncio.TimerHandle | None = None
        self._gathered_count = 0
        self._on_flushed: Callable[[], None] | None = None
        self._resync: Resync | None = None
        self._again = Timer(self.resync)
        self._wanted_again = self.has_read = False
        self._overruns, self._overrun = 0, False  # and what was queued then is not read yet
        self.scope, self.level = ReplicationScope(), OLDEST
        self.opened: Callable[[Sequence[bytes]], None] = lambda _records: None  # told by the kernel
        self.captured = self.committed = self.dropped = self.resyncs = 0
        self.lag_s: float | None = None

    @property
    def active(self) -> bool:
        """Whether changes are captured."""
        return self._capture is not None

    @property
    def pending(self) -> int:
        """How many changes are captured and not known to be committed."""
        return len(self._waiting) + self._window.changes

    @property
    def overruns(self) -> int:
        """How often the kernel dropped events."""
        return self._overruns + (0 if self._capture is None else self._capture.overruns)

    def start(self, term: int) -> None:
        """Begin to read changes; they are proposed as batches of `term`.

        Raises:
            NotPermittedError: CAP_NET_ADMIN is missing.
        """
        self.stop()
        self._waiting.clear()  # the resync tells of it
        self._window.term = term
        self._capture = self._conntrack.capture(unassured=self.scope.unassured)
        self._wait_for_changes()
        self.resync()

    def set_scope(self, scope: ReplicationScope) -> None:
        """Change what is captured; everything is told anew."""
        other = scope.unassured != self.scope.unassured
        self.scope = scope
        if self._capture is not None and other:
            self.start(self._window.term)
        else:
            self.resync()

    def stop(self) -> None:
        """Read what waits, then stop; what was proposed and not committed counts as dropped."""
        if self._capture is None:
            return
        self.collect()
        asyncio.get_running_loop().remove_reader(self._capture.fileno())
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        self._maturing.cancel()
        self._young.clear()
        self._end_resync()
        self._overrun, self._overruns = False, self.overruns
        self._capture.close()
        self._capture = None
        self.dropped += self._window.clear()
        self._finish_flush()

    def flush(self, done: Callable[[], None]) -> None:
        """Propose everything captured so far and call `done` once it is committed."""
        self._end_resync()  # who is next begins one
        self._flush(done)

    def _flush(self, done: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        if self._capture is None:
            loop.call_soon(done)  # what waits is of a term that is over
        elif self.collect():
            self._on_flushed = done
            self._clients.hurry()
            self._tell_put(self._young.clear())
            self._drain()
            self._check_flushed()
        else:
            loop.call_soon(self._flush, done)

    def kill(self, records: list[bytes]) -> bool:
        """Delete flows here, and tell of it: the kernel does not tell us what we do.

        Returns:
            False if nothing was done: this node does not hold any more.
        """
        if self._capture is None:
            return False
        self._conntrack.delete(records)
        self._overtaken(records)
        self._tell_gone(records)
        self._drain()
        return True

    def reset(self, records: list[bytes]) -> bool:
        """Let TCP connections be reset, by this node and those that follow it.

        Who was not told of a connection is not told now: the next holder will not know it.

        Returns:
            False if nothing was done: this node does not hold any more.
        """
        if self._capture is None:
            return False
        missing = set(self._conntrack.mark_for_reset(records))
        self._overtaken(records)
        marked = [with_reset(record) for record in records if record not in missing]
        self._tell_put([record for record in marked if key_of(record) in self._table])
        self._drain()
        return True

    def _overtaken(self, records: Sequence[bytes]) -> None:
        """Read what happened to flows before, so that what is told of them now is the last."""
        for _ in range(READS_MAX):
            if self.collect():
                break
        for record in records:
            self._young.discard(key_of(record))

    # ------------------------------------------------------------------ resync

    def resync_for_peer(self, *, again: bool) -> None:
        """Tell everything, because a peer lacks flows.

        Args:
            again: While everything is being told, tell it once more after that: a peer that
                began to lack flows meanwhile did not see the beginning.
        """
        if self._resync is None:
            if not self._again.is_due_within(RESYNC_AGAIN_S):  # it was lost: after a pause
                self.resync()
        elif again:
            self._wanted_again = True

    def resync(self) -> None:
        """Tell everything, from the beginning if that is being done."""
        if self._capture is None:
            return
        self._wanted_again = False
        self.collect()
        if self._overrun:
            return  # it comes when everything that was queued is read
        self._end_resync()
        self.resyncs += 1
        self._young.begin()
        self._table.begin()
        self._table.put_all(self._waiting.there)  # told already, although not proposed
        self._clients.tell_all()
        self._send(encode_mark(Mark(self.resyncs, ends=False), self.level), 0)
        self._resync = Resync(self.resyncs, self._conntrack.walk())
        self._again.call_within(RECONCILE_S)
        asyncio.get_running_loop().call_soon(self._read_slice, self._resync)

    def _end_resync(self) -> None:
        self._resync = None
        self._again.cancel()

    def _lost(self) -> None:
        """Something was lost: tell everything anew, soon."""
        self._resync = None
        self._clients.lost()
        if self._capture is not None:
            self._again.call_within(RESYNC_AGAIN_S)

    def _read_slice(self, resync: Resync) -> None:
        """Read some of the table; the loop has its turn before the next."""
        if resync is not self._resync:
            return
        try:
            records = next(resync.slices, None)
            if records:
                self._read(resync, self.scope.covered(records))
        except KernelError as error:
            log.error("flowsync op=dump found=%r", str(error))  # noqa: TRY400 - the text says it all
            self._lost()
            return
        resync.read = records is None
        if resync.read:
            self.has_read = True
            self._young.end()
        self._drain()
        self._read_on()

    def _read(self, resync: Resync, records: list[bytes]) -> None:
        # Who waited on a backup is in use from now on; if no packet comes, for so long.
        self._conntrack.settle(records)
        wanted: list[bytes] = []
        keys: list[bytes] = []
        now = self._clock()
        for key, record in zip(keys_of(records), records, strict=True):
            policy = self.scope.policy(record)
            kept = policy.established and (policy.unassured or is_established(record))
            if not kept or is_over(record) or key in resync.gone or key in self._waiting:
                continue
            if policy.min_age_s and key not in self._table:
                self._young.put(key, record, min_age_s=policy.min_age_s, now=now)
            else:
                wanted.append(record)
                keys.append(key)
        resync.waiting.put(keys, wanted)
        self._table.put_all(wanted)
        self.captured += len(wanted)
        self._mature_later()

    def _read_on(self) -> None:
        resync = self._resync
        if resync is None or resync.read or len(resync.waiting) >= RESYNC_WAITING_MAX:
            return
        asyncio.get_running_loop().call_soon(self._read_slice, resync)

    # ------------------------------------------------------------------ changes

    def _wait_for_changes(self) -> None:
        assert self._capture is not None
        asyncio.get_running_loop().add_reader(self._capture.fileno(), self._gather)

    def _gather(self) -> None:
        """The first change waits: let others join it."""
        assert self._capture is not None
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._capture.fileno())
        busy = self._gathered_count >= BUSY_CHANGES
        self._gathering = loop.call_later(GATHER_BUSY_S if busy else GATHER_S, self._gathered)

    def _gathered(self) -> None:
        self._gathering = None
        before = self.captured
        self.collect()
        self._gathered_count = self.captured - before
        if self._capture is not None:
            self._wait_for_changes()

    def collect(self) -> bool:
        """Read what the kernel has to tell, and propose it; say whether that was all."""
        if self._capture is None:
            return True
        if not self._waiting:
            self._waiting_since = self._clock()
        overruns, emptied = self._capture.overruns, False
        try:
            for _ in range(READS_MAX):
                runs = self._capture.read()
                emptied = not runs
                if emptied:
                    break
                self._take(runs)
        except KernelError as error:
            log.error("flowsync op=read found=%r", str(error))  # noqa: TRY400 - the text says it all
            emptied = True
            self._lost()
        if self._capture.overruns > overruns:
            complaints.warning(
                "flowsync overruns=%d action=resync", self._capture.overruns - overruns
            )
            self._overrun, self._resync = True, None
        if self._overrun and emptied:
            # Until its queue was empty the kernel dropped events, and told of the first one only
            # (NETLINK_S_CONGESTED in af_netlink.c).
            self._overrun = False
            self._clients.sweep(believe=True)  # what events did not tell is in the sets
            self._lost()
        self._drain()
        return emptied

    def _take(self, runs: Iterable[Run]) -> None:
        for kind, records in runs:
            ours = self.scope.covered(records)
            if kind is ChangeKind.PUT:
                self._clients.note(ours)
            if kind is ChangeKind.DELETE and self._resync is not None:
                self._resync.gone.update(keys_of(ours))  # also those too young to be told of
            if kind is ChangeKind.PUT:
                self.opened(ours)
            if self.scope.services:
                ours = [record for record in ours if self._is_wanted(kind, record)]
            if kind is ChangeKind.PUT:
                self._tell_put(ours)
            else:
                self._tell_gone(ours)

    def _tell_put(self, records: Sequence[bytes]) -> None:
        keys = keys_of(records)
        self.captured += len(records)
        self._table.put_all(records)
        self._waiting.put(keys, records)
        if self._resync is not None:
            for key in keys:
                self._resync.waiting.discard(key)

    def _tell_gone(self, records: Sequence[bytes]) -> None:
        resync, table = self._resync, self._table
        for key, record in zip(keys_of(records), records, strict=True):
            if resync is not None:
                resync.gone.add(key)
                resync.waiting.discard(key)
            if key in table:  # otherwise it was told already, or nobody heard of the flow
                self.captured += 1
                table.drop(record)
                self._waiting.gone(key, record)

    def _is_wanted(self, kind: ChangeKind, record: bytes) -> bool:
        """Say whether to tell of a change now; who is too young may be told of later."""
        policy = self.scope.policy(record)
        if not policy.established:
            return False
        if kind is ChangeKind.PUT and not (policy.unassured or is_established(record)):
            return False
        if not policy.min_age_s:
            return True
        key = key_of(record)
        if kind is ChangeKind.DELETE:
            return not self._young.discard(key)
        if key in self._table:
            return True
        self._young.put(key, record, min_age_s=policy.min_age_s, now=self._clock())
        self._mature_later()
        return False

    def _mature_later(self) -> None:
        due = self._young.due
        if due is not None:
            self._maturing.call_within(max(due - self._clock(), GATHER_S))

    def _mature(self) -> None:
        """Tell of who has become old enough."""
        self._tell_put(self._young.grown(self._clock()))
        self._mature_later()
        self._drain()

    # ----------------------------------------------------------------- proposals

    def _drain(self) -> None:
        """Propose what waits, as far as the window allows."""
        while self._waiting and len(self._window) < WINDOW_BATCHES:
            self._send_some(self._waiting)
        self._clients.drain(self._send, self._window)
        self._drain_resync()
        excess = len(self._waiting) - WAITING_CHANGES_MAX
        if excess > 0:
            self._waiting.take(excess)
            self._dropped(excess)

    def _drain_resync(self) -> None:
        resync = self._resync
        if resync is None:
            return
        while resync is self._resync and resync.waiting and len(self._window) < RESYNC_WINDOW:
            # Slices are short: fill batches, but do not wait for what is not there.
            if len(resync.waiting) < CHANGES_MAX and not resync.read:
                break
            resync.told.add(self._send_some(resync.waiting))
        if not resync.read or resync.waiting or resync is not self._resync:
            return
        self._clients.drain_all(self._send, self._window, resync.told)
        # Only what is committed is told: the end waits for it. And changes go first: who is
        # told of a flow after the end has deleted it by then.
        is_told = resync.over and not self._clients.telling_all
        if is_told and resync is self._resync and not self._waiting:
            self._resync = None
            self._table.end()
            self._send(encode_mark(Mark(resync.number, ends=True), self.level), 0)
            if self._wanted_again:
                self._again.call_within(RESYNC_AGAIN_S)

    def _send_some(self, waiting: Waiting) -> int:
        changes = waiting.take(CHANGES_MAX)
        return self._send(encode(changes, self.level), len(changes.put) + len(changes.gone))

    def _send(self, batch: bytes, changes: int) -> int:
        return self._window.send(batch, changes, read_at=self._waiting_since)

    def _committed(self, sequence: int, batch: InFlight, committed: bool) -> None:  # noqa: FBT001 - called by the window
        if committed:
            self.committed += batch.changes
            if batch.changes:
                self.lag_s = self._clock() - batch.read_at
        else:
            self._dropped(batch.changes)
        if self._resync is not None:
            self._resync.told.discard(sequence)
        self._drain()
        self._read_on()
        self._check_flushed()

    def _dropped(self, count: int) -> None:
        self.dropped += count
        if count:
            complaints.warning("flowsync dropped=%d reason=not_committed", count)
        self._lost()

    def _check_flushed(self) -> None:
        if not self._waiting and not self._window and not self._clients.untold:
            self._finish_flush()

    def _finish_flush(self) -> None:
        done, self._on_flushed = self._on_flushed, None
        if done is not None:
            self._clients.hurry(hurried=False)
            asyncio.get_running_loop().call_soon(done)
