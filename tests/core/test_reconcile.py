"""Which flows no longer fit a configuration; the real kernel's flows are in tests/kernel."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given

from hanat.core.configuration import (
    Configuration,
    Forward,
    Listen,
    OnServerDown,
    Protocol,
    RealServer,
    Sorry,
    Transit,
)
from hanat.core.flows import (
    STATUS_ASSURED,
    STATUS_CONFIRMED,
    STATUS_DST_NAT,
    STATUS_EXPECTED,
    STATUS_SRC_NAT,
    Flow,
    Tuple5,
    with_reset,
)
from hanat.core.reconcile import Misfit, Rules, rules_of
from hanat.core.schedulers import InRotation
from hanat.core.services import Rotation
from tests.core.configurations import configurations
from tests.core.examples import CONVERSATION, DEVICES, EDGE, MEDIA, OFF, PUBLIC, WEB

DNAT, SNAT = STATUS_DST_NAT, STATUS_SRC_NAT
TCP, UDP = 6, 17
RULES = rules_of(EDGE, DEVICES, CONVERSATION.own)
OUTSIDE, INSIDE, VIP = "198.51.100.7", "10.11.12.101", "203.0.113.10"


def device_of(address: bytes) -> str:
    """Route as a router of the example does."""
    inside = [ip_network(text) for text in ("10.11.12.0/24", "fd00:12::/64", "10.99.0.0/16")]
    return "eth1" if any(ip_address(address) in network for network in inside) else "eth0"


def flow(
    client: tuple[str, int], asked: tuple[str, int], status: int = 0, *,
    server: tuple[str, int] | None = None, back: tuple[str, int] | None = None,
    protocol: int = UDP,
) -> bytes:  # fmt: skip
    """Return a record; it is answered by `server` to `back`, if that is translated."""
    (source, source_port), (destination, port) = client, asked
    (far, far_port), (near, near_port) = server or asked, back or client
    return Flow(
        protocol,
        Tuple5(ip_address(source), ip_address(destination), source_port, port),
        Tuple5(ip_address(far), ip_address(near), far_port, near_port),
        status | STATUS_CONFIRMED | STATUS_ASSURED,
        30,
        tcp_state=3 if protocol == TCP else 0,
    ).to_record()


def web(server: tuple[str, int], *, protocol: int = TCP) -> bytes:
    return flow((OUTSIDE, 5555), (VIP, 80), DNAT, server=server, protocol=protocol)


def media(server: tuple[str, int], port: int) -> bytes:
    return flow((OUTSIDE, 5555), (VIP, port), DNAT, server=server)


def over(record: bytes) -> bytes:
    """Return a TCP flow as it is in TIME_WAIT."""
    return replace(Flow.from_record(record), tcp_state=7).to_record()


def out(source: str, back: str, status: int = SNAT) -> bytes:
    return flow((source, 5555), (OUTSIDE, 53), status, back=(back, 5555))


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (web((INSIDE, 8080)), None),
        (web(("10.11.12.103", 8080)), None),  # weight 0: a connection drains
        (web((INSIDE, 8081)), Misfit.RESET),
        (web(("10.11.12.110", 8080)), Misfit.RESET),
        (with_reset(web(("10.11.12.110", 8080))), None),
        (over(web(("10.11.12.110", 8080))), None),
        (web((INSIDE, 8080), protocol=UDP), Misfit.SERVICE),
        (media((INSIDE, 5007), 5007), None),  # the client's port is kept
        (media((INSIDE, 5008), 5007), Misfit.SERVER),
        (media(("10.11.12.102", 5000), 5007), None),
        (media((INSIDE, 5100), 5100), Misfit.SERVICE),
        (flow((OUTSIDE, 1), (VIP, 9), DNAT, server=(INSIDE, 9)), None),  # nobody is better
        (flow((OUTSIDE, 1), ("192.0.2.1", 9), DNAT, server=(INSIDE, 9)), None),  # others'
        (flow((OUTSIDE, 1), (VIP, 4444), DNAT | STATUS_EXPECTED, server=(INSIDE, 9)), None),
        (flow((OUTSIDE, 1), (VIP, 80), protocol=TCP), Misfit.UNTRANSLATED),
        (flow((OUTSIDE, 1), (VIP, 80), protocol=1), None),
        (flow((OUTSIDE, 1), (VIP, 81), protocol=TCP), None),
        (out(INSIDE, VIP), None),
        (out("10.11.13.9", VIP), Misfit.MASQUERADE),
        (out("10.11.13.9", "192.0.2.1"), None),  # others'
        (out(INSIDE, INSIDE, 0), Misfit.UNTRANSLATED),
        (flow((INSIDE, 1), ("10.11.12.102", 1)), None),
        (flow(("203.0.113.11", 1), (INSIDE, 22)), None),  # this node's own
        (flow((OUTSIDE, 1), (INSIDE, 22)), Misfit.FORBIDDEN),
        (flow(("10.99.0.7", 1), (OUTSIDE, 22)), Misfit.FORBIDDEN),
    ],
)  # fmt: skip
def test_flow_fits_the_rules_or_why_not(record: bytes, expected: Misfit | None) -> None:
    assert RULES.misfit(record, device_of) is expected


def test_flow_of_the_sorry_server_ends_only_if_it_is_udp_and_somebody_is_better() -> None:
    sorry = Sorry(ip_address("10.11.12.200"), 8080)
    listens = tuple(Listen(PUBLIC, protocol, 80, 80) for protocol in Protocol)
    found = replace(WEB, listens=listens, sorry=(sorry,))
    rules, empty = (
        rules_of(replace(EDGE, services=(replace(found, servers=servers),)), DEVICES, ())
        for servers in (WEB.servers, ())
    )
    for protocol, expected in ((TCP, None), (UDP, Misfit.SERVER)):
        record = web(("10.11.12.200", 8080), protocol=protocol)
        assert rules.misfit(record, device_of) is expected
        assert empty.misfit(record, device_of) is None
    assert empty.misfit(web((INSIDE, 8080)), device_of) is Misfit.RESET


def test_udp_of_a_server_at_weight_0_ends_while_another_has_a_weight() -> None:
    servers = (
        replace(MEDIA.servers[0], weight=0),
        RealServer("two", ip_address("10.11.12.102"), None, 1),
    )
    rules = rules_of(
        replace(EDGE, services=(WEB, replace(MEDIA, servers=servers), OFF)), DEVICES, ()
    )

    assert rules.misfit(media((INSIDE, 5007), 5007), device_of) is Misfit.SERVER
    assert rules.misfit(media(("10.11.12.102", 5007), 5007), device_of) is None


def test_udp_stays_where_it_is_while_no_server_is_in_rotation() -> None:
    """All are down: the one of weight 0 and the sorry server are as good as any."""
    sorry = Sorry(ip_address("10.11.12.200"), None)
    servers = (
        replace(MEDIA.servers[0], weight=0),
        RealServer("two", ip_address("10.11.12.102"), None, 1),
    )
    service = replace(MEDIA, servers=servers, sorry=(sorry,))
    here = replace(EDGE, services=(service,))
    places = [(INSIDE, 5007), ("10.11.12.200", 5007), ("10.11.12.102", 5007)]

    def misfits(rotation: Rotation) -> list[Misfit | None]:
        rules = rules_of(here, DEVICES, (), {service.name: rotation})
        return [rules.misfit(media(place, 5007), device_of) for place in places]

    assert misfits(()) == [None, None, None]
    assert misfits((InRotation("two", 1),)) == [Misfit.SERVER, Misfit.SERVER, None]


@pytest.mark.parametrize(
    ("policy", "tcp", "udp"),
    [
        (None, Misfit.RESET, Misfit.SERVER),
        (OnServerDown.RESET, Misfit.RESET, Misfit.SERVER),
        (OnServerDown.EXPIRE, Misfit.SERVER, Misfit.SERVER),
        (OnServerDown.KEEP, None, None),
    ],
)
def test_connections_of_a_removed_server_end_as_their_service_wants(
    policy: OnServerDown | None, tcp: Misfit | None, udp: Misfit | None
) -> None:
    services = tuple(replace(s, on_server_down=policy) for s in EDGE.services)
    rules = rules_of(replace(EDGE, services=services), DEVICES, ())
    rules = Rules.from_document(json.loads(json.dumps(rules.to_document())))

    assert rules.misfit(web(("10.11.12.110", 8080)), device_of) is tcp
    assert rules.misfit(media((INSIDE, 5008), 5007), device_of) is udp


def test_flows_of_an_address_that_is_gone_end() -> None:
    without = rules_of(replace(EDGE, vips=EDGE.vips[1:], services=()), DEVICES, ())
    assert without.misfit(web((INSIDE, 8080)), device_of) is None

    rules = without.after(RULES)

    assert rules.misfit(web((INSIDE, 8080)), device_of) is Misfit.ADDRESS
    assert rules.misfit(out(INSIDE, VIP), device_of) is Misfit.ADDRESS
    again = RULES.after(rules)
    assert again.misfit(out(INSIDE, VIP), device_of) is None


def test_transit_and_an_open_router_leave_flows_alone() -> None:
    vpn = Transit("vpn", (ip_network("10.99.0.0/16"),))
    record = flow(("10.99.0.7", 1), (OUTSIDE, 22))

    transit = rules_of(replace(EDGE, transits=(vpn,)), DEVICES, ())
    opened = rules_of(replace(EDGE, forward=Forward.OPEN), DEVICES, ())

    assert transit.misfit(record, device_of) is None
    assert opened.misfit(record, device_of) is None
    assert opened.misfit(out(INSIDE, INSIDE, 0), device_of) is Misfit.UNTRANSLATED


def test_ipv6_is_judged_alike() -> None:
    inside, vip, outside = "fd00:12::101", "2001:db8:1::10", "2001:db8:9::1"
    translated = flow((outside, 5), (vip, 80), DNAT, server=(inside, 8080), protocol=TCP)

    assert RULES.misfit(translated, device_of) is None
    assert RULES.misfit(flow((inside, 5), (outside, 53)), device_of) is Misfit.UNTRANSLATED
    assert RULES.misfit(flow((outside, 5), (inside, 53)), device_of) is Misfit.FORBIDDEN


@given(configurations())
def test_rules_pass_to_the_flow_worker_as_they_are(configuration: Configuration) -> None:
    rules = rules_of(configuration, DEVICES, CONVERSATION.own)

    assert Rules.from_document(json.loads(json.dumps(rules.to_document()))) == rules
