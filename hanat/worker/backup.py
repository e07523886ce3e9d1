"""A backup's side of the flow worker: from the log into its kernel.

It deletes what it was not told of between the marks of a resync; then its table is
*complete*: a takeover would keep every committed connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator

from hanat.core.flow_scope import ReplicationScope
from hanat.core.flows import FlowTable, is_established, key_of, keys_of, record_with
from hanat.errors import KernelError, WireError
from hanat.kernel.ports import Conntrack
from hanat.worker.flow_batch import Changes, Mark, decode

complaints = logging.getLogger("hanat.complaints")  # clients choose what is installed

LOAD_ENTRIES_MIN = 1000


class BackupSide:
    """Installs flows.

    Args:
        conntrack: The kernel's table.
        table: What it has.
        completed: Called with `complete` when it changes.

    Attributes:
        scope: What is ours to delete.
        received, installed, deleted, clashed, failed, repaired: See `core.status.FlowStatus`.
    """

    def __init__(
        self, conntrack: Conntrack, table: FlowTable, completed: Callable[[bool], None]
    ) -> None:
        self._conntrack, self._table, self._completed = conntrack, table, completed
        self._marked: int | None = None  # the resync that is being told
        self._sweeping = False
        self._loading: Iterator[list[bytes]] | None = None
        self._clashed: dict[bytes, bytes] = {}  # another entry was in the way
        self._unplaced = False  # there was no room, since the resync began
        self.complete = False
        self.scope = ReplicationScope()
        self.received = self.installed = self.deleted = self.clashed = self.failed = 0
        self.repaired = 0

    def load(self) -> None:
        """Begin to take the kernel's table for what it is, in steps; never raises.

        Not while a resync is being told: that says all there is. Nor is a small table worth it:
        what is told is installed in place of what is there. (To find few entries the kernel
        walks through the tables of all namespaces at once, without a pause.)
        """
        self._sweeping = False
        try:
            if self._marked is not None or self._conntrack.count() < LOAD_ENTRIES_MIN:
                return
        except KernelError as error:
            self._failed("load", error)
            return
        self._table.begin()
        self._loading = self._conntrack.walk()
        self._load(self._loading)

    def _load(self, slices: Iterator[list[bytes]]) -> None:
        if slices is not self._loading:
            return
        records: list[bytes] | None = None
        try:
            records = next(slices, None)
        except KernelError as error:
            self._failed("load", error)
        if records is None:
            self._loading = None
            self._table.end()
            return
        self._table.put_all(list(filter(is_established, self.scope.covered(records))))
        asyncio.get_running_loop().call_soon(self._load, slices)

    def install(self, batch: bytes) -> None:
        """Install a committed batch of another node; never raises."""
        try:
            changes = decode(batch)
            if isinstance(changes, Mark):
                self._on_mark(changes)
            else:
                self._install(changes)
        except (WireError, KernelError) as error:
            self._failed("install", error)
            self.forget()

    def forget(self) -> None:
        """Note that committed batches may have been missed."""
        self._marked = None
        self.note(complete=False)

    def note(self, *, complete: bool) -> None:
        """Note whether this kernel has all committed flows."""
        self._sweeping, self._loading = False, None
        self._clashed.clear()
        self._tell(complete=complete)

    def _tell(self, *, complete: bool) -> None:
        if complete != self.complete:
            self.complete = complete
            self._completed(complete)

    def _install(self, changes: Changes) -> None:
        put, gone = map(self.scope.foreign, changes)
        self.received += len(put) + len(gone)
        self._delete(gone)
        for record in gone:
            self._table.drop(record)
        new = self._table.put_all(put)
        if len(new) < len(put):
            unknown = set(new)
            known = [record for record in put if record not in unknown]
            missing = self._conntrack.extend(known)
            self.repaired += len(missing)
            new += missing
        if new:
            self.clashed += self._put(new)

    def _put(self, records: list[bytes]) -> int:
        """Create entries; return how many clashed."""
        done = self._conntrack.install(records)
        self.installed += done.created + done.replaced
        self.failed += done.failed + done.unplaced
        self._clashed.update(zip(map(key_of, done.clashed), done.clashed, strict=True))
        if done.unplaced:
            self._unplaced = True
            self._tell(complete=False)  # the holder tells everything again, and again
        return len(done.clashed)

    def _put_clashed(self) -> None:
        """Try again, now that what was in the way is gone."""
        clashed, self._clashed = self._clashed, {}
        wanted = [record for record in clashed.values() if self._table.knows(record)]
        if wanted:
            self._put(wanted)

    def _delete(self, records: list[bytes]) -> int:
        deleted = self._conntrack.delete(records) if records else 0
        self.deleted += deleted
        return deleted

    def _on_mark(self, mark: Mark) -> None:
        self._loading = None
        if not mark.ends:
            self._table.begin()
            self._marked, self._unplaced = mark.number, False
        elif self._marked == mark.number:
            self._marked = None
            gone = self._delete([record_with(key) for key in self._table.end()])
            self.repaired += gone if self.complete else 0
            self._put_clashed()
            self._tell(complete=not self._unplaced)
            # What this kernel has, and nobody told of.
            self._sweeping = True
            self._sweep(self._conntrack.walk())

    def _sweep(self, slices: Iterator[list[bytes]]) -> None:
        """Delete flows that the holder does not have, in steps."""
        if not self._sweeping or self._marked is not None:
            return
        try:
            records = next(slices, None)
            if records is None:
                self._sweeping = False
                self._put_clashed()
                return
            ours = self.scope.covered(records)
            # The slice is of a moment ago: one that is translated otherwise came meanwhile.
            by_key = zip(keys_of(ours), ours, strict=True)
            strange = [record for key, record in by_key if key not in self._table]
            self.repaired += self._delete(strange)
        except KernelError as error:
            self._failed("sweep", error)
            return
        asyncio.get_running_loop().call_soon(self._sweep, slices)

    def _failed(self, operation: str, error: Exception) -> None:
        self.failed += 1
        complaints.error("flowsync op=%s found=%r", operation, str(error))
