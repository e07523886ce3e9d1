"""What `core.accounting.Accounts` promises; tests/kernel sends the packets that are counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from hanat.core.accounting import COUNTERS, Accounts, split
from hanat.core.flows import STATUS_CONFIRMED, STATUS_DST_NAT, STATUS_SEEN_REPLY, key_of
from tests.contract.conftest import Subject
from tests.contract.flows import SCTP, TCP, UDP, inbound, outbound

HALF_OPEN = STATUS_DST_NAT | STATUS_CONFIRMED
EVERY = [
    inbound(40000 + place, protocol=protocol, version=version)
    for place, (protocol, version) in enumerate([(TCP, 4), (TCP, 6), (UDP, 4), (UDP, 6), (SCTP, 4)])
]


@pytest.fixture
def accounts(subject: Subject) -> Iterator[Accounts]:
    opened = subject.adapters.conntrack.account()
    opened.open()
    yield opened
    opened.close()


def keys(counted: list[bytes]) -> set[bytes]:
    records, counters = split(counted)
    assert set(counters) <= {bytes(COUNTERS.size)}  # no packet came
    return {key_of(record) for record in records}


def test_flows_to_services_are_told_at_their_end_by_whomever(
    subject: Subject, accounts: Accounts
) -> None:
    conntrack = subject.adapters.conntrack
    records = [flow.to_record() for flow in EVERY]
    conntrack.install([*records, outbound().to_record()])
    assert accounts.read() == []

    subject.outside.end_flow(records[0])
    conntrack.delete([*records[1:], outbound().to_record()])

    assert keys(accounts.read()) == {key_of(record) for record in records}
    assert accounts.read() == []
    assert accounts.overruns == 0


def test_of_flows_that_were_never_assured_those_of_udp_are_told(
    subject: Subject, accounts: Accounts
) -> None:
    young = [
        replace(inbound(40001), status=HALF_OPEN, tcp_state=1),
        replace(inbound(40002, protocol=UDP), status=HALF_OPEN),
        replace(inbound(40003, protocol=UDP), status=HALF_OPEN | STATUS_SEEN_REPLY),
    ]
    records = [flow.to_record() for flow in young]
    subject.adapters.conntrack.install(records)
    subject.adapters.conntrack.delete(records)
    assert keys(accounts.read()) == {key_of(record) for record in records[1:]}


def test_walk_tells_of_flows_to_services(subject: Subject, accounts: Accounts) -> None:
    records = [flow.to_record() for flow in EVERY]
    subject.adapters.conntrack.install([*records, outbound().to_record()])
    for _ in range(2):
        found = [record for records in accounts.walk() for record in records]
        assert keys(found) == {key_of(record) for record in records}


def test_walk_that_was_left_halfway_does_not_disturb_the_next(
    subject: Subject, accounts: Accounts
) -> None:
    records = [inbound(1000 + i).to_record() for i in range(1000)]
    subject.adapters.conntrack.install(records)
    walk = accounts.walk()
    next(walk)
    walk.close()
    assert sum(map(len, accounts.walk())) == len(records)


def test_more_than_is_read_at_once_does_not_outlast_the_close(
    subject: Subject, accounts: Accounts
) -> None:
    records = [inbound(1000 + i).to_record() for i in range(5000)]
    subject.adapters.conntrack.install(records)
    subject.adapters.conntrack.delete(records)
    accounts.close()
    accounts.open()
    assert accounts.read() == []


def test_closed_accounts_tell_nothing_and_can_be_opened_again(
    subject: Subject, accounts: Accounts
) -> None:
    first, second = (flow.to_record() for flow in EVERY[:2])
    subject.adapters.conntrack.install([first, second])
    accounts.close()
    assert accounts.read() == []
    subject.outside.end_flow(first)
    accounts.open()
    subject.outside.end_flow(second)
    assert keys(accounts.read()) == {key_of(second)}
