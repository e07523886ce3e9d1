"""What a router without rights must not send, whoever on it wants to; by what is on the wire."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import ICMPv6ND_NA, IPv6

from chaos.lab.netns import entered
from tests.kernel.conftest import gates_of_both_kinds
from tests.kernel.gate_cells import Ping, holds, link_local
from tests.kernel.namespaces import cable, run, until
from tests.kernel.network import (
    CLIENT,
    CLIENT_V6,
    INSIDE_VIP,
    PLACEMENTS,
    SERVER,
    SERVER_V6,
    VIP,
    VIP_V6,
    Network,
    family_of,
)

pytestmark = [pytest.mark.kernel, gates_of_both_kinds]

ARP, IPV4, IPV6, EVERYTHING = 0x0806, 0x0800, 0x86DD, 0x0003
OWN, OWN_V6 = "203.0.113.11", "2001:db8:1::11"
VIPS = {vip.address.ip.packed for vip in PLACEMENTS}

BOTH = pytest.mark.parametrize(
    ("vip", "client", "own"), [(VIP, CLIENT, OWN), (VIP_V6, CLIENT_V6, OWN_V6)], ids=["v4", "v6"]
)


@pytest.mark.parametrize("carries", [True, False])
@BOTH
def test_a_program_on_the_node_sends_nothing_as_the_floating_address(
    network: Network, vip: str, client: str, own: str, *, carries: bool
) -> None:
    network.r1.take_over()
    sending = network.open_socket("r1", family_of(vip), socket.SOCK_DGRAM)
    sending.bind((vip, 0))
    sending.sendto(b"?", (client, 9))  # makes the neighbour known
    wire = _Wire(network, "client", EVERYTHING)
    until(lambda: _own_address_answers(network, own), "the first answer")

    with network.r1.entered() as router:
        (router.gate.withdraw if carries else router.gate.shut)()
    wire.clear()
    another = network.open_socket("r1", family_of(vip), socket.SOCK_DGRAM)
    another.bind((vip, 0))
    for _ in range(3):
        _try_to_send(another, client)

    assert _own_address_answers(network, own)
    assert [frame for frame in wire.frames() if _claims(frame)] == []


def test_a_program_on_the_node_does_not_advertise_the_floating_address(network: Network) -> None:
    wire = _Wire(network, "client", IPV6)
    advertisement = IPv6(src=OWN_V6, dst=CLIENT_V6, hlim=255) / ICMPv6ND_NA(tgt=VIP_V6, R=1, O=1)
    raw = network.open_socket("r1", socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)

    for _ in range(3):
        with suppress(PermissionError):
            raw.sendto(bytes(advertisement), (CLIENT_V6, 0))

    assert _own_address_answers(network, OWN_V6)
    assert [frame for frame in wire.frames() if _claims(frame)] == []


@BOTH
def test_a_flow_of_the_node_itself_is_not_carried_on(
    network: Network, vip: str, client: str, own: str
) -> None:
    """Two nodes must not both take in what is meant for the floating address itself."""
    network.r1.take_over()
    inside = network.open_socket("r1", family_of(vip), socket.SOCK_DGRAM)
    inside.bind((vip, 7000))
    outside = network.open_socket("client", family_of(client), socket.SOCK_DGRAM)
    outside.bind((client, 7000))
    inside.sendto(b"there", (client, 7000))
    assert outside.recv(16) == b"there"
    outside.sendto(b"back", (vip, 7000))
    assert inside.recv(16) == b"back"

    with network.r1.entered() as router:
        router.gate.withdraw()
    outside.sendto(b"late", (vip, 7000))

    assert _own_address_answers(network, own)  # so the other packet was there before
    inside.settimeout(0)
    with pytest.raises(BlockingIOError):
        inside.recv(16)


@BOTH
def test_a_carried_flow_makes_the_node_ask_nothing_as_the_floating_address(
    network: Network, vip: str, client: str, own: str
) -> None:
    """Linux asks for a neighbour with the source of the packet it wants to deliver."""
    network.r1.take_over()
    listening = network.listener("client", client, 7000)
    near, far = network.connection(listening, "server", (client, 7000))
    assert far.getpeername()[0] == vip
    with network.r1.entered() as router:
        router.gate.withdraw()
    run("ip neigh flush dev eth0", network.r1.namespace)
    wire = _Wire(network, "client", EVERYTHING)

    near.sendall(b"to be delivered")

    assert _own_address_answers(network, own)
    assert [frame for frame in wire.frames() if _claims_by_neighbour_discovery(frame)] == []


def test_the_kernel_announces_nothing_without_rights(network: Network) -> None:
    wire = _Wire(network, "client", EVERYTHING)
    namespace = network.r1.namespace
    run("sysctl -qw net.ipv4.conf.all.arp_notify=1 net.ipv6.conf.all.ndisc_notify=1", namespace)
    run("sysctl -qw net.ipv4.conf.eth0.arp_notify=1 net.ipv6.conf.eth0.ndisc_notify=1", namespace)

    with network.r1.entered() as router:
        router.addresses.add(PLACEMENTS)
    run("ip link set eth0 address 02:00:00:00:00:78", namespace)
    run("ip link set eth0 down", namespace)
    run("ip link set eth0 up", namespace)
    with network.r1.entered() as router:
        router.addresses.add(PLACEMENTS)  # those of IPv6 left with the link

    until(lambda: any(OWN_ANNOUNCED in frame for frame in wire.frames()), "the own announcement")
    assert holds(Ping(network, "client", OWN).answered, expected=True)
    assert [frame for frame in wire.seen if _claims(frame)] == []


def test_another_device_in_the_same_network_does_not_answer_either(network: Network) -> None:
    """Linux answers ARP for all its addresses on every device."""
    switch = network.made["switch"]
    cable((network.r1.namespace, "eth2"), (switch, "r1-eth2"))
    run("ip link set r1-eth2 master public", switch)
    with network.r1.entered() as router:
        router.addresses.add(PLACEMENTS)
    wire = _Wire(network, "client", ARP)

    assert not holds(Ping(network, "client", VIP).answered, expected=False)

    until(lambda: holds(Ping(network, "client", OWN).answered, expected=True), "the own address")
    assert [frame for frame in wire.frames() if _claims(frame)] == []


@pytest.mark.parametrize("server", [SERVER, SERVER_V6], ids=["v4", "v6"])
def test_a_packet_of_no_flow_never_leaves_untranslated(network: Network, server: str) -> None:
    """What connection tracking calls invalid, NAT does not translate."""
    network.r1.take_over()
    v6 = ":" in server
    client = CLIENT_V6 if v6 else CLIENT
    wire = _Wire(network, "client", IPV6 if v6 else IPV4)
    namespace = network.made["server"]
    gateway = run("cat /sys/class/net/eth1/address", network.r1.namespace).strip()
    header = IPv6(src=server, dst=client) if v6 else IP(src=server, dst=client)
    hardware = bytes.fromhex(gateway.replace(":", ""))
    with entered(namespace):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    with raw:
        for flags in ("SF", "SA", "R"):
            packet = bytes(header / TCP(sport=8080, dport=4444, flags=flags, seq=1, ack=1))
            raw.sendto(packet, ("eth0", IPV6 if v6 else IPV4, 0, 0, hardware))

    assert holds(Ping(network, "server", client).answered, expected=True)
    inside = ip_address(server).packed
    assert [frame for frame in wire.frames() if inside in frame[14:54]] == []


@pytest.mark.parametrize("vip", [VIP, INSIDE_VIP])
def test_a_holder_is_heard_by_a_node_without_rights(network: Network, vip: str) -> None:
    network.r2.take_over()

    assert holds(Ping(network, "r1", vip).answered, expected=True)


def test_own_packets_of_ipv6_have_an_own_address(network: Network) -> None:
    network.r1.take_over()
    listening = network.listener("client", CLIENT_V6, 7000)

    _, far = network.connection(listening, "r1", (CLIENT_V6, 7000))

    assert far.getpeername()[0] == OWN_V6


def test_the_anycast_address_of_a_router_is_left_alone(network: Network) -> None:
    # RFC 4291 section 2.6.1: every router of a network has it.
    assert holds(Ping(network, "server", "fd00:12::").answered, expected=True)


@pytest.mark.parametrize("place", ["client", "server"])
def test_a_link_local_address_answers_without_rights(network: Network, place: str) -> None:
    device = {"client": "eth0", "server": "eth1"}[place]
    address = link_local(network, "r1", device)

    assert holds(Ping(network, place, address, "eth0").answered, expected=True)


class _Wire:
    """What arrives at a device."""

    def __init__(self, network: Network, place: str, ether_type: int) -> None:
        self._socket = network.open_socket(place, socket.AF_PACKET, socket.SOCK_RAW)
        self._socket.bind(("eth0", ether_type))
        self.seen: list[bytes] = []

    def clear(self) -> None:
        """Forget what has arrived."""
        self.frames()
        self.seen.clear()

    def frames(self) -> list[bytes]:
        """Return what has arrived up to now; not what was sent from here."""
        self.seen.extend(self._read())
        return self.seen

    def _read(self) -> Iterator[bytes]:
        self._socket.settimeout(0)
        while True:
            try:
                frame, place = self._socket.recvfrom(2048)
            except BlockingIOError:
                return
            if place[2] != socket.PACKET_OUTGOING:
                yield frame


OWN_ANNOUNCED = socket.inet_aton(OWN) + bytes(6) + socket.inet_aton(OWN)


def _claims(frame: bytes) -> bool:
    """Say whether a frame is sent as a floating address, or says where one is."""
    (kind,) = struct.unpack_from("!H", frame, 12)
    if kind == ARP:
        return frame[28:32] in VIPS
    if kind == IPV4:
        return frame[26:30] in VIPS
    is_advertisement = kind == IPV6 and frame[20] == 58 and frame[54] == 136
    return kind == IPV6 and (frame[22:38] in VIPS or (is_advertisement and frame[62:78] in VIPS))


def _claims_by_neighbour_discovery(frame: bytes) -> bool:
    """Say the same of frames other than a carried flow's own."""
    (kind,) = struct.unpack_from("!H", frame, 12)
    is_discovery = kind == ARP or (kind == IPV6 and frame[20] == 58)
    return is_discovery and _claims(frame)


def _own_address_answers(network: Network, own: str) -> bool:
    return holds(Ping(network, "client", own).answered, expected=True)


def _try_to_send(sending: socket.socket, client: str) -> None:
    with suppress(PermissionError):  # how the kernel says that a rule dropped it
        sending.sendto(b"?", (client, 9))
