"""Flow records, coalescing and counts."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from hanat.core.flows import (
    STATUS_ASSURED,
    STATUS_DST_NAT,
    STATUS_SRC_NAT,
    Flow,
    FlowTable,
    ServerKey,
    Tuple5,
    awaits_reset,
    is_established,
    is_over,
    is_translated,
    key_of,
    keys_of,
    with_reset,
)
from tests.strategies import flows

VIP, SERVER = ip_address("203.0.113.10"), ip_address("10.11.12.101")


def counting(*ports: tuple[int, int]) -> FlowTable:
    """Return a table that counts the flows of these TCP ports, first and last."""
    table = FlowTable()
    table.listen({(6, VIP.packed): ports or ((80, 80),)})
    return table


@given(flows())
def test_record_keeps_every_field(flow: Flow) -> None:
    assert Flow.from_record(flow.to_record()) == flow


@given(flows())
def test_flow_is_translated_by_its_status_alone(flow: Flow) -> None:
    expected = bool(flow.status & (STATUS_SRC_NAT | STATUS_DST_NAT))
    assert is_translated(flow.to_record()) is expected


@given(flows(), flows())
def test_key_is_the_original_tuple_protocol_and_zone(one: Flow, other: Flow) -> None:
    same = (one.original, one.protocol, one.zone) == (other.original, other.protocol, other.zone)
    assert (key_of(one.to_record()) == key_of(other.to_record())) is same


@given(flows())
def test_connection_that_awaits_its_reset_is_closed_and_not_over(flow: Flow) -> None:
    flow = replace(flow, protocol=6)
    record = with_reset(flow.to_record())

    assert Flow.from_record(record) == replace(
        flow,
        status=flow.status | 0x0E,  # seen reply, assured, confirmed
        mark=flow.mark | 0x10000000,
        tcp_state=8,
        tcp_flags=(flow.tcp_flags[0] | 4, flow.tcp_flags[1] | 4),
    )
    assert awaits_reset(record)
    assert not is_over(record)
    assert is_established(record)
    assert key_of(record) == key_of(flow.to_record())
    assert not awaits_reset(replace(flow, protocol=17, mark=0xFFFFFFFF).to_record())


def test_connection_that_awaits_its_reset_counts_for_no_server() -> None:
    table = counting()
    record = inbound(port=1000).to_record()
    table.put(record)
    assert not table.put(with_reset(record))
    assert not table.knows(record)
    assert (len(table), table.counts()) == (1, {})
    assert table.put(with_reset(record))
    assert not table.put(record)
    assert sum(table.counts().values()) == 1
    table.put(with_reset(record))
    table.drop(record)
    assert (len(table), table.counts()) == (0, {})


def test_table_counts_flows_of_each_server_once() -> None:
    table = counting()
    record = inbound(port=1000).to_record()
    assert not table.put(record)
    assert table.put(record)
    key = ServerKey(6, VIP.packed, 80, SERVER.packed)
    assert (len(table), table.counts()) == (1, {key: 1})
    table.drop(record)
    table.drop(record)
    assert (len(table), table.counts()) == (0, {})


def asked(first: int, last: int) -> list[bytes]:
    """Return flows of one client that asks each of these ports."""
    found = []
    for port in range(first, last + 1):
        flow = inbound(port=port)
        found.append(replace(flow, original=replace(flow.original, destination_port=port)))
    return [flow.to_record() for flow in found]


def test_clients_do_not_choose_how_many_sums_there_are() -> None:
    table = counting((80, 80), (1000, 2999), (4000, 4001))
    records = asked(900, 3100)
    table.put_all(records[:1500])
    for record in records[1500:]:
        table.put(record)

    key = ServerKey(6, VIP.packed, 1000, SERVER.packed)
    assert table.report() == [(key, 2000, 2000)]
    for record in records:
        table.drop(record)
    assert (table.report(), table._counts) == ([], {})


def test_server_that_had_nothing_since_the_last_report_is_forgotten() -> None:
    table = counting()
    record = inbound(port=1).to_record()
    for _ in range(2):
        table.put(record)
        table.drop(record)
        ((_, now, opened),) = table.report()
        assert (now, opened) == (0, 1)
        assert table.report() == []
        assert not table._sums


def test_other_listens_count_what_is_there_and_forget_what_is_theirs_no_more() -> None:
    table = counting((80, 80))
    table.put_all(asked(80, 82))
    table.listen({(6, VIP.packed): [(80, 81)]})
    assert table.report() == [(ServerKey(6, VIP.packed, 80, SERVER.packed), 2, 1)]
    table.listen({(6, VIP.packed): [(82, 90)], (17, VIP.packed): [(80, 80)]})
    assert table.report() == [(ServerKey(6, VIP.packed, 82, SERVER.packed), 1, 0)]
    for record in asked(80, 82):
        table.drop(record)
    assert sum(table.counts().values()) == 0


def test_table_leaves_over_what_was_not_told_again() -> None:
    table = counting()
    records = [inbound(port=port).to_record() for port in range(3)]
    for record in records:
        table.put(record)
    table.begin()
    assert table.put(records[0])
    table.drop(records[1])
    assert len(table) == 2
    assert table.knows(records[2])
    assert table.end() == [key_of(records[2])]
    assert sum(table.counts().values()) == len(table) == 1


def test_flow_that_is_translated_anew_counts_for_its_new_server() -> None:
    table = counting()
    flow = inbound(port=1)
    other = ip_address("10.11.12.102")
    moved = replace(flow, reply=replace(flow.reply, source=other))
    table.put(flow.to_record())
    assert not table.put(moved.to_record())
    assert not table.knows(flow.to_record())
    assert table.counts() == {ServerKey(6, VIP.packed, 80, other.packed): 1}


@given(
    st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=60),
    st.integers(0, 59),
    st.sets(st.integers(0, 59), max_size=3),
)
def test_table_takes_many_as_it_takes_one(
    told: list[tuple[int, bool]], doubt: int, marked: set[int]
) -> None:
    one, many = counting(), counting()
    records = [replaced(port, moved=moved).to_record() for port, moved in told]
    records = [with_reset(r) if i in marked else r for i, r in enumerate(records)]
    for table in (one, many):
        for record in records[:doubt]:
            table.put(record)
        if doubt % 2:
            table.begin()
    new = [record for record in records[doubt:] if not one.put(record)]
    assert many.put_all(records[doubt:]) == new
    assert many.counts() == one.counts()
    assert (len(many), sorted(many.end())) == (len(one), sorted(one.end()))
    assert all(many.knows(record) == one.knows(record) for record in records)


@given(st.lists(flows(), max_size=40))
def test_keys_of_many_are_those_of_each(some: list[Flow]) -> None:
    records = [flow.to_record() for flow in some]
    assert keys_of(records) == [key_of(record) for record in records]
    same = [record for record in records if len(record) == 48] * 20
    assert keys_of(same) == [key_of(record) for record in same]


def replaced(port: int, *, moved: bool) -> Flow:
    flow = inbound(port=port)
    other = ip_address("10.11.12.102")
    return replace(flow, reply=replace(flow.reply, source=other)) if moved else flow


def inbound(*, port: int) -> Flow:
    client = ip_address("203.0.113.100")
    return Flow(
        protocol=6,
        original=Tuple5(client, VIP, port, 80),
        reply=Tuple5(SERVER, client, 8080, port),
        status=STATUS_ASSURED | STATUS_DST_NAT,
        timeout_s=432_000,
        tcp_state=3,
    )
