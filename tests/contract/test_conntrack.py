"""What `ports.Conntrack` and `ports.Capture` promise."""

from __future__ import annotations

import select
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from hanat.core.flows import (
    RESET_MARK,
    STATUS_CONFIRMED,
    STATUS_DST_NAT,
    STATUS_FIXED_TIMEOUT,
    ChangeKind,
    Flow,
    Tuple5,
    awaits_reset,
    with_reset,
)
from hanat.kernel.ports import Capture, Installed
from tests.contract.conftest import Subject
from tests.contract.flows import (
    GRE,
    ICMP,
    ICMPV6,
    SCTP,
    SETTLED,
    TCP,
    UDP,
    Change,
    changes_of,
    inbound,
    outbound,
)

EVERY_KIND = [
    make(40000 + place, protocol=protocol, version=version)
    for place, (protocol, version) in enumerate(
        [(TCP, 4), (TCP, 6), (UDP, 4), (UDP, 6), (SCTP, 4), (SCTP, 6), (ICMP, 4), (ICMPV6, 6)]
    )
    for make in (inbound, outbound)
]

DAYS = 20 * 86_400


@pytest.fixture
def capture(subject: Subject) -> Iterator[Capture]:
    opened = subject.adapters.conntrack.capture()
    yield opened
    opened.close()


def test_installed_flows_are_dumped_as_they_were(subject: Subject) -> None:
    flows = EVERY_KIND

    done = subject.adapters.conntrack.install(flow.to_record() for flow in flows)

    assert done == Installed(created=len(flows))
    assert _essence(subject.adapters.conntrack.dump()) == _essence(f.to_record() for f in flows)
    assert subject.adapters.conntrack.count() == len(flows)


def test_of_a_mark_our_bit_alone_is_installed(subject: Subject) -> None:
    theirs, ours = inbound(40001), inbound(40002)
    wanted = [replace(theirs, mark=7), replace(ours, mark=RESET_MARK | 7)]
    subject.adapters.conntrack.install(flow.to_record() for flow in wanted)

    assert _marks(subject) == {40001: 0, 40002: RESET_MARK}


def test_connection_to_be_reset_is_closed_and_stays(subject: Subject) -> None:
    flows = [inbound(40001), inbound(40002, version=6), inbound(40003, protocol=UDP)]
    other, absent = inbound(40004), inbound(40005)
    subject.adapters.conntrack.install(flow.to_record() for flow in (*flows, other))
    subject.outside.set_mark(flows[0].to_record(), 7)
    records = [flow.to_record() for flow in (*flows, absent)]

    assert set(subject.adapters.conntrack.mark_for_reset(records)) == set(records[2:])

    assert _marks(subject) == {40001: RESET_MARK | 7, 40002: RESET_MARK, 40003: 0, 40004: 0}
    for record in subject.adapters.conntrack.dump():
        if awaits_reset(record):
            flow = Flow.from_record(record)
            assert 8000 < flow.timeout_s <= 8100
            assert flow.tcp_state == 8
            assert (
                record
                == replace(
                    Flow.from_record(with_reset(record)), timeout_s=flow.timeout_s
                ).to_record()
            )


def test_half_open_connection_can_be_reset_when_it_was_answered_meanwhile(
    subject: Subject,
) -> None:
    before = replace(inbound(), status=STATUS_CONFIRMED | STATUS_DST_NAT, tcp_state=2)
    subject.adapters.conntrack.install([inbound().to_record()])

    assert subject.adapters.conntrack.mark_for_reset([before.to_record()]) == []
    assert _marks(subject) == {40000: RESET_MARK}


def test_no_packet_changes_how_long_a_connection_waits_for_its_reset(subject: Subject) -> None:
    """The status bit says so; tests/kernel sends packets."""
    record = inbound().to_record()
    subject.adapters.conntrack.install([record])
    subject.adapters.conntrack.mark_for_reset([record])

    (found,) = subject.adapters.conntrack.dump()
    assert Flow.from_record(found).status & STATUS_FIXED_TIMEOUT


def test_who_waited_to_be_reset_waits_as_long_on_the_next_holder(subject: Subject) -> None:
    record = with_reset(inbound().to_record())
    conntrack = subject.adapters.conntrack
    conntrack.install([record])
    assert DAYS - 60 < _timeout(subject) <= DAYS

    assert conntrack.settle(conntrack.dump()) == 1

    assert 8000 < _timeout(subject) <= 8100
    assert conntrack.settle(conntrack.dump()) == 0
    (found,) = conntrack.dump()
    assert Flow.from_record(found).status & STATUS_FIXED_TIMEOUT


def test_former_holder_takes_what_the_next_one_tells_of_a_connection_to_be_reset(
    subject: Subject,
) -> None:
    record = inbound().to_record()
    conntrack = subject.adapters.conntrack
    conntrack.install([record])
    conntrack.mark_for_reset([record])

    if conntrack.extend([with_reset(record)]):  # newer kernels refuse: its timeout is fixed
        conntrack.install([with_reset(record)])

    assert DAYS - 60 < _timeout(subject) <= DAYS
    assert _marks(subject) == {40000: RESET_MARK}


def test_walk_tells_of_untranslated_flows_only_when_asked(subject: Subject) -> None:
    flow = inbound()
    plain = replace(flow, reply=Tuple5(*_turned(flow.original)), status=STATUS_CONFIRMED)
    subject.adapters.conntrack.install(
        [
            flow.to_record(),
            replace(
                plain,
                original=replace(plain.original, source_port=7),
                reply=replace(plain.reply, destination_port=7),
            ).to_record(),
        ]
    )

    def told(*, every: bool) -> set[int]:
        slices = subject.adapters.conntrack.walk(every=every)
        return {Flow.from_record(r).original.source_port for some in slices for r in some}

    assert told(every=False) == {flow.original.source_port}
    assert told(every=True) == {flow.original.source_port, 7}


def _turned(side: Tuple5) -> tuple[IPv4Address | IPv6Address, IPv4Address | IPv6Address, int, int]:
    return side.destination, side.source, side.destination_port, side.source_port


def test_installed_flow_waits_for_weeks(subject: Subject) -> None:
    subject.adapters.conntrack.install([inbound().to_record()])

    assert DAYS - 60 < _timeout(subject) <= DAYS


def test_who_waited_is_given_the_timeout_in_use(subject: Subject) -> None:
    subject.adapters.conntrack.install(flow.to_record() for flow in EVERY_KIND)

    assert subject.adapters.conntrack.settle(subject.adapters.conntrack.dump()) == len(EVERY_KIND)

    timeouts = {
        flow.protocol: flow.timeout_s
        for flow in map(Flow.from_record, subject.adapters.conntrack.dump())
    }
    assert timeouts == {
        TCP: pytest.approx(432_000, abs=60),
        UDP: pytest.approx(120, abs=30),
        ICMP: pytest.approx(30, abs=20),
        ICMPV6: pytest.approx(30, abs=20),
        SCTP: pytest.approx(210, abs=60),
    }
    assert subject.adapters.conntrack.settle(subject.adapters.conntrack.dump()) == 0


def test_who_was_in_use_waits_for_weeks(subject: Subject) -> None:
    flows = [flow.to_record() for flow in EVERY_KIND]
    subject.adapters.conntrack.install(flows)
    subject.adapters.conntrack.settle(subject.adapters.conntrack.dump())
    other = inbound(30000).to_record()

    assert subject.adapters.conntrack.extend([*flows, other]) == [other]

    for record in subject.adapters.conntrack.dump():
        assert DAYS - 60 < Flow.from_record(record).timeout_s <= DAYS


def test_extended_flow_is_in_the_state_it_has_elsewhere(subject: Subject) -> None:
    for protocol in (TCP, SCTP, UDP):
        later = inbound(protocol=protocol)
        earlier = replace(
            later, status=STATUS_CONFIRMED | STATUS_DST_NAT, tcp_state=min(later.tcp_state, 1)
        )
        subject.adapters.conntrack.install([earlier.to_record()])
        assert _essence(subject.adapters.conntrack.dump()) == _essence([earlier.to_record()])

        assert subject.adapters.conntrack.extend([later.to_record()]) == []

        assert _essence(subject.adapters.conntrack.dump()) == _essence([later.to_record()])
        subject.adapters.conntrack.delete([later.to_record()])


def test_installing_nothing_does_nothing(subject: Subject) -> None:
    assert subject.adapters.conntrack.install([]) == Installed()


def test_same_original_tuple_is_replaced(subject: Subject) -> None:
    first = inbound()
    moved = replace(first, reply=replace(first.reply, source=ip_address("10.11.12.102")))
    subject.adapters.conntrack.install([first.to_record()])

    done = subject.adapters.conntrack.install([moved.to_record()])

    assert done == Installed(replaced=1)
    (record,) = subject.adapters.conntrack.dump()
    assert Flow.from_record(record).reply == moved.reply


def test_flow_whose_translated_tuple_is_taken_clashes(subject: Subject) -> None:
    first = inbound()
    second = replace(
        first, original=replace(first.original, destination=ip_address("203.0.113.11"))
    )
    subject.adapters.conntrack.install([first.to_record()])

    done = subject.adapters.conntrack.install([second.to_record()])

    assert done == Installed(clashed=(second.to_record(),))
    (record,) = subject.adapters.conntrack.dump()
    assert Flow.from_record(record).original == first.original


def test_unknown_protocol_fails_and_the_rest_is_installed(subject: Subject) -> None:
    strange = replace(inbound(), protocol=GRE)
    flows = [inbound(40001), strange, inbound(40002)]

    done = subject.adapters.conntrack.install(flow.to_record() for flow in flows)

    assert done == Installed(created=2, failed=1)


def test_flows_that_differ_by_zone_are_two(subject: Subject) -> None:
    records = [replace(inbound(), zone=zone).to_record() for zone in (0, 9)]

    assert subject.adapters.conntrack.install(records) == Installed(created=2)
    assert subject.adapters.conntrack.delete(records[:1]) == 1
    assert [Flow.from_record(r).zone for r in subject.adapters.conntrack.dump()] == [9]


def test_delete_counts_what_was_there(subject: Subject) -> None:
    records = [inbound(port).to_record() for port in range(40000, 40010)]
    subject.adapters.conntrack.install(records[:4])

    assert subject.adapters.conntrack.delete(records) == 4
    assert subject.adapters.conntrack.count() == 0


def test_delete_needs_only_the_original_tuple(subject: Subject) -> None:
    subject.adapters.conntrack.install([inbound().to_record()])
    key = replace(inbound(), reply=outbound().reply, ident=99)

    assert subject.adapters.conntrack.delete([key.to_record()]) == 1


def test_thousands_of_flows_in_one_call(subject: Subject) -> None:
    records = [inbound(port).to_record() for port in range(30000, 35000)]
    subject.adapters.conntrack.install(records[:1000])

    done = subject.adapters.conntrack.install(records)

    assert done == Installed(created=4000, replaced=1000)
    assert len(subject.adapters.conntrack.dump()) == 5000


def test_capture_tells_of_an_assured_flow_and_of_its_end(
    subject: Subject, capture: Capture
) -> None:
    flow = inbound()
    subject.outside.track(flow.to_record())
    subject.outside.end_flow(flow.to_record())

    put, delete = _read(subject, capture, 2)

    assert (put.kind, delete.kind) == (ChangeKind.PUT, ChangeKind.DELETE)
    for change in (put, delete):
        found = Flow.from_record(change.record)
        assert (found.protocol, found.original, found.reply) == (TCP, flow.original, flow.reply)
    assert Flow.from_record(put.record).status & SETTLED == SETTLED


@pytest.mark.parametrize("state", ["TIME_WAIT", "CLOSE"])
def test_tcp_flow_that_is_over_has_ended_although_its_entry_stays(
    subject: Subject, capture: Capture, state: str
) -> None:
    record, other = inbound(40001).to_record(), inbound(40002).to_record()
    subject.outside.track(record)
    subject.outside.turn_flow(record, "FIN_WAIT")
    subject.outside.turn_flow(record, state)
    subject.outside.end_flow(record)
    subject.outside.track(other)

    found = [
        (change.kind, Flow.from_record(change.record).original.source_port)
        for change in _read(subject, capture, 3)
    ]

    assert found == [
        (ChangeKind.PUT, 40001), (ChangeKind.DELETE, 40001), (ChangeKind.PUT, 40002)
    ]  # fmt: skip
    assert capture.read() == []


def test_capture_tells_of_the_end_of_a_connection_that_was_to_be_reset(
    subject: Subject, capture: Capture
) -> None:
    record = inbound().to_record()
    subject.outside.track(record)
    _read(subject, capture, 1)
    subject.adapters.conntrack.mark_for_reset([record])

    subject.outside.end_flow(record)

    assert [change.kind for change in _read(subject, capture, 1)] == [ChangeKind.DELETE]


def test_capture_tells_of_the_end_of_a_flow_from_before(subject: Subject) -> None:
    subject.outside.track(inbound().to_record())
    opened = subject.adapters.conntrack.capture()

    subject.outside.end_flow(inbound().to_record())

    assert [change.kind for change in _read(subject, opened, 1)] == [ChangeKind.DELETE]
    opened.close()


def test_capture_tells_nothing_of_what_came_before_it(subject: Subject) -> None:
    earlier = subject.adapters.conntrack.capture()
    subject.outside.track(inbound(40001).to_record())
    earlier.close()  # unread
    subject.outside.track(inbound(40002).to_record())
    opened = subject.adapters.conntrack.capture()
    subject.outside.track(inbound(40003).to_record())

    found = _read(subject, opened, 1)

    assert [Flow.from_record(c.record).original.source_port for c in found] == [40003]
    assert earlier.read() == []
    assert opened.read() == []
    opened.close()


def test_capture_is_silent_about_our_own_changes(subject: Subject, capture: Capture) -> None:
    record = inbound(40001).to_record()
    subject.adapters.conntrack.install([record])
    subject.adapters.conntrack.install([record])
    subject.adapters.conntrack.delete([record])
    subject.outside.track(inbound(40002).to_record())

    found = _read(subject, capture, 1)

    assert [Flow.from_record(c.record).original.source_port for c in found] == [40002]


def test_capture_is_silent_about_untranslated_flows(subject: Subject, capture: Capture) -> None:
    plain = inbound(40001)
    plain = replace(
        plain,
        status=SETTLED,
        reply=Tuple5(plain.original.destination, plain.original.source, 80, 40001),
    )
    subject.outside.track(plain.to_record())
    subject.outside.track(inbound(40002).to_record())

    found = _read(subject, capture, 1)

    assert [Flow.from_record(c.record).original.source_port for c in found] == [40002]
    assert [
        Flow.from_record(r).original.source_port for r in subject.adapters.conntrack.dump()
    ] == [40002]


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_capture_tells_of_unanswered_flows_to_who_wants_them(
    subject: Subject, protocol: int
) -> None:
    begun = replace(
        inbound(protocol=protocol),
        status=STATUS_CONFIRMED | STATUS_DST_NAT,
        tcp_state=1 if protocol == TCP else 0,
    )
    usual = subject.adapters.conntrack.capture()
    opened = subject.adapters.conntrack.capture(unassured=True)

    subject.outside.begin(begun.to_record())

    (put,) = _read(subject, opened, 1)
    assert put.kind is ChangeKind.PUT
    assert _essence([put.record]) == _essence([begun.to_record()])
    subject.outside.end_flow(begun.to_record())
    assert [change.kind for change in _read(subject, opened, 1)] == [ChangeKind.DELETE]
    assert usual.read() == []
    usual.close()
    opened.close()


def test_capture_is_readable_while_changes_wait(subject: Subject, capture: Capture) -> None:
    assert not _is_readable(capture)

    subject.outside.track(inbound().to_record())

    subject.outside.wait(lambda: _is_readable(capture), "a change")
    capture.read()
    assert not _is_readable(capture)
    assert capture.overruns == 0


def test_closed_capture_returns_nothing(subject: Subject, capture: Capture) -> None:
    capture.close()

    subject.outside.track(inbound().to_record())

    assert capture.read() == []


def _essence(records: Iterator[bytes] | list[bytes]) -> set[tuple[object, ...]]:
    """Return what must be the same in two kernels."""
    return {
        (flow.protocol, flow.original, flow.reply, flow.status & 0x3E, flow.mark, flow.zone,
         flow.tcp_state, flow.tcp_scale, (flow.ident, flow.tcp_flags) * (flow.protocol == SCTP))
        for flow in map(Flow.from_record, records)
    }  # fmt: skip


def _marks(subject: Subject) -> dict[int, int]:
    """Return the mark of each flow, by the client's port."""
    found = map(Flow.from_record, subject.adapters.conntrack.dump())
    return {flow.original.source_port: flow.mark for flow in found}


def _timeout(subject: Subject) -> int:
    (record,) = subject.adapters.conntrack.dump()
    return Flow.from_record(record).timeout_s


def _is_readable(capture: Capture) -> bool:
    return bool(select.select([capture.fileno()], [], [], 0)[0])


def _read(subject: Subject, capture: Capture, count: int) -> list[Change]:
    found: list[Change] = []

    def enough() -> bool:
        found.extend(changes_of(capture.read()))
        return len(found) >= count

    subject.outside.wait(enough, f"{count} changes")
    return found
