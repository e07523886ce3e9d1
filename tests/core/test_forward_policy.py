"""What may pass, as text; what the kernel makes of it is in tests/kernel/test_reach.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_interface, ip_network

import pytest

from hanat.core.configuration import (
    Configuration,
    FloatingAddress,
    Forward,
    GateKind,
    Masquerade,
    Transit,
)
from hanat.core.forward_policy import entry_devices, forged_rules, policy_blocks
from hanat.core.gate_rules import IS_MARKED, render_gate
from hanat.core.rights import Enforcement
from hanat.core.ruleset import render_ruleset
from tests.core.examples import CONVERSATION, DEVICES, EDGE, MEDIA, PUBLIC, WEB

DMZ = FloatingAddress("dmz", "dmz", (ip_interface("10.20.0.1/16"),))
THREE = replace(EDGE, vips=(*EDGE.vips, DMZ))
THREE_DEVICES = {**DEVICES, "dmz": "eth2"}


@pytest.mark.parametrize(
    ("networks", "expected"),
    [
        (["10.11.12.0/24"], ("eth1",)),  # where a vip is in it
        (["10.11.12.128/25"], ("eth1",)),
        (["10.20.0.0/16", "10.11.0.0/16"], ("eth1", "eth2")),
        (["10.99.0.0/16"], ("eth1", "eth2")),  # behind a router on whatever side
        (["0.0.0.0/0"], ("eth1", "eth2")),  # never where it leaves
    ],
)
def test_masqueraded_networks_come_in_by_their_own_device(
    networks: list[str], expected: tuple[str, ...]
) -> None:
    masquerade = Masquerade(tuple(map(ip_network, networks)), (PUBLIC,), "public")

    assert entry_devices(THREE, masquerade, THREE_DEVICES) == expected


def test_a_router_with_one_device_masquerades_what_comes_in_there() -> None:
    one = replace(EDGE, vips=EDGE.vips[:1])

    assert entry_devices(one, EDGE.masquerades[0], DEVICES) == ("eth0",)
    assert "fib saddr oifname" not in text_of(one)


def test_clients_may_come_by_either_of_two_ways_to_the_outside() -> None:
    other = Masquerade((ip_network("10.11.12.0/24"),), (DMZ.addresses[0].ip,), "dmz")
    text = text_of(replace(THREE, masquerades=(*EDGE.masquerades, other)), THREE_DEVICES)

    for outside in ("public", "dmz"):
        chain = text[text.index(f"chain arrival/{outside}") :].partition("}\n\n")[0]
        assert 'fib saddr oifname { "eth1" } counter drop' in chain


def test_a_vip_s_network_is_forged_elsewhere_unless_it_overlaps() -> None:
    wide = replace(DMZ, addresses=(ip_interface("10.11.0.9/16"),))
    rules = forged_rules(replace(EDGE, vips=(*EDGE.vips, wide)), THREE_DEVICES)

    assert 'iifname "eth0" ip saddr { 10.11.0.0/16 } counter drop' in rules
    assert not [rule for rule in rules if 'iifname "eth1" ip saddr { 10.11.' in rule]


def test_services_say_by_which_devices_clients_come() -> None:
    services = (replace(WEB, sources=("public", "private")), replace(MEDIA, sources=("private",)))
    blocks = {block[0]: block for block in policy_blocks(replace(EDGE, services=services), DEVICES)}

    assert "203.0.113.10 . tcp . 80," in "\n".join(blocks["set asked_private_v4 {"])
    assert "203.0.113.10 . udp . 5000-5099," in "\n".join(blocks["set asked_private_v4 {"])
    denied = "\n".join(blocks["set denied_public_v4 {"])
    assert "203.0.113.10 . udp . 5000-5099," in denied
    assert ". 80," not in denied
    assert any(
        "@denied_public_v4 counter drop" in line for line in blocks["chain arrival/public {"]
    )


def test_an_open_router_drops_nothing_that_it_forwards() -> None:
    opened = replace(EDGE, forward=Forward.OPEN)

    assert "chain forward {" in text_of(EDGE)
    assert "chain forward {" not in text_of(opened)
    assert "untracked" in render_gate(EDGE, DEVICES)
    assert "untracked" not in render_gate(opened, DEVICES)


def test_neighbours_may_ask_for_an_address_that_is_answered_for() -> None:
    """By proxy: what is not tracked is forwarded by nobody else."""
    lines = render_gate(EDGE, DEVICES).splitlines()

    (asked,) = [i for i, line in enumerate(lines) if "untracked icmpv6 type { nd-" in line]
    assert "accept" in lines[asked]
    assert "untracked fib daddr type" in lines[asked + 1]


def test_gate_lets_no_reset_out_without_answers() -> None:
    for kind, condition in ((GateKind.TIMEOUTS, "oifname @answers"), (GateKind.DEADLINE, "oif @")):
        rules = render_gate(EDGE, DEVICES, Enforcement(kind)).splitlines()
        output = [rule for rule in rules if rule.startswith("add rule inet hanat_gate output")]
        leaving = [rule for rule in rules if rule.startswith("add rule inet hanat_gate leaving")]

        assert any(IS_MARKED in rule and rule.endswith("goto leaving") for rule in output)
        assert condition in leaving[0]
        assert leaving[0].endswith("accept")
        assert leaving[1].endswith("counter drop")


def test_transit_is_left_alone_by_ruleset_and_gate() -> None:
    networks = tuple(map(ip_network, ("10.99.0.0/16", "10.99.7.0/24")))
    with_transit = replace(EDGE, transits=(Transit("vpn", networks),))

    assert text_of(with_transit).count("{ 10.99.0.0/16 } accept") == 5
    gate = render_gate(with_transit, DEVICES)
    # Flows that are translated need the right, whoever their client is.
    assert gate.count("ip saddr { 10.99.0.0/16 } ct status ! snat,dnat accept") == 1
    transit = gate.index("ip saddr { 10.99.0.0/16 } ct status ! snat,dnat accept")
    assert gate.index("@vips_v4 goto guarded") < transit


def text_of(configuration: Configuration, devices: Mapping[str, str] = DEVICES) -> str:
    return render_ruleset(configuration, devices, CONVERSATION)
