"""The files of one open journal, and the order in which they change.

The bounds in `vote` say what of the log counts; they are saved first, files
follow. A tail is cut from the newest segment backwards, each step durable before
the next and before anything is appended, so that old and new entries never mix.

Every method may raise OSError; what then holds is in its docstring.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

from hanat.consensus import segments
from hanat.consensus.codec import Entry
from hanat.consensus.files import Files
from hanat.consensus.segments import Header, Segment
from hanat.consensus.vote import Vote, VoteFile

ROOM_BYTES = 8 << 20  # two of the largest entries: less is no room to go on with
PROBE = "probe"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a journal is.

    Attributes:
        lock: Descriptor of the lock, held.
        segment_bytes_max: A segment that is longer takes no more entries.
    """

    directory: Path
    files: Files
    lock: int
    segment_bytes_max: int


@dataclass(frozen=True, slots=True)
class Sync:
    """A sync that runs beside the loop: what was unsynced when it began.

    Attributes:
        last: Up to which entry all is durable once it has run.
        cuts: How often the log was cut before; after a cut the result says nothing.
        covered: Segments, and up to which size.
        descriptors: Of those, our own: the log may close its files meanwhile.
        names: Where names are to be made durable too, None if they are.
        made: How many segments had been made.
    """

    files: Files
    last: int
    cuts: int
    covered: list[tuple[Segment, int]]
    descriptors: list[int]
    names: Path | None
    made: int

    def run(self) -> None:
        """Make it durable; may be called in a thread."""
        for fd in self.descriptors:
            self.files.sync(fd)
        if self.names is not None:
            self.files.sync_names(self.names)


@dataclass(frozen=True, slots=True)
class Trim:
    """A cut of the head that runs beside the loop.

    Attributes:
        sync: The log must be on disk before its start moves.
        start: Index of the first entry that is kept.
        gone: Files without any such entry.
    """

    disk: Disk
    sync: Sync
    start: int
    gone: list[Path]

    def run(self) -> None:
        """Move the start, then remove files; may be called in a thread."""
        self.sync.run()
        if self.disk.move_start(self.start, cuts=self.sync.cuts):
            for path in self.gone:
                self.sync.files.remove(path)


class Disk:
    """What the journal keeps on disk.

    Attributes:
        vote: What counts in this process; see `remember`.
        durable: Highest index known to be synced.
    """

    def __init__(self, place: Place, vote_file: VoteFile, row: list[Segment]) -> None:
        self._place, self._files = place, place.files
        self._vote_file, self.vote = vote_file, vote_file.value
        self._room = place.segment_bytes_max
        self._unsaved = False
        self._segments = row
        self.durable = self.vote.durable
        self._names_unsynced = True
        self._cuts = self._made = 0
        self._saving = Lock()  # against `move_start`, in a thread

    def remember(self, **changed: Any) -> None:  # noqa: ANN401 - the fields of Vote
        """Change facts durably.

        After an error they count in this process, may be on disk or not, and `append`
        saves them before it does anything else.
        """
        with self._saving:
            self._save_vote(replace(self.vote, **changed, durable=self.durable))

    def _save_vote(self, vote: Vote) -> None:
        """Save it; only a failure leaves something to the next append, which may be now."""
        self.vote = vote
        try:
            self._vote_file.save(vote)
        except BaseException:
            self._unsaved = True
            raise
        self._unsaved = False

    def save(self) -> None:
        """Make the facts durable if the last change of them failed."""
        if self._unsaved:
            self.remember()

    def append(self, entry: Entry) -> None:
        """Write an entry behind the last; after an error it was not written."""
        self.save()
        segment = self._segments[-1] if self._segments else None
        if segment is None or segment.fd is None or segment.size >= self._room or not segment.ends:
            segment = self._segment_for(entry[1])
        assert entry[1] == segment.following, f"entry {entry[1]} follows {segment.following - 1}"
        segment.append(self._files, entry, self.durable)

    def sync(self) -> None:
        """Make every entry durable; after an error nobody knows which are."""
        for segment in self._segments:
            if segment.unsynced:
                self._files.sync(self._descriptor(segment))
                segment.unsynced = False
                if segment is not self._segments[-1]:
                    self._release(segment)
        if self._names_unsynced:
            self._files.sync_names(self._place.directory)
            self._names_unsynced = False
        if self._segments:
            self.durable = self._segments[-1].following - 1

    def begin_sync(self) -> Sync:
        """Return the sync of all there is now; after it has run, call `end_sync`."""
        covered = [(segment, segment.size) for segment in self._segments if segment.unsynced]
        duplicate = self._files.duplicate
        return Sync(
            files=self._files,
            last=self._segments[-1].following - 1 if self._segments else 0,
            cuts=self._cuts,
            covered=covered,
            descriptors=[duplicate(self._descriptor(segment)) for segment, _ in covered],
            names=self._place.directory if self._names_unsynced else None,
            made=self._made,
        )

    def end_sync(self, sync: Sync, *, done: bool) -> None:
        """Count what a sync has made durable."""
        for fd in sync.descriptors:
            self._files.close(fd)
        if not done or sync.cuts != self._cuts:
            return
        for segment, size in sync.covered:
            if segment.size == size:
                segment.unsynced = False
                if segment is not self._segments[-1]:
                    self._release(segment)
        self._names_unsynced = self._made != sync.made
        self.durable = max(self.durable, sync.last)

    def cut_tail(self, last: int) -> None:
        """Drop, durably, what is behind entry `last`; not finished after an error."""
        self._cuts += 1
        if last < self.durable:
            self.durable = last
            self.remember()
        while self._segments[-1].header.first > last:
            self._drop(self._segments.pop())
            self._files.sync_names(self._place.directory)
        tail = self._segments[-1]
        tail.cut(self._files, last + 1 - tail.header.first)

    @property
    def size(self) -> int:
        """Bytes of the log's files."""
        return sum(segment.size for segment in self._segments)

    def begin_trim(self, start: int) -> Trim:
        """Return the cut that makes `start` the first entry; after it ran, `end_sync`."""
        sync, gone = self.begin_sync(), []
        while len(self._segments) > 1 and self._segments[1].header.first <= start:
            segment = self._segments.pop(0)
            self._release(segment)
            gone.append(segment.path)
        return Trim(self, sync, start, gone)

    def move_start(self, start: int, *, cuts: int) -> bool:
        """Note where the log starts, unless it was cut in another way meanwhile."""
        with self._saving:
            if self._cuts != cuts or start <= self.vote.log_start:
                return False
            self._save_vote(replace(self.vote, log_start=start))
        return True

    def clear(self) -> None:
        """Drop every entry; the next one may have any index."""
        self._cuts += 1
        self.durable = 0
        self.remember(epoch=self.vote.epoch + 1, log_start=0)
        while self._segments:
            self._drop(self._segments.pop())

    def probe(self) -> None:
        """Find out whether the disk takes data and has room; leave nothing behind."""
        path = self._place.directory / PROBE
        fd = self._files.open(path, create=True)
        try:
            self._files.write(fd, bytes(ROOM_BYTES), 0)
            self._files.sync(fd)
        finally:
            self._files.close(fd)
            self._files.remove(path)

    def rewrite(self, entries: list[Entry]) -> None:
        """Write the whole log anew: what is in the files is not known.

        Whoever starts in the middle of it starts without a log, as one that lost it.
        """
        lost_tail, self.durable = self.vote.lost_tail, 0
        self.remember(lost_tail=True)
        self.clear()
        for entry in entries:
            self.append(entry)
        self.sync()
        self.remember(lost_tail=lost_tail)

    def close(self) -> None:
        """Close every file, the lock last."""
        for segment in self._segments:
            self._release(segment)
        self._vote_file.close()
        self._files.close(self._place.lock)

    def _segment_for(self, index: int) -> Segment:
        """Return the segment that takes the entry, a new one if the last is full."""
        if not (self._segments and self._segments[0].ends):
            return self._begin(index)
        tail = self._segments[-1]
        if tail.size >= self._room and tail.ends:
            self._names_unsynced = True
            full, tail = tail, self._create(index, epoch=self.vote.epoch, link=tail.link)
            self._segments.append(tail)
            self._release(full)
        self._descriptor(tail)
        return tail

    def _begin(self, index: int) -> Segment:
        """Start the log: its first segment is durable before `vote` tells of it."""
        if self._segments and self.vote.log_start == index:
            self._descriptor(self._segments[0])
            return self._segments[0]
        if self._segments:
            self.clear()
        segment = self._create(index, epoch=self.vote.epoch + 1, link=0)
        self._segments.append(segment)
        self._files.sync(self._descriptor(segment))
        self._files.sync_names(self._place.directory)
        self.remember(epoch=segment.header.epoch, log_start=index)
        return segment

    def _create(self, first: int, *, epoch: int, link: int) -> Segment:
        self._made += 1
        header = Header(self.vote.node_id, self.vote.cluster, epoch, first, link)
        return segments.create(self._place.directory, self._files, header)

    def _descriptor(self, segment: Segment) -> int:
        if segment.fd is None:
            segment.fd = self._files.open(segment.path)
        return segment.fd

    def _release(self, segment: Segment) -> None:
        if segment.fd is not None:
            self._files.close(segment.fd)
            segment.fd = None

    def _drop(self, segment: Segment) -> None:
        self._release(segment)
        self._files.remove(segment.path)
