"""The cluster's own packets need no entry in the connection tracking; all others get one."""

from __future__ import annotations

import re
import socket
from dataclasses import replace

import pytest

from tests.kernel.namespaces import run
from tests.kernel.network import (
    CONFIGURATION,
    MESH_PORT,
    OWN,
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

pytestmark = pytest.mark.kernel

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
def test_stranger_on_the_ports_of_the_cluster_is_tracked(network: Network, path: int) -> None:
    stranger, address = ("client", "client", "server", "server")[path], OWN["r1"][path]
    listener = network.listener("r1", address, RAFT_PORT)
    mesh = _datagrams(network, "r1", address, MESH_PORT)

    talk(*network.connection(listener, stranger, (address, RAFT_PORT)))
    _ask(_datagrams(network, stranger, "", MESH_PORT, like=address), (address, MESH_PORT), mesh)

    assert _entries(network.r1) == {("tcp", RAFT_PORT), ("udp", MESH_PORT)}


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

    for client, address in (("client", ""), ("r2", peer)):  # a peer may be a client
        talk(*network.connection(listener, client, (vip, RAFT_PORT)))
        asking = _datagrams(network, client, address, MESH_PORT, like=vip)
        _ask(asking, (vip, MESH_PORT), echo)

    assert _entries(network.r1) == {("tcp", RAFT_PORT), ("udp", MESH_PORT)}


def _datagrams(
    network: Network, place: str, address: str, port: int = 0, *, like: str = ""
) -> socket.socket:
    opened = network.open_socket(place, family_of(address or like), socket.SOCK_DGRAM)
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
