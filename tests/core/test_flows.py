"""Flow records, coalescing and counts."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given

from hanat.core.flows import (
    STATUS_ASSURED,
    STATUS_DST_NAT,
    STATUS_SRC_NAT,
    Change,
    ChangeKind,
    Flow,
    FlowTable,
    ServerKey,
    Tuple5,
    is_translated,
    key_of,
)
from tests.strategies import flows

PUT, DELETE = ChangeKind.PUT, ChangeKind.DELETE
VIP, SERVER = ip_address("203.0.113.10"), ip_address("10.11.12.101")


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


def test_table_counts_flows_of_each_server_once() -> None:
    table = FlowTable()
    record = inbound(port=1000).to_record()
    for change in (Change(PUT, record), Change(PUT, record)):
        table.observe(change)
    key = ServerKey(6, VIP.packed, 80, SERVER.packed)
    assert (len(table), table.counts()) == (1, {key: 1})
    table.observe(Change(DELETE, record))
    table.observe(Change(DELETE, record))
    assert (len(table), table.counts()) == (0, {})


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
