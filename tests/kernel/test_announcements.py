"""The frames of an announcement, and what neighbours make of them."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_interface

import pytest

from hanat.core.placements import Placement
from hanat.kernel.announcer import KernelAnnouncer
from tests.kernel.namespaces import cable, run, until
from tests.kernel.network import VIP, VIP_V6, Network

pytestmark = pytest.mark.kernel

ARP = struct.Struct(">6s6sHHHBBH6s4s6s4s")
PUBLIC = Placement("eth0", ip_interface(f"{VIP}/24"))
PUBLIC_V6 = Placement("eth0", ip_interface(f"{VIP_V6}/64"))


def test_ipv4_is_announced_by_request_and_reply(network: Network) -> None:
    seen = _packet_socket(network, 0x0806)
    router = _hardware_address(network)

    with network.r1.entered() as r1:
        assert r1.announcer.announce([PUBLIC]).sent == 2

    frames = [ARP.unpack_from(seen.recv(2048)) for _ in range(2)]
    assert [frame[7] for frame in frames] == [1, 2]
    for target, source, ether_type, *_, sender, sender_ip, _, target_ip in frames:
        assert (target, ether_type) == (b"\xff" * 6, 0x0806)
        assert source == sender == router
        # RFC 5227 section 3: sender and target address are both the announced one.
        assert sender_ip == target_ip == socket.inet_aton(VIP)


def test_ipv6_is_announced_by_an_overriding_advertisement(network: Network) -> None:
    seen = _packet_socket(network, 0x86DD)
    router = _hardware_address(network)

    with network.r1.entered() as r1:
        assert r1.announcer.announce([PUBLIC_V6]).sent == 1

    address = socket.inet_pton(socket.AF_INET6, VIP_V6)
    frame = next(
        found
        for found in iter(lambda: seen.recv(2048), b"")
        if found[54] == 136 and found[22:38] == address
    )
    assert frame[:6] == bytes.fromhex("333300000001")
    assert frame[6:12] == router
    assert frame[21] == 255  # RFC 4861 section 7.1.2: the hop limit, else it is ignored
    assert frame[38:54] == socket.inet_pton(socket.AF_INET6, "ff02::1")
    assert frame[58] & 0x60 == 0x20  # override, not solicited
    assert frame[62:78] == address
    assert frame[78:86] == b"\x02\x01" + router


def test_neighbours_follow_announcements(network: Network) -> None:
    client = network.made["client"]
    for vip in (VIP, VIP_V6):
        run(f"ip neigh replace {vip} lladdr 02:00:00:00:00:99 dev eth0 nud reachable", client)

    with network.r1.entered() as r1:
        r1.announcer.announce([PUBLIC, PUBLIC_V6])

    wanted = _hardware_address(network).hex(":")
    until(
        lambda: all(wanted in run(f"ip neigh show {vip}", client) for vip in (VIP, VIP_V6)),
        "the client to follow",
    )


def test_announcements_follow_a_change_of_the_hardware_address(network: Network) -> None:
    with network.r1.entered() as r1:
        r1.announcer.announce([PUBLIC])
    seen = _packet_socket(network, 0x0806)
    run("ip link set eth0 address 02:00:00:00:00:77", network.r1.namespace)

    with network.r1.entered() as r1:
        r1.announcer.announce([PUBLIC])

    assert seen.recv(2048)[6:12] == bytes.fromhex("020000000077")


def test_device_that_is_down_is_refused(inside: str) -> None:
    cable((inside, "eth0"), (inside, "far"))
    run("ip link set eth0 down", inside)
    announcer = KernelAnnouncer()
    announcer.prepare([PUBLIC])

    ((placement, error),) = announcer.announce([PUBLIC]).refused
    announcer.close()

    assert placement == PUBLIC
    assert "ENETDOWN" in str(error)
    assert str(error).endswith("bring the interface up")


def test_full_queue_refuses_frames_without_waiting_and_the_others_are_sent(inside: str) -> None:
    # A queue of two frames that hardly drains; another device that does.
    cable((inside, "eth0"), (inside, "far0"))
    cable((inside, "eth1"), (inside, "far1"))
    run("tc qdisc add dev eth0 root handle 1: tbf rate 8bit burst 100 limit 100000", inside)
    run("tc qdisc add dev eth0 parent 1:1 handle 10: pfifo limit 2", inside)
    other = Placement("eth1", ip_interface("10.11.12.1/24"))
    announcer = KernelAnnouncer()

    rounds = [announcer.announce([PUBLIC, other]) for _ in range(10)]
    announcer.close()

    assert {placement for r in rounds for placement, _ in r.refused} == {PUBLIC}
    assert all("ENOBUFS" in str(error) for r in rounds for _, error in r.refused)
    assert all(announced.sent >= 2 for announced in rounds)
    assert len([r for r in rounds if r.refused]) >= 8


def test_socket_never_waits_for_a_device_that_sends_nothing(inside: str) -> None:
    # A long queue that does not drain: what waits there fills the socket's buffer instead.
    cable((inside, "eth0"), (inside, "far0"))
    run("tc qdisc add dev eth0 root handle 1: tbf rate 8bit burst 100 limit 100000000", inside)
    run("tc qdisc add dev eth0 parent 1:1 handle 10: pfifo limit 1000000", inside)
    announcer = KernelAnnouncer()

    refusals = [e for _ in range(2000) for _, e in announcer.announce([PUBLIC]).refused]
    announcer.close()

    assert "EAGAIN" in str(refusals[0])


def _hardware_address(network: Network) -> bytes:
    text = run("cat /sys/class/net/eth0/address", network.r1.namespace)
    return bytes.fromhex(text.strip().replace(":", ""))


def _packet_socket(network: Network, ether_type: int) -> socket.socket:
    seen = network.open_socket("client", socket.AF_PACKET, socket.SOCK_RAW)
    seen.bind(("eth0", ether_type))
    return seen
