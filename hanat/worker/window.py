"""Batches on their way into the log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Propose = Callable[[int, bytes, Callable[[bool], None]], bool]


@dataclass(frozen=True, slots=True)
class InFlight:
    """A batch that is proposed: how many changes, and when the first was read."""

    changes: int
    read_at: float


class Window:
    """What is proposed in a term and not committed yet.

    Args:
        propose: Appends a batch of a term to the log: ``propose(term, batch, done)``;
            returns False when this node does not lead.
        done: Called with sequence number, batch and whether it is committed.
    """

    def __init__(self, propose: Propose, done: Callable[[int, InFlight, bool], None]) -> None:
        self._propose, self._done = propose, done
        self._batches: dict[int, InFlight] = {}
        self._sequence = 0
        self.term = 0

    def __len__(self) -> int:
        return len(self._batches)

    def __contains__(self, sequence: int) -> bool:
        return sequence in self._batches

    @property
    def changes(self) -> int:
        """How many changes are on their way."""
        return sum(batch.changes for batch in self._batches.values())

    def clear(self) -> int:
        """Forget everything; return how many changes that were."""
        changes = self.changes
        self._batches.clear()
        return changes

    def send(self, batch: bytes, changes: int, *, read_at: float) -> int:
        """Propose a batch; return its sequence number."""
        self._sequence += 1
        sequence = self._sequence
        self._batches[sequence] = InFlight(changes, read_at)

        def done(committed: bool) -> None:  # noqa: FBT001 - called by the log
            found = self._batches.pop(sequence, None)
            if found is not None:
                self._done(sequence, found, committed)

        if not self._propose(self.term, batch, done):
            done(committed=False)
        return sequence
