"""The flow worker: from the holder's kernel into the log, from the log into a kernel.

On the holder it gathers changes for a few milliseconds and proposes them as one
batch. On a backup it installs each committed batch. It runs inside the daemon's
loop today; everything passes as opaque batches, so that it can move into a
process of its own without a change on the other side.

A bound on batches in flight keeps a stalled log from filling the memory: while
the window is full, changes wait here and newer ones of the same flow replace
older ones.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice

from hanat.core.flows import Change, ChangeKind, FlowTable, ServerKey, key_of
from hanat.core.status import FlowStatus
from hanat.errors import KernelError, WireError
from hanat.flowsync.batch import CHANGES_MAX, decode, encode
from hanat.kernel.ports import Capture, Conntrack

log = logging.getLogger(__name__)

GATHER_S = 0.005
WINDOW_BATCHES = 16
READS_MAX = 16  # of some thousand events each; then the loop has its turn
WAITING_CHANGES_MAX = 200_000

Propose = Callable[[int, bytes, Callable[[bool], None]], bool]


@dataclass(frozen=True, slots=True)
class _InFlight:
    changes: int
    read_at: float


class FlowWorker:
    """Captures, proposes and installs flows.

    Args:
        conntrack: The kernel's table.
        propose: Appends a batch of a term to the log: ``propose(term, batch, done)``;
            returns False when this node does not lead.
        clock: Seconds of CLOCK_BOOTTIME.
    """

    def __init__(
        self, conntrack: Conntrack, *, propose: Propose, clock: Callable[[], float]
    ) -> None:
        self._conntrack, self._propose, self._clock = conntrack, propose, clock
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
        self._drain()

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
        self._collect()
        self._check_flushed()

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
        captured = 0
        try:
            for _ in range(READS_MAX):
                changes = self._capture.read()
                if not changes:
                    break
                captured += len(changes)
                for change in changes:
                    self._table.observe(change)
                    key = key_of(change.record)
                    self._waiting.pop(key, None)
                    self._waiting[key] = change
        except KernelError as error:
            log.error("flowsync op=read found=%r", str(error))  # noqa: TRY400 - the text says it all
        self._status = replace(self._status, captured=self._status.captured + captured)
        self._drain()

    def _drain(self) -> None:
        """Propose what waits, as far as the window allows."""
        while self._waiting and len(self._in_flight) < WINDOW_BATCHES:
            keys = list(islice(self._waiting, CHANGES_MAX))
            self._send([self._waiting.pop(key) for key in keys])
        excess = len(self._waiting) - WAITING_CHANGES_MAX
        if excess > 0:
            for key in list(islice(self._waiting, excess)):
                del self._waiting[key]
            self._dropped(excess)

    def _send(self, changes: list[Change]) -> None:
        self._sequence += 1
        sequence, generation = self._sequence, self._generation
        self._in_flight[sequence] = _InFlight(len(changes), self._waiting_since)

        def done(committed: bool) -> None:  # noqa: FBT001 - called by the log
            if generation == self._generation:
                self._committed(sequence, committed=committed)

        if not self._propose(self._term, encode(changes), done):
            del self._in_flight[sequence]
            self._dropped(len(changes))

    def _committed(self, sequence: int, *, committed: bool) -> None:
        batch = self._in_flight.pop(sequence, None)
        if batch is None:
            return
        if committed:
            self._status = replace(
                self._status,
                committed=self._status.committed + batch.changes,
                lag_s=self._clock() - batch.read_at,
            )
        else:
            self._dropped(batch.changes)
        self._drain()
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

    # ------------------------------------------------------------------- backup

    def install(self, batch: bytes) -> None:
        """Install a committed batch of another node; never raises."""
        try:
            changes = decode(batch)
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

    # ------------------------------------------------------------------- status

    def status(self) -> FlowStatus:
        """Return the counters."""
        overruns = self._status.overruns + (self._capture.overruns if self._capture else 0)
        pending = len(self._waiting) + sum(f.changes for f in self._in_flight.values())
        entries = self._conntrack.count()
        return replace(self._status, overruns=overruns, pending=pending, kernel_entries=entries)

    def counts(self) -> Mapping[ServerKey, int]:
        """Return the number of flows of each server on each port that has any."""
        return self._table.counts()
