"""The rendered scripts: their text. nft judges in tests/kernel."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanat.core.configuration import Configuration, Scheduler, VirtualService
from hanat.core.gate_rules import render_gate
from hanat.core.ruleset import Known, render_rotations, render_ruleset
from hanat.core.schedulers import InRotation
from hanat.core.services import Turns
from hanat.core.steps import parse
from tests.core.configurations import configurations, rotations
from tests.core.examples import CONVERSATION, DEVICES, EDGE, OFF, PUBLIC, PUBLIC_V6, WEB

GOLDEN = """\
# hanat: ruleset of cluster edge1
add table inet hanat
delete table inet hanat
table inet hanat {
    chain service/web/v4/951bff29 {
        # wrr: web1 2/3, web2 1/3
        meta l4proto tcp dnat ip to numgen inc mod 3 map { 0 : 10.11.12.101 . 8080, 1 : \
10.11.12.102 . 8080, 2 : 10.11.12.101 . 8080 }
    }

    chain service/web/v6/69fce3f4 {
        # wrr: web6 1/1
        meta l4proto tcp dnat ip6 to [fd00:12::101]:8080
    }

    chain service/off/v4/7acad9d8 {
        # rr: no server
        counter accept
    }

    map listens_v4 {
        type ipv4_addr . inet_proto . inet_service : verdict
        elements = {
            203.0.113.10 . tcp . 80 : goto service/web/v4/951bff29,
            203.0.113.10 . udp . 9 : goto service/off/v4/7acad9d8,
        }
    }

    map listens_v6 {
        type ipv6_addr . inet_proto . inet_service : verdict
        elements = {
            2001:db8:1::10 . tcp . 80 : goto service/web/v6/69fce3f4,
        }
    }

    set refused_v4 {
        type ipv4_addr . inet_proto . inet_service
        flags interval
        elements = {
            203.0.113.10 . udp . 9,
        }
    }

    set refused_v6 {
        type ipv6_addr . inet_proto . inet_service
        flags interval
    }

    chain prerouting {
        type nat hook prerouting priority dstnat; policy accept;
        iifname != { "eth0", "eth1" } accept
        ct event set assured,destroy
        ip daddr . meta l4proto . th dport vmap @listens_v4
        ip6 daddr . meta l4proto . th dport vmap @listens_v6
    }

    chain output {
        type nat hook output priority -100; policy accept;
        fib daddr type != local accept
        ip daddr . meta l4proto . th dport vmap @listens_v4
        ip6 daddr . meta l4proto . th dport vmap @listens_v6
    }

    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        # a program of this machine: servers know the way to the address beside them
        oifname "eth0" fib saddr type local meta nfproto ipv4 ct status dnat snat ip to 203.0.113.10
        oifname "eth0" fib saddr type local meta nfproto ipv6 ct status dnat snat ip6 to \
2001:db8:1::10
        oifname "eth1" fib saddr type local meta nfproto ipv4 ct status dnat snat ip to 10.11.12.1
        oifname "eth1" fib saddr type local meta nfproto ipv6 ct status dnat snat ip6 to fd00:12::1
        iifname != { "eth0", "eth1" } accept
        # a client beside the server: the answer has to come back through here
        iifname "eth0" oifname "eth0" meta nfproto ipv4 ct status dnat snat ip to 203.0.113.10
        iifname "eth0" oifname "eth0" meta nfproto ipv6 ct status dnat snat ip6 to 2001:db8:1::10
        iifname "eth1" oifname "eth1" meta nfproto ipv4 ct status dnat snat ip to 10.11.12.1
        iifname "eth1" oifname "eth1" meta nfproto ipv6 ct status dnat snat ip6 to fd00:12::1
        ct status dnat accept
        iifname { "eth1" } oifname "eth0" ip saddr { 10.11.12.0/24 } snat ip to 203.0.113.10
        iifname { "eth1" } oifname "eth0" ip6 saddr { fd00:12::/64 } snat ip6 to 2001:db8:1::10
    }

    chain refused {
        tcp flags & (fin | syn | rst | ack) == syn counter reject with tcp reset
        meta l4proto udp counter reject
        counter drop
    }

    chain floating {
        ct state established,related accept
        icmp type { echo-request, destination-unreachable, time-exceeded, parameter-problem } accept
        icmpv6 type { echo-request, destination-unreachable, packet-too-big, time-exceeded, \
parameter-problem, nd-neighbor-solicit, nd-neighbor-advert } accept
        ip daddr . meta l4proto . th dport @refused_v4 goto refused
        ip6 daddr . meta l4proto . th dport @refused_v6 goto refused
        meta l4proto udp ip ttl 1 counter reject
        meta l4proto udp ip6 hoplimit 1 counter reject
        counter drop
    }

    chain input {
        type filter hook input priority filter; policy accept;
        ip daddr { 10.11.12.1, 203.0.113.10 } goto floating
        ip6 daddr { 2001:db8:1::10, fd00:12::1 } goto floating
    }

    chain arrival/private {
        ct state related accept
        ip daddr { 10.11.12.1 } accept
        ip6 daddr { fd00:12::1 } accept
        fib daddr type { local, broadcast, anycast } fib daddr . iif type != { local, broadcast, \
anycast } counter drop
    }

    chain arrival/public {
        ct state related accept
        ip saddr != 0.0.0.0 fib saddr oifname { "eth1" } counter drop
        ip6 saddr != { ::, fe80::/10 } fib saddr oifname { "eth1" } counter drop
        ip daddr { 203.0.113.10 } accept
        ip6 daddr { 2001:db8:1::10 } accept
        fib daddr type { local, broadcast, anycast } fib daddr . iif type != { local, broadcast, \
anycast } counter drop
    }

    chain arrival {
        type nat hook prerouting priority -110; policy accept;
        iifname vmap { "eth1" : goto arrival/private, "eth0" : goto arrival/public }
    }

    chain forward {
        type nat hook postrouting priority 90; policy accept;
        iifname != { "eth0", "eth1" } accept
        ct state related accept
        ct status dnat ct original ip daddr { 10.11.12.1, 203.0.113.10 } accept
        ct status dnat ct original ip6 daddr { 2001:db8:1::10, fd00:12::1 } accept
        iifname { "eth1" } oifname "eth0" ip saddr { 10.11.12.0/24 } accept
        iifname { "eth1" } oifname "eth0" ip6 saddr { fd00:12::/64 } accept
        counter drop
    }

    chain cluster {
        tcp dport 7411 notrack
        tcp sport 7411 notrack
        udp dport 7412 notrack
        udp sport 7412 notrack
    }

    chain cluster_on_link {
        ip ttl 255 goto cluster
        ip6 hoplimit 255 goto cluster
        tcp flags & (syn | ack) != syn goto cluster
        counter drop
    }

    chain cluster_asked_v4 {
        iifname "eth0" ip saddr { 203.0.113.12 } ip daddr 203.0.113.11 goto cluster_on_link
        ip saddr { 203.0.113.13 } ip daddr 203.0.113.11 goto cluster
        counter drop
    }

    chain cluster_asked_v6 {
        iifname "eth1" ip6 saddr { fd00:12::12 } ip6 daddr fd00:12::11 goto cluster_on_link
        ip6 saddr { fd00:12::13 } ip6 daddr fd00:12::11 goto cluster
        counter drop
    }

    chain cluster_ports {
        ip daddr { 203.0.113.11 } tcp dport 7411 goto cluster_asked_v4
        ip daddr { 203.0.113.11 } udp dport 7412 goto cluster_asked_v4
        ip saddr { 203.0.113.12, 203.0.113.13 } ip daddr { 203.0.113.11 } goto cluster
        ip6 daddr { fd00:12::11 } tcp dport 7411 goto cluster_asked_v6
        ip6 daddr { fd00:12::11 } udp dport 7412 goto cluster_asked_v6
        ip6 saddr { fd00:12::12, fd00:12::13 } ip6 daddr { fd00:12::11 } goto cluster
    }

    chain cluster_in {
        type filter hook prerouting priority raw; policy accept;
        th dport & 0xfff8 == 0x1cf0 goto cluster_ports
        th sport & 0xfff8 == 0x1cf0 goto cluster_ports
    }

    chain cluster_out {
        type filter hook output priority raw; policy accept;
        ip saddr { 203.0.113.11 } ip daddr { 203.0.113.12, 203.0.113.13 } goto cluster
        ip6 saddr { fd00:12::11 } ip6 daddr { fd00:12::12, fd00:12::13 } goto cluster
    }
}
"""


def test_small_configuration_reads_like_this() -> None:
    small = replace(EDGE, services=(WEB, OFF))

    assert render_ruleset(small, DEVICES, CONVERSATION) == GOLDEN


def test_servers_with_and_without_a_port_get_a_chain_each() -> None:
    text = render_ruleset(EDGE, DEVICES, CONVERSATION)

    assert (
        "    chain server/media/any/v4/31eb795a {\n"
        "        meta l4proto { tcp, udp } dnat ip to 10.11.12.101\n"
        "    }\n"
    ) in text
    (rule,) = (line for line in text.splitlines() if " jhash ip saddr mod 4093 " in line)
    assert rule.startswith("        meta l4proto { tcp, udp } jhash")
    assert " vmap { 0 : goto server/media/one/v4/378d6aee, 1 : goto server/media/any/v4/" in rule


def test_port_ranges_have_a_map_of_their_own() -> None:
    text = render_ruleset(EDGE, DEVICES, CONVERSATION)

    assert "203.0.113.10 . udp . 5000-5099 : goto service/media/v4/08228a4e" in text
    assert text.index("vmap @listens_v4") < text.index("vmap @ranges_v4")


def test_source_is_never_masqueraded() -> None:
    assert "masquerade" not in render_ruleset(EDGE, DEVICES, CONVERSATION)


def test_floating_address_is_tracked_whoever_claims_it() -> None:
    claimed = replace(
        CONVERSATION,
        own=(PUBLIC, *CONVERSATION.own),
        peers=(PUBLIC, PUBLIC_V6, *CONVERSATION.peers),
    )

    text = render_ruleset(EDGE, DEVICES, claimed)
    assert text == render_ruleset(EDGE, DEVICES, CONVERSATION)


def test_cluster_of_one_talks_to_nobody() -> None:
    assert "notrack" not in render_ruleset(EDGE, DEVICES, replace(CONVERSATION, peers=()))


def test_rights_survive_the_gate_s_script() -> None:
    flushed = re.findall(r"flush set (\S+ \S+ \S+)", render_gate(EDGE, DEVICES))

    assert sorted(flushed) == [
        "arp hanat_gate vips",
        "inet hanat_gate ports",
        "inet hanat_gate vips_v4",
        "inet hanat_gate vips_v6",
    ]


def test_floating_address_without_a_device_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="private"):
        render_ruleset(EDGE, {"public": "eth0"}, CONVERSATION)


@given(configuration=configurations())
def test_same_configuration_same_text(configuration: Configuration) -> None:
    same = dict(DEVICES)
    text = render_ruleset(configuration, DEVICES, CONVERSATION)
    assert text == render_ruleset(configuration, same, replace(CONVERSATION))
    assert render_gate(configuration, DEVICES) == render_gate(configuration, same)


@given(configurations(), st.data())
def test_ruleset_is_the_same_whatever_was_rendered_before(
    configuration: Configuration, data: st.DataObject
) -> None:
    services = data.draw(st.permutations(configuration.services))
    before: list[VirtualService] = []
    for service in services:
        scheduler = data.draw(st.sampled_from(Scheduler))
        happened = data.draw(st.sampled_from(["stays", "is new", "has changed"]))
        if happened != "is new":
            changed = replace(service, scheduler=scheduler)
            before.append(service if happened == "stays" else changed)
    was = replace(configuration, services=tuple(before))
    had, has = data.draw(rotations(was)), data.draw(rotations(configuration))
    script = render_ruleset(was, DEVICES, CONVERSATION, rotations=had)
    known = Known(was, script, Turns(had))
    assert render_ruleset(
        configuration, DEVICES, CONVERSATION, rotations=has, known=known
    ) == render_ruleset(configuration, DEVICES, CONVERSATION, rotations=has)


@given(configurations(), st.data())
def test_rotations_change_the_blocks_of_their_services_alone(
    configuration: Configuration, data: st.DataObject
) -> None:
    before, after = data.draw(rotations(configuration)), data.draw(rotations(configuration))

    old, new = (
        parse(part) for part in render_rotations(configuration, Turns(before), Turns(after))
    )

    olds, news = (
        parse(render_ruleset(configuration, DEVICES, CONVERSATION, rotations=some))
        for some in (before, after)
    )
    shared = {key for key in old if key[0] != "chain" and "/" not in key[1]}
    own = old.keys() - shared, new.keys() - shared
    assert {key: olds[key] for key in own[0]} == {key: old[key] for key in own[0]}
    assert {key: news[key] for key in own[1]} == {key: new[key] for key in own[1]}
    assert {k: v for k, v in olds.items() if k not in old} == {
        k: v for k, v in news.items() if k not in new
    }
    for key in shared:
        whole, part = (elements(some[key]) for some in (olds, old))
        whole_after, part_after = (elements(some[key]) for some in (news, new))
        assert whole - whole_after == part - part_after
        assert whole_after - whole == part_after - part


def elements(lines: tuple[str, ...]) -> set[str]:
    return {line for line in lines if line.endswith(",")}


def test_rotation_of_all_servers_is_the_default() -> None:
    web = tuple(InRotation(s.name, s.weight) for s in reversed(WEB.servers))

    assert render_ruleset(EDGE, DEVICES, CONVERSATION, rotations={"web": web}) == render_ruleset(
        EDGE, DEVICES, CONVERSATION
    )


def test_service_without_servers_is_known_where_packets_are_delivered() -> None:
    text = render_ruleset(EDGE, DEVICES, CONVERSATION, rotations={"web": ()})

    assert parse(text)["set", "refused_v4"][3:] == (
        "203.0.113.10 . tcp . 80,",
        "203.0.113.10 . udp . 9,",
        "}",
    )
    assert parse(text)["set", "refused_v6"][3:] == ("2001:db8:1::10 . tcp . 80,", "}")
