"""Records for tests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address
from typing import NamedTuple

from hanat.core.flows import (
    STATUS_ASSURED,
    STATUS_CONFIRMED,
    STATUS_DST_NAT,
    STATUS_SEEN_REPLY,
    STATUS_SRC_NAT,
    ChangeKind,
    Flow,
    Run,
    Tuple5,
)

SETTLED = STATUS_SEEN_REPLY | STATUS_ASSURED | STATUS_CONFIRMED
TCP, UDP, ICMP, ICMPV6, SCTP, GRE = 6, 17, 1, 58, 132, 47
HOSTS = {
    4: ("198.51.100.7", "203.0.113.10", "10.11.12.101"),
    6: ("2001:db8:7::7", "2001:db8:1::10", "fd00:12::101"),
}


class Change(NamedTuple):
    """One of a run."""

    kind: ChangeKind
    record: bytes


def changes_of(runs: Iterable[Run]) -> list[Change]:
    """Return the changes one by one."""
    return [Change(run.kind, record) for run in runs for record in run.records]


def inbound(port: int = 40000, *, protocol: int = TCP, version: int = 4) -> Flow:
    """Return a client's flow to a service, translated to a real server."""
    client, vip, server = map(ip_address, HOSTS[version])
    if protocol in {ICMP, ICMPV6}:
        asked, answered = (8, 0) if protocol == ICMP else (128, 129)
        original = Tuple5(client, vip, port, asked << 8)
        reply = Tuple5(server, client, port, answered << 8)
    else:
        original = Tuple5(client, vip, port, 80)
        reply = Tuple5(server, client, 8080, port)
    return _settled(protocol, original, reply, STATUS_DST_NAT)


def outbound(port: int = 40000, *, protocol: int = TCP, version: int = 4) -> Flow:
    """Return a real server's flow to the outside, with the floating address as source."""
    host, vip, server = map(ip_address, HOSTS[version])
    if protocol in {ICMP, ICMPV6}:
        asked, answered = (8, 0) if protocol == ICMP else (128, 129)
        original = Tuple5(server, host, port, asked << 8)
        reply = Tuple5(host, vip, port, answered << 8)
    else:
        original = Tuple5(server, host, port, 443)
        reply = Tuple5(host, vip, 443, port)
    return _settled(protocol, original, reply, STATUS_SRC_NAT)


def _settled(protocol: int, original: Tuple5, reply: Tuple5, nat: int) -> Flow:
    found = Flow(
        protocol=protocol,
        original=original,
        reply=reply,
        status=SETTLED | nat,
        timeout_s=300,
    )
    if protocol == TCP:
        return replace(found, tcp_state=3, tcp_scale=(7, 9), tcp_flags=(0x23, 0x23))
    if protocol == SCTP:  # two verification tags
        return replace(found, tcp_state=4, ident=0x1234ABCD, tcp_scale=(1, 2), tcp_flags=(3, 254))
    return found
