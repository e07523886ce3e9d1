"""The journal: the replicated log, the term and the vote, on disk.

Today the library's own file journal with one repair; its place is here so that
a checksummed, synced one can take it without a change elsewhere.

The saved commit index is not believed after a restart: the log may be an older
version of itself, and committing up to a remembered number could commit entries
nobody else has. The leader tells the commit index anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, overload

from hanat.consensus.library import FileJournal, MemoryJournal
from hanat.errors import StartupError


class Log(Protocol):
    """What of a journal is read outside the library: entries (command, index, term)."""

    @overload
    def __getitem__(self, index: int) -> tuple[bytes, int, int]: ...

    @overload
    def __getitem__(self, index: slice) -> list[tuple[bytes, int, int]]: ...

    def __len__(self) -> int: ...


class Journal(FileJournal):  # type: ignore[misc] # the library is untyped
    """The library's journal without its memory of the commit index."""

    def getRaftCommitIndex(self) -> int:  # noqa: N802 - the library's name
        """Return 1: only the first entry is known to be committed."""
        return 1


class VolatileJournal(MemoryJournal):  # type: ignore[misc] # the library is untyped
    """A journal that forgets, for simulations and tests."""

    def getRaftCommitIndex(self) -> int:  # noqa: N802 - the library's name
        """Return 1: only the first entry is known to be committed."""
        return 1


def open_journal(data_dir: Path) -> Log:
    """Open or create the journal of a node.

    Raises:
        StartupError: The directory is not writable, or the file is not a journal.
    """
    path = data_dir / "raft.journal"
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
        journal: Log = Journal(str(path))
    except OSError as error:
        raise StartupError(
            tried=f"open the journal {path}",
            found=error.strerror or str(error),
            to_do="make the data directory writable for hanat",
        ) from error
    except Exception as error:
        raise StartupError(
            tried=f"read the journal {path}",
            found=f"it is damaged ({type(error).__name__}: {error})",
            to_do="move the file away; the node then fetches everything from its peers",
        ) from error
    return journal
