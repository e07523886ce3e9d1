"""The observer reads the wire as the standards write it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import ARP, Ether

from chaos.carrying import ROOM_BYTES, attach, dropped, make_room
from chaos.netns import entered
from chaos.observer import FILTER, parse_addresses, parse_arp, parse_syn
from chaos.topology import build, remove, three_routers

MAC = "02:68:6e:01:00:0b"


def frame(**fields: object) -> bytes:
    # scapy is the second implementation here; the observer reads the bytes itself.
    return bytes(Ether(src=MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=MAC, **fields))


def test_reply_for_a_floating_address_is_read() -> None:
    data = frame(op=2, psrc="203.0.113.10", pdst="203.0.113.100")
    seen = parse_arp(data, router="r1", network="public", t_ns=7)
    assert seen is not None
    assert (seen.router, seen.address, seen.mac, seen.gratuitous) == (
        "r1",
        "203.0.113.10",
        MAC,
        False,
    )


def test_announcement_is_told_from_an_answer_in_both_forms() -> None:
    # RFC 5227 §3: request or reply, sender and target address equal.
    for op in (1, 2):
        data = frame(op=op, psrc="10.11.12.1", pdst="10.11.12.1")
        seen = parse_arp(data, router="r1", network="private", t_ns=7)
        assert seen is not None
        assert seen.gratuitous


def test_arp_about_other_addresses_is_not_recorded() -> None:
    own = frame(op=1, psrc="203.0.113.11", pdst="203.0.113.10")
    probe = frame(op=1, psrc=str(IPv4Address(0)), pdst="203.0.113.10")
    for data in (own, probe, own[:30], b"", bytes(60)):
        assert parse_arp(data, router="r1", network="public", t_ns=7) is None


def test_connections_of_clients_are_told_from_those_of_routers() -> None:
    def admitted(network: str, source: str) -> bool:
        data = bytes(Ether(src=MAC) / IP(src=source, dst="192.0.2.1") / TCP(flags="S"))
        return parse_syn(data, router="r1", network=network, t_ns=7) is not None

    assert admitted("private", "203.0.113.100")  # translated towards a server
    assert admitted("public", "203.0.113.10")  # masqueraded
    assert not admitted("private", "10.11.12.11")  # a router, of its own
    assert not admitted("public", "203.0.113.11")


def test_frames_that_begin_no_connection_are_not_read() -> None:
    arp = frame(op=1, psrc="203.0.113.10", pdst="203.0.113.10")
    for data in (arp, b"", bytes(60), bytes(Ether(type=0x0800))):
        assert parse_syn(data, router="r1", network="public", t_ns=7) is None


def netlink(kind: int, address: str, attribute: int = 2) -> bytes:
    """A message as rtnetlink(7) describes it: header, ifaddrmsg, IFA_LOCAL."""
    body = struct.pack("=BBBBI", socket.AF_INET, 24, 0, 0, 2)
    body += struct.pack("=HH4s", 8, attribute, socket.inet_aton(address))
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body


def test_addresses_that_come_and_go_are_read() -> None:
    data = netlink(20, "203.0.113.10") + netlink(20, "203.0.113.11") + netlink(21, "10.11.12.1")
    seen = parse_addresses(data, router="r2", t_ns=7)
    assert [(s.address, s.present) for s in seen] == [("203.0.113.10", True), ("10.11.12.1", False)]


def test_broken_netlink_is_survived() -> None:
    good = netlink(20, "203.0.113.10")
    for data in (b"", good[:10], struct.pack("=IHHII", 3, 20, 0, 0, 0), good[:20], bytes(64)):
        assert parse_addresses(data, router="r2", t_ns=7) == []


Sockets = tuple[Callable[[int], None], socket.socket, socket.socket]


@pytest.fixture
def sockets(prefix: str) -> Iterator[Sockets]:
    """In a router: what broadcasts so many datagrams, and two packet sockets that see them."""
    network = three_routers(prefix)
    build(network)
    try:
        with entered(network.namespace("r1")):
            one, other = (
                socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) for _ in range(2)
            )
            mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        mouth.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)

        def send(count: int) -> None:
            for _ in range(count):
                mouth.sendto(bytes(1000), ("203.0.113.255", 9))

        with one, other, mouth:
            yield send, one, other
    finally:
        remove(network)


@pytest.mark.kernel
def test_frames_without_room_are_counted_once(sockets: Sockets) -> None:
    send, small, large = sockets
    make_room(small, 4096)
    make_room(large)
    assert large.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * ROOM_BYTES
    send(200)
    assert dropped(small) > 100
    assert dropped(small) == 0
    assert dropped(large) == 0


@pytest.mark.kernel
def test_frames_from_before_the_filter_are_not_read(sockets: Sockets) -> None:
    send, capture, _ = sockets
    send(3)
    assert capture.recv(1, socket.MSG_PEEK)
    attach(capture, FILTER)
    with pytest.raises(BlockingIOError):
        capture.recv(1, socket.MSG_DONTWAIT)
