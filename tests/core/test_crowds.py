"""Which clients have too many connections, by the keys of flows."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from hanat.core.configuration import Configuration, Limits, Listen, Protocol
from hanat.core.crowds import CLIENTS_MAX, Census, Crowd
from hanat.core.flow_scope import ReplicationScope, scope_of
from hanat.core.flows import FlowTable, key_of, with_reset
from hanat.core.service_limits import crowds_of, limit_blocks
from tests.contract.flows import inbound
from tests.core.configurations import configurations
from tests.core.examples import EDGE, MEDIA, PUBLIC, WEB

LIMITED = replace(
    EDGE,
    services=(
        replace(WEB, limits=Limits(connections_per_client=2, netmask=24, netmask6=56)),
        replace(MEDIA, limits=Limits(connections_per_client=3)),
    ),
)
VIPS = (PUBLIC, ip_address("2001:db8:1::10"), ip_address("203.0.113.99"))


def key(client: str, vip: str, port: int, protocol: int = 6) -> bytes:
    source, asked = ip_address(client), ip_address(vip)
    ports = (40000).to_bytes(2, "big") + port.to_bytes(2, "big")
    return source.packed + asked.packed + ports + bytes([0, 0, protocol])


def crowded(keys: list[bytes], configuration: Configuration) -> dict[tuple[str, int], set[str]]:
    """Return the clients that have too many, by service and IP version."""
    census = Census(crowds_of(configuration))
    for first in range(0, len(keys), 7):
        census.add(keys[first : first + 7])
    found = {}
    for name, clients in census.crowded().items():
        _, service, _, version, _ = name.split("/")
        found[service, int(version[1])] = {str(ip_address(client)) for client in clients}
    return found


@st.composite
def asked(draw: st.DrawFn) -> tuple[str, str, int, int]:
    vip = draw(st.sampled_from(VIPS))
    last = draw(st.integers(0, 3))
    client = f"198.51.{last // 2}.{last}" if vip.version == 4 else f"2001:db8:7:{last}::{last}"
    port = draw(st.sampled_from([80, 81, 4999, 5000, 5099, 5100]))
    return client, str(vip), port, draw(st.sampled_from([6, 17]))


@given(st.lists(asked(), max_size=40))
def test_who_has_too_many_is_found_as_by_looking_at_each_flow(
    flows: list[tuple[str, str, int, int]],
) -> None:
    counts: dict[tuple[str, int], Counter[str]] = {}
    for client, vip, port, protocol in flows:
        for service in LIMITED.services:
            for listen in service.listens:
                number = 6 if listen.protocol is Protocol.TCP else 17
                if (str(listen.address), number) != (vip, protocol):
                    continue
                if not listen.first_port <= port <= listen.last_port:
                    continue
                version = listen.address.version
                prefix = service.limits.netmask if version == 4 else service.limits.netmask6
                network = ip_network(f"{client}/{prefix}", strict=False).network_address
                counts.setdefault((service.name, version), Counter())[str(network)] += 1

    found = crowded([key(*flow) for flow in flows], LIMITED)

    assert found.keys() == {("web", 4), ("web", 6), ("media", 4)}
    for place, clients in found.items():
        most = 2 if place[0] == "web" else 3
        assert clients == {c for c, n in counts.get(place, Counter()).items() if n >= most}


def test_listens_of_a_service_count_together() -> None:
    listens = tuple(Listen(PUBLIC, Protocol.TCP, port, port) for port in (80, 443))
    service = replace(WEB, listens=listens, limits=Limits(connections_per_client=2))
    keys = [key("198.51.100.7", str(PUBLIC), port) for port in (80, 443)]

    found = crowded(keys, replace(EDGE, services=(service,)))

    assert found == {("web", 4): {"198.51.100.7"}}


def test_of_too_many_those_with_the_most_are_told() -> None:
    addresses = [f"10.{n >> 8}.{n & 255}.1" for n in range(CLIENTS_MAX + 9)]
    keys = [key(a, str(PUBLIC), 80) for a in addresses for _ in range(1 + (a >= "10.1"))]
    service = replace(WEB, limits=Limits(connections_per_client=1))

    (found,) = (
        clients
        for (_, version), clients in crowded(keys, replace(EDGE, services=(service,))).items()
        if version == 4
    )

    assert len(found) == CLIENTS_MAX
    assert {a for a in addresses if a >= "10.1"} <= found


def test_flow_that_waits_for_a_reset_counts_no_more() -> None:
    table = FlowTable()
    records = [inbound(port).to_record() for port in (1, 2, 3)]
    table.put_all(records)
    table.begin()
    table.put_all([*records[1:2], with_reset(records[2])])

    assert sorted(table.keys()) == sorted(map(key_of, records[:2]))


@given(configurations())
def test_scope_has_the_sets_that_the_rules_have(configuration: Configuration) -> None:
    scope = scope_of(configuration)
    again = ReplicationScope.from_document(json.loads(json.dumps(scope.to_document())))
    assert again.crowds == scope.crowds
    assert again == replace(scope, crowds=()), "other crowds are no reason to tell all anew"
    rules = {
        (block[0].split()[1], crowd.name)
        for service in configuration.services
        for version in (4, 6)
        for block in limit_blocks(service, version)
        for crowd in scope.crowds
        if block[0] == f"set {crowd.name} {{"
    }
    assert {crowd.name for crowd in scope.crowds} == {name for name, _ in rules}


def test_crowd_survives_json() -> None:
    crowd = Crowd("limits/a/crowd/v4/0", 3, 24, 6, PUBLIC.packed, 80, 90)

    assert Crowd.from_document(json.loads(json.dumps(crowd.to_document()))) == crowd
