"""A network that is quiet is made to answer, by either version of IP."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from scapy.layers.inet6 import ICMPv6EchoReply, IPv6
from scapy.layers.l2 import ARP, Ether

from chaos.lab.netns import entered
from hanat.kernel.links import KernelLinks
from tests.kernel.namespaces import cable, namespaces, run, until

pytestmark = pytest.mark.kernel


@pytest.fixture
def router() -> Iterator[str]:
    """A node that has an address on eth0, and a host behind it."""
    with namespaces("router", "host") as made:
        cable((made["router"], "eth0"), (made["host"], "eth0"))
        for name, number in (("router", 11), ("host", 1)):
            run(f"ip address add 203.0.113.{number}/24 dev eth0", made[name])
        with entered(made["router"]):
            yield made["router"]


def know_the_host() -> None:
    """Have the kernel ask for it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.sendto(b"", ("203.0.113.1", 9))
    until(lambda: "lladdr" in run("ip -4 neigh show dev eth0"), "the host's address")


def quiet(namespace: str, *, without: int) -> None:
    """Leave one version of IP; wait until nothing comes any more by itself."""
    if without == 6:
        run("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1", namespace)
    else:
        run("ip address flush dev eth0 scope global", namespace)


@pytest.mark.parametrize("version", [4, 6])
def test_answer_of_a_host_is_heard_whatever_a_firewall_says(router: str, version: int) -> None:
    if version == 4:
        know_the_host()
    quiet(router, without=10 - version)
    run("nft add table inet other", router)
    run("nft add chain inet other in { type filter hook input priority 0; policy drop; }", router)
    neighbours = "{ nd-neighbor-solicit, nd-neighbor-advert }"
    run(f"nft add rule inet other in icmpv6 type {neighbours} accept", router)
    links = KernelLinks()
    table = run("ip -4 neigh show dev eth0")
    assert not links.answered("eth0")  # nobody was asked

    def answered() -> bool:
        assert links.ask("eth0") >= 1
        return links.answered("eth0")

    until(answered, "an answer")
    links.ask_no_more("eth0")
    assert not links.answered("eth0")
    links.close()
    if version == 4:
        assert run("ip -4 neigh show dev eth0").split()[:3] == table.split()[:3]


def test_frames_that_are_no_answer_are_none(router: str) -> None:
    """What a switch says by itself, or hosts of another network, or in answer to others."""
    know_the_host()
    links = KernelLinks()
    run("ip neigh replace 203.0.113.1 lladdr 02:00:00:00:00:01 nud stale dev eth0", router)
    host = router.removesuffix("router") + "host"
    run("sysctl -qw net.ipv6.icmp.echo_ignore_multicast=1", host)
    assert links.ask("eth0") == 2
    before = links.received("eth0")
    own = bytes.fromhex(run("cat /sys/class/net/eth0/address", router).strip().replace(":", ""))
    mac = bytes.fromhex("020000000009")
    spoken = [
        bytes.fromhex("0180c2000000") + mac + b"\0\x26" + bytes(38),  # 802.1D
        arp(b"\xff" * 6, mac, 1, "203.0.113.1"),  # a question of the one that was asked
        arp(own, mac, 2, "203.0.113.7"),  # an answer of one that was not
        bytes(Ether(dst=own, src=mac) / IPv6(src="fe80::9", dst="fe80::1") / echo(1)),
    ]
    with entered(host), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as opened:
        for frame in spoken:
            opened.sendto(frame, ("eth0", 0))
    until(lambda: links.received("eth0") >= before + len(spoken), "what the host says")
    assert not links.answered("eth0")
    with entered(host), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as opened:
        opened.sendto(arp(own, mac, 2, "203.0.113.1"), ("eth0", 0))
    until(lambda: links.answered("eth0"), "the answer")
    assert not links.answered("eth0")  # each counts once
    links.close()


def test_device_that_was_made_anew_is_heard(router: str) -> None:
    links = KernelLinks()
    until(lambda: links.ask("eth0") > 0 and links.answered("eth0"), "an answer")
    run("ip link delete eth0", router)
    assert links.ask("eth0") == 0
    assert not links.answered("eth0")
    host = router.removesuffix("router") + "host"
    cable((router, "eth0"), (host, "eth0"))
    until(lambda: links.ask("eth0") > 0 and links.answered("eth0"), "an answer")
    links.close()


def test_silent_network_is_asked_in_vain_and_the_table_of_neighbours_is_left_alone(
    router: str,
) -> None:
    know_the_host()
    run("ip neigh replace 203.0.113.1 lladdr 02:00:00:00:00:01 nud stale dev eth0", router)
    host = router.removesuffix("router") + "host"
    run("sysctl -qw net.ipv6.icmp.echo_ignore_multicast=1", host)
    links = KernelLinks()
    for _ in range(3):
        assert links.ask("eth0") >= 1
        assert not links.answered("eth0")
    assert "STALE" in run("ip -4 neigh show dev eth0")
    assert links.ask("gone0") == 0
    assert not links.answered("gone0")
    links.close()


def arp(to: bytes, own: bytes, operation: int, sender: str) -> bytes:
    fields = {"hwsrc": own, "psrc": sender, "hwdst": to, "pdst": "203.0.113.11"}
    return bytes(Ether(dst=to, src=own) / ARP(op=operation, **fields))


def echo(number: int) -> ICMPv6EchoReply:
    return ICMPv6EchoReply(id=number, seq=number)
