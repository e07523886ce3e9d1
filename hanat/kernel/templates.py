"""The fast way from ctnetlink messages to flow records and back: templates.

A busy router sends and gets messages of a handful of layouts. Both ways a template is
learnt from the slow code in `ctnetlink`, which then is asked no more:

- `Reader`: the attributes of a message are walked once, and where the values of a record
  are is remembered. Messages of the same length that agree with the first one in every
  byte that is no value (headers, attribute headers, protocol) are cut up at those places,
  many at once.
- `Writer`: each byte of a record is changed once, to see which bytes of the message follow
  it. Records of the same kind (family, protocol, status, flags) are pasted in there, many at
  once.

What fits no template takes the slow way, and so does everything when there are too many.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

from hanat.core.columns import NOTHING, WORTHWHILE, agree, cut
from hanat.core.flows import RECORD_V4, RESET_MARK
from hanat.kernel.ctnetlink import (
    BODY_OFFSET,
    CTA_COUNTERS_BYTES,
    CTA_COUNTERS_ORIGINAL,
    CTA_COUNTERS_PACKETS,
    CTA_COUNTERS_REPLY,
    CTA_ID,
    CTA_MARK,
    CTA_PROTO_DST_PORT,
    CTA_PROTO_NUM,
    CTA_PROTO_SRC_PORT,
    CTA_PROTOINFO,
    CTA_PROTOINFO_TCP,
    CTA_STATUS,
    CTA_TIMEOUT,
    CTA_TUPLE_IP,
    CTA_TUPLE_ORIG,
    CTA_TUPLE_PROTO,
    CTA_TUPLE_REPLY,
    CTA_ZONE,
    ICMP_ATTRIBUTES,
    SCTP,
    counters_of,
    record_of,
)
from hanat.kernel.netlink import attributes

HEAD_BYTES = 6  # length and type of a message
TEMPLATES_MAX = 64  # a handful is normal

_Span = tuple[int, int]
_Spans = dict[int, _Span]
_Pieces = Callable[[bytes], tuple[bytes, ...]]
_Build = Callable[[bytes, int], bytes | None]

_ZEROS = bytes(16)  # behind a message, for values it lacks
_SEQUENCE_AND_PORT = (8, 16)  # of a netlink header
_PARSED = frozenset({
    CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_STATUS, CTA_TIMEOUT, CTA_MARK, CTA_ID, CTA_ZONE,
    CTA_PROTOINFO,
})  # fmt: skip

_COUNTERS = frozenset({CTA_COUNTERS_ORIGINAL, CTA_COUNTERS_REPLY})

_SEQUENCE_SPAN = (8, 12)
# Any other mark or zone might be one of very many.
_KNOWN_MARKS_NO_ZONE = (bytes(6), RESET_MARK.to_bytes(4, "big") + bytes(2))
_SHAPE = (*range(-20, -16), *range(-12, -5), -2, -1)  # columns of a record
_FLIP = 0x01


class _Template(NamedTuple):
    """How to get a record out of messages of one layout.

    Attributes:
        mask, fixed: A message is of the layout if, as a number, it has these bits.
        pieces: Cuts the values out of one message.
        columns: Where each byte of the record is in a message.
        constants: Places in a message, and the byte that all of the layout have there.
    """

    mask: int
    fixed: int
    pieces: _Pieces
    columns: tuple[int, ...]
    constants: tuple[tuple[int, bytes], ...]


class Reader:
    """A parser that learns; says the same as `ctnetlink.record_of`.

    Args:
        counters: Each record is followed by what `ctnetlink.counters_of` says.
    """

    def __init__(self, *, counters: bool = False) -> None:
        self._counters = counters
        self._templates: dict[bytes, list[_Template]] = {}
        self._count = 0

    def records(self, messages: Sequence[bytes]) -> list[bytes | None]:
        """Return the record in each message, None for other protocols than ours."""
        alike: dict[bytes, list[bytes]] = {}
        for message in messages:
            alike.setdefault(message[:HEAD_BYTES], []).append(message)
        if len(alike) == 1:
            return list(self._all_of(messages))
        found = {head: iter(self._all_of(some)) for head, some in alike.items()}
        return [next(found[message[:HEAD_BYTES]]) for message in messages]

    def _all_of(self, messages: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return the records of messages with one head."""
        if len(messages) >= WORTHWHILE and len(set(map(len, messages))) == 1:
            joined, size = b"".join(messages), len(messages[0])
            for template in self._templates.get(messages[0][:HEAD_BYTES], ()):
                if agree(joined, size, template.constants):
                    return cut(joined, size, template.columns)
        return list(map(self.record, messages))

    def record(self, message: bytes) -> bytes | None:
        """Return the record in one message, None for other protocols than ours."""
        known = self._templates.get(message[:HEAD_BYTES])
        if known is not None:
            number = int.from_bytes(message, "little")
            for mask, fixed, pieces, _, _ in known:
                if number & mask == fixed:
                    return b"".join(pieces(message + _ZEROS))
        return self._learn(message)

    def _learn(self, message: bytes) -> bytes | None:
        record = record_of(message, 0, len(message))
        if record is not None and self._counters:
            record += counters_of(message, 0, len(message))
        if record is None or self._count >= TEMPLATES_MAX:
            return record
        layout = _Layout(message, counters=self._counters)
        try:
            template = layout.template()
        except KeyError:  # the parser got along without an attribute
            return record
        if template is not None and b"".join(template.pieces(message + _ZEROS)) == record:
            self._templates.setdefault(message[:HEAD_BYTES], []).append(template)
            self._count += 1
        return record


class _Layout:
    """Where the values of a record are in a message."""

    def __init__(self, message: bytes, *, counters: bool) -> None:
        self._message, self._counters = message, counters
        # 0xFF for each byte that all messages of this layout share.
        self._mask = bytearray(b"\xff" * len(message))
        self._vary(_SEQUENCE_AND_PORT)
        self._top = self._inside((BODY_OFFSET, len(message)))

    def template(self) -> _Template | None:
        """Return how to read messages of this layout; None: not possible."""
        spans = self._spans()
        if spans is None:
            return None
        end, mask = len(self._message), int.from_bytes(self._mask, "little")
        columns = [c for first, last in spans for c in range(first, last)]
        return _Template(
            mask,
            int.from_bytes(self._message, "little") & mask,
            _cutter(spans),
            tuple(c if c < end else NOTHING for c in columns),
            tuple((c, self._message[c : c + 1]) for c in range(end) if self._mask[c]),
        )

    def _spans(self) -> list[_Span] | None:
        """Return where the values are, in the order of a record; None: not possible.

        What the message lacks is behind its end.
        """
        top = self._top
        parsed = _PARSED | _COUNTERS if self._counters else _PARSED
        for kind in top.keys() - parsed:
            self._vary(top[kind])
        if CTA_TUPLE_ORIG not in top or CTA_TUPLE_REPLY not in top:
            return None
        original = self._tuple(top[CTA_TUPLE_ORIG])
        reply = self._tuple(top[CTA_TUPLE_REPLY])
        numbers = [
            self._value(top, kind, size)
            for kind, size in (
                (CTA_ID, 4), (CTA_STATUS, 4), (CTA_TIMEOUT, 4), (CTA_MARK, 4), (CTA_ZONE, 2)
            )
        ]  # fmt: skip
        protocol = original.pop()
        if self._message[protocol[0]] == SCTP:
            return None  # its values are elsewhere
        reply.pop()
        spans = [
            *original[:2], *reply[:2], *original[2:], *reply[2:], *numbers, protocol, *self._tcp()
        ]  # fmt: skip
        return spans + self._counted() if self._counters else spans

    def _tuple(self, span: _Span) -> list[_Span]:
        """Return source, destination, the parts of the ports and the protocol."""
        parts = self._inside(span)
        addresses, proto = self._inside(parts[CTA_TUPLE_IP]), self._inside(parts[CTA_TUPLE_PROTO])
        protocol = proto[CTA_PROTO_NUM]
        number = self._message[protocol[0]]
        ports = ICMP_ATTRIBUTES.get(number, (CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT))
        found = [addresses[kind] for kind in sorted(addresses)] + [proto[kind] for kind in ports]
        for value in found:
            self._vary(value)
        return [*found, protocol]

    def _tcp(self) -> list[_Span]:
        """Return state, both window scales and both flags: a byte each."""
        found: _Spans = {}
        if CTA_PROTOINFO in self._top:
            infos = self._inside(self._top[CTA_PROTOINFO])
            if CTA_PROTOINFO_TCP in infos:
                found = self._inside(infos[CTA_PROTOINFO_TCP])
        for span in found.values():
            self._vary(span)
        spans = [self._value(found, kind, 1) for kind in (1, 2, 3, 4, 5)]
        return [(first, first + 1) for first, _ in spans]

    def _counted(self) -> list[_Span]:
        """Return packets and bytes of both directions."""
        spans: list[_Span] = []
        for direction in (CTA_COUNTERS_ORIGINAL, CTA_COUNTERS_REPLY):
            found = self._inside(self._top[direction]) if direction in self._top else {}
            spans += [
                self._value(found, kind, 8) for kind in (CTA_COUNTERS_PACKETS, CTA_COUNTERS_BYTES)
            ]
        return spans

    def _value(self, found: _Spans, kind: int, size: int) -> _Span:
        end = len(self._message)
        span = found.get(kind, (end, end + size))
        if kind in found:
            self._vary(span)
        return span

    def _inside(self, span: _Span) -> _Spans:
        return {kind: (first, last) for kind, first, last in attributes(self._message, *span)}

    def _vary(self, span: _Span) -> None:
        first, last = span
        self._mask[first:last] = bytes(last - first)


def _cutter(spans: Iterable[_Span]) -> _Pieces:
    """Return what cuts pieces out of bytes; neighbours become one piece."""
    joined: list[_Span] = []
    for first, last in spans:
        if joined and joined[-1][1] == first:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    if len(joined) == 1:
        only = slice(*joined[0])
        return lambda data: (data[only],)
    return itemgetter(*(slice(first, last) for first, last in joined))


class Writer:
    """Makes messages as a function of `ctnetlink` does, from what it learnt of that.

    Many of a kind are made at once, by column: a byte of all records goes to its place in
    all messages with one operation of the interpreter.

    Args:
        build: Returns the message for a record and a sequence number, None if there is none.
    """

    def __init__(self, build: _Build) -> None:
        self._build = build
        self._templates: dict[bytes, tuple[bytes, list[tuple[int, int]]] | None] = {}

    def chunks(
        self, records: Sequence[bytes], *, bytes_max: int, unable: list[int]
    ) -> Iterator[bytes]:
        """Yield the messages of records, in any order, each with its place as sequence number.

        Args:
            records: Flows.
            bytes_max: A chunk is no longer; more than any message.
            unable: Takes the places of those for which there is no message.
        """
        slow: list[int] = []
        for shape, places in _by_shape(records).items():
            template = self._template(shape, records[places[0]])
            if template is None:
                slow += places
                continue
            step = bytes_max // len(template[0])
            for first in range(0, len(places), step):
                yield _pasted(template, records, places[first : first + step])
        parts: list[bytes] = []
        length = 0
        for place in slow:
            message = self._build(records[place], place)
            if message is None:
                unable.append(place)
                continue
            if length + len(message) > bytes_max:
                yield b"".join(parts)
                parts, length = [], 0
            parts.append(message)
            length += len(message)
        if parts:
            yield b"".join(parts)

    def _template(self, shape: bytes, record: bytes) -> tuple[bytes, list[tuple[int, int]]] | None:
        try:
            return self._templates[shape]
        except KeyError:
            # What SCTP has in the place of flags is another value for each flow.
            known = record[-12:-6] in _KNOWN_MARKS_NO_ZONE and record[-6] != SCTP
            if len(self._templates) >= TEMPLATES_MAX or not known:
                return None
        found = self._templates[shape] = self._probed(record)
        return found

    def _probed(self, record: bytes) -> tuple[bytes, list[tuple[int, int]]] | None:
        """Return a message and which of its bytes are copies of which of the record's."""
        message = self._build(record, 0)
        if message is None:
            return None
        size = len(record)
        fixed = {*range(size - 20, size - 16), *range(size - 12, size - 5), size - 2, size - 1}
        sources: dict[int, int] = {}
        for place in sorted(set(range(size)) - fixed):
            changed = bytearray(record)
            changed[place] ^= _FLIP
            other = self._build(bytes(changed), 0)
            if other is None or len(other) != len(message):
                return None
            for i, byte in enumerate(other):
                if byte != message[i]:
                    if message[i] != record[place] or byte != changed[place]:
                        return None  # not a copy: computed
                    sources[i] = place
        return message, sorted(sources.items())


def _by_shape(records: Sequence[bytes]) -> dict[bytes, Sequence[int]]:
    """Return the places of records that agree in status, mark, zone, protocol, flags, family."""
    sizes = set(map(len, records))
    if len(records) >= WORTHWHILE and len(sizes) == 1:
        (size,) = sizes
        shapes = cut(b"".join(records), size, [size + column for column in _SHAPE])
        if len(set(shapes)) == 1:
            return {_shape_of(records[0]): range(len(records))}
    found: dict[bytes, list[int]] = {}
    for place, record in enumerate(records):
        shape = _shape_of(record)
        try:
            found[shape].append(place)
        except KeyError:
            found[shape] = [place]
    return {**found}


def _shape_of(record: bytes) -> bytes:
    shape = record[-20:-16] + record[-12:-5] + record[-2:]
    return shape if len(record) == RECORD_V4.size else shape + b"6"


def _pasted(
    template: tuple[bytes, list[tuple[int, int]]], records: Sequence[bytes], places: Sequence[int]
) -> bytes:
    message, sources = template
    joined = b"".join([records[place] for place in places])
    size, length = len(joined) // len(places), len(message)
    made = bytearray(message * len(places))
    columns: dict[int, bytes] = {}
    for target, source in sources:
        column = columns.get(source)
        if column is None:
            column = columns[source] = joined[source::size]
        made[target::length] = column
    first, last = _SEQUENCE_SPAN
    sequences = array("I", places).tobytes()
    for offset in range(last - first):
        made[first + offset :: length] = sequences[offset :: last - first]
    return bytes(made)
