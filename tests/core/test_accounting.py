"""From counters of single flows to sums of each server."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from random import Random

import pytest

from hanat.core.accounting import COUNTERS, FlowAccounting, Place, split
from hanat.core.flow_scope import ReplicationScope
from hanat.core.flows import STATUS_ASSURED, STATUS_SEEN_REPLY, Flow
from hanat.core.totals import NOTHING, Totals
from tests.contract.flows import HOSTS, TCP, UDP, inbound, outbound

VIPS = {version: ip_address(HOSTS[version][1]).packed for version in (4, 6)}
SERVERS = {version: ip_address(HOSTS[version][2]).packed for version in (4, 6)}
SCOPE = ReplicationScope(
    frozenset(VIPS.values()),
    ports={(protocol, vip): ((80, 89),) for protocol in (TCP, UDP) for vip in VIPS.values()},
)


def place(version: int = 4, protocol: int = TCP) -> Place:
    return Place(protocol, VIPS[version], 80, SERVERS[version], 8080)


def counters(number: int) -> bytes:
    """Return those of a flow that carried so many packets in, and other figures to match."""
    return COUNTERS.pack(number, 100 * number, 2 * number, 500 * number)


def totals(number: int, connections: int = 0) -> Totals:
    return Totals(connections, number, 100 * number, 2 * number, 500 * number)


class Table:
    """A kernel's flows, and what is counted of them."""

    def __init__(self) -> None:
        self.flows: dict[bytes, int] = {}
        self.accounting = FlowAccounting()

    def walk(self) -> None:
        self.accounting.begin_walk()
        self.see(*self.flows)
        self.accounting.end_walk()

    def see(self, *records: bytes) -> None:
        self.accounting.see(records, [counters(self.flows[record]) for record in records])

    def end(self, record: bytes) -> None:
        self.accounting.ended([record], [counters(self.flows.pop(record))])

    def taken(self) -> Totals:
        found = self.accounting.take(SCOPE)
        assert set(found) <= {place()}
        return found.get(place(), NOTHING)


@pytest.fixture
def table() -> Table:
    """Return one that was walked once, so that what comes is new."""
    made = Table()
    made.walk()
    return made


FLOW = inbound(40000).to_record()


def test_flow_that_goes_on_is_counted_by_what_it_grew(table: Table) -> None:
    table.flows[FLOW] = 5
    table.walk()
    assert table.taken() == totals(5)
    table.walk()
    assert table.taken() == NOTHING
    table.flows[FLOW] = 7
    table.walk()
    table.flows[FLOW] = 10
    table.end(FLOW)
    assert table.taken() == totals(5)
    assert len(table.accounting) == 0


def test_flow_between_two_walks_is_counted_at_its_end(table: Table) -> None:
    table.flows[FLOW] = 5
    table.accounting.opened([FLOW])
    table.end(FLOW)
    assert table.taken() == totals(5, connections=1)
    table.walk()
    assert len(table.accounting) == 0


def test_what_flows_carried_before_the_first_walk_is_not_counted() -> None:
    table = Table()
    table.flows = {FLOW: 5, inbound(40001).to_record(): 9}
    ends_early, fresh = inbound(40002).to_record(), inbound(40003).to_record()
    table.flows |= {ends_early: 3, fresh: 2}
    table.accounting.opened([fresh])
    table.end(ends_early)
    table.walk()
    assert table.taken() == totals(2, connections=1)
    table.flows[FLOW] = 6
    table.end(FLOW)
    assert table.taken() == totals(1)


def test_slice_that_is_older_than_the_end_of_a_flow_counts_nothing_twice(table: Table) -> None:
    table.flows[FLOW] = 5
    table.accounting.begin_walk()
    table.end(FLOW)
    table.accounting.see([FLOW], [counters(4)])
    table.accounting.end_walk()
    assert table.taken() == totals(5)
    assert len(table.accounting) == 0


def test_flow_with_the_ports_of_one_that_ended_is_counted_from_0(table: Table) -> None:
    table.flows[FLOW] = 5
    table.walk()
    table.flows[FLOW] = 3  # nobody told of the end of the first
    table.walk()
    assert table.taken() == totals(8)


def test_torn_walk_counts_nothing_twice(table: Table) -> None:
    table.flows[FLOW] = 5
    table.walk()
    table.accounting.begin_walk()
    table.accounting.end_walk()  # it left the flow out
    table.flows[FLOW] = 6
    table.accounting.begin_walk()
    table.see(FLOW)
    table.see(FLOW)  # and told of it twice
    table.accounting.end_walk()
    assert table.taken() == totals(6)


def test_walk_that_was_broken_off_loses_nothing(table: Table) -> None:
    other = inbound(40001).to_record()
    table.flows = {FLOW: 5, other: 7}
    table.walk()
    table.flows[FLOW] = 6
    table.accounting.begin_walk()
    table.see(FLOW)
    table.accounting.break_off()
    table.flows[other] = 8
    table.walk()
    assert table.taken() == totals(14)


def test_flows_whose_end_was_not_told_are_forgotten(table: Table) -> None:
    table.flows[FLOW] = 5
    table.walk()
    del table.flows[FLOW]
    table.walk()
    assert len(table.accounting) == 1
    table.walk()
    assert len(table.accounting) == 0


def test_counters_of_64_bits_fit(table: Table) -> None:
    most = 2**64 - 1
    table.accounting.ended([FLOW] * 2, [COUNTERS.pack(most, most, most, most)] * 2)
    assert table.taken() == Totals(0, *[2 * most] * 4)


@pytest.mark.parametrize(
    ("status", "protocol", "count"),
    [
        (0, UDP, 0),  # nobody answered
        (STATUS_SEEN_REPLY, UDP, 1),
        (STATUS_SEEN_REPLY | STATUS_ASSURED, UDP, 0),  # it counted when it began
        (STATUS_SEEN_REPLY, TCP, 0),
    ],
)
def test_udp_that_was_never_assured_is_a_connection_at_its_end(
    table: Table, status: int, protocol: int, count: int
) -> None:
    flow = inbound(40000, protocol=protocol)
    record = replace(flow, status=flow.status & ~(STATUS_SEEN_REPLY | STATUS_ASSURED) | status)
    table.accounting.ended([record.to_record()], [counters(0)])
    found = table.accounting.take(SCOPE)
    assert found.get(place(protocol=protocol), NOTHING).connections == count


@pytest.mark.parametrize("flow", [replace(inbound(), tcp_state=7), outbound()])
def test_connections_that_are_over_or_to_no_service_do_not_count(table: Table, flow: Flow) -> None:
    table.accounting.opened([flow.to_record()])
    assert table.accounting.take(SCOPE) == {}


def test_sums_are_of_listens_and_not_of_ports(table: Table) -> None:
    keeps = [inbound(40000 + port) for port in range(80, 95)]
    asked = [
        replace(
            flow,
            original=replace(flow.original, destination_port=flow.original.source_port - 40000),
            reply=replace(flow.reply, source_port=flow.original.source_port - 40000),
        )
        for flow in keeps
    ]
    for flow in asked:
        table.accounting.opened([flow.to_record()])
    found = table.accounting.take(SCOPE)
    assert found == {place()._replace(server_port=0): Totals(10)}  # 90 to 94 are no service's


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("count", [3, 40])
def test_records_of_both_families_few_and_many(table: Table, version: int, count: int) -> None:
    records = [inbound(40000 + i, version=version).to_record() for i in range(count)]
    told, carried = split([record + counters(2) for record in records])
    assert told == records
    table.accounting.begin_walk()
    table.accounting.see(told, carried)
    assert table.accounting.take(SCOPE) == {place(version): totals(2 * count)}


class Traffic:
    """Flows begin, carry and end in any order, while a walk goes on slice by slice."""

    def __init__(self, random: Random) -> None:
        self._random, self.table = random, Table()
        self.carried = self.connections = 0
        self._unread: list[bytes] | None = None
        self.table.walk()

    def step(self) -> None:
        record = inbound(40000 + self._random.randrange(6)).to_record()
        flows = self.table.flows
        if self._random.random() < 0.3:
            self.walk()
        elif record not in flows:
            flows[record] = 0
            self.table.accounting.opened([record])
            self.connections += 1
        elif self._random.random() < 0.7:
            flows[record] += 3
            self.carried += 3
        else:
            self.table.end(record)

    def walk(self) -> None:
        accounting = self.table.accounting
        if self._unread is None:
            accounting.begin_walk()
            self._unread = list(self.table.flows)
            return
        some, self._unread = self._unread[:2], self._unread[2:]
        self.table.see(*(record for record in some if record in self.table.flows))
        if not some:
            accounting.end_walk()
            self._unread = None

    def finish(self) -> None:
        while self._unread is not None:
            self.walk()
        self.table.walk()


@pytest.mark.parametrize("seed", range(50))
def test_sums_are_what_flows_carried(seed: int) -> None:
    traffic = Traffic(Random(seed))
    found = NOTHING
    for _ in range(10):
        for _ in range(30):
            traffic.step()
        found = found.plus(traffic.table.taken())
    traffic.finish()
    found = found.plus(traffic.table.taken())
    assert found == totals(traffic.carried, traffic.connections)
