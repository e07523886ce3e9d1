"""The fast way between messages and records says what the slow way says."""

from __future__ import annotations

from dataclasses import replace
from struct import error as StructFault  # noqa: N812 - `error` says too little

from hypothesis import given
from hypothesis import strategies as st

from hanat.core.flows import RESET_MARK, STATUS_DST_NAT, STATUS_SRC_NAT, Flow
from hanat.kernel import templates
from hanat.kernel.ctnetlink import (
    CT_DELETE,
    CT_NEW,
    CTA_COUNTERS_BYTES,
    CTA_COUNTERS_ORIGINAL,
    CTA_COUNTERS_PACKETS,
    CTA_COUNTERS_REPLY,
    CTA_ID,
    CTA_MARK,
    CTA_PROTOINFO,
    CTA_PROTOINFO_TCP,
    CTA_STATUS,
    CTA_TIMEOUT,
    CTA_TUPLE_ORIG,
    CTA_TUPLE_REPLY,
    CTA_ZONE,
    FAMILY_HEADER,
    ICMP,
    ICMPV6,
    TCP,
    UDP,
    counters_of,
    create_message,
    delete_message,
    record_of,
    reset_message,
    timeout_message,
    tuple_attribute,
)
from hanat.kernel.netlink import HEADER, attribute, nested
from hanat.kernel.templates import HEAD_BYTES, Reader, Writer
from tests.contract.flows import SETTLED, inbound
from tests.strategies import flows

WORD = st.integers(0, 2**32 - 1)
UNKNOWN = 40  # no attribute of the kernel that is read
LENGTH_OFFSETS = (0, 1)
NO_MESSAGE = "not a message of the kernel"


def event(flow: Flow, *, kind: int, sequence: int, port: int, present: frozenset[int]) -> bytes:
    """Return a message as the kernel sends it, with some of the optional attributes."""
    record = flow.to_record()
    size = 4 if len(record) == 48 else 16
    source, destination, reply_source, reply_destination = (
        record[place * size : (place + 1) * size] for place in range(4)
    )
    ports, reply_ports = record[4 * size : 4 * size + 4], record[4 * size + 4 : 4 * size + 8]
    tcp = b"".join(
        attribute(number, bytes((value,)))
        for number, value in enumerate((flow.tcp_state, *flow.tcp_scale), 1)
    ) + b"".join(
        attribute(number, bytes((value, 0))) for number, value in enumerate(flow.tcp_flags, 4)
    )
    parts = {
        CTA_TUPLE_ORIG: tuple_attribute(CTA_TUPLE_ORIG, source, destination, flow.protocol, ports),
        CTA_TUPLE_REPLY: tuple_attribute(
            CTA_TUPLE_REPLY, reply_source, reply_destination, flow.protocol, reply_ports
        ),
        CTA_ZONE: attribute(CTA_ZONE, flow.zone.to_bytes(2, "big")),
        CTA_ID: attribute(CTA_ID, flow.ident.to_bytes(4, "big")),
        CTA_STATUS: attribute(CTA_STATUS, flow.status.to_bytes(4, "big")),
        CTA_TIMEOUT: attribute(CTA_TIMEOUT, flow.timeout_s.to_bytes(4, "big")),
        CTA_PROTOINFO: nested(CTA_PROTOINFO, nested(CTA_PROTOINFO_TCP, tcp)),
        CTA_MARK: attribute(CTA_MARK, flow.mark.to_bytes(4, "big")),
        **{
            direction: nested(
                direction,
                attribute(CTA_COUNTERS_PACKETS, (sequence << 9 | direction).to_bytes(8, "big"))
                + attribute(CTA_COUNTERS_BYTES, (port << 31 | direction).to_bytes(8, "big")),
            )
            for direction in (CTA_COUNTERS_ORIGINAL, CTA_COUNTERS_REPLY)
        },
        UNKNOWN: attribute(UNKNOWN, sequence.to_bytes(4, "big")),
    }
    body = b"".join(parts[number] for number in parts if number in present)
    family = FAMILY_HEADER.pack(2 if size == 4 else 10, 0, 0)
    length = HEADER.size + len(family) + len(body)
    return HEADER.pack(length, kind, 0, sequence, port) + family + body


OPTIONAL = (
    CTA_ZONE, CTA_ID, CTA_STATUS, CTA_TIMEOUT, CTA_PROTOINFO, CTA_MARK, CTA_COUNTERS_ORIGINAL,
    CTA_COUNTERS_REPLY, UNKNOWN,
)  # fmt: skip
usual_flows = st.builds(
    lambda flow, protocol, status: replace(flow, protocol=protocol, status=status),
    flows(),
    st.sampled_from((TCP, UDP, ICMP, ICMPV6)),
    st.sampled_from((SETTLED | STATUS_DST_NAT, SETTLED | STATUS_SRC_NAT, 0)),
)
events = st.builds(
    lambda flow, kind, sequence, port, missing: event(
        flow,
        kind=kind,
        sequence=sequence,
        port=port,
        present=frozenset({CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, *OPTIONAL}) - missing,
    ),
    usual_flows,
    st.sampled_from((CT_NEW, CT_DELETE)),
    WORD,
    WORD,
    st.frozensets(st.sampled_from(OPTIONAL), max_size=2),
)


def counted(buffer: bytes, start: int, end: int) -> bytes | None:
    record = record_of(buffer, start, end)
    return None if record is None else record + counters_of(buffer, start, end)


PARSERS = {False: record_of, True: counted}  # without and with counters


@given(st.lists(events, max_size=60), st.booleans())
def test_reader_says_what_the_parser_says(some: list[bytes], counters: bool) -> None:  # noqa: FBT001 - generated
    reader = Reader(counters=counters)
    for message in some:
        assert reader.record(message) == PARSERS[counters](message, 0, len(message))


@given(
    st.lists(events, min_size=1, max_size=4),
    st.integers(1, 40),
    st.lists(events, max_size=3),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(40, 400), st.integers(0, 3))),
    st.booleans(),
)
def test_reader_of_many_says_what_the_parser_says(
    known: list[bytes],
    copies: int,
    others: list[bytes],
    damage: list[tuple[int, int, int]],
    counters: bool,  # noqa: FBT001 - generated
) -> None:
    some = [*known * copies, *others]
    for place, offset, bits in damage:  # values and headers differ now
        message = bytearray(some[place % len(some)])
        message[offset % (len(message) - HEAD_BYTES) + HEAD_BYTES] ^= bits
        some[place % len(some)] = bytes(message)
    reader, parser = Reader(counters=counters), PARSERS[counters]
    learnt = [reader.record(message) for message in known]
    assert learnt == [parser(message, 0, len(message)) for message in known]
    parsed = [said(parser, message) for message in some]
    if NO_MESSAGE not in parsed:
        assert reader.records(some) == parsed


@given(events, st.lists(st.tuples(st.integers(0, 500), st.integers(1, 255)), max_size=4))
def test_reader_that_learnt_a_message_does_not_mistake_a_damaged_one(
    message: bytes, damage: list[tuple[int, int]]
) -> None:
    reader = Reader()
    reader.record(message)
    changed = bytearray(message)
    for place, bits in damage:
        if place % len(message) not in LENGTH_OFFSETS:
            changed[place % len(message)] ^= bits
    damaged = bytes(changed)
    assert said(lambda message, *_: reader.record(message), damaged) == said(record_of, damaged)


def said(parser: object, message: bytes) -> object:
    try:
        return parser(message, 0, len(message))  # type: ignore[operator]
    except (KeyError, ValueError, StructFault):
        return NO_MESSAGE


def test_reader_asks_the_parser_once_a_layout(monkeypatch: object) -> None:
    asked: list[int] = []

    def counting(buffer: bytes, start: int, end: int) -> bytes | None:
        asked.append(end)
        return record_of(buffer, start, end)

    reader = Reader()
    monkeypatch.setattr(templates, "record_of", counting)  # type: ignore[attr-defined]
    everything = frozenset({CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, *OPTIONAL})
    for port in range(50):
        message = event(inbound(port), kind=CT_NEW, sequence=port, port=port, present=everything)
        assert reader.record(message) == inbound(port).to_record()
    assert len(asked) == 1
    messages = [
        event(inbound(port), kind=CT_NEW, sequence=port, port=port, present=everything)
        for port in range(50)
    ]
    assert reader.records(messages) == [inbound(port).to_record() for port in range(50)]
    assert len(asked) == 1


BUILDERS = (create_message, delete_message, timeout_message, reset_message)


@given(st.lists(usual_flows, max_size=40), st.integers(1000, 5000))
def test_writer_makes_what_the_builder_makes(some: list[Flow], bytes_max: int) -> None:
    flows = [*some, *(replace(f, mark=mark, zone=0) for f in some for mark in (0, RESET_MARK))]
    records = [flow.to_record() for flow in flows]
    for build in BUILDERS:
        assert written(Writer(build), records, bytes_max) == {
            place: build(record, place) for place, record in enumerate(records)
        }


def test_writer_asks_the_builder_for_one_record_of_a_kind() -> None:
    asked: list[bytes] = []

    def counting(record: bytes, sequence: int) -> bytes | None:
        asked.append(record)
        return create_message(record, sequence)

    writer = Writer(counting)
    written(writer, [inbound(1).to_record()])
    learnt = len(asked)
    records = [inbound(port).to_record() for port in range(2000)]
    assert written(writer, records) == {
        place: create_message(record, place) for place, record in enumerate(records)
    }
    assert len(asked) == learnt


def written(
    writer: Writer, records: list[bytes], bytes_max: int = 1 << 18
) -> dict[int, bytes | None]:
    """Return the message of each record, by its place."""
    unable: list[int] = []
    found: dict[int, bytes | None] = {}
    for chunk in writer.chunks(records, bytes_max=bytes_max, unable=unable):
        assert len(chunk) <= bytes_max
        start = 0
        while start < len(chunk):
            length, _, _, sequence, _ = HEADER.unpack_from(chunk, start)
            assert sequence not in found
            found[sequence] = chunk[start : start + length]
            start += length
    return found | dict.fromkeys(unable)
