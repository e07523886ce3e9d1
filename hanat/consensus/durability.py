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

Full disks are the likely case: an overwritten vote needs no room, an entry does. The
disk is tried again every `RETRY_S`, in a thread, by writing as much as makes it
worth to go on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hanat.errors import JournalError

if TYPE_CHECKING:
    from hanat.consensus.codec import Message

RETRY_S = 1.0

Done = Callable[[BaseException | None], None]
# Do work off the loop, then call back on it with what the work raised.
Background = Callable[[Callable[[], None], Done], None]


def at_once(work: Callable[[], None], done: Done) -> None:
    """Do the work now: for tests, and where nothing waits."""
    error: BaseException | None = None
    try:
        work()
    except JournalError as raised:
        error = raised
    done(error)


class Durability:
    """The journal of a node, under the library's names, and what may be said of it.

    Args:
        journal: The real one, or a model of it.
        clock: Seconds of CLOCK_BOOTTIME.

    Attributes:
        failure: Why nothing can be written, None while it can.
        background: Where slow work is done; set before the first tick.
    """

    def __init__(self, journal: Any, clock: Callable[[], float]) -> None:  # noqa: ANN401 - the library's interface
        self._journal, self._clock = journal, clock
        self.failure: JournalError | None = None
        self.background: Background = at_once
        self._retry_at = 0.0
        self._repairing = False
        self._unsaved: tuple[int, int | None] | None = None  # term and vote

    # --------------------------------------------------------------- for the guard

    @property
    def found(self) -> str:
        """What keeps this node from taking part, for operators; empty if nothing does."""
        return "" if self.failure is None else str(self.failure)

    @property
    def fit(self) -> bool:
        """Whether this node may vote and stand."""
        return self.failure is None

    def may_send(self, message: Message) -> bool:
        """Say whether a message shows nothing that is not on disk."""
        del message
        return self._unsaved is None

    def tick(self) -> None:
        """Try the disk again when it is time to."""
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
        if self._unsaved is not None:
            self.setCurrentTerm(*self._unsaved)

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
        try:
            self._journal.add(command, index, term)
        except JournalError as error:
            self._failed(error)
            raise

    def setCurrentTerm(self, term: int, votedForNodeId: int | None) -> None:  # noqa: N802, N803 - the library's names
        """Save term and vote; if that fails, nothing is sent until it was done."""
        self._unsaved = (term, votedForNodeId)
        if self._repairing:
            return  # done with that; until then nobody else may touch the disk
        try:
            self._journal.setCurrentTerm(term, votedForNodeId)
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

    def deleteEntriesTo(self, entryTo: int) -> None:  # noqa: N802, N803 - the library's names
        """Cut the head off.

        Raises:
            JournalError: As above.
        """
        self._change(self._journal.deleteEntriesTo, entryTo)

    def clear(self) -> None:
        """Forget every entry.

        Raises:
            JournalError: As above.
        """
        self._change(self._journal.clear)

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
        return int(self._journal.getCurrentTerm())

    def getVotedForNodeId(self) -> int | None:  # noqa: N802 - the library's name
        """Return who got the vote of that term."""
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
