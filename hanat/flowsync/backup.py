"""A backup's side of the flow worker: from the log into its kernel.

It deletes what it was not told of between the marks of a resync; then its table is
*complete*: a takeover would keep every committed connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator

from hanat.core.flows import FlowTable, is_established, record_with
from hanat.core.scope import Scope
from hanat.errors import KernelError, WireError
from hanat.flowsync.batch import Changes, Mark, decode
from hanat.kernel.ports import Conntrack, Installed

log = logging.getLogger(__name__)


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
        self.complete = False
        self.scope = Scope()
        self.received = self.installed = self.deleted = self.clashed = self.failed = 0
        self.repaired = 0

    def load(self) -> None:
        """Take the kernel's table for what it is; never raises."""
        self._table.begin()
        try:
            for records in self._conntrack.walk():
                self._table.put_all(list(filter(is_established, self.scope.covered(records))))
        except KernelError as error:
            self._failed("load", error)
        self._table.end()

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
        self._sweeping = False
        if complete != self.complete:
            self.complete = complete
            self._completed(complete)

    def _install(self, changes: Changes) -> None:
        put, gone = changes
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
            self._note_installed(self._conntrack.install(new))

    def _note_installed(self, done: Installed) -> None:
        self.installed += done.created + done.replaced
        self.clashed += done.clashed
        self.failed += done.failed

    def _delete(self, records: list[bytes]) -> int:
        deleted = self._conntrack.delete(records) if records else 0
        self.deleted += deleted
        return deleted

    def _on_mark(self, mark: Mark) -> None:
        if not mark.ends:
            self._table.begin()
            self._marked = mark.number
        elif self._marked == mark.number:
            self._marked = None
            gone = self._delete([record_with(key) for key in self._table.end()])
            self.repaired += gone if self.complete else 0
            self.note(complete=True)
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
                return
            ours, knows = self.scope.covered(records), self._table.knows
            self.repaired += self._delete([record for record in ours if not knows(record)])
        except KernelError as error:
            self._failed("sweep", error)
            return
        asyncio.get_running_loop().call_soon(self._sweep, slices)

    def _failed(self, operation: str, error: Exception) -> None:
        self.failed += 1
        log.error("flowsync op=%s found=%r", operation, str(error))
