"""Read the segments of a journal at the start, and decide about what is wrong.

A process that dies leaves what it had written, so at most the newest record is
torn. A machine that dies may lose any part of what was not synced. So a bad place
is a lost tail, cut off and reported, only if

- the machine ran on, and nothing but one record is bad, at the very end; or
- the machine was restarted since, and no later record and no synced fact proves
  that the place had been on disk.

Everything else is damage: the node does not start, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hanat.consensus import segments
from hanat.consensus.codec import Entry
from hanat.consensus.files import Files
from hanat.consensus.segments import ForeignError, Header, Segment
from hanat.consensus.vote import MOVE_AWAY, Vote
from hanat.errors import StartupError


@dataclass(slots=True)
class Loaded:
    """The log as it counts, and what of the files does not.

    Attributes:
        entries: The log, from its start.
        segments: Its files, oldest first.
        report: What is a lost tail and why, empty if nothing is.
        acknowledged: The lost tail may hold entries that `add` had returned for.
        leftovers: Files that were cut off, or never begun, before a process died.
        lost: Files of the lost tail, oldest first; the last segment may end in more.
    """

    entries: list[Entry] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    report: str = ""
    acknowledged: bool = False
    leftovers: list[Path] = field(default_factory=list)
    lost: list[Path] = field(default_factory=list)

    def tidy(self, files: Files) -> None:
        """Remove leftovers and the lost tail, so that the log can go on.

        Raises:
            OSError: Something is still there; loading again finds the same log.
        """
        for path in (*self.leftovers, *self.lost):
            files.remove(path)
        if self.lost:  # a new segment may get the same name
            files.sync_names(self.lost[0].parent)
        if self.report and self.segments:
            tail = self.segments[-1]
            tail.cut(files, len(tail.ends))


@dataclass(frozen=True, slots=True)
class _BadPlace:
    """Where reading stopped: behind the entries read so far."""

    path: Path
    offset: int
    why: str
    data: bytes


def load(directory: Path, vote: Vote, *, rebooted: bool) -> Loaded:
    """Read the log of a journal; change nothing.

    Args:
        directory: Where the segments are.
        vote: What the node remembers besides.
        rebooted: Whether the machine was restarted since the journal was written.

    Raises:
        StartupError: Damage, a gap, or a file that does not belong here.
        OSError: A file cannot be read.
    """
    return _Reader(directory, vote, rebooted=rebooted).read()


def _paths(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.glob("*.log")):
        if not path.stem.isdecimal() or path != segments.path_of(directory, int(path.stem)):
            raise damage(path, "this is not the name of a segment")
        yield path


def damage(path: Path, found: str) -> StartupError:
    """Return the error for a file that must not be used and not be touched."""
    to_do = MOVE_AWAY.format(directory=path.parent)
    return StartupError(tried=f"read the journal {path}", found=found, to_do=to_do)


class _Reader:
    def __init__(self, directory: Path, vote: Vote, *, rebooted: bool) -> None:
        self._directory, self._vote, self._rebooted = directory, vote, rebooted
        self._out = Loaded()

    def read(self) -> Loaded:
        vote, out = self._vote, self._out
        paths = list(self._current(list(_paths(self._directory))))
        if vote.log_start and (not paths or int(paths[0].stem) > vote.log_start):
            raise damage(
                segments.path_of(self._directory, vote.log_start),
                f"the segment with entry {vote.log_start}, the start of the log, is missing",
            )
        bad = self._walk(paths)
        if bad is not None:
            self._judge(bad, paths)
        if out.segments and self._last < vote.durable:
            found = f"the log ends with entry {self._last}, but {vote.durable} had been synced"
            raise damage(out.segments[-1].path, found)
        if out.segments:
            del out.entries[: vote.log_start - out.segments[0].header.first]
        return out

    @property
    def _last(self) -> int:
        return self._out.segments[-1].following - 1

    def _current(self, paths: list[Path]) -> Iterator[Path]:
        """Yield the segments of the log as it is; the others are leftovers."""
        started = [path for path in paths if int(path.stem) <= self._vote.log_start]
        for path in paths:
            if self._vote.log_start and path in started[:-1]:
                self._out.leftovers.append(path)  # cut off with the head
                continue
            with path.open("rb") as file:
                header = self._header(path, file.read(segments.HEADER_BYTES))
            if header is not None and header.epoch < self._vote.epoch:
                self._out.leftovers.append(path)
            elif self._vote.log_start:
                yield path
            else:
                self._unborn(path, header)

    def _unborn(self, path: Path, header: Header | None) -> None:
        """Accept a file without entries, or one that a machine crash left headless.

        The first segment of a log is synced before `vote` tells of it.
        """
        empty = path.stat().st_size <= segments.HEADER_BYTES
        fresh = header is None or header.epoch == self._vote.epoch + 1
        if not (empty and fresh) and not (self._rebooted and header is None):
            found = "by what is in `vote` the log has not begun, but this is a part of it"
            raise damage(path, found)
        self._out.leftovers.append(path)

    def _header(self, path: Path, data: bytes) -> Header | None:
        try:
            header = segments.unpack_header(data)
        except ForeignError as error:
            raise damage(path, str(error)) from error
        if header is None:
            return None
        ours = self._vote.node_id, self._vote.cluster
        for name, mine, its in zip(("node", "cluster"), ours, header[:2], strict=True):
            if mine and its and mine != its:
                raise damage(path, f"it belongs to {name} {its!r}, not to {mine!r}")
        return header

    def _walk(self, paths: list[Path]) -> _BadPlace | None:
        """Read segment after segment up to the first bad place."""
        out = self._out
        for path in paths:
            data = path.read_bytes()
            header = self._header(path, data)
            before = out.segments[-1] if out.segments else None
            wrong = self._wrong_header(path, header, before)
            if wrong:
                return _BadPlace(path, 0, wrong, data)
            assert header is not None
            segment = Segment(path, header, unsynced=True)
            out.segments.append(segment)
            wrong = segments.read_records(data, segment, out.entries)
            if wrong:
                return _BadPlace(path, segment.size, wrong, data)
        return None

    def _wrong_header(self, path: Path, header: Header | None, before: Segment | None) -> str:
        first = int(path.stem)
        if header is None:
            return "its header is incomplete or damaged"
        if header.first != first or header.epoch != self._vote.epoch:
            return f"its header is of entry {header.first} in epoch {header.epoch}"
        if before is None:
            return ""
        if first != before.following:
            return f"it starts with entry {first}, but {before.following} should follow"
        if header.link != before.link:
            return "it does not continue the segment before"
        return ""

    def _judge(self, bad: _BadPlace, paths: list[Path]) -> None:
        """Note what is a lost tail; raise if it is damage."""
        if not self._out.segments:  # the first one was synced before anything else
            raise damage(bad.path, bad.why)
        later = paths[paths.index(bad.path) + 1 :]
        whole = list(segments.whole_records(bad.data, bad.offset))
        for path in later:
            whole += segments.whole_records(path.read_bytes(), 0)
        missing = segments.claimed_end(bad.data, bad.offset) - len(bad.data)
        if self._rebooted:
            lost = all(record.durable <= self._last for record in whole)
        elif bad.offset == 0:
            lost = not later and len(bad.data) < segments.HEADER_BYTES
        else:
            lost = not later and not whole and missing >= 0
        if not lost:
            proof = "; later entries are there" if whole or later else ""
            raise damage(bad.path, f"at offset {bad.offset} {bad.why}{proof}")
        # A process that is killed in a write leaves the beginning of a record.
        self._out.acknowledged = self._rebooted or (bad.offset > 0 and missing <= 0)
        self._out.lost = later if bad.offset else [bad.path, *later]
        size = len(bad.data) - bad.offset + sum(path.stat().st_size for path in later)
        self._out.report = (
            f"{bad.path}: cut off {size} bytes behind entry {self._last}: "
            f"at offset {bad.offset} {bad.why}"
        )
