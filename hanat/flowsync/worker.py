"""The flow worker: from the holder's kernel into the log, from the log into a kernel.

On the holder it gathers changes for a few milliseconds and proposes them as one
batch. On a backup it installs each committed batch.

A bound on batches in flight keeps a stalled log from filling the memory: while
the window is full, changes wait here and newer ones of the same flow replace
older ones.

Changes get lost: the kernel drops events when we are slow, the log drops batches when a
majority is gone, a node comes back with an old table. So the holder tells everything anew
at the start of its term and whenever something was lost (a *resync*): it reads its kernel's
table in slices, between two marks, while changes go on and go first. A backup deletes what
it was not told of between the marks; then its table is *complete*.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

from hanat.core.flows import Change, ChangeKind, FlowTable, ServerKey, key_of, record_with
from hanat.core.status import FlowStatus
from hanat.errors import KernelError, WireError
from hanat.flowsync.batch import CHANGES_MAX, Mark, decode, encode, encode_mark
from hanat.kernel.ports import Capture, Conntrack

log = logging.getLogger(__name__)

GATHER_S = 0.005
WINDOW_BATCHES = 16
READS_MAX = 16  # of some thousand events each; then the loop has its turn
WAITING_CHANGES_MAX = 200_000
RESYNC_WINDOW = WINDOW_BATCHES // 2  # changes go first
RESYNC_WAITING_MAX = 4 * CHANGES_MAX  # read ahead of what the log takes
RESYNC_AGAIN_S = 1.0

Propose = Callable[[int, bytes, Callable[[bool], None]], bool]


@dataclass(frozen=True, slots=True)
class _InFlight:
    changes: int
    read_at: float


@dataclass(slots=True)
class _Resync:
    """One that is under way on the holder.

    Attributes:
        slices: What the kernel has, as it is read.
        waiting: Read, and not proposed yet.
        gone: Flows that ended since the begin: a slice may still tell of them.
        told: Batches on their way, by sequence number.
        read: Everything was read.
    """

    number: int
    slices: Iterator[list[bytes]]
    waiting: dict[bytes, Change] = field(default_factory=dict)
    gone: set[bytes] = field(default_factory=set)
    told: set[int] = field(default_factory=set)
    read: bool = False


class FlowWorker:
    """Captures, proposes and installs flows.

    Args:
        conntrack: The kernel's table.
        propose: Appends a batch of a term to the log: ``propose(term, batch, done)``;
            returns False when this node does not lead.
        completed: Called with `complete` when it changes.
        clock: Seconds of CLOCK_BOOTTIME.
    """

    def __init__(
        self,
        conntrack: Conntrack,
        *,
        propose: Propose,
        completed: Callable[[bool], None],
        clock: Callable[[], float],
    ) -> None:
        self._conntrack, self._propose, self._clock = conntrack, propose, clock
        self._completed = completed
        self._table = FlowTable()
        self._status = FlowStatus()
        self._capture: Capture | None = None
        self._term = 0
        self._generation = 0  # grows with each capture: late callbacks of an older one are ignored
        self._waiting: dict[bytes, Change] = {}  # by flow: a newer change replaces an older
        self._waiting_since = 0.0
        self._in_flight: dict[int, _InFlight] = {}
        self._sequence = 0
        self._gathering: asyncio.TimerHandle | None = None
        self._on_flushed: Callable[[], None] | None = None
        self._resync: _Resync | None = None
        self._resyncs = 0
        self._again: asyncio.TimerHandle | None = None
        self._marked: int | None = None  # the resync that a backup is told
        self._complete = False

    # ------------------------------------------------------------------- holder

    def start_capture(self, term: int) -> None:
        """Begin to read changes; they are proposed as batches of `term`.

        What an interrupted capture of the same term has left waiting goes first.

        Raises:
            NotPermittedError: CAP_NET_ADMIN is missing.
        """
        self.stop_capture()
        if term != self._term and self._waiting:
            self._dropped(len(self._waiting))
            self._waiting.clear()
        self._term = term
        self._generation += 1
        self._capture = self._conntrack.capture()
        self._wait_for_changes()
        self._note(complete=True)  # this kernel's table is what counts now
        self.resync()

    def stop_capture(self) -> None:
        """Read what waits, then stop; what was proposed and not committed counts as dropped."""
        if self._capture is None:
            return
        self._collect()
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._capture.fileno())
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        self._end_resync()
        self.forget()  # until the next holder has told everything
        overruns = self._status.overruns + self._capture.overruns
        self._capture.close()
        self._capture = None
        lost = sum(batch.changes for batch in self._in_flight.values())
        self._status = replace(self._status, overruns=overruns, dropped=self._status.dropped + lost)
        self._in_flight.clear()
        self._finish_flush()

    def flush(self, done: Callable[[], None]) -> None:
        """Propose everything captured so far and call `done` once it is committed."""
        self._on_flushed = done
        self._end_resync()  # who is next begins one
        self._collect()
        self._check_flushed()

    def resync(self, *, anew: bool = True) -> None:
        """Tell everything, as holder; unless it is being done and need not be done anew."""
        if self._capture is None or (self._resync is not None and not anew):
            return
        self._collect()
        self._end_resync()
        self._resyncs += 1
        self._table.begin()
        self._send(encode_mark(Mark(self._resyncs, ends=False)), 0)
        self._resync = _Resync(self._resyncs, self._conntrack.walk())
        asyncio.get_running_loop().call_soon(self._read_slice, self._resync)

    def _end_resync(self) -> None:
        self._resync = None
        if self._again is not None:
            self._again.cancel()
            self._again = None

    def _read_slice(self, resync: _Resync) -> None:
        """Read some of the table; the loop has its turn before the next."""
        if resync is not self._resync:
            return
        try:
            records = next(resync.slices, None)
        except KernelError as error:
            log.error("flowsync op=dump found=%r", str(error))  # noqa: TRY400 - the text says it all
            self._resync_later()
            return
        if records is None:
            resync.read = True
        read = 0
        for record in records or ():
            key = key_of(record)
            if key not in resync.gone and key not in self._waiting:
                change = resync.waiting[key] = Change(ChangeKind.PUT, record)
                self._table.observe(change)
                read += 1
        self._status = replace(self._status, captured=self._status.captured + read)
        self._drain()
        self._read_on()

    def _read_on(self) -> None:
        resync = self._resync
        if resync is None or resync.read or len(resync.waiting) >= RESYNC_WAITING_MAX:
            return
        asyncio.get_running_loop().call_soon(self._read_slice, resync)

    def _resync_later(self) -> None:
        """Something was lost: tell everything anew, soon."""
        self._resync = None
        if self._capture is not None and self._again is None:
            loop = asyncio.get_running_loop()
            self._again = loop.call_later(RESYNC_AGAIN_S, self.resync)

    def _wait_for_changes(self) -> None:
        assert self._capture is not None
        asyncio.get_running_loop().add_reader(self._capture.fileno(), self._gather)

    def _gather(self) -> None:
        """The first change waits: let others join it."""
        assert self._capture is not None
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._capture.fileno())
        self._gathering = loop.call_later(GATHER_S, self._gathered)

    def _gathered(self) -> None:
        self._gathering = None
        self._collect()
        if self._capture is not None:
            self._wait_for_changes()

    def _collect(self) -> None:
        if self._capture is None:
            return
        if not self._waiting:
            self._waiting_since = self._clock()
        captured, overruns = 0, self._capture.overruns
        try:
            for _ in range(READS_MAX):
                changes = self._capture.read()
                if not changes:
                    break
                captured += len(changes)
                for change in changes:
                    self._take(change)
        except KernelError as error:
            log.error("flowsync op=read found=%r", str(error))  # noqa: TRY400 - the text says it all
            self._resync_later()
        if self._capture.overruns > overruns:
            log.warning("flowsync overruns=%d action=resync", self._capture.overruns - overruns)
            self._resync_later()
        self._status = replace(self._status, captured=self._status.captured + captured)
        self._drain()

    def _take(self, change: Change) -> None:
        self._table.observe(change)
        key, resync = key_of(change.record), self._resync
        self._waiting.pop(key, None)
        self._waiting[key] = change
        if resync is not None:
            resync.waiting.pop(key, None)
            if change.kind is ChangeKind.DELETE:
                resync.gone.add(key)

    def _drain(self) -> None:
        """Propose what waits, as far as the window allows."""
        while self._waiting and len(self._in_flight) < WINDOW_BATCHES:
            self._send_some(self._waiting)
        self._drain_resync()
        excess = len(self._waiting) - WAITING_CHANGES_MAX
        if excess > 0:
            for key in list(islice(self._waiting, excess)):
                del self._waiting[key]
            self._dropped(excess)

    def _drain_resync(self) -> None:
        resync = self._resync
        if resync is None:
            return
        while resync is self._resync and resync.waiting and len(self._in_flight) < RESYNC_WINDOW:
            # Slices are short: fill batches, but do not wait for what is not there.
            if len(resync.waiting) < CHANGES_MAX and not resync.read:
                break
            resync.told.add(self._send_some(resync.waiting))
        # Only what is committed is told: the end waits for it.
        if resync.read and not resync.waiting and not resync.told and resync is self._resync:
            self._resync = None
            self._table.end()
            self._send(encode_mark(Mark(resync.number, ends=True)), 0)

    def _send_some(self, waiting: dict[bytes, Change]) -> int:
        changes = [waiting.pop(key) for key in list(islice(waiting, CHANGES_MAX))]
        return self._send(encode(changes), len(changes))

    def _send(self, batch: bytes, count: int) -> int:
        """Propose a batch of so many changes; return its sequence number."""
        self._sequence += 1
        sequence, generation = self._sequence, self._generation
        self._in_flight[sequence] = _InFlight(count, self._waiting_since)

        def done(committed: bool) -> None:  # noqa: FBT001 - called by the log
            if generation == self._generation:
                self._committed(sequence, committed=committed)

        if not self._propose(self._term, batch, done):
            del self._in_flight[sequence]
            self._dropped(count)
        return sequence

    def _committed(self, sequence: int, *, committed: bool) -> None:
        batch = self._in_flight.pop(sequence, None)
        if batch is None:
            return
        if self._resync is not None:
            self._resync.told.discard(sequence)
        if committed:
            self._status = replace(
                self._status,
                committed=self._status.committed + batch.changes,
                lag_s=self._clock() - batch.read_at,
            )
        else:
            self._dropped(batch.changes)
        self._drain()
        self._read_on()
        self._check_flushed()

    def _check_flushed(self) -> None:
        if not self._waiting and not self._in_flight:
            self._finish_flush()

    def _finish_flush(self) -> None:
        done, self._on_flushed = self._on_flushed, None
        if done is not None:
            asyncio.get_running_loop().call_soon(done)

    def _dropped(self, count: int) -> None:
        self._status = replace(self._status, dropped=self._status.dropped + count)
        log.warning("flowsync dropped=%d reason=not_committed", count)
        self._resync_later()

    # ------------------------------------------------------------------- backup

    def install(self, batch: bytes) -> None:
        """Install a committed batch of another node; never raises."""
        try:
            changes = decode(batch)
            if isinstance(changes, Mark):
                self._on_mark(changes)
                return
            gone = [c.record for c in changes if c.kind is ChangeKind.DELETE]
            put = [c.record for c in changes if c.kind is ChangeKind.PUT]
            deleted = self._conntrack.delete(gone) if gone else 0
            installed = self._conntrack.install(put) if put else None
        except (WireError, KernelError) as error:
            log.error("flowsync op=install found=%r", str(error))  # noqa: TRY400 - the text says it all
            self._status = replace(self._status, failed=self._status.failed + 1)
            return
        for change in changes:
            self._table.observe(change)
        s = self._status
        self._status = replace(s, received=s.received + len(changes), deleted=s.deleted + deleted)
        if installed is not None:
            s = self._status
            self._status = replace(
                s,
                installed=s.installed + installed.created + installed.replaced,
                clashed=s.clashed + installed.clashed,
                failed=s.failed + installed.failed,
            )

    def _on_mark(self, mark: Mark) -> None:
        if not mark.ends:
            self._table.begin()
            self._marked = mark.number
        elif self._marked == mark.number:
            self._marked = None
            self._note(complete=True)
            left = [record_with(key) for key in self._table.end()]
            deleted = self._conntrack.delete(left)
            self._status = replace(self._status, deleted=self._status.deleted + deleted)
            # What this kernel has, and nobody told of.
            self._sweep(self._conntrack.walk())

    def _sweep(self, slices: Iterator[list[bytes]]) -> None:
        """Delete flows that the holder does not have, in steps."""
        if self._capture is not None or self._marked is not None or not self._complete:
            return
        try:
            records = next(slices, None)
            if records is None:
                return
            foreign = [record for record in records if key_of(record) not in self._table]
            if foreign:
                deleted = self._conntrack.delete(foreign)
                self._status = replace(self._status, deleted=self._status.deleted + deleted)
        except KernelError as error:
            log.error("flowsync op=sweep found=%r", str(error))  # noqa: TRY400 - the text says it all
            return
        asyncio.get_running_loop().call_soon(self._sweep, slices)

    def forget(self) -> None:
        """Note that committed batches may have been missed."""
        self._marked = None
        self._note(complete=False)

    def _note(self, *, complete: bool) -> None:
        if complete != self._complete:
            self._complete = complete
            self._completed(complete)

    # ------------------------------------------------------------------- status

    def status(self) -> FlowStatus:
        """Return the counters; what the kernel has to tell is read first."""
        self._collect()
        return replace(
            self._status,
            overruns=self._status.overruns + (self._capture.overruns if self._capture else 0),
            pending=len(self._waiting) + sum(f.changes for f in self._in_flight.values()),
            kernel_entries=self._conntrack.count(),
            flows=len(self._table),
            complete=self._complete,
            resyncs=self._resyncs,
        )

    def counts(self) -> Mapping[ServerKey, int]:
        """Return the number of flows of each server on each port that has any."""
        return self._table.counts()
