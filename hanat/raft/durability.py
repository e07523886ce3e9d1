"""What a node acknowledges is on its disk: the journal as library and guard see it.

The library changes the log in memory and acknowledges at once. Here the acknowledgement is
held back (`limit`) until a thread has brought the disk up to date: one write and one sync for
all that arrived since the last (group commit). A leader counts itself in the same way; a majority
of the others is enough without it, so one slow disk slows nobody. A term or a vote that could
not be saved counts in the library as if it were, and nothing that shows it leaves the node
(`may_send`), nor does an entry of that term reach the disk.

If the disk *fails*, the node goes on from memory: it first notes in the journal, in place, that
whatever ends its process makes it `recovering`. Then it may acknowledge what is in memory only,
but no configuration, and nothing behind the first configuration that is not on disk. If that
note cannot be written, it acknowledges nothing, and neither votes nor stands; as leader it
goes on as long as a majority of the others acknowledges. Every `RETRY_S` it tries to write the
whole log into the other file; when the disk has everything, the note is taken back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from hanat.core.feature_level import OLDEST
from hanat.core.members import Members, named
from hanat.errors import JournalError
from hanat.raft.log import LOG_FILE_BYTES
from hanat.raft.messages import REGULAR, level_of, unwrap
from hanat.raft.slow_work import Background, at_once
from hanat.raft.state import kept_on_disk_only

RETRY_S = 1.0
KEPT_ENTRIES = 2000  # for followers that are a little late: some seconds of flows
KEPT_BYTES = 8 << 20  # at most: or little would be gained by a cut, and the next due at once
# A leader appends no more: whatever keeps the log from being cut, it fits its file and memory.
LOG_BYTES_MAX = LOG_FILE_BYTES * 7 // 8
FROM_MEMORY = "; meanwhile its memory counts: if it is restarted now, it may not vote at first"
MOVED = (
    "recovering: the node file lists nodes {now}, this node took part last with {was}; "
    "until all nodes run with the new list, this node takes no part"
)
FORGETFUL = (
    "recovering: the journal is new or was damaged, or the disk failed before this node ended; "
    "until it has caught up with a leader, or all nodes run, this node does not vote"
)


class Durability:
    """The journal of a node, under the library's names, and what may be said of it.

    Args:
        journal: The real one, or a model of it.
        clock: Seconds of CLOCK_BOOTTIME.
        members: All nodes, this one included; what it appends alone in a cluster is committed.

    Attributes:
        background: Where slow work is done, in order; set before the first tick.
        on_durable: Called when `limit` has risen.
        kept_entries: How many entries before a cut of the head are kept.
    """

    def __init__(self, journal: Any, clock: Callable[[], float], *, members: Members = ()) -> None:  # noqa: ANN401 - the library's interface
        self._journal, self._clock, self._members = journal, clock, members
        self._alone = len(members) == 1
        self.background: Background = at_once
        self.on_durable: Callable[[], None] = lambda: None
        self.kept_entries = KEPT_ENTRIES
        self._working = False  # in the background
        self._retry_at = self._retry_vote_at = 0.0
        self._log_error: JournalError | None = None
        self._vote_error: JournalError | None = None
        self._unsaved: tuple[int, int | None] | None = None  # term and vote
        # From memory: the note is on disk; entries may be acknowledged by right of it; up to
        # which index that may have been done.
        self._noted = self._from_memory = False
        self._spoken = 0
        # What is acknowledged from disk only and is not known to be there, ascending; of what
        # was read too: a process before this one wrote it, and perhaps could not sync.
        self._pending: deque[int] = deque(
            index
            for command, index, _ in journal[:]
            if index > journal.durable_index and _from_disk_only(command)
        )

    # --------------------------------------------------------------- for the guard

    @property
    def failure(self) -> JournalError | None:
        """Why something cannot be written, None while everything can."""
        return self._vote_error or self._log_error

    @property
    def found(self) -> str:
        """What hinders this node, for operators; empty if nothing does."""
        if self.failure is not None:
            return f"{self.failure}{FROM_MEMORY if self._from_memory else ''}"
        if self.moved:
            was, now = named(self._journal.members), named(self._members)
            return MOVED.format(was=was, now=now)
        return FORGETFUL if self.recovering else ""

    @property
    def mute(self) -> bool:
        """Whether this node can acknowledge no entry, neither from disk nor from memory."""
        return self._log_error is not None and not self._from_memory

    @property
    def fit(self) -> bool:
        """Whether this node may vote and stand; see also `recovering`."""
        return self._vote_error is None and not self.mute

    @property
    def recovering(self) -> bool:
        """Whether this node may have forgotten entries or a vote, or counts other nodes."""
        return bool(self._journal.recovering) or self.moved

    @property
    def moved(self) -> bool:
        """Whether this node took part last under another member list.

        The others of that list may go on without it, so it is of no use to this one
        before all nodes of this one are known to have left the other.
        """
        return self._journal.members not in {(), self._members} and self._members != ()

    def join(self) -> bool:
        """Take part under this node's member list from now on; False if that is not durable."""
        try:
            if self._journal.members != self._members:
                self._journal.join(self._members)
        except JournalError as error:
            self._vote_failed(error)
            return False
        return True

    @property
    def log_bytes(self) -> int:
        """How long the log is."""
        return int(self._journal.log_bytes)

    @property
    def crowded(self) -> bool:
        """Whether the log should not become longer than it is."""
        return self.log_bytes > LOG_BYTES_MAX

    @property
    def level(self) -> int:
        """In which feature level the files are written."""
        return int(self._journal.level)

    def write_level(self, level: int) -> None:
        """Write the files in another feature level from now on, if the disk takes that."""

        def ended(error: BaseException | None) -> None:
            if error is not None and not isinstance(error, JournalError):
                raise error

        self.background(lambda: self._journal.mark_level(level), ended)

    def before_cut(self, flush: Callable[[], None]) -> None:
        """Have something done, in the thread, before the head of the log goes from the disk."""
        self._journal.before_cut = flush

    def forget(self) -> None:
        """Note that this node has lost what it had."""
        try:
            self._journal.forget()
        except JournalError as error:
            self._vote_failed(error)

    def recovered(self) -> None:
        """Note that this node holds again whatever it may have forgotten."""
        try:
            if self.join():
                self._journal.recovered()
        except JournalError as error:
            self._vote_failed(error)

    def may_send(self) -> bool:
        """Say whether what a message may show is on disk: term and vote."""
        self._save()
        return self._unsaved is None

    @property
    def limit(self) -> int | None:
        """Up to which index this node may acknowledge, None: all it has."""
        journal = self._journal
        if not len(journal) or journal.durable_index >= journal[-1][1]:
            return None
        if self._from_memory:
            return self._pending[0] - 1 if self._pending else None
        return int(journal.durable_index)

    def tick(self) -> None:
        """Write what is new, and try the disk again when it is time to."""
        self._save()
        if self._working:
            return
        now = self._clock()
        if self._vote_error is not None and now >= self._retry_vote_at:
            self._save_beside()
        elif now >= self._retry_at:
            self._sync()

    def _sync(self) -> None:
        """Bring the disk up to date; no entry of a term that is not on disk reaches it."""
        if self._unsaved is not None:
            return
        if self._journal.behind:
            self._working = True
            self._journal.sync_in(at_once if self._alone else self.background, self._synced)
        elif self._noted:
            self._note(volatile=False)

    def _synced(self, error: BaseException | None) -> None:
        self._working = False
        if error is not None:
            self._log_error = self._failed(error)
            if not self._from_memory and not self._alone:
                self._note(volatile=True)
            return
        if self._log_error is not None:
            self._log_error, self._from_memory = None, False
            self._spoken = self._journal[-1][1] if len(self._journal) else 0
        durable = self._journal.durable_index
        while self._pending and self._pending[0] <= durable:
            self._pending.popleft()
        self.on_durable()
        if self._journal.behind:
            self._sync()
        elif self._noted and durable >= self._spoken:
            self._note(volatile=False)

    def _note(self, *, volatile: bool) -> None:
        """Note on disk whether the end of this process takes acknowledged entries with it."""
        if volatile and self._noted:
            self._go_on_from_memory()
            return
        self._working = True

        def ended(error: BaseException | None) -> None:
            self._working = False
            if error is not None:
                self._failed(error)
                return
            self._noted = volatile
            if volatile:
                self._go_on_from_memory()

        self.background(lambda: self._journal.mark_volatile(volatile=volatile), ended)

    def _go_on_from_memory(self) -> None:
        self._from_memory = True
        self.on_durable()

    def _vote_failed(self, error: JournalError) -> None:
        self._vote_error = error
        self._retry_vote_at = self._clock() + RETRY_S

    def _failed(self, error: BaseException) -> JournalError:
        if not isinstance(error, JournalError):
            raise error
        self._retry_at = self._clock() + RETRY_S
        return error

    # -------------------------------------------------------------- for the library

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - a list's
        return self._journal[index]

    def __len__(self) -> int:
        return len(self._journal)

    def add(self, command: bytes, index: int, term: int) -> None:
        """Append an entry, in memory; the next tick writes it.

        Raises:
            JournalError: This node is alone, and the entry is not on disk: it was not
                appended, and the library's step ends here.
        """
        self._journal.add(command, index, term)
        if _from_disk_only(command):
            self._pending.append(index)
        if self._alone:
            self._write_at_once()

    def _write_at_once(self) -> None:
        try:
            self._journal.sync()
        except JournalError as error:
            self.deleteEntriesFrom(len(self._journal) - 1)
            self._log_error = self._failed(error)
            raise
        self._log_error = None
        self._pending.clear()

    def setCurrentTerm(self, term: int, votedForNodeId: int | None) -> None:  # noqa: N802, N803 - the library's names
        """Save term and vote; if that fails, nothing is sent until it was done.

        A term without a vote is saved when something is to be sent or written: the
        vote that follows in most elections makes that one write instead of two.
        """
        self._unsaved = (term, votedForNodeId)
        if votedForNodeId is not None:
            self._save()

    def _save(self) -> None:
        """Save what is not saved yet, unless the disk is known to be unfit."""
        if self._unsaved is None or self._vote_error is not None:
            return
        try:
            self._journal.setCurrentTerm(*self._unsaved)
        except JournalError as error:
            self._vote_failed(error)
        else:
            self._unsaved = None

    def _save_beside(self) -> None:
        """Try again what failed, beside the loop: a disk may take long to fail."""
        self._working = True
        facts = self.getCurrentTerm(), self.getVotedForNodeId()

        def ended(error: BaseException | None) -> None:
            self._working = False
            if isinstance(error, JournalError):
                self._vote_failed(error)
            elif error is not None:
                raise error
            else:
                self._vote_error = None
                if self._unsaved == facts:
                    self._unsaved = None

        self.background(lambda: self._journal.setCurrentTerm(*facts), ended)

    def deleteEntriesFrom(self, entryFrom: int) -> None:  # noqa: N802, N803 - the library's names
        """Cut the tail off."""
        self._journal.deleteEntriesFrom(entryFrom)
        last = self._journal[-1][1] if len(self._journal) else 0
        self._spoken = min(self._spoken, last)
        while self._pending and self._pending[-1] > last:
            self._pending.pop()

    def deleteEntriesTo(self, entryTo: int, *, keep: int | None = None) -> None:  # noqa: N802, N803 - the library's names
        """Cut the head off; on disk in the background, behind `before_cut`.

        Args:
            entryTo: How many entries are in a snapshot.
            keep: How many of them to keep nevertheless; None: `kept_entries`, of at most
                `KEPT_BYTES`, and of the feature level that is written now.
        """
        keep = self._kept(entryTo) if keep is None else keep
        if entryTo > keep:
            self._journal.trim(entryTo - keep)

    def _kept(self, end: int) -> int:
        """Return how many of the entries before a position to keep."""
        size = 0
        for kept in range(min(self.kept_entries, end)):
            command = self._journal[end - 1 - kept][0]
            size += len(command)
            if size > KEPT_BYTES or OLDEST <= level_of(command) < self.level:
                return kept
        return self.kept_entries

    def clear(self) -> None:
        """Forget every entry."""
        self._journal.clear()
        self._pending.clear()
        self._spoken = 0

    def getCurrentTerm(self) -> int:  # noqa: N802 - the library's name
        """Return the newest term this node heard of."""
        return int(self._journal.getCurrentTerm()) if self._unsaved is None else self._unsaved[0]

    def getVotedForNodeId(self) -> int | None:  # noqa: N802 - the library's name
        """Return who got the vote of that term."""
        if self._unsaved is not None:
            return self._unsaved[1]
        voted_for: int | None = self._journal.getVotedForNodeId()
        return voted_for

    def getRaftCommitIndex(self) -> int:  # noqa: N802 - the library's name
        """Return the first index that the journal knows to be committed."""
        return int(self._journal.getRaftCommitIndex())

    def setRaftCommitIndex(self, index: int) -> None:  # noqa: N802 - the library's name
        """Pass the commit index on."""
        self._journal.setRaftCommitIndex(index)

    def onOneSecondTimer(self) -> None:  # noqa: N802 - the library's name
        """Do nothing: nothing waits to be saved."""

    def _destroy(self) -> None: ...


def _from_disk_only(command: bytes) -> bool:
    if command[:1] != REGULAR:
        return False
    content = unwrap(command)
    return content is not None and kept_on_disk_only(content)


class Matches:
    """What each follower holds, and what of it the library may count.

    The library counts this node for every entry of its log. So as long as this node
    may not acknowledge an entry itself, the library hears of followers who have it
    only when they are a majority without this node.

    Args:
        quorum: How many nodes are a majority.
    """

    def __init__(self, quorum: int) -> None:
        self._quorum = quorum
        self._term = -1
        self._held: dict[int, int] = {}

    def note(self, *, term: int, peer: int, index: int) -> None:
        """Note that a follower holds the log of this node, as leader of a term, up to there."""
        if term != self._term:
            self._term, self._held = term, {}
        self._held[peer] = max(index, self._held.get(peer, 0))

    def countable(self, *, term: int, limit: int) -> dict[int, int]:
        """Return for each follower up to where the library may count it.

        Args:
            term: Of this node as leader.
            limit: Up to where this node may acknowledge.
        """
        if term != self._term:
            return {}
        indexes = sorted(self._held.values(), reverse=True)
        without_me = indexes[self._quorum - 1] if len(indexes) >= self._quorum else 0
        most = max(limit, without_me)
        return {peer: min(index, most) for peer, index in sorted(self._held.items())}
