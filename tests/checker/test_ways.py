"""From where, by which way and to whom probes go, counted by the kernel."""

from __future__ import annotations

import json
import socket
from ipaddress import ip_address

import pytest

from hanat.core.checks import (
    AgentCheck,
    DnsCheck,
    HttpCheck,
    Kind,
    PingCheck,
    ServiceCheck,
    TcpCheck,
    TlsCheck,
    UdpCheck,
    target_of,
)
from hanat.core.probing import Check, Operational
from tests.checker.test_process import node
from tests.kernel.namespaces import run

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("inside")]

FAST = Check(interval_s=0.05, timeout_s=0.5, fall=2, rise=2)
MARK = 0x2A
COUNTING = """\
table inet counted {{
    chain leaving {{
        type filter hook output priority 0
        meta mark {mark:#x} {ip} saddr {source} {ip} daddr {to} {port} counter
        {ip} daddr {server} counter
    }}
}}
"""
EVERY = [
    (AgentCheck(), "tcp dport 700"),
    (DnsCheck(), "udp dport 700"),
    (HttpCheck(), "tcp dport 700"),
    (HttpCheck(tls=TlsCheck()), "tcp dport 700"),
    (PingCheck(), ""),
    (TcpCheck(), "tcp dport 700"),
    (TlsCheck(), "tcp dport 700"),
    (UdpCheck(b"x"), "udp dport 700"),
]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("kind", "port"), EVERY, ids=lambda one: type(one).__name__)
async def test_probes_go_from_a_source_with_a_mark_to_another_address_and_port(
    inside: str, kind: Kind, port: str, version: int
) -> None:
    ip, server, to, source = ("ip", "127.0.0.2", "127.0.0.3", "127.0.0.4")
    if version == 6:
        ip, server, to, source = ("ip6", "fd00::2", "fd00::3", "fd00::4")
        for address in (server, to, source):
            run(f"ip addr add {address}/128 dev lo nodad", inside)
    rules = COUNTING.format(ip=ip, mark=MARK, source=source, to=to, port=port, server=server)
    run(f"nft '{rules}'", inside)
    check = ServiceCheck(kind, FAST, ip_address(to), 700, ip_address(source), MARK)
    target = target_of(check, service="web", server="web1", address=ip_address(server), port=80)

    async with node() as made:
        made.client.configure({"a": target})
        await made.until(lambda: counted(inside)[0], "a probe as the check says")

    assert counted(inside)[1] == 0


def counted(inside: str) -> list[int]:
    listed = json.loads(run("nft -j list chain inet counted leaving", inside))["nftables"]
    return [
        expression["counter"]["packets"]
        for one in listed
        if "rule" in one
        for expression in one["rule"]["expr"]
        if "counter" in expression
    ]


async def test_verdict_takes_as_many_probes_in_a_row_as_configured(inside: str) -> None:
    server, to, source = "127.0.0.2", "127.0.0.3", "127.0.0.4"
    port = "tcp dport 700 tcp flags & (syn | ack) == syn"
    rules = COUNTING.format(ip="ip", mark=MARK, source=source, to=to, port=port, server=server)
    run(f"nft '{rules}'", inside)
    timing = Check(interval_s=0.1, timeout_s=0.1, fall=5, rise=4)
    check = ServiceCheck(TcpCheck(), timing, ip_address(to), 700, ip_address(source), MARK)
    target = target_of(check, service="web", server="web1", address=ip_address(server), port=80)
    async with node() as made:
        made.client.configure({"a": target})
        await made.sees("a", Operational.DOWN)
        down = counted(inside)[0]
        with socket.create_server((to, 700)):
            before = counted(inside)[0]
            await made.sees("a", Operational.UP)
            up = counted(inside)[0]

    assert down >= 5
    assert up - before >= 4
