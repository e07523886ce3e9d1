"""The log on disk: two files of fixed size, used in turn, whose room is taken in advance.

Both are written with zeros and synced before a node starts the first time, so a disk that
fills up later stops nothing: what hanat writes overwrites what is there. `vote` says
which file counts. New entries go behind its last record; when the head of the log is cut,
or the log starts anew, what is kept is written into the other file and synced, then `vote`
says that this one counts. A tail is cut by overwriting: before that the epoch grows, so that
what is left of the old tail proves nothing.

At the start the log is what can be read from the beginning. What follows is the end of a batch
that was never synced, or of nothing; if a later record, or `vote`, proves that the bad place
had been on disk, it is damage: the node does not start, and changes nothing.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from errno import EFBIG
from pathlib import Path

from hanat.errors import StartupError
from hanat.raft import log_records
from hanat.raft.files import Files
from hanat.raft.hard_state import MOVE_AWAY, OTHER_FORMAT, HardStateFile, other_level
from hanat.raft.log_records import RECORD_BYTES, ForeignError, Header, Stamp
from hanat.raft.messages import Entry

# A log is cut at 12 MiB, times 1.5 at most, and keeps 8; a second of most flows has 5.
LOG_FILE_BYTES = 32 << 20
NAMES = ("log.0", "log.1")


@dataclass(slots=True)
class Loaded:
    """The log as it counts.

    Attributes:
        header: Of its file, None while the log is empty.
        entries: The log, from its start.
        ends: Offset behind each record, oldest first.
        links: What the record behind each must point back to; one more, for the header.
        report: What was cut off and why, empty if nothing was.
    """

    header: Header | None = None
    entries: list[Entry] = field(default_factory=list)
    ends: array[int] = field(default_factory=lambda: array("Q"))
    links: array[int] = field(default_factory=lambda: array("I"))
    report: str = ""

    @property
    def size(self) -> int:
        """Where the next record goes."""
        return self.ends[-1] if self.ends else log_records.HEADER_BYTES

    @property
    def last(self) -> int:
        """Index of the newest entry, 0 if there never was one."""
        return self.header.first + len(self.ends) - 1 if self.header else 0


class LogFiles:
    """The two files, open for changes; used by one thread at a time.

    Every method may raise OSError: then what the files hold is not known, and only
    `rewrite` makes it known again.
    """

    def __init__(
        self,
        files: Files,
        descriptors: Sequence[int],
        *,
        vote: HardStateFile,
        loaded: Loaded,
        size: int,
    ) -> None:
        self._files, self._descriptors, self._vote = files, descriptors, vote
        self._size = size
        self._header, self._ends, self._links = loaded.header, loaded.ends, loaded.links

    def append(self, first: int, entries: Sequence[Entry]) -> None:
        """Write entries, durably; `first`, the index of the first one, cuts what is there."""
        header = self._header
        assert header is not None, "append to a log that was not begun"
        count = first - header.first
        assert 0 <= count <= len(self._ends), f"entry {first} leaves a gap"
        if count < len(self._ends):
            self._vote.remember(epoch=self._vote.value.epoch + 1, durable=first - 1)
            del self._ends[count:], self._links[count + 1 :]
        offset = self._ends[-1] if self._ends else log_records.HEADER_BYTES
        if entries:
            stamp = Stamp(self._links[-1], first - 1, self._vote.value.epoch)
            data, ends, links = _packed(entries, offset, stamp)
        else:  # what was cut off is not read any more
            data, ends, links = bytes(RECORD_BYTES), array("Q"), array("I")
        self._write(self._vote.value.active, data, offset)
        self._ends += ends
        self._links += links

    def rewrite(self, entries: Sequence[Entry]) -> None:
        """Write the whole log into the other file, durably, and let that one count."""
        if not self._vote.whole:  # a change of it failed: perhaps the other file counts
            self._vote.remember()
        vote = self._vote.value
        header = Header(vote.node_id, vote.cluster, vote.epoch + 1, entries[0][1], self._vote.level)
        packed = log_records.pack_header(header)
        links = array("I", [log_records.link_of(packed)])
        # A log that this one replaces proves nothing of it, nor does this one before it counts.
        data, ends, more = _packed(entries, len(packed), Stamp(links[0], 0, header.epoch))
        other = 1 - vote.active
        self._write(other, packed + data, 0)
        self._vote.remember(
            epoch=header.epoch, begun=header.epoch, active=other, durable=entries[-1][1]
        )
        self._header, self._ends, self._links = header, ends, links + more

    def clear(self) -> None:
        """Forget every entry, durably."""
        self._vote.remember(epoch=self._vote.value.epoch + 1, begun=0, durable=0)
        self._header, self._ends, self._links = None, array("Q"), array("I")

    def close(self) -> None:
        """Close both files."""
        for fd in self._descriptors:
            self._files.close(fd)

    def _write(self, number: int, data: bytes, offset: int) -> None:
        if offset + len(data) > self._size:
            raise OSError(EFBIG, "the log has become longer than its file")
        fd = self._descriptors[number]
        self._files.write(fd, data, offset)
        self._files.sync(fd)


def _packed(
    entries: Sequence[Entry], offset: int, stamp: Stamp
) -> tuple[bytes, array[int], array[int]]:
    """Return records, where each ends, and what the next one must point back to."""
    parts: list[bytes] = []
    ends, links = array("Q"), array("I")
    for entry in entries:
        record, check = log_records.pack(entry, stamp)
        stamp = stamp._replace(link=check)
        offset += len(record)
        parts.append(record)
        ends.append(offset)
        links.append(check)
    return b"".join(parts), ends, links


def allocate(files: Files, path: Path, size: int) -> None:
    """Make a file of zeros, durably, whose room is taken; it appears whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    fd = files.open(new, create=True)
    try:
        step = min(size, 1 << 20)
        zeros = bytes(step)
        for offset in range(0, size, step):
            files.write(fd, zeros[: size - offset], offset)
        files.sync(fd)
    finally:
        files.close(fd)
    files.rename(new, path)


def load(directory: Path, vote_file: HardStateFile) -> Loaded:
    """Read the log of a journal; change nothing.

    Raises:
        StartupError: Damage, or a file that does not belong here.
        OSError: A file cannot be read.
    """
    vote, loaded = vote_file.value, Loaded()
    if not vote.begun:
        return loaded
    path = directory / NAMES[vote.active]
    data = path.read_bytes()
    header = _header(path, data, vote_file)
    if header.epoch != vote.begun:
        raise damage(path, f"it was begun in epoch {header.epoch}, by `vote` in {vote.begun}")
    loaded.header = header
    loaded.links.append(log_records.link_of(data))
    _read(data, loaded, epoch_max=vote.epoch)
    _judge(path, data, loaded, vote_file)
    return loaded


def damage(path: Path, found: str) -> StartupError:
    """Return the error for a file that must not be used and not be touched."""
    to_do = MOVE_AWAY.format(directory=path.parent)
    return StartupError(tried=f"read the journal {path}", found=found, to_do=to_do)


def _header(path: Path, data: bytes, vote_file: HardStateFile) -> Header:
    vote = vote_file.value
    try:
        header = log_records.unpack_header(data)
    except ForeignError as error:
        if error.level is None:
            raise damage(path, str(error)) from error
        to_do = other_level(path.parent.parent, error.level)
        raise StartupError(
            tried=f"read the journal {path}", found=str(error), to_do=to_do
        ) from error
    if header is None:
        raise damage(path, "its header is damaged")
    for name, mine, its in zip(
        ("node", "cluster"), (vote.node_id, vote.cluster), header[:2], strict=True
    ):
        if mine and its and mine != its:
            raise damage(path, f"it belongs to {name} {its!r}, not to {mine!r}")
    return header


def _read(data: bytes, loaded: Loaded, *, epoch_max: int) -> None:
    """Read records up to the first one that does not continue the log."""
    view = memoryview(data)
    assert loaded.header is not None
    index, epoch = loaded.header.first, loaded.header.epoch
    while True:
        record = log_records.record_at(view, loaded.size)
        if record is None or record.stamp.link != loaded.links[-1] or record.entry[1] != index:
            return
        if not epoch <= record.stamp.epoch <= epoch_max:
            return
        loaded.entries.append(record.entry)
        loaded.ends.append(record.end)
        loaded.links.append(record.check)
        index, epoch = index + 1, record.stamp.epoch


def _judge(path: Path, data: bytes, loaded: Loaded, vote_file: HardStateFile) -> None:
    """Say what was cut off; raise if it had been on disk."""
    vote, last, position = vote_file.value, loaded.last, loaded.size
    why = f"the record of entry {last + 1} is incomplete or damaged"
    if last < vote.durable:
        found = f"the log ends with entry {last}, but {vote.durable} had been synced"
        raise damage(path, f"at offset {position} {why}: {found}")
    later = log_records.later_records(data, position, epoch=vote.epoch)
    proof = max((record.stamp.durable for record in later), default=0)
    if proof > last:
        raise damage(path, f"at offset {position} {why}; {proof} had been synced")
    if log_records.begun_at(data, position, index=last + 1, epoch=vote.epoch):
        loaded.report = f"{path}: cut off what was being written behind entry {last}: {why}"


def old_format(directory: Path) -> StartupError | None:
    """Return the error for a journal of an older hanat, None if it is none."""
    for path in sorted(directory.glob("*.log")):
        to_do = OTHER_FORMAT.format(directory=directory.parent)
        found = "an older hanat wrote it"
        return StartupError(tried=f"read the journal {path}", found=found, to_do=to_do)
    return None
