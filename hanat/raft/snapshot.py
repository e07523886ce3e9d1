"""A snapshot: everything that the log up to an entry led to, as one file.

    header:  magic, feature level, cluster
    parts:   kind, size, content; several of one kind belong together, in order
    end:     kind ``end``, size, digest (BLAKE2, 256 bits) of all before

The last two entries that it covers are parts like the others: the log goes on behind
them, and who sends the second must be able to send what it follows.

A file is whole or it is nothing: without the end, or with another digest, not one byte of
it is believed. Numbers are unsigned and little-endian.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from struct import Struct
from struct import error as StructFault  # noqa: N812 - `error` says too little

from hanat.core.feature_level import OLDEST, is_readable, readable
from hanat.errors import SnapshotError
from hanat.raft.messages import NO_OP, Entry, unwrap, wrap

MAGIC = b"hanatsnp"
DIGEST_BYTES = 32

_HEADER = Struct("<8sH32s")
_PART = Struct("<8sQ")
_ENTRY = Struct("<QQB")
_END = b"end"
_PREVIOUS, _LAST = b"previous", b"last"
HEADER_BYTES = _HEADER.size
END_BYTES = _PART.size + DIGEST_BYTES

Parts = Iterable[tuple[bytes, bytes]]  # kind, up to eight bytes, and content


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot that was read.

    Attributes:
        previous: The entry before the last one.
        last: The newest entry that it covers.
        sections: Content of the state machine, by kind.
        level: The feature level it was written in.
    """

    previous: Entry
    last: Entry
    sections: Mapping[bytes, bytes]
    level: int = OLDEST


def encode(
    cluster: str, previous: Entry, last: Entry, sections: Parts, level: int = OLDEST
) -> Iterator[bytes]:
    """Yield the bytes of a snapshot, in a feature level; of `sections` one part after the other."""
    digest = blake2b(digest_size=DIGEST_BYTES)

    def counted(data: bytes) -> bytes:
        digest.update(data)
        return data

    yield counted(_HEADER.pack(MAGIC, level, cluster.encode()))
    for kind, content in ((_PREVIOUS, _pack_entry(previous)), (_LAST, _pack_entry(last))):
        yield counted(_PART.pack(kind, len(content)) + content)
    for kind, content in sections:
        yield counted(_PART.pack(kind, len(content)))
        yield counted(content)
    yield _PART.pack(_END, DIGEST_BYTES) + digest.digest()


def decode(data: bytes, cluster: str, *, received: bool = False) -> Snapshot:
    """Return the snapshot that `encode` made bytes of.

    Args:
        data: The whole file.
        cluster: To which it must belong, empty if that does not matter.
        received: With a wrong digest, a strange header is damage as well.

    Raises:
        SnapshotError: It is torn or damaged, or somebody else's.
    """
    if not received:
        _check_header(data, cluster)
    end = len(data) - END_BYTES
    kind, size = _PART.unpack_from(data, end) if end >= HEADER_BYTES else (b"", 0)
    if (kind.rstrip(b"\0"), size) != (_END, DIGEST_BYTES):
        raise SnapshotError(f"it is incomplete: {len(data)} bytes without an end")
    view = memoryview(data)
    digest = blake2b(view[:end], digest_size=DIGEST_BYTES).digest()
    if digest != data[-DIGEST_BYTES:]:
        raise SnapshotError("it is damaged: its digest does not match")
    level = _check_header(data, cluster)
    parts: dict[bytes, list[memoryview]] = {}
    position = HEADER_BYTES
    while position < end:
        kind, size = _PART.unpack_from(view, position)
        position += _PART.size + size
        parts.setdefault(kind.rstrip(b"\0"), []).append(view[position - size : position])
    whole = {kind: b"".join(pieces) for kind, pieces in parts.items()}
    previous, last = _unpack_entry(whole.pop(_PREVIOUS)), _unpack_entry(whole.pop(_LAST))
    return Snapshot(previous, last, whole, level)


def digest_of(end: bytes) -> bytes:
    """Return what names a snapshot, from the last bytes of its file."""
    return end[-DIGEST_BYTES:]


def _check_header(data: bytes, cluster: str) -> int:
    """Return the feature level of a snapshot of this cluster; raises SnapshotError."""
    try:
        magic, level, owner = _HEADER.unpack_from(data)
    except StructFault as error:
        raise SnapshotError(f"it is incomplete: {len(data)} bytes") from error
    if magic != MAGIC:
        found = f"this is not a file of hanat, it starts with {data[:8]!r}"
        raise SnapshotError(found, damaged=False)
    if not is_readable(level):
        found = f"it has feature level {level}, this hanat reads {readable()}"
        raise SnapshotError(found, damaged=False)
    name = owner.rstrip(b"\0").decode(errors="replace")
    if cluster and name and name != cluster:
        raise SnapshotError(f"it belongs to cluster {name!r}, not to {cluster!r}", damaged=False)
    return int(level)


def _pack_entry(entry: Entry) -> bytes:
    command, index, term = entry
    content = unwrap(command)
    return _ENTRY.pack(index, term, content is None) + (content or b"")


def _unpack_entry(data: bytes) -> Entry:
    index, term, no_op = _ENTRY.unpack_from(data)
    return (NO_OP if no_op else wrap(data[_ENTRY.size :]), index, term)
