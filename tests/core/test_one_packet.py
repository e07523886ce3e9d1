"""One packet scheduling as text; what the kernel makes of it is in tests/kernel."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest

from hanat.core.configuration import (
    Configuration,
    FloatingAddress,
    Forward,
    Limits,
    Listen,
    Protocol,
    RealServer,
    Scheduler,
    Sorry,
    Unavailable,
    VirtualService,
)
from hanat.core.gate_rules import render_gate
from hanat.core.one_packet import one_packet_blocks
from hanat.core.one_packet_turns import turn_blocks
from hanat.core.ruleset import render_rotations, render_ruleset
from hanat.core.schedulers import InRotation
from hanat.core.services import Turns, rotation_of, service_chains
from hanat.core.steps import parse, steps, without_services
from tests.core.examples import CONVERSATION, DEVICES, EDGE, PUBLIC, PUBLIC_V6, WEB

DNS = VirtualService(
    "dns",
    (Listen(PUBLIC, Protocol.UDP, 53, 53), Listen(PUBLIC_V6, Protocol.UDP, 53, 53)),
    Scheduler.WRR,
    (
        RealServer("a", ip_address("10.11.12.101"), 5353, weight=2),
        RealServer("b", ip_address("10.11.12.102"), None, weight=1),
        RealServer("six", ip_address("fd00:12::101"), 5353, weight=1),
    ),
    ops=True,
)
WITH_DNS = replace(EDGE, services=(WEB, DNS))


def text(configuration: Configuration = WITH_DNS, **others: object) -> str:
    return render_ruleset(configuration, DEVICES, CONVERSATION, **others)  # type: ignore[arg-type]


def blocks(configuration: Configuration = WITH_DNS) -> dict[str, list[str]]:
    found = one_packet_blocks(configuration, DEVICES)
    return {block[0].split()[1]: [line.strip() for line in block[1:-1]] for block in found}


def elements_of(name: str, configuration: Configuration = WITH_DNS) -> list[str]:
    return [line for line in blocks(configuration)[name] if line.endswith(",")]


def with_dns(**others: object) -> Configuration:
    return replace(EDGE, services=(WEB, replace(DNS, **others)))  # type: ignore[arg-type]


def test_service_of_datagrams_reads_like_this() -> None:
    *counted, one, other, turn = turn_blocks(DNS, 4, rotation_of(DNS))
    to = one, other

    assert [block[0] for block in counted] == [
        f"counter one_packet_{way}/dns/{server}/v4 {{" for server in "ab" for way in ("to", "from")
    ]
    assert [[line.strip() for line in block] for block in to] == [
        [
            one[0],
            "counter name one_packet_to/dns/a/v4",
            "ip daddr set 10.11.12.101",
            "udp checksum 0 @th,16,16 set 5353 accept",
            "udp dport set 5353 accept",
            "}",
        ],
        [
            other[0],
            "counter name one_packet_to/dns/b/v4",
            "ip daddr set 10.11.12.102 accept",
            "}",
        ],
    ]
    first, second = (block[0].split()[1] for block in to)
    assert turn[1:-1] == [
        "    # wrr: a 2/3, b 1/3",
        f"    meta l4proto udp numgen inc mod 3 vmap {{ 0 : goto {first}, 1 : goto {second}, "
        f"2 : goto {first} }}",
    ]


def test_without_such_a_service_nothing_is_there() -> None:
    plain = with_dns(ops=False)

    assert "one_packet" not in text(plain)
    assert render_gate(plain, DEVICES) == render_gate(EDGE, DEVICES)
    assert len(render_gate(WITH_DNS, DEVICES).splitlines()) == (
        len(render_gate(EDGE, DEVICES).splitlines()) + 1
    )


def test_gate_asks_for_answers_before_it_drops_what_is_not_tracked() -> None:
    lines = render_gate(WITH_DNS, DEVICES).splitlines()

    (passing,) = [i for i, line in enumerate(lines) if "udp ct state untracked" in line]
    assert lines[passing].endswith("goto guarded")
    assert "ct state untracked fib daddr type" in lines[passing + 1]
    assert lines[passing + 1].endswith("counter drop")


def test_open_gate_has_no_need_for_it() -> None:
    opened = replace(WITH_DNS, forward=Forward.OPEN)

    assert "untracked" not in render_gate(opened, DEVICES)
    policy = blocks(opened)["one_packet_in"]
    assert "fib daddr type unicast counter drop" not in policy
    assert any("fib saddr . iif oif missing counter drop" in line for line in policy)


def test_answers_of_servers_do_not_depend_on_the_rotation() -> None:
    static = one_packet_blocks(WITH_DNS, DEVICES)
    lines = text(rotations={"dns": ()})

    assert all("\n".join(f"    {line}" for line in block) in lines for block in static)
    assert elements_of("one_packet_servers_v4") == [
        "10.11.12.101 . udp . 5353,",
        "10.11.12.102 . udp . 53,",
    ]


def test_flows_of_the_service_are_translated_as_ever() -> None:
    """Of clients beside a server, and of programs of the holder."""
    (chain,) = (
        lines
        for (kind, name), lines in parse(text()).items()
        if kind == "chain" and name.startswith("service/dns/v4/")
    )

    of = service_chains(DNS, 4, rotation_of(DNS))[-1]
    assert chain == tuple(line.strip() for line in of[1:-1])


@pytest.mark.parametrize(
    ("others", "choice"),
    [
        ({"scheduler": Scheduler.RR}, "numgen inc mod 2"),
        ({"scheduler": Scheduler.RANDOM}, "numgen random mod 3"),
        ({"scheduler": Scheduler.SH}, "jhash ip saddr mod 4093"),
        ({"scheduler": Scheduler.MH, "hash_port": True}, "jhash ip saddr . th sport mod 4093"),
        ({"scheduler": Scheduler.FO}, "numgen inc mod 3"),
    ],
)
def test_kernel_chooses_by(others: dict[str, object], choice: str) -> None:
    of = replace(DNS, **others)  # type: ignore[arg-type]  # whatever a test has

    rule = turn_blocks(of, 4, rotation_of(of))[-1][2]

    assert rule.startswith(f"    meta l4proto udp {choice} ")


@pytest.mark.parametrize(
    ("others", "last"),
    [
        ({}, "counter accept"),
        ({"unavailable": Unavailable.DROP}, "counter drop"),
        ({"sorry": (Sorry(ip_address("10.11.12.200"), 53),)}, "goto one_packet_to/dns/.sorry/v4/"),
        ({"sorry": (Sorry(ip_address("fd00:12::200"), None),)}, "counter accept"),
    ],
)
def test_service_without_servers(others: dict[str, object], last: str) -> None:
    block = turn_blocks(replace(DNS, **others), 4, ())[-1]  # type: ignore[arg-type]

    assert block[1] == "    # wrr: no server"
    assert block[-2].strip().startswith(last)


def test_sorry_server_answers_as_the_others() -> None:
    found = with_dns(sorry=(Sorry(ip_address("10.11.12.200"), 99),))

    assert "10.11.12.200 . udp . 99," in elements_of("one_packet_servers_v4", found)


def test_limits_are_met_before_anything_is_chosen() -> None:
    of = replace(DNS, limits=Limits(1000, 2000))
    rules = turn_blocks(of, 4, rotation_of(of))[-1]

    assert rules[2].strip().startswith("jump limits/dns/v4/")
    lines = text(replace(EDGE, services=(of,)))
    assert lines.index("chain limits/dns/v4/") < lines.index("chain one_packet/dns/v4/")


def test_tcp_of_a_service_goes_by_flows() -> None:
    listens = (*DNS.listens[1:], Listen(PUBLIC, Protocol.TCP, 53, 53))
    found = text(with_dns(listens=listens))

    assert "one_packet_turns_v4" not in found
    assert "one_packet_turns_v6" in found


def test_range_of_ports_comes_back_from_the_same_ports() -> None:
    listens = (Listen(PUBLIC, Protocol.UDP, 5000, 5099),)
    servers = (RealServer("a", ip_address("10.11.12.101"), None, weight=1),)
    found = blocks(with_dns(listens=listens, servers=servers))

    assert "10.11.12.101 . udp . 5000-5099," in found["one_packet_servers_ranges_v4"]
    assert "one_packet_servers_v4" not in found
    (back,) = (lines for name, lines in found.items() if name.startswith("one_packet_from/"))
    assert back == ["counter name one_packet_from/dns/a/v4", f"ip saddr set {PUBLIC} accept"]


def test_places_that_overlap_are_those_of_the_first() -> None:
    """Configurations of files have none; the kernel would refuse them."""
    listens = (Listen(PUBLIC, Protocol.UDP, 5000, 5099), Listen(PUBLIC, Protocol.UDP, 60, 60))
    servers = (
        RealServer("a", ip_address("10.11.12.101"), None, weight=1),
        RealServer("b", ip_address("10.11.12.101"), 5050, weight=1),
    )
    found = with_dns(listens=listens, servers=servers)

    assert elements_of("one_packet_servers_v4", found) == ["10.11.12.101 . udp . 60,"]
    ranges = elements_of("one_packet_servers_ranges_v4", found)
    assert ranges == ["10.11.12.101 . udp . 5000-5099,"]


# -------------------------------------------------------------------- which clients, and which not


def asked_by(configuration: Configuration, devices: dict[str, str]) -> set[str]:
    found = one_packet_blocks(configuration, devices)
    return {
        name.removeprefix("one_packet_asked_").removesuffix("_v4")
        for name in (block[0].split()[1] for block in found if block[0].startswith("set "))
        if name.startswith("one_packet_asked_") and name.endswith("_v4")
    }


DMZ = FloatingAddress("dmz", "dmz", (ip_interface("10.20.0.1/16"),))
THREE = replace(EDGE, vips=(*EDGE.vips, DMZ))
FAR = (RealServer("far", ip_address("10.99.0.1"), 53, weight=1),)


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ({}, {"public"}),
        ({"sources": ("public", "dmz")}, {"public", "dmz"}),
        ({"sources": ("public", "private")}, {"public"}),  # beside the servers
        ({"sources": ("private",)}, set()),
        # Behind a router: nobody knows on which side, but hardly on that of the address.
        ({"servers": FAR, "sources": ("public", "private", "dmz")}, {"public"}),
    ],
)
def test_clients_whose_answers_come_back_by_themselves(
    others: dict[str, object], expected: set[str]
) -> None:
    of = replace(DNS, **others)  # type: ignore[arg-type]  # whatever a test has

    devices = {**DEVICES, "dmz": "eth2"}
    assert asked_by(replace(THREE, services=(of,)), devices) == expected


def test_interfaces_that_share_a_device_go_by_flows() -> None:
    assert asked_by(WITH_DNS, {"public": "eth0", "private": "eth0"}) == set()
    assert asked_by(replace(WITH_DNS, vips=EDGE.vips[:1]), {"public": "eth0"}) == set()


# ----------------------------------------------------------------------------------- rotations


def test_rotation_builds_two_chains_and_moves_two_elements() -> None:
    after = Turns({"dns": (InRotation("a", 2), InRotation("six", 1))})

    found = steps(*render_rotations(WITH_DNS, Turns(), after))

    assert found is not None
    assert found == steps(text(), text(rotations=after.rotations))
    shape = [" ".join(line.split("/")[0].split()[:5]) for line in found.switch.splitlines()]
    assert [line for line in shape if line.startswith(("add", "delete"))] == [
        "delete element inet hanat listens_v4",
        "add element inet hanat listens_v4",
        "delete element inet hanat one_packet_turns_v4",
        "add element inet hanat one_packet_turns_v4",
        "delete chain inet hanat service",
        "delete chain inet hanat one_packet",
        "delete chain inet hanat one_packet_to",
        *["delete chain inet hanat server"] * 2,
    ]


def test_without_services_no_datagram_is_sent_anywhere() -> None:
    first = parse(without_services(text()))

    assert not [name for _, name in first if name.startswith("one_packet/")]
    assert "elements = {" not in first["map", "one_packet_turns_v4"]
    assert "elements = {" not in first["set", "one_packet_asked_public_v4"]
