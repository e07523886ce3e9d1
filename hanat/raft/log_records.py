"""The bytes of the log: a header, then one record an entry, in a file of fixed size.

    header: magic, feature level, node id, cluster, epoch, first index, check
    record: marker, size and kind, link, index, term, durable, epoch, content, check

Every check is a CRC-32 over all before it in its record or header. The link is the
check of the record before, or of the header: a record that was left over from an older
version of the log does not fit, even if its index does. `durable` is the highest index
that had been synced when the record was written: it tells damage from a batch that was
never on disk. The epoch grows whenever something is overwritten, so that what is left
over from before proves nothing.

What is stored is the content of an entry, without the library's type byte.
Numbers are unsigned and little-endian.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from hanat.core.feature_level import OLDEST, is_readable, readable
from hanat.raft.messages import NO_OP, Entry, unwrap, wrap

MAGIC = b"hanatlog"
MARKER = b"\xe1hn\n"

_HEADER = Struct("<8sHI32sQQ")
_CHECK = Struct("<I")
_RECORD = Struct("<4sIIQQQQ")
_IS_NO_OP = 1 << 31
HEADER_BYTES = _HEADER.size + _CHECK.size
RECORD_BYTES = _RECORD.size + _CHECK.size  # of an entry without content


class Header(NamedTuple):
    """What a file of the log says about itself."""

    node_id: int
    cluster: str
    epoch: int
    first: int
    level: int = OLDEST  # see `core.feature_level`


class ForeignError(Exception):
    """A file that another program, or another version of this one, wrote.

    Attributes:
        level: The feature level of that version; None: of another program.
    """

    def __init__(self, found: str, level: int | None = None) -> None:
        super().__init__(found)
        self.level = level


def pack_header(header: Header) -> bytes:
    """Return the bytes of a header."""
    body = _HEADER.pack(
        MAGIC, header.level, header.node_id, header.cluster.encode(), header.epoch, header.first
    )
    return body + _CHECK.pack(zlib.crc32(body))


def link_of(header: bytes) -> int:
    """Return what the first record behind a header points back to."""
    (check,) = _CHECK.unpack_from(header, _HEADER.size)
    return int(check)


def unpack_header(data: bytes) -> Header | None:
    """Return the header of a file, None if it is damaged or not all there.

    Raises:
        ForeignError: It was written by somebody else or by another version.
    """
    body = data[: _HEADER.size]
    if len(data) < HEADER_BYTES or not any(data[: len(MAGIC)]):
        return None
    magic, level, node_id, cluster, epoch, first = _HEADER.unpack(body)
    if magic != MAGIC:
        raise ForeignError(f"this is not a file of hanat, it starts with {data[:8]!r}")
    if not is_readable(level):
        found = f"it has feature level {level}, this hanat reads {readable()}"
        raise ForeignError(found, level)
    if data[_HEADER.size : HEADER_BYTES] != _CHECK.pack(zlib.crc32(body)):
        return None
    return Header(node_id, cluster.rstrip(b"\0").decode(), epoch, first, level)


class Stamp(NamedTuple):
    """What a record says besides its entry; see the module."""

    link: int
    durable: int
    epoch: int


def pack(entry: Entry, stamp: Stamp) -> tuple[bytes, int]:
    """Return the record of an entry, and its check."""
    command, index, term = entry
    content, kind = unwrap(command), 0
    if content is None:
        content, kind = b"", _IS_NO_OP
    head = _RECORD.pack(
        MARKER, len(content) | kind, stamp.link, index, term, stamp.durable, stamp.epoch
    )
    check = zlib.crc32(content, zlib.crc32(head))
    return b"".join((head, content, check.to_bytes(4, "little"))), check


class Record(NamedTuple):
    """A record that proves itself by its check."""

    entry: Entry
    stamp: Stamp
    end: int
    check: int


def record_at(view: memoryview, position: int) -> Record | None:
    """Return the record at an offset if it is whole."""
    if position + RECORD_BYTES > len(view):
        return None
    marker, size, link, index, term, durable, epoch = _RECORD.unpack_from(view, position)
    no_op, end = bool(size & _IS_NO_OP), position + RECORD_BYTES + (size & ~_IS_NO_OP)
    if marker != MARKER or end > len(view):
        return None
    (check,) = _CHECK.unpack_from(view, end - _CHECK.size)
    if zlib.crc32(view[position : end - _CHECK.size]) != check:
        return None
    content = view[position + _RECORD.size : end - _CHECK.size]
    command = NO_OP if no_op else wrap(bytes(content))
    return Record((command, index, term), Stamp(link, durable, epoch), end, check)


def later_records(data: bytes, position: int, *, epoch: int) -> Iterator[Record]:
    """Yield every whole record of an epoch at or behind an offset."""
    view = memoryview(data)
    position = data.find(MARKER, position)
    while position >= 0:
        record = record_at(view, position) if _epoch_at(view, position) == epoch else None
        if record is not None:
            yield record
        position = data.find(MARKER, position + 1 if record is None else record.end)


def begun_at(data: bytes, position: int, *, index: int, epoch: int) -> bool:
    """Say whether the beginning of the record of an entry is at an offset."""
    view = memoryview(data)
    if _epoch_at(view, position) != epoch:
        return False
    marker, _, _, its_index, *_ = _RECORD.unpack_from(view, position)
    return bool(marker == MARKER and its_index == index)


def _epoch_at(view: memoryview, position: int) -> int:
    if position + RECORD_BYTES > len(view):
        return -1
    return int(_RECORD.unpack_from(view, position)[-1])
