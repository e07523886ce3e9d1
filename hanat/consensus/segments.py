"""The files of the log: a header, then one record an entry, appended only.

    segment: magic, format, node id, cluster, epoch, first index, link, check
    record:  marker, size and kind, link, index, term, durable, content, check

Every check is a CRC-32 over all before it in its record or header. The link is the
check of the record before, across segments: a record that was left over from an
older version of the log does not fit, even if its index does. `durable` is the
highest index that had been synced when the record was written: after a machine crash
it tells damage from a tail that was never on disk.

What is stored is the content of an entry, not the library's pickle of it.
Numbers are unsigned and little-endian; offsets have no limit below 2**64.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from hanat.consensus.codec import NO_OP, Entry, unwrap, wrap
from hanat.consensus.files import Files

MAGIC = b"hanatlog"
VERSION = 1
MARKER = b"\xe1hn\n"
SEGMENT_BYTES_MAX = 16 << 20  # a head cut frees whole segments; 16 MiB is 0.1 s to read

_HEADER = Struct("<8sHI32sQQI")
_CHECK = Struct("<I")
_RECORD = Struct("<4sIIQQQ")
_IS_NO_OP = 1 << 31
HEADER_BYTES = _HEADER.size + _CHECK.size
RECORD_BYTES = _RECORD.size + _CHECK.size  # of an entry without content

_BEHIND_CONTENT = wrap(b"")[-6:]
_SHORT_BYTES_MAX = 2048
_before_content: dict[int, bytes] = {}


class Header(NamedTuple):
    """What a segment says about itself."""

    node_id: int
    cluster: str
    epoch: int
    first: int
    link: int


class ForeignError(Exception):
    """A file that another program, or another version of this one, wrote."""


@dataclass(slots=True)
class Segment:
    """One file of the log and where its records end.

    Attributes:
        size: Bytes of the file that count.
        link: What the next record must point back to.
        following: Index of the entry that comes next.
        ends: Offset behind each record, oldest first.
        checks: Check of each record, oldest first.
        fd: Open only while it is written to.
        unsynced: It has records that may not be on disk.
        ragged: A failed append may have left bytes behind the last record.
    """

    path: Path
    header: Header
    size: int = HEADER_BYTES
    link: int = field(init=False)
    following: int = field(init=False)
    ends: array[int] = field(default_factory=lambda: array("Q"))
    checks: array[int] = field(default_factory=lambda: array("I"))
    fd: int | None = None
    unsynced: bool = False
    ragged: bool = False

    def __post_init__(self) -> None:
        self.link, self.following = self.header.link, self.header.first

    def note(self, end: int, check: int) -> None:
        """Count a record that is in the file."""
        self.size, self.link = end, check
        self.following += 1
        self.ends.append(end)
        self.checks.append(check)

    def append(self, files: Files, entry: Entry, durable: int) -> None:
        """Write a record behind the last one.

        Raises:
            OSError: Nothing was appended.
        """
        fd, offset = self.fd, self.size
        assert fd is not None, "append to a closed segment"
        command, index, term = entry
        content, kind = content_of(command), 0
        if content is None:
            content, kind = b"", _IS_NO_OP
        head = _RECORD.pack(MARKER, len(content) | kind, self.link, index, term, durable)
        check = zlib.crc32(content, zlib.crc32(head))
        record = b"".join((head, content, check.to_bytes(4, "little")))
        if self.ragged:
            self._tidy(files, offset)
        try:
            files.write(fd, record, offset)
        except OSError:
            self.ragged = True
            self._tidy(files, offset)
            raise
        self.unsynced = True
        self.size, self.link, self.following = offset + len(record), check, index + 1
        self.ends.append(self.size)
        self.checks.append(check)

    def _tidy(self, files: Files, size: int) -> None:
        assert self.fd is not None
        files.truncate(self.fd, size)
        self.ragged = False

    def cut(self, files: Files, count: int) -> None:
        """Keep only the first `count` records, durably."""
        fd = files.open(self.path) if self.fd is None else self.fd
        files.truncate(fd, self.ends[count - 1] if count else HEADER_BYTES)
        files.sync(fd)
        self.fd = fd
        del self.ends[count:], self.checks[count:]
        self.size = self.ends[-1] if count else HEADER_BYTES
        self.link = self.checks[-1] if count else self.header.link
        self.following = self.header.first + count
        self.ragged = self.unsynced = False


def path_of(directory: Path, first: int) -> Path:
    """Return the name of the segment that starts with an entry."""
    return directory / f"{first:020d}.log"


def create(directory: Path, files: Files, header: Header) -> Segment:
    """Create a segment without records; nothing is synced.

    Raises:
        OSError: A file may be there, with a part of the header at most.
    """
    path = path_of(directory, header.first)
    fd = files.open(path, create=True)
    try:
        files.write(fd, pack_header(header), 0)
    except OSError:
        files.close(fd)
        files.remove(path)
        raise
    return Segment(path, header, fd=fd)


def pack_header(header: Header) -> bytes:
    """Return the bytes of a header."""
    body = _HEADER.pack(
        MAGIC, VERSION, header.node_id, header.cluster.encode(), header.epoch, header.first,
        header.link,
    )  # fmt: skip
    return body + _CHECK.pack(zlib.crc32(body))


def unpack_header(data: bytes) -> Header | None:
    """Return the header of a segment, None if it is damaged or not all there.

    Raises:
        ForeignError: It was written by somebody else or by another version.
    """
    body = data[: _HEADER.size]
    if len(data) < HEADER_BYTES or not any(data[: len(MAGIC)]):
        return None
    magic, version, node_id, cluster, epoch, first, link = _HEADER.unpack(body)
    if magic != MAGIC:
        raise ForeignError(f"this is not a file of hanat, it starts with {data[:8]!r}")
    if version != VERSION:
        raise ForeignError(f"it has format {version}, this hanat reads format {VERSION}")
    if data[_HEADER.size : HEADER_BYTES] != _CHECK.pack(zlib.crc32(body)):
        return None
    return Header(node_id, cluster.rstrip(b"\0").decode(), epoch, first, link)


def read_records(data: bytes, segment: Segment, entries: list[Entry]) -> str:
    """Read records into `segment` and `entries` up to the end or to the first bad one.

    Returns:
        What is wrong with the record behind the last good one, empty at the end.
    """
    view = memoryview(data)
    position, link = HEADER_BYTES, segment.header.link
    index = segment.header.first
    while position < len(data):
        record = _record_at(view, position)
        if record is None:
            return f"the record of entry {index} is incomplete or its checksum does not match"
        if (record.link, record.entry) != (link, index):
            return f"the record of entry {index} does not continue the one before"
        content = view[position + _RECORD.size : record.end - _CHECK.size]
        entries.append((NO_OP if record.no_op else wrap(bytes(content)), index, record.term))
        segment.note(record.end, record.check)
        position, link, index = record.end, record.check, index + 1
    return ""


class Record(NamedTuple):
    """A record that proves itself by its check, without its content."""

    end: int
    check: int
    no_op: bool
    link: int
    entry: int
    term: int
    durable: int


def _record_at(view: memoryview, position: int) -> Record | None:
    """Return the record at an offset if it is whole."""
    if position + RECORD_BYTES > len(view):
        return None
    marker, size, *rest = _RECORD.unpack_from(view, position)
    no_op, end = bool(size & _IS_NO_OP), position + RECORD_BYTES + (size & ~_IS_NO_OP)
    if marker != MARKER or end > len(view):
        return None
    (check,) = _CHECK.unpack_from(view, end - _CHECK.size)
    if zlib.crc32(view[position : end - _CHECK.size]) != check:
        return None
    return Record(end, check, no_op, *rest)


def claimed_end(data: bytes, position: int) -> int:
    """Return where the bad record at an offset would end, by the size it gives itself."""
    if position + RECORD_BYTES > len(data):
        return position + RECORD_BYTES
    _, size, *_ = _RECORD.unpack_from(data, position)
    return position + RECORD_BYTES + int(size & ~_IS_NO_OP)


def whole_records(data: bytes, position: int) -> Iterator[Record]:
    """Yield every record at or behind an offset that proves itself."""
    view = memoryview(data)
    position = data.find(MARKER, position)
    while position >= 0:
        record = _record_at(view, position)
        if record is not None:
            yield record
        position = data.find(MARKER, position + 1 if record is None else record.end)


def content_of(command: bytes) -> bytes | None:
    """Return what `unwrap` does, 1 µs faster for short entries.

    What `wrap` puts before the content depends on nothing but its length.
    """
    before = _before_content.get(len(command))
    if before and command.startswith(before) and command.endswith(_BEHIND_CONTENT):
        return command[len(before) : -len(_BEHIND_CONTENT)]
    content = unwrap(command)
    if content is not None and len(content) < _SHORT_BYTES_MAX:
        before = command[: -len(content) - len(_BEHIND_CONTENT)]
        assert command == before + content + _BEHIND_CONTENT, "an entry that is not of `wrap`"
        _before_content[len(command)] = before
    return content
