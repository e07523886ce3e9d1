"""What Raft promises about logs, checked with each entry written, removed and applied.

At the moment it happens, not at the end of a run: a committed entry that is lost and
sent again a second later leaves nothing to see at the end.

Source: Ongaro, "Consensus: Bridging Theory and Practice", 2014, figure 3.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hanat.raft.volatile_journal import VolatileJournal


class Checks:
    """What all logs of one world have to agree on.

    Args:
        violate: Takes a sentence for each property found broken.
    """

    def __init__(self, violate: Callable[[str], None]) -> None:
        self._violate = violate
        self._written: dict[tuple[int, int], tuple[bytes, int]] = {}
        self._applied: dict[int, tuple[bytes, int, int]] = {}  # command, term, applied in term

    def written(self, node_id: int, entry: tuple[bytes, int, int], *, before: int | None) -> None:
        """Check log matching: one index and term, one command and one entry before it.

        The first entry behind a snapshot has none before it: it may come again from others.
        """
        command, index, term = entry
        if before is None:
            before = self._written.get((index, term), (command, 0))[1]
        first = self._written.setdefault((index, term), (command, before))
        if first != (command, before):
            self._violate(f"logs do not match: {node_id} at index {index} of term {term}")

    def removed(self, node_id: int, entries: list[tuple[bytes, int, int]]) -> None:
        """Check that no entry goes that any node has applied."""
        lost = [e[1] for e in entries if self._applied.get(e[1], ())[:2] == (e[0], e[2])]
        if lost:
            self._violate(f"{node_id} removes committed entries {lost[0]} to {lost[-1]}")

    def forget(self) -> None:
        """Expect nothing that was applied so far: no disk may have kept it."""
        self._applied.clear()

    def applied(self, node_id: int, entry: tuple[bytes, int, int], *, term: int) -> None:
        """Check state machine safety: one command for each index."""
        command, index, entry_term = entry
        first = self._applied.setdefault(index, (command, entry_term, term))
        if first[:2] != (command, entry_term):
            self._violate(f"two commands at index {index}: {node_id} applies another")

    def elected(self, node_id: int, journal: Any, *, term: int) -> None:  # noqa: ANN401 - the library's
        """Check leader completeness: it has all that was committed in earlier terms."""
        kept = {entry[1]: (entry[0], entry[2]) for entry in journal[:]}
        first = journal[0][1]  # what was before is in its snapshot
        for index, (command, entry_term, in_term) in self._applied.items():
            if index >= first and in_term < term and kept.get(index) != (command, entry_term):
                self._violate(f"leader {node_id} of term {term} lacks committed entry {index}")
                return


class CheckedJournal(VolatileJournal):
    """A journal in memory that has each change checked."""

    def __init__(self, checks: Checks, node_id: int) -> None:
        super().__init__()
        self._checks, self._node_id = checks, node_id

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Append an entry."""
        before = self[-1][2] if len(self) else (0 if idx == 1 else None)
        self._checks.written(self._node_id, (command, idx, term), before=before)
        super().add(command, idx, term)

    def deleteEntriesFrom(self, entryFrom: int) -> None:  # noqa: N802, N803 - the library's names
        """Remove the entries from a position on."""
        self._checks.removed(self._node_id, self[entryFrom:])
        super().deleteEntriesFrom(entryFrom)
