"""Raft's messages as bytes, by layout; nothing from the network is unpickled.

The library hands us dictionaries. Each kind has one layout a feature level here, with its
extra fields (generation, flags) that `guard` adds. A message that
does not fit its layout, or a kind that is not in the table, is a `WireError`.

Commands: the library would keep a log entry as one type byte and a pickle of a method call. Ours
are the type byte and the bytes for our state machine, which `replica` applies instead of the
library. Only those bytes travel, so a peer can at most choose what our state machine will parse.
The library's own command types for changing members or code versions are never sent and never
accepted.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from struct import error as StructFault  # noqa: N812 - `error` says too little
from typing import Any

from hanat.core.feature_level import LEVEL_MAX, OLDEST, is_readable, readable
from hanat.core.history import EVENT_BYTES_MAX
from hanat.errors import WireError

Message = dict[str, Any]
Entry = tuple[bytes, int, int]

NO_OP = b"\x01"
REGULAR = b"\x00"
ENTRIES_MAX = 4096
CONTENT_BYTES_MAX = 256 * 1024

_APPEND = Struct("!QQQQQQI")
_ENTRY = Struct("!QBI")
_NEXT = Struct("!QBQQ")
_VOTE = Struct("!QQQB")
_PRE_VOTE = Struct("!QQQQ")
_ONE = Struct("!Q")
_PIECE = Struct("!QQQQ32sQ")
_PIECE_ACK = Struct("!QQQB")
_EVENT = Struct("!QI")
_ACK_KINDS = ("stored", "from_here", "installed", "refused", "damaged")


def wrap(data: bytes) -> bytes:
    """Return the log entry that stands for applying `data`."""
    return REGULAR + data


def unwrap(command: bytes) -> bytes | None:
    """Return the data of a log entry, None for the library's no-op."""
    if command == NO_OP:
        return None
    assert command[:1] == REGULAR, f"log entry of unknown type {command[:1]!r}"
    return command[1:]


def level_of(command: bytes) -> int:
    """Return the feature level that a log entry was written in; the library's no-op has all."""
    return command[1] if command[:1] == REGULAR and len(command) > 1 else LEVEL_MAX


def encode(message: Message, level: int = OLDEST) -> bytes:
    """Return the bytes of a message, in a feature level.

    Raises:
        WireError: A kind that has no layout.
    """
    layout = _LAYOUTS[level].get(message["type"])
    if layout is None:
        raise WireError(f"message type {message['type']!r} has no layout")
    code, pack, _ = layout
    return bytes((level, code)) + pack(message)


def decode(data: bytes) -> Message:
    """Return the message that `encode` made bytes of.

    Raises:
        WireError: Unknown level or kind, wrong length, value out of range.
    """
    if len(data) <= 1 or not is_readable(data[0]):
        raise WireError(f"a message of feature level {data[:1]!r}, this node reads {readable()}")
    layout = _CODES[data[0]].get(data[1])
    if layout is None:
        raise WireError(f"a message of unknown kind {data[1]}")
    kind, unpack = layout
    try:
        message = unpack(data[2:])
    except (StructFault, ValueError) as error:
        raise WireError(f"a damaged {kind} message of {len(data)} bytes: {error}") from error
    message["type"] = kind
    return message


def _pack_append(m: Message) -> bytes:
    entries: list[Entry] = m["entries"]
    parts = [
        _APPEND.pack(m["term"], m["commit_index"], m["prevLogIdx"], m["prevLogTerm"],
                     m["gen"], m["last"], len(entries))
    ]  # fmt: skip
    for command, _, term in entries:
        data = unwrap(command)
        parts.append(_ENTRY.pack(term, data is None, len(data or b"")))
        parts.append(data or b"")
    return b"".join(parts)


def _unpack_append(data: bytes) -> Message:
    term, commit, prev, prev_term, gen, last, count = _APPEND.unpack_from(data)
    if count > ENTRIES_MAX:
        raise ValueError(f"{count} entries, at most {ENTRIES_MAX}")
    entries: list[Entry] = []
    position = _APPEND.size
    for index in range(prev + 1, prev + 1 + count):
        entry_term, is_no_op, size = _ENTRY.unpack_from(data, position)
        position += _ENTRY.size
        if position + size > len(data):
            raise ValueError("an entry reaches beyond the end")
        payload = data[position : position + size]
        position += size
        entries.append((NO_OP if is_no_op else wrap(payload), index, entry_term))
    _exactly(data, position)
    return {
        "term": term, "commit_index": commit, "prevLogIdx": prev, "prevLogTerm": prev_term,
        "gen": gen, "last": last, "entries": entries,
    }  # fmt: skip


def _pack_next(m: Message) -> bytes:
    flags = bool(m["reset"]) | bool(m["success"]) << 1 | bool(m["fit"]) << 2
    return _NEXT.pack(m["next_node_idx"], flags, m["term"], m["gen"] or 0)


def _unpack_next(data: bytes) -> Message:
    index, flags, term, gen = _NEXT.unpack(data)
    return {
        "next_node_idx": index, "reset": bool(flags & 1), "success": bool(flags & 2),
        "fit": bool(flags & 4), "term": term, "gen": gen or None,
    }  # fmt: skip


def _pack_vote(m: Message) -> bytes:
    flags = bool(m.get("transfer")) | bool(m.get("all")) << 1
    return _VOTE.pack(m["term"], m["last_log_index"], m["last_log_term"], flags)


def _unpack_vote(data: bytes) -> Message:
    term, index, last_term, flags = _VOTE.unpack(data)
    return {
        "term": term, "last_log_index": index, "last_log_term": last_term,
        "transfer": bool(flags & 1), "all": bool(flags & 2),
    }  # fmt: skip


def _pack_pre_vote(m: Message) -> bytes:
    return _PRE_VOTE.pack(m["term"], *m["last"], m["round"])


def _unpack_pre_vote(data: bytes) -> Message:
    term, index, last_term, number = _PRE_VOTE.unpack(data)
    return {"term": term, "last": (index, last_term), "round": number}


def _pack_piece(m: Message) -> bytes:
    data: bytes = m["data"]
    return _PIECE.pack(m["term"], *m["last"], m["size"], m["digest"], m["offset"]) + data


def _unpack_piece(data: bytes) -> Message:
    term, index, last_term, size, digest, offset = _PIECE.unpack_from(data)
    piece = data[_PIECE.size :]
    if size == 0:
        raise ValueError("a piece of nothing")
    if offset + len(piece) > size:
        raise ValueError(f"a piece of {len(piece)} bytes at {offset} of {size}")
    return {
        "term": term, "last": (index, last_term), "size": size, "digest": digest,
        "offset": offset, "data": piece,
    }  # fmt: skip


def _pack_piece_ack(m: Message) -> bytes:
    return _PIECE_ACK.pack(m["term"], m["index"], m["offset"], _ACK_KINDS.index(m["kind"]))


def _unpack_piece_ack(data: bytes) -> Message:
    term, index, offset, kind = _PIECE_ACK.unpack(data)
    if kind >= len(_ACK_KINDS):
        raise ValueError(f"an answer of kind {kind}")
    return {"term": term, "index": index, "offset": offset, "kind": _ACK_KINDS[kind]}


def _pack_event(m: Message) -> bytes:
    event: bytes = m["event"]
    return _EVENT.pack(m["origin"], m["serial"]) + event


def _unpack_event(data: bytes) -> Message:
    origin, serial = _EVENT.unpack_from(data)
    event = data[_EVENT.size :]
    if len(event) > EVENT_BYTES_MAX:
        raise ValueError(f"an event of {len(event)} bytes, at most {EVENT_BYTES_MAX}")
    return {"origin": origin, "serial": serial, "event": event}


def _content(field: str) -> tuple[Callable[[Message], bytes], Callable[[bytes], Message]]:
    """Return the layout of a message that is opaque here, and bounded."""

    def pack(message: Message) -> bytes:
        content: bytes = message[field]
        return content

    def unpack(data: bytes) -> Message:
        if len(data) > CONTENT_BYTES_MAX:
            raise ValueError(f"{field} of {len(data)} bytes, at most {CONTENT_BYTES_MAX}")
        return {field: data}

    return pack, unpack


def _one(field: str) -> tuple[Callable[[Message], bytes], Callable[[bytes], Message]]:
    """Return the layout of a message with one number."""

    def unpack(data: bytes) -> Message:
        return {field: _ONE.unpack(data)[0]}

    return lambda m: _ONE.pack(m[field]), unpack


def _exactly(data: bytes, end: int) -> None:
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes too many")


_KINDS: dict[str, tuple[int, Callable[[Message], bytes], Callable[[bytes], Message]]] = {
    "append_entries": (1, _pack_append, _unpack_append),
    "next_node_idx": (2, _pack_next, _unpack_next),
    "request_vote": (3, _pack_vote, _unpack_vote),
    "response_vote": (4, *_one("term")),
    "timeout_now": (5, *_one("term")),
    "pre_vote": (6, _pack_pre_vote, _unpack_pre_vote),
    "pre_vote_ok": (7, *_one("round")),
    "stale_term": (8, *_one("term")),
    "pre_vote_if_all": (9, *_one("round")),
    "snapshot": (10, _pack_piece, _unpack_piece),
    "snapshot_ack": (11, _pack_piece_ack, _unpack_piece_ack),
    "event": (12, _pack_event, _unpack_event),
    "records": (13, *_content("records")),  # of servers, to be proposed (`core.server_records`)
    "views": (14, *_content("views")),  # how the sender sees servers (`core.views`)
}
_LAYOUTS = {5: _KINDS}  # by feature level
_CODES = {
    level: {code: (kind, unpack) for kind, (code, _, unpack) in kinds.items()}
    for level, kinds in _LAYOUTS.items()
}
