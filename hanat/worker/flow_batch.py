"""A batch of flow changes as bytes: what one log entry carries.

Records of one kind and family are laid out by column: first the first byte of
every record, then the second, and so on. Neighbouring flows share most of their
addresses, so this compresses to about 10 bytes a flow where whole records need
19, at a third of the time.

Layout: feature level (`core.feature_level`), number of groups, then per group kind, record size
and count; then all columns, compressed together. A flow appears once in a batch, so the
order of the groups does not matter.

In place of the number of groups a batch can say that a resync begins or ends, followed
by its number: all flows there are come between the two, among those that change.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from struct import Struct
from struct import error as StructFault  # noqa: N812 - `error` says too little
from typing import NamedTuple

from hanat.core.feature_level import OLDEST, is_readable, readable
from hanat.core.flows import RECORD_V4, RECORD_V6, ChangeKind
from hanat.errors import WireError

CHANGES_MAX = 1000  # one entry commits in milliseconds and installs in a few more

_BEGIN, _END = 0xFE, 0xFF
_HEAD = Struct("!BB")
_MARK = Struct("!BBQ")
_GROUP = Struct("!BBH")
_SIZES = (RECORD_V4.size, RECORD_V6.size)


@dataclass(frozen=True, slots=True)
class Mark:
    """A resync begins, or ends.

    Attributes:
        number: Another for each resync of a flow worker.
    """

    number: int
    ends: bool


def encode_mark(mark: Mark, level: int = OLDEST) -> bytes:
    """Return the batch that is a mark."""
    return _MARK.pack(level, _END if mark.ends else _BEGIN, mark.number)


def is_mark(batch: bytes) -> bool:
    """Say whether a batch is a mark, without reading the rest."""
    return len(batch) == _MARK.size and batch[1] in {_BEGIN, _END}


def is_end(batch: bytes) -> bool:
    """Say whether a batch is the mark at the end of a resync, without reading the rest."""
    return is_mark(batch) and batch[1] == _END


class Changes(NamedTuple):
    """The records of a batch, by what happened to the flows."""

    put: list[bytes]
    gone: list[bytes]


def encode(changes: Changes, level: int = OLDEST) -> bytes:
    """Return a batch of at most `CHANGES_MAX` changes of different flows."""
    assert len(changes.put) + len(changes.gone) <= CHANGES_MAX, "more than fit into a batch"
    heads: list[bytes] = []
    columns: list[bytes] = []
    for kind, all_records in ((ChangeKind.PUT, changes.put), (ChangeKind.DELETE, changes.gone)):
        for size in _SIZES:
            records = [record for record in all_records if len(record) == size]
            if records:
                heads.append(_GROUP.pack(kind, size, len(records)))
                joined = b"".join(records)
                columns += [joined[column::size] for column in range(size)]
    packed = zlib.compress(b"".join(columns), 1)
    return _HEAD.pack(level, len(heads)) + b"".join(heads) + packed


def decode(batch: bytes) -> Changes | Mark:
    """Return the changes of a batch, or what it marks.

    Raises:
        WireError: Of a feature level that this version does not read, or damaged.
    """
    try:
        return _decode(batch)
    except (StructFault, ValueError, zlib.error) as error:
        raise WireError(f"a damaged flow batch of {len(batch)} bytes: {error}") from error


def _decode(batch: bytes) -> Changes | Mark:
    level, group_count = _HEAD.unpack_from(batch)
    if not is_readable(level):
        raise ValueError(f"feature level {level}, this hanat reads {readable()}")
    if group_count in {_BEGIN, _END}:
        _, _, number = _MARK.unpack(batch)
        return Mark(number, ends=group_count == _END)
    groups = [
        _GROUP.unpack_from(batch, _HEAD.size + number * _GROUP.size)
        for number in range(group_count)
    ]
    wanted = 0
    for kind, size, count in groups:
        if size not in _SIZES or not 0 < count <= CHANGES_MAX:
            raise ValueError(f"a group of {count} records of {size} bytes, kind {kind}")
        wanted += size * count
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(batch[_HEAD.size + group_count * _GROUP.size :], wanted + 1)
    if len(data) != wanted:
        raise ValueError(f"{len(data)} bytes unpacked, {wanted} announced")
    changes = Changes([], [])
    position = 0
    for kind, size, count in groups:
        records = changes.put if ChangeKind(kind) is ChangeKind.PUT else changes.gone
        joined = bytearray(size * count)
        for column in range(size):
            joined[column::size] = data[position : position + count]
            position += count
        whole = bytes(joined)
        records += [whole[start : start + size] for start in range(0, size * count, size)]
    return changes
