"""The cluster's own packets need no entry in the connection tracking; all others get one."""

from __future__ import annotations

import re
import socket
import time
from dataclasses import replace

import pytest

from hanat.net.udp import prefer_ttl
from tests.kernel.conftest import gates_of_both_kinds
from tests.kernel.namespaces import run
from tests.kernel.network import (
    ANSWER_S_MAX,
    CONFIGURATION,
    MESH_PORT,
    OWN,
    PATH_DEVICES,
    RAFT_PORT,
    SERVER,
    SERVER_PORT,
    SERVER_V6,
    VIP,
    VIP_V6,
    Network,
    Router,
    echo_socket,
    family_of,
    service,
    talk,
)

pytestmark = [pytest.mark.kernel, gates_of_both_kinds]

OTHER_PORT = 7413
PATHS = pytest.mark.parametrize("path", range(4))  # public and private, both families


@PATHS
def test_packets_of_the_cluster_leave_no_entry_and_others_do(network: Network, path: int) -> None:
    here, there = OWN["r1"][path], OWN["r2"][path]

    for raft, mesh in ((RAFT_PORT, MESH_PORT), (OTHER_PORT, OTHER_PORT)):
        for place, to, address in (("r1", "r2", there), ("r2", "r1", here)):
            listener = network.listener(to, address, raft)
            talk(*network.connection(listener, place, (address, raft)))
        mine, theirs = (_datagrams(network, *end, mesh) for end in (("r1", here), ("r2", there)))
        release = _datagrams(network, "r1", here)  # has any source port
        _ask(mine, (there, mesh), theirs)
        _ask(release, (there, mesh), theirs)

    for router in (network.r1, network.r2):
        assert _entries(router) == {("tcp", OTHER_PORT), ("udp", OTHER_PORT)}


@PATHS
def test_stranger_on_the_ports_of_the_cluster_is_dropped_before_it_is_tracked(
    network: Network, path: int
) -> None:
    address = OWN["r1"][path]
    sending = _datagrams(network, _beside(path), "", MESH_PORT, like=address)
    _assert_dropped(network, sending, path)


@PATHS
def test_stranger_with_a_peers_address_is_dropped_if_a_router_had_the_packet(
    network: Network, path: int
) -> None:
    forged, address = OWN["r2"][path], OWN["r1"][path]
    _take(network, _beside(path), forged)
    sending = _datagrams(network, _beside(path), forged)
    ttl = (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)
    sending.setsockopt(*(ttl if ":" in address else (socket.IPPROTO_IP, socket.IP_TTL)), 254)
    _assert_dropped(network, sending, path)


@PATHS
def test_stranger_with_a_peers_address_on_another_path_is_dropped(
    network: Network, path: int
) -> None:
    forged, address = OWN["r2"][path], OWN["r1"][path]
    place, other = ("server", (path + 2) % 4) if path < 2 else ("client", path - 2)
    _take(network, place, forged)
    version, via = "-6" if ":" in address else "-4", OWN["r1"][other]
    mac = run(f"cat /sys/class/net/{PATH_DEVICES[other]}/address", network.r1.namespace).strip()
    # The router would look for the forged address to answer who asks for its own.
    run(f"ip {version} neigh replace {via} lladdr {mac} dev eth0", network.made[place])
    run(f"ip {version} route add {address} via {via} dev eth0 onlink", network.made[place])
    _assert_dropped(network, _datagrams(network, place, forged), path)


@PATHS
def test_connection_to_a_closed_port_is_refused_at_once(network: Network, path: int) -> None:
    """The kernel's own reset has its default TTL."""
    dialling = network.open_socket("r1", family_of(OWN["r1"][path]), socket.SOCK_STREAM)
    prefer_ttl(dialling)
    with pytest.raises(ConnectionRefusedError):
        dialling.connect((OWN["r2"][path], RAFT_PORT))


@PATHS
def test_connection_without_the_ttl_is_not_answered(network: Network, path: int) -> None:
    network.listener("r1", OWN["r1"][path], RAFT_PORT)
    dialling = network.open_socket("r2", family_of(OWN["r2"][path]), socket.SOCK_STREAM)
    dialling.settimeout(0.2)
    with pytest.raises(TimeoutError):
        dialling.connect((OWN["r1"][path], RAFT_PORT))


def _beside(path: int) -> str:
    return "client" if path < 2 else "server"


def _take(network: Network, place: str, address: str) -> None:
    length, flags = ("128", "nodad") if ":" in address else ("32", "")
    run(f"ip addr add {address}/{length} dev eth0 {flags}", network.made[place])


def _assert_dropped(network: Network, sending: socket.socket, path: int) -> None:
    address = OWN["r1"][path]
    before = _drops(network.r1)
    sending.sendto(b"garbage", (address, MESH_PORT))
    end = time.monotonic() + ANSWER_S_MAX
    while _drops(network.r1) == before:
        assert time.monotonic() < end, "the packet was not dropped"
    assert _entries(network.r1) == set()


def _drops(router: Router) -> int:
    text = run("nft list table inet hanat", router.namespace)
    chains = re.findall(r"chain cluster_(?:asked_v.|on_link) \{.*?\n\t\}", text, re.DOTALL)
    return sum(int(n) for c in chains for n in re.findall(r"counter packets (\d+)", c))


@pytest.mark.parametrize(
    ("vip", "server", "peer"), [(VIP, SERVER, OWN["r2"][0]), (VIP_V6, SERVER_V6, OWN["r2"][1])]
)
def test_service_on_the_ports_of_the_cluster_is_translated(
    network: Network, vip: str, server: str, peer: str
) -> None:
    services = tuple(service(f"s{port}", port, SERVER_PORT) for port in (RAFT_PORT, MESH_PORT))
    network.r1.prepare(replace(CONFIGURATION, services=services))
    network.r1.take_over()
    listener, echo = network.listener("server", server, SERVER_PORT), echo_socket(network, server)

    # A peer may be a client, from any port but its own of the mesh, which its daemon has.
    for client, address, port in (("client", "", MESH_PORT), ("r2", peer, 0)):
        talk(*network.connection(listener, client, (vip, RAFT_PORT)))
        asking = _datagrams(network, client, address, port, like=vip)
        _ask(asking, (vip, MESH_PORT), echo)

    assert _entries(network.r1) == {("tcp", RAFT_PORT), ("udp", MESH_PORT)}


def _datagrams(
    network: Network, place: str, address: str, port: int = 0, *, like: str = ""
) -> socket.socket:
    opened = network.open_socket(place, family_of(address or like), socket.SOCK_DGRAM)
    prefer_ttl(opened)
    opened.bind((address, port))
    return opened


def _ask(asking: socket.socket, to: tuple[str, int], answering: socket.socket) -> None:
    """Send a datagram and its answer."""
    asking.sendto(b"there", to)
    text, peer = answering.recvfrom(64)
    answering.sendto(text, peer)
    assert asking.recvfrom(64)[0] == b"there"


def _entries(router: Router) -> set[tuple[str, int]]:
    """Return protocol and port asked for of what the kernel tracks there."""
    lines = "".join(
        run(f"conntrack -L -f {family}", router.namespace) for family in ("ipv4", "ipv6")
    )
    found = re.findall(r"^(tcp|udp) .*? dport=(\d+) ", lines, re.MULTILINE)
    return {(protocol, int(port)) for protocol, port in found}
