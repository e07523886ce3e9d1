"""Guards with one repair of the disk's part broken; see `repairs`."""

from __future__ import annotations

from typing import Any

from hanat.raft.durability import Durability
from hanat.raft.guard import Guard
from hanat.raft.rejoin import Rejoin
from tests.sim.broken import broken


@broken
class WithoutWriteAhead(Guard):
    """What could not be saved is said nevertheless."""

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)

        class Rash(Durability):
            def may_send(self) -> bool:
                return True

        self.durability = Rash(self.journal, self.clock)


@broken
class WithoutDurability(Guard):
    """What is in memory is acknowledged and counted."""

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)

        class Rash(Durability):
            @property
            def limit(self) -> int | None:
                return None

        self.durability = Rash(self.journal, self.clock)


@broken
class WithoutNote(Guard):
    """A node whose disk fails acknowledges from memory, and leaves no note of that."""

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)

        class Rash(Durability):
            def _note(self, *, volatile: bool) -> None:
                if volatile:
                    self._go_on_from_memory()

        self.durability = Rash(self.journal, self.clock)


@broken
class WithoutWaitingForTheNote(Guard):
    """A node whose disk fails acknowledges from memory before its note is on disk."""

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)

        class Rash(Durability):
            def _note(self, *, volatile: bool) -> None:
                super()._note(volatile=volatile)
                if volatile:
                    self._go_on_from_memory()

        self.durability = Rash(self.journal, self.clock)


@broken
class WithoutConfigurationsOnDisk(Guard):
    """A node whose disk fails acknowledges configurations as it does flows."""

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)

        class Rash(Durability):
            def add(self, command: bytes, index: int, term: int) -> None:
                super().add(command, index, term)
                self._pending.clear()

        self.durability = Rash(self.journal, self.clock)


@broken
class WithoutTermsFirst(Guard):
    """Entries reach the disk before the term that they are of."""

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)

        class Rash(Durability):
            def tick(self) -> None:
                unsaved, self._unsaved = self._unsaved, None
                if not self._working:
                    self._sync()
                self._unsaved = unsaved

        self.durability = Rash(self.journal, self.clock)


@broken
class WithoutLateTerms(Guard):
    """A term is saved as soon as it is heard of, and its vote after it."""

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)

        class Eager(Durability):
            def setCurrentTerm(self, term: int, votedForNodeId: int | None) -> None:  # noqa: N802, N803
                super().setCurrentTerm(term, votedForNodeId)
                self._save()

        self.durability = Eager(self.journal, self.clock)


@broken
class WithoutRecovery(Guard):
    """A node that may have forgotten votes and stands as any other."""

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)

        class Rash(Rejoin):
            @property
            def needed(self) -> bool:
                return False

        self.recovery = Rash(self.durability)
