"""What leaves a node is on its disk: the journal as library and guard see it.

The library takes for granted that its journal can be written, and an exception
in the middle of its steps leaves it half done. So a term or vote that could not be
saved counts in the library as if it were, and nothing that shows it leaves the node
(`may_send`); an entry that could not be appended ends the step, and nothing more is
tried until the disk was found fit again. A node that cannot write

- hears the leader and promises, so that the leader keeps its lease;
- acknowledges no entry, and does not let the leader send entries in vain;
- neither votes nor stands, nor encourages others to stand with its help;
- as leader appends nothing, and hands leadership on; what its log has, it may send.

Entries of the configuration are durable before they are acknowledged, by a follower in
its reply, by the leader when it counts itself (`limit`). The sync runs in a thread, and
what came before those entries is acknowledged meanwhile. Flows wait for no sync.

Full disks are the likely case: an overwritten vote needs no room, an entry does. The
disk is tried again every `RETRY_S`, in a thread, by writing as much as makes it
worth to go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hanat.consensus.background import Background, at_once
from hanat.consensus.codec import REGULAR
from hanat.consensus.segments import content_of
from hanat.consensus.state import worth_a_sync
from hanat.core.members import Members, named
from hanat.errors import JournalError

if TYPE_CHECKING:
    from hanat.consensus.codec import Message

RETRY_S = 1.0
KEPT_ENTRIES = 2000  # for followers that are a little late: some seconds of flows
KEPT_BYTES = 16 << 20  # at most: or little would be gained by a cut, and the next due at once
MOVED = (
    "recovering: the node file lists nodes {now}, this node took part last with {was}; "
    "until all nodes run with the new list, this node takes no part"
)
FORGETFUL = (
    "recovering: the journal is new, or lost its end with the machine's power; "
    "until it has caught up with a leader, or all nodes run, this node does not vote"
)


class Durability:
    """The journal of a node, under the library's names, and what may be said of it.

    Args:
        journal: The real one, or a model of it.
        clock: Seconds of CLOCK_BOOTTIME.
        members: All nodes, this one included; what it appends alone in a cluster is committed.

    Attributes:
        failure: Why nothing can be written, None while it can.
        background: Where slow work is done; set before the first tick.
        on_durable: Called when `limit` has risen.
        kept_entries: How many entries before a cut of the head are kept.
    """

    def __init__(self, journal: Any, clock: Callable[[], float], *, members: Members = ()) -> None:  # noqa: ANN401 - the library's interface
        self._journal, self._clock, self._members = journal, clock, members
        self.on_durable: Callable[[], None] = lambda: None
        self._syncing = False
        self.kept_entries = KEPT_ENTRIES
        # Entries that must be durable and are not yet, ascending. What a process before
        # this one left unsynced may be among them.
        self._pending: deque[int] = deque()
        if len(journal) and journal.durable_index < journal[-1][1]:
            self._pending.append(journal.durable_index + 1)
        self.failure: JournalError | None = None
        self.background: Background = at_once
        self._retry_at = 0.0
        self._repairing = False
        self._unsaved: tuple[int, int | None] | None = None  # term and vote

    # --------------------------------------------------------------- for the guard

    @property
    def found(self) -> str:
        """What keeps this node from taking part, for operators; empty if nothing does."""
        if self.failure is not None:
            return str(self.failure)
        if self.moved:
            was, now = named(self._journal.members), named(self._members)
            return MOVED.format(was=was, now=now)
        return FORGETFUL if self.recovering else ""

    @property
    def fit(self) -> bool:
        """Whether this node may vote and stand; see also `recovering`."""
        return self.failure is None

    @property
    def recovering(self) -> bool:
        """Whether this node may have forgotten entries or a vote, or counts other nodes."""
        return bool(self._journal.lost_tail_possible) or self.moved

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
            self._failed(error)
            return False
        return True

    @property
    def log_bytes(self) -> int:
        """How long the log is."""
        return int(self._journal.log_bytes)

    def forget(self) -> None:
        """Note that this node has lost what it had."""
        try:
            self._journal.forget()
        except JournalError as error:
            self._failed(error)

    def recovered(self) -> None:
        """Note that this node holds again whatever it may have forgotten."""
        try:
            if self.join():
                self._journal.recovered()
        except JournalError as error:
            self._failed(error)

    def may_send(self, message: Message) -> bool:
        """Say whether a message shows nothing that is not on disk."""
        del message
        self._save()
        return self._unsaved is None

    @property
    def limit(self) -> int | None:
        """Up to which index this node may acknowledge, None: all it has."""
        return self._pending[0] - 1 if self._pending else None

    def tick(self) -> None:
        """Try the disk again when it is time to."""
        self._save()
        self._sync()
        if self.failure is None or self._repairing or self._clock() < self._retry_at:
            return
        self._repairing = True
        self.background(self._journal.repair, self._repaired)

    def _repaired(self, error: BaseException | None) -> None:
        self._repairing = False
        if error is not None:
            self._failed(error)
            return
        self.failure = None
        self._settle()
        self._save()

    def _sync(self) -> None:
        if not self._pending or self._syncing or self.failure is not None:
            return
        self._syncing = True
        try:
            self._journal.sync_in(self.background, self._synced)
        except JournalError as error:
            self._synced(error)

    def _synced(self, error: BaseException | None) -> None:
        self._syncing = False
        if error is not None:
            self._failed(error)
            return
        self._settle()
        self._sync()

    def _settle(self) -> None:
        """Forget what is durable, or gone."""
        durable, was = self._journal.durable_index, len(self._pending)
        while self._pending and self._pending[0] <= durable:
            self._pending.popleft()
        if len(self._pending) < was:
            self.on_durable()

    def _failed(self, error: BaseException) -> None:
        if not isinstance(error, JournalError):
            raise error
        self.failure = error
        self._retry_at = self._clock() + RETRY_S

    # -------------------------------------------------------------- for the library

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - a list's
        return self._journal[index]

    def __len__(self) -> int:
        return len(self._journal)

    def add(self, command: bytes, index: int, term: int) -> None:
        """Append an entry.

        Raises:
            JournalError: It was not appended; the library's step ends here.
        """
        self._check()
        self._save()
        self._check()
        try:
            self._journal.add(command, index, term)
            if not _must_be_durable(command):
                return
            if len(self._members) == 1:
                self._journal.sync()
                return
        except JournalError as error:
            self._failed(error)
            raise
        self._pending.append(index)
        self._sync()

    def setCurrentTerm(self, term: int, votedForNodeId: int | None) -> None:  # noqa: N802, N803 - the library's names
        """Save term and vote; if that fails, nothing is sent until it was done.

        A term without a vote is saved when something is to be sent or appended: the
        vote that follows in most elections makes that one write instead of two.
        """
        self._unsaved = (term, votedForNodeId)
        if votedForNodeId is not None:
            self._save()

    def _save(self) -> None:
        """Save what is not saved yet, unless the disk is known to be unfit."""
        if self._unsaved is None or self._repairing or self.failure is not None:
            return
        try:
            self._journal.setCurrentTerm(*self._unsaved)
        except JournalError as error:
            self._failed(error)
        else:
            self._unsaved = None

    def deleteEntriesFrom(self, entryFrom: int) -> None:  # noqa: N802, N803 - the library's names
        """Cut the tail off.

        Raises:
            JournalError: Nobody knows what is left on disk; the library's step ends here.
        """
        self._change(self._journal.deleteEntriesFrom, entryFrom)
        last = self._journal[-1][1] if len(self._journal) else 0
        while self._pending and self._pending[-1] > last:
            self._pending.pop()

    def deleteEntriesTo(self, entryTo: int, *, keep: int | None = None) -> None:  # noqa: N802, N803 - the library's names
        """Cut the head off; on disk in the background.

        Args:
            entryTo: How many entries are in a snapshot.
            keep: How many of them to keep nevertheless; None: `kept_entries`, of at most
                `KEPT_BYTES`.

        Raises:
            JournalError: As above.
        """
        keep = self._kept(entryTo) if keep is None else keep
        if entryTo > keep:
            self._check()
            self._journal.trim(entryTo - keep, self.background, self._trimmed)

    def _kept(self, end: int) -> int:
        """Return how many of the entries before a position to keep."""
        size = 0
        for kept in range(min(self.kept_entries, end)):
            size += len(self._journal[end - 1 - kept][0])
            if size > KEPT_BYTES:
                return kept
        return self.kept_entries

    def _trimmed(self, error: BaseException | None) -> None:
        if error is not None:
            self._failed(error)
            return
        self._settle()

    def clear(self) -> None:
        """Forget every entry.

        Raises:
            JournalError: As above.
        """
        self._change(self._journal.clear)
        self._pending.clear()

    def _change(self, change: Callable[..., None], *position: int) -> None:
        self._check()
        try:
            change(*position)
        except JournalError as error:
            self._failed(error)
            raise

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure

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


def _must_be_durable(command: bytes) -> bool:
    if command[:1] != REGULAR:
        return False
    content = content_of(command)
    return content is not None and worth_a_sync(content)


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
