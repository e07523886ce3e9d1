"""What the journal costs, beside the library's.

Run it by hand: python -m tests.raft.bench_journal [DIRECTORY]

Prints, for entries of 100 bytes and of 3 kB, the best and the median time of
several rounds in turn, in ms a round of 10,000 entries; then single operations.
Without a directory for the files, a temporary one.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from hanat.raft.journal import Journal
from hanat.raft.journal_opening import open_journal
from hanat.raft.library import FileJournal
from hanat.raft.messages import Entry, wrap

ENTRIES = 10_000
ROUNDS = 9


def took_ms(work: Callable[..., object], *arguments: object) -> float:
    started = time.perf_counter()
    work(*arguments)
    return (time.perf_counter() - started) * 1000


def add_all(journal: FileJournal | Journal, entries: list[Entry]) -> None:
    for entry in entries:
        journal.add(*entry)


@contextmanager
def fresh(root: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=root) as directory:
        yield Path(directory)


def show(name: str, times_ms: list[float]) -> None:
    ordered = sorted(times_ms)
    p99 = ordered[int(len(ordered) * 0.99)]
    print(f"{name:44} best {ordered[0]:8.2f}  median {median(ordered):8.2f}  p99 {p99:8.2f} ms")  # noqa: T201


def adding(root: Path, size: int) -> None:
    entries: list[Entry] = [(wrap(os.urandom(size)), n, 1) for n in range(1, ENTRIES + 1)]
    ours: list[float] = []
    theirs: list[float] = []
    opening: list[float] = []
    syncing: list[float] = []
    for _ in range(ROUNDS):
        with fresh(root) as directory:
            library = FileJournal(str(directory / "raft.journal"))
            library.add(*entries[0])
            theirs.append(took_ms(add_all, library, entries[1:]))
            library._destroy()
        with fresh(root) as directory:
            journal = open_journal(directory)
            ours.append(took_ms(add_all, journal, entries))
            syncing.append(took_ms(journal.sync))
            journal.close()
            opening.append(took_ms(open_journal, directory))
    show(f"add {ENTRIES} entries of {size} bytes: library", theirs)
    show(f"add {ENTRIES} entries of {size} bytes: hanat", ours)
    show(f"sync {ENTRIES} entries of {size} bytes: hanat", syncing)
    show(f"open {ENTRIES} entries of {size} bytes: hanat", opening)


def single(root: Path) -> None:
    with fresh(root) as directory:
        journal = open_journal(directory)
        journal.add(wrap(b""), 1, 1)
        journal.sync()
        terms = [took_ms(journal.setCurrentTerm, number, 1) for number in range(300)]
        show("term and vote", terms)
        show("add 100 bytes, sync", [synced(journal, 1) for _ in range(300)])
        show("add 100 times 12000 bytes, sync", [synced(journal, 100) for _ in range(9)])
        show("cut a tail of one entry", [cut_tail(journal) for _ in range(100)])
        show("cut a head of one entry, sync", [cut_head(journal) for _ in range(9)])
        journal.close()


def synced(journal: Journal, count: int) -> float:
    last = journal[-1][1]
    command = wrap(os.urandom(100 if count == 1 else 12_000))
    for number in range(1, count + 1):
        journal.add(command, last + number, 1)
    return took_ms(journal.sync)


def cut_tail(journal: Journal) -> float:
    journal.add(wrap(bytes(100)), journal[-1][1] + 1, 1)
    return took_ms(journal.deleteEntriesFrom, len(journal) - 1)


def cut_head(journal: Journal) -> float:
    journal.trim(1)
    return took_ms(journal.sync)


if __name__ == "__main__":
    with fresh(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.gettempdir())) as place:
        for entry_bytes in (100, 3_000):
            adding(place, entry_bytes)
        single(place)
