"""The observer reads the wire as the standards write it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from chaos.lab.netns import entered
from chaos.lab.topology import build, remove, three_routers
from chaos.observe import packet_filters
from chaos.observe.carrying import ROOM_BYTES, dropped, filter_for, make_room
from chaos.observe.frames import (
    FILTER,
    endpoint,
    parse,
    parse_advertisement,
    parse_arp,
    parse_syn,
    question,
)
from chaos.observe.observer import parse_addresses
from chaos.observe.packet_filters import attach

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


def advertisement(target: str, *, solicited: int, options: bool = True) -> bytes:
    message = Ether(src=MAC) / IPv6(src=target, dst="ff02::1")
    message /= ICMPv6ND_NA(R=1, S=solicited, O=1, tgt=target)
    return bytes(message / ICMPv6NDOptDstLLAddr(lladdr=MAC) if options else message)


def test_advertisement_for_a_floating_address_is_read() -> None:
    # RFC 4861 §7.2.6: what is not asked for has the solicited flag clear.
    for solicited, options in ((0, True), (1, True), (1, False)):
        data = advertisement("2001:db8:113::10", solicited=solicited, options=options)
        seen = parse_advertisement(data, router="r1", network="public", t_ns=7)
        assert seen is not None
        assert parse(data, router="r1", network="public", t_ns=7) == seen
        assert (seen.address, seen.mac) == ("2001:db8:113::10", MAC)
        assert seen.gratuitous is not bool(solicited)


def test_advertisements_of_other_addresses_are_not_recorded() -> None:
    own = advertisement("2001:db8:113::11", solicited=1)
    asks = bytes(Ether() / IPv6() / ICMPv6ND_NS(tgt="2001:db8:113::10"))
    for data in (own, asks, own[:70], b"", bytes(100)):
        assert parse_advertisement(data, router="r1", network="public", t_ns=7) is None


def test_question_is_a_solicitation_that_everybody_may_answer() -> None:
    mac = bytes.fromhex("02686e0100fe")
    data = question("fd00:12::1", "private", mac)
    frame, again = Ether(data), Ether(data)
    assert (frame.dst, frame[IPv6].dst) == ("33:33:ff:00:00:01", "ff02::1:ff00:1")
    assert (frame[IPv6].src, frame[IPv6].hlim) == ("fd00:12::250", 255)  # RFC 4861 §7.1.1
    assert frame[ICMPv6ND_NS].tgt == "fd00:12::1"
    assert frame[ICMPv6NDOptSrcLLAddr].lladdr == "02:68:6e:01:00:fe"
    del again[ICMPv6ND_NS].cksum
    assert bytes(again) == data


def accepts(
    program: tuple[packet_filters.Instruction, ...], packet: Packet, *, outgoing: bool = False
) -> bool:
    """Run a filter as the kernel does (Documentation/networking/filter.rst)."""
    data = bytes(packet)
    ancillary = {
        packet_filters.PKTTYPE: packet_filters.OUTGOING if outgoing else 0,
        packet_filters.RANDOM: 4,
    }
    sizes = {
        packet_filters.LOAD_WORD: 4,
        packet_filters.LOAD_HALF: 2,
        packet_filters.LOAD_BYTE: 1,
        packet_filters.LOAD_BYTE_INDEXED: 1,
    }
    at = value = index = 0
    while True:
        operation, yes, no, operand = program[at]
        at += 1
        if operation in sizes:
            begin = operand + (index if operation == packet_filters.LOAD_BYTE_INDEXED else 0)
            part = data[begin : begin + sizes[operation]]
            if operand in ancillary:
                value = ancillary[operand]
            elif len(part) < sizes[operation]:
                return False
            else:
                value = int.from_bytes(part, "big")
        elif operation == packet_filters.INDEX_IP:
            index = 4 * (data[operand] & 0x0F)
        elif operation == packet_filters.AND:
            value &= operand
        elif operation == packet_filters.JUMP:
            at += operand
        elif operation == packet_filters.RETURN:
            return bool(operand)
        else:
            true = value == operand if operation == packet_filters.IF_EQUAL else value & operand
            at += yes if true else no


FAMILIES = ((IP, "203.0.113.100", "203.0.113.10"), (IPv6, "2001:db8:113::100", "2001:db8:113::10"))


def test_filter_takes_what_shows_a_holder_and_nothing_else() -> None:
    assert accepts(FILTER, Ether() / ARP())
    assert not accepts(FILTER, Ether() / ARP(), outgoing=True)
    assert accepts(FILTER, Ether(advertisement("fd00:12::1", solicited=1)))
    assert not accepts(FILTER, Ether() / IPv6() / ICMPv6ND_NS())
    for ip, _, _ in FAMILIES:
        for flags, taken in (("S", True), ("SA", False), ("A", False), ("R", False)):
            assert accepts(FILTER, Ether() / ip() / TCP(flags=flags)) is taken
        assert not accepts(FILTER, Ether() / ip() / UDP())
    assert not accepts(FILTER, Ether(type=0x88CC))


def test_filter_of_flows_takes_what_was_forwarded_of_both_families() -> None:
    client = three_routers("x").hosts[3].ports[0]
    program = filter_for(client)
    for ip, outside, floating in FAMILIES:
        for source in (outside, floating):
            assert accepts(program, Ether() / ip(src=source) / TCP(flags="A"))
            assert accepts(program, Ether() / ip(src=source) / UDP())
            assert not accepts(program, Ether() / ip(src=source) / TCP(flags="S"))
            assert not accepts(program, Ether() / ip(src=source) / UDP(), outgoing=True)
    for ip, source in ((IP, "203.0.113.11"), (IPv6, "2001:db8:113::11"), (IPv6, "fd00:12::10")):
        assert not accepts(program, Ether() / ip(src=source) / UDP())


def test_connections_of_clients_are_told_from_those_of_routers() -> None:
    def admitted(network: str, source: str) -> bool:
        ip = IPv6 if ":" in source else IP
        data = bytes(Ether(src=MAC) / ip(src=source) / TCP(flags="S"))
        return parse_syn(data, router="r1", network=network, t_ns=7) is not None

    six = bytes(Ether() / IPv6(src="2001:db8:113::10") / TCP(flags="S"))
    seen = parse_syn(six, router="r1", network="public", t_ns=7)
    assert seen is not None
    assert seen.version == 6
    assert admitted("private", "203.0.113.100")  # translated towards a server
    assert admitted("public", "203.0.113.10")  # masqueraded
    assert not admitted("private", "10.11.12.11")  # a router, of its own
    assert not admitted("public", "203.0.113.11")
    assert admitted("private", "2001:db8:113::100")
    assert admitted("public", "2001:db8:113::10")
    assert not admitted("private", "fd00:12::11")
    assert not admitted("public", "2001:db8:113::11")


def test_connection_of_a_client_says_where_it_goes() -> None:
    for ip, source, target in (
        (IP, "203.0.113.100", "10.11.12.103"),
        (IPv6, "2001:db8:113::100", "fd00:12::103"),
    ):
        tcp = TCP(sport=40_001, dport=8080, flags="S")
        data = bytes(Ether(src=MAC) / ip(src=source, dst=target) / tcp)
        seen = parse_syn(data, router="r1", network="private", t_ns=7)
        assert seen is not None
        ends = (endpoint(source, 40_001), endpoint(target, 8080))
        assert (seen.source, seen.target) == ends
    assert endpoint("fd00::1", 7) == "[fd00::1]:7"


def test_frames_that_begin_no_connection_are_not_read() -> None:
    arp = frame(op=1, psrc="203.0.113.10", pdst="203.0.113.10")
    for data in (arp, b"", bytes(60), bytes(Ether(type=0x0800))):
        assert parse_syn(data, router="r1", network="public", t_ns=7) is None


def netlink(kind: int, address: str) -> bytes:
    """A message as rtnetlink(7) describes it: header, ifaddrmsg, IFA_LOCAL or IFA_ADDRESS."""
    family, attribute = (socket.AF_INET6, 1) if ":" in address else (socket.AF_INET, 2)
    packed = socket.inet_pton(family, address)
    body = struct.pack("=BBBBI", family, 24, 0, 0, 2)
    body += struct.pack("=HH", 4 + len(packed), attribute) + packed
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body


def test_addresses_that_come_and_go_are_read() -> None:
    data = netlink(20, "203.0.113.10") + netlink(20, "203.0.113.11") + netlink(21, "10.11.12.1")
    seen = parse_addresses(data, router="r2", t_ns=7)
    assert [(s.address, s.present) for s in seen] == [("203.0.113.10", True), ("10.11.12.1", False)]
    data = netlink(20, "fd00:12::1") + netlink(20, "fe80::1") + netlink(21, "2001:db8:113::10")
    seen = parse_addresses(data, router="r2", t_ns=7)
    assert [(s.address, s.present) for s in seen] == [
        ("fd00:12::1", True),
        ("2001:db8:113::10", False),
    ]


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
