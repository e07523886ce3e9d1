"""A journal in memory, with everything that the real one offers."""

from __future__ import annotations

from hanat.core.feature_level import OLDEST
from hanat.core.members import Members
from hanat.raft.library import MemoryJournal
from hanat.raft.slow_work import Background, Done


class VolatileJournal(MemoryJournal):  # type: ignore[misc] # the library is untyped
    """A journal that forgets, for simulations and tests."""

    members: Members = ()
    level = OLDEST

    def getRaftCommitIndex(self) -> int:  # noqa: N802 - the library's name
        """Return 1: only the first entry is known to be committed."""
        return 1

    @property
    def recovering(self) -> bool:
        """No: nothing outlives this process."""
        return False

    @property
    def behind(self) -> bool:
        """No: memory is all there is."""
        return False

    @property
    def durable_index(self) -> int:
        """Everything: memory is all there is."""
        return int(self[-1][1]) if len(self) else 0

    @property
    def log_bytes(self) -> int:
        """How long the log is."""
        return sum(len(entry[0]) for entry in self[:])

    def join(self, members: Members) -> None:
        """Note the member list."""
        if self.members:
            self.forget()
        self.members = members

    def forget(self) -> None:
        """Do nothing: see above."""

    def mark_volatile(self, *, volatile: bool) -> None:
        """Do nothing: see above."""

    def mark_level(self, level: int) -> None:
        """Note the feature level."""
        self.level = level

    def sync(self) -> None:
        """Do nothing."""

    def trim(self, position: int) -> None:
        """Cut the head off: that many entries."""
        self.deleteEntriesTo(position)

    def sync_in(self, background: Background, done: Done) -> None:
        """Do nothing, where it would be done."""
        background(self.sync, done)
