"""The journal: the replicated log, the term and the vote, on disk.

The log in memory is what the library and the guard read and change; nothing of that waits
for the disk or fails with it. A *batch* brings the disk up to date in a thread, in one
write and one sync for all that was added since the one before (`log`). Only what
`durable_index` covers has been on disk, so only that may be acknowledged. Term and vote are
durable before `setCurrentTerm` returns (`hard_state`). Everything lives in ``journal/`` below
the data directory, made at its full size before the first start:

    lock   vote   log.0   log.1

A log that was cut in memory and not yet on disk comes back whole after a crash: as if the
cut had not been reached, of which nobody was told.

The saved commit index is not believed after a restart: the log may be an older
version of itself, and committing up to a remembered number could commit entries
nobody else has. The leader tells the commit index anew.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, overload

from hanat.core.members import Members, drops_majority, named
from hanat.errors import JournalError, StartupError
from hanat.raft.hard_state import HardStateFile
from hanat.raft.log import Loaded, LogFiles
from hanat.raft.log_records import RECORD_BYTES
from hanat.raft.messages import Entry
from hanat.raft.slow_work import Background, Done, at_once


class Log(Protocol):
    """What of a journal is read outside the library: entries (command, index, term)."""

    @overload
    def __getitem__(self, index: int) -> tuple[bytes, int, int]: ...

    @overload
    def __getitem__(self, index: slice) -> list[tuple[bytes, int, int]]: ...

    def __len__(self) -> int: ...

    def getVotedForNodeId(self) -> int | None:  # noqa: N802 - the library's name
        """Return who got this node's vote in its term."""
        ...


@dataclass(slots=True)
class _Batch:
    """What brings the disk up to date with the log as it was on the loop.

    Attributes:
        last: Up to which entry all is durable once it ran.
        kept: Lowest end to which the log was cut since.
    """

    work: Callable[[], None]
    last: int
    kept: int


class Journal:
    """The journal of one node; offers what the library calls, under its names.

    Positions count from the log's first entry, as in a list.

    Attributes:
        report: What was wrong when the journal was opened, empty if nothing was.
        before_cut: Called in the thread before the head of the log goes from the disk.
    """

    def __init__(
        self,
        log: LogFiles,
        vote: HardStateFile,
        *,
        loaded: Loaded,
        name: Path,
        unlock: Callable[[], None],
    ) -> None:
        self._log, self._vote, self._name, self._unlock = log, vote, name, unlock
        self._entries = loaded.entries
        self.report = loaded.report
        self.before_cut: Callable[[], None] = lambda: None
        self.log_bytes = sum(map(_size_of, self._entries))  # about as much as on disk
        self._issued = self._last
        self._durable = min(self._last, vote.value.durable)
        self._batch: _Batch | None = None  # that runs
        # The next batch writes the whole log: what was read may be what a process before this
        # one wrote and could not sync, and the kernel says of that only once that it failed.
        self._anew = True
        self._shorter = False  # it was cut, and the disk has not heard of it
        self._closed = False

    # ----------------------------------------------------------------- reading

    @overload
    def __getitem__(self, index: int) -> Entry: ...

    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...

    def __getitem__(self, index: int | slice) -> Entry | list[Entry]:
        return self._entries[index]

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def _last(self) -> int:
        return self._entries[-1][1] if self._entries else 0

    @property
    def recovering(self) -> bool:
        """Whether entries that this node acknowledged, or its vote, may be missing."""
        return self._vote.value.recovering

    @property
    def members(self) -> Members:
        """All nodes, as counted when this one last took part; empty while unknown."""
        return self._vote.value.members

    @property
    def level(self) -> int:
        """In which feature level the files are written."""
        return self._vote.level

    @property
    def durable_index(self) -> int:
        """Highest index known to be on disk."""
        return self._durable

    @property
    def behind(self) -> bool:
        """Whether there is something that a sync would make durable, or write anew."""
        return bool(self._entries) and (self._anew or self._issued < self._last)

    def getCurrentTerm(self) -> int:  # noqa: N802 - the library's name
        """Return the newest term this node heard of."""
        return self._vote.value.term

    def getVotedForNodeId(self) -> int | None:  # noqa: N802 - the library's name
        """Return who got the vote of that term."""
        return self._vote.value.voted_for

    def getRaftCommitIndex(self) -> int:  # noqa: N802 - the library's name
        """Return 1: only the first entry is known to be committed."""
        return 1

    # ------------------------------------------------------------- changing the log

    def add(self, command: bytes, index: int, term: int) -> None:
        """Append an entry, in memory."""
        assert not self._closed, "the journal is closed"
        entries = self._entries
        assert not entries or index == entries[-1][1] + 1, f"entry {index} follows {self._last}"
        entry = (command, index, term)
        entries.append(entry)
        self.log_bytes += _size_of(entry)

    def deleteEntriesFrom(self, entryFrom: int) -> None:  # noqa: N802, N803 - the library's names
        """Cut the tail off, in memory: keep `entryFrom` entries."""
        if entryFrom <= 0:
            self.clear()
        elif entryFrom < len(self._entries):
            self.log_bytes -= sum(map(_size_of, self._entries[entryFrom:]))
            del self._entries[entryFrom:]
            self._shortened()

    def trim(self, position: int) -> None:
        """Cut the head off, in memory: that many entries; at least one must be left."""
        assert 0 < position < len(self._entries), (position, len(self._entries))
        self.log_bytes -= sum(map(_size_of, self._entries[:position]))
        del self._entries[:position]
        self._anew = True

    def clear(self) -> None:
        """Forget every entry, in memory; the next one may have any index."""
        self._entries.clear()
        self.log_bytes = 0
        self._anew = True
        self._shortened()

    def _shortened(self) -> None:
        self._durable = min(self._durable, self._last)
        if self._issued > self._last:
            self._issued, self._shorter = self._last, True
        if self._batch is not None:
            self._batch.kept = min(self._batch.kept, self._last)

    # --------------------------------------------------------------- the disk: the log

    def sync_in(self, background: Background, done: Done) -> None:
        """Bring the disk up to date with the log as it is now, beside the loop.

        Meanwhile the journal may be used as ever. One at a time.

        Args:
            background: Where it is done.
            done: Called on the loop; after a JournalError the next one writes the whole
                log into the other file.
        """
        assert self._batch is None, "one batch at a time"
        batch = self._batch = self._next_batch()

        def ended(error: BaseException | None) -> None:
            self._batch = None
            if isinstance(error, OSError):
                self._anew = True
                error = self._refusal("write entries to", error)
            if error is None:
                self._durable = max(self._durable, min(batch.last, batch.kept))
            done(error)

        background(batch.work, ended)

    def sync(self) -> None:
        """Bring the disk up to date with the log now.

        Raises:
            JournalError: It could not be done.
        """
        errors: list[BaseException | None] = []
        self.sync_in(at_once, errors.append)
        if errors[0] is not None:
            raise errors[0]

    def _next_batch(self) -> _Batch:
        last, log, anew = self._last, self._log, self._anew
        entries = self._entries if anew else self._entries[self._position(self._issued + 1) :]
        entries, first = list(entries), self._issued + 1
        self._anew, self._shorter, self._issued = not self._entries, False, last

        def work() -> None:
            if not anew:
                log.append(first, entries)
                return
            self.before_cut()
            if entries:
                log.rewrite(entries)
            else:
                log.clear()

        return _Batch(work, last, last)

    def _position(self, index: int) -> int:
        return index - self._entries[0][1]

    # ------------------------------------------------------------- the disk: the facts

    def setCurrentTerm(self, term: int, votedForNodeId: int | None) -> None:  # noqa: N802, N803 - the library's names
        """Remember term and vote, durably.

        Raises:
            JournalError: They may be durable or not.
        """
        self._remember(f"save term {term} in", term=term, voted_for=votedForNodeId)

    def recovered(self) -> None:
        """Note that the node holds again whatever may have been missing.

        Raises:
            JournalError: It was not noted.
        """
        self._remember("note the recovery in", recovering=False)

    def forget(self) -> None:
        """Note that entries or the vote may be missing.

        Raises:
            JournalError: It was not noted.
        """
        self._remember("note the loss in", recovering=True)

    def admit(self, members: Members) -> None:
        """Refuse a member list that leaves out most nodes of the present one.

        Raises:
            StartupError: It does; the journal is closed.
        """
        if drops_majority(self.members, members):
            self.close()
            raise StartupError(
                tried=f"use the journal {self._name} with nodes {named(members)}",
                found=f"it was used with nodes {named(self.members)}, and a majority of them is "
                "left out: they could go on without the new ones",
                to_do="correct the list of peers, or change it in steps that each keep a majority",
            )

    def join(self, members: Members) -> None:
        """Note, durably, that this node takes part under another member list.

        It may lack what the nodes of that list agreed on, as after a loss.

        Raises:
            JournalError: It was not noted.
        """
        self._remember("save the member list in", members=members, recovering=True)

    def mark_volatile(self, *, volatile: bool) -> None:
        """Note whether entries are lost when the process ends; of any thread.

        Raises:
            JournalError: It was not noted.
        """
        self._remember("note that entries are in memory only in", volatile=volatile)

    def mark_level(self, level: int) -> None:
        """Write the files in a feature level from now on; of any thread.

        Raises:
            JournalError: The file with term and vote is not yet; its next change is.
        """
        self._vote.level = level
        if self._vote.value.level != level:
            self._remember("note the feature level in")

    def _remember(self, doing: str, **changed: object) -> None:
        assert not self._closed, "the journal is closed"
        try:
            self._vote.remember(**changed, durable=self._durable)
        except OSError as error:
            raise self._refusal(doing, error) from error

    def close(self) -> None:
        """Bring the disk up to date and let others open the journal; idempotent.

        Raises:
            JournalError: The disk is not up to date; it is closed nevertheless.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if self._batch is not None:  # it may not have run
                self._batch, self._anew = None, True
            if self.behind or self._shorter:
                self.sync()
        finally:
            self._log.close()
            self._vote.close()
            self._unlock()

    # --------------------------------------------------- the rest of the library's

    def setRaftCommitIndex(self, _index: int) -> None:  # noqa: N802 - the library's name
        """Forget the commit index at once, see the module."""

    def onOneSecondTimer(self) -> None:  # noqa: N802 - the library's name
        """Do nothing: there is nothing that waits to be saved."""

    def _destroy(self) -> None:
        with suppress(JournalError):
            self.close()

    # ----------------------------------------------------------------- helpers

    def _refusal(self, doing: str, error: OSError) -> JournalError:
        return JournalError(
            tried=f"{doing} the journal {self._name}",
            found=error.strerror or str(error),
            to_do="repair the disk: hanat tries again each second",
        )


def _size_of(entry: Entry) -> int:
    return len(entry[0]) + RECORD_BYTES
