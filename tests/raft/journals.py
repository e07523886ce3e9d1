"""What a journal should hold, as a plain list, and operations on both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from hanat.raft.files import Files
from hanat.raft.journal import Journal
from hanat.raft.journal_opening import open_journal
from hanat.raft.messages import NO_OP, Entry, wrap
from tests.raft.disks import Quick

LOG_BYTES = 16 << 10  # room for all that the operations of a test append
OPERATIONS = ("add", "add", "add", "add", "cut tail", "trim", "sync", "vote", "clear")

Operation = tuple[str, int]


@dataclass(frozen=True)
class Model:
    """What a journal holds, and what of it is on disk."""

    entries: tuple[Entry, ...] = ()
    disk: tuple[Entry, ...] = ()  # what a crash leaves
    durable: int = 0
    vote: tuple[int, int | None] = (0, None)
    following: int = 1
    made: int = 0

    @property
    def next_entry(self) -> Entry:
        """The entry that `add` appends; no two are the same."""
        content = self.made.to_bytes(4, "big") + bytes(self.made * 37 % 90)
        command = NO_OP if self.made % 9 == 0 else wrap(content)
        return command, self.following, 1 + self.made // 5

    def after(self, operation: Operation) -> Model:
        """Return the model after an operation."""
        kind, number = operation
        last = self.entries[-1][1] if self.entries else 0
        keep = number % (len(self.entries) + 1)
        model = self
        match kind:
            case "add":
                entries = (*self.entries, self.next_entry)
                following, made = self.following + 1, self.made + 1
                model = replace(self, entries=entries, following=following, made=made)
            case "cut tail" if keep:
                last = self.entries[keep - 1][1]
                durable, entries = min(self.durable, last), self.entries[:keep]
                model = replace(self, entries=entries, durable=durable, following=last + 1)
            case "trim" if 0 < keep < len(self.entries):
                model = replace(self, entries=self.entries[keep:])
            case "trim":
                pass
            case "cut tail":
                model = replace(self, entries=(), durable=0)
            case "sync":
                model = replace(self, durable=last, disk=self.entries)
            case "vote":
                model = replace(self, vote=(self.vote[0] + 1, number % 3 or None))
            case "clear":
                model = replace(self, entries=(), durable=0, following=1 + number % 50)
            case _:
                raise AssertionError(kind)
        return model

    def perform(self, operation: Operation, journal: Journal) -> None:
        """Let a journal that holds what this model says do the operation."""
        kind, number = operation
        keep = number % (len(self.entries) + 1)
        match kind:
            case "add":
                journal.add(*self.next_entry)
            case "cut tail":
                journal.deleteEntriesFrom(keep)
            case "trim" if 0 < keep < len(self.entries):
                journal.trim(keep)
            case "trim":
                pass
            case "sync":
                journal.sync()
            case "vote":
                journal.setCurrentTerm(self.vote[0] + 1, number % 3 or None)
            case "clear":
                journal.clear()
            case _:
                raise AssertionError(kind)

    def holds(self, journal: Journal) -> bool:
        """Whether a journal holds exactly what this model says."""
        return tuple(journal[:]) == self.entries and self.vote == vote_of(journal)

    def may_leave(self, found: tuple[Entry, ...], after: Model) -> bool:
        """Whether a crash on the way from this model to another may leave a log."""
        old, new = self.disk, after.disk
        same = 0
        while same < min(len(old), len(new)) and old[same] == new[same]:
            same += 1
        begins = found == new[: len(found)] and len(found) >= same
        return found in (old, new) or begins


def operations(rng: Random, count: int) -> Iterator[Operation]:
    """Yield random operations; entries come in bursts."""
    for _ in range(count):
        kind = rng.choice(OPERATIONS)
        for _ in range(rng.randint(1, 12) if kind == "add" else 1):
            yield kind, rng.randrange(1000)


def vote_of(journal: Journal) -> tuple[int, int | None]:
    return journal.getCurrentTerm(), journal.getVotedForNodeId()


@contextmanager
def opened(data_dir: Path, *, files: Files | None = None) -> Iterator[Journal]:
    """Open a journal with small files; close it, also when its disk fails.

    A new one is not one that was lost.
    """
    new = not (data_dir / "journal/vote").exists()
    journal = open_journal(data_dir, files=files or Quick(), log_bytes=LOG_BYTES)
    try:
        if new:
            journal.recovered()
        yield journal
    finally:
        journal.close()


def fill(journal: Journal, model: Model, kinds: Iterable[str]) -> Model:
    """Do operations on a journal that holds `model`; return what it holds then."""
    for kind in kinds:
        model.perform((kind, 1), journal)
        model = model.after((kind, 1))
    return model


def write_log(data_dir: Path, count: int, *, first: int = 0, made: int = 0) -> Model:
    """Fill a new journal as if the process were killed behind a sync; return what it holds.

    Args:
        data_dir: Where.
        count: How many entries.
        first: How many of them are a batch of their own.
        made: Number of the first entry's content.
    """
    journal = open_journal(data_dir, files=Quick(), log_bytes=LOG_BYTES)
    journal.recovered()
    kinds = ["vote", *["add"] * first, "sync", *["add"] * (count - first), "sync"]
    model = fill(journal, Model(made=made), kinds)
    kill(journal)
    return model


def kill(journal: Journal) -> None:
    """Let go of the files as if the process had ended."""
    journal._log.close()
    journal._vote.close()
    journal._unlock()
