"""Rotations on real packets: who gets a client, and what a client meets if nobody does."""

from __future__ import annotations

import re
import select
import socket
from collections import Counter
from dataclasses import replace
from ipaddress import ip_address

import pytest

from hanat.core.configuration import (
    Listen,
    Persistence,
    Protocol,
    RealServer,
    Scheduler,
    Sorry,
    Unavailable,
    VirtualService,
)
from hanat.core.ruleset import render_ruleset
from hanat.core.schedulers import InRotation
from hanat.core.services import Rotations
from hanat.core.steps import steps
from tests.core.examples import DEVICES
from tests.kernel.namespaces import run, until
from tests.kernel.network import (
    CLIENT,
    CLIENT_V6,
    CONFIGURATION,
    SERVER,
    SERVER_PORT,
    SERVER_V6,
    SERVICE_PORT,
    VIP,
    VIP_V6,
    Network,
    Router,
    family_of,
    read_exactly,
    talk,
)

pytestmark = pytest.mark.kernel

FAMILIES = pytest.mark.parametrize(
    ("vip", "server"), [(VIP, SERVER), (VIP_V6, SERVER_V6)], ids=["v4", "v6"]
)
PORTS = (8081, 8082, 8083)
SILENCE_S = 0.3


def turn(router: Router, rotations: Rotations, **others: object) -> None:
    """Install the example with other rotations, and with something else of its first service."""
    service = replace(CONFIGURATION.services[0], **others)  # type: ignore[arg-type]  # any field
    configuration = replace(CONFIGURATION, services=(service, *CONFIGURATION.services[1:]))
    with router.entered():
        router.firewall.apply(
            render_ruleset(configuration, DEVICES, router.conversation, rotations=rotations)
        )


@FAMILIES
def test_client_of_a_service_without_servers_is_refused(
    network: Network, vip: str, server: str
) -> None:
    network.r1.take_over()
    turn(network.r1, {"echo": ()})
    network.listener("server", server, SERVER_PORT)

    asking = network.open_socket("client", family_of(vip), socket.SOCK_STREAM)
    with pytest.raises(ConnectionRefusedError):
        asking.connect((vip, SERVICE_PORT))
    asking = network.open_socket("client", family_of(vip), socket.SOCK_DGRAM)
    asking.connect((vip, SERVICE_PORT))
    asking.send(b"hanat")
    with pytest.raises(ConnectionRefusedError):
        asking.recv(1)
    assert f"dport={SERVICE_PORT}" not in run("conntrack -L", network.made["r1"])


@FAMILIES
def test_program_of_the_holder_is_refused_as_well(network: Network, vip: str, server: str) -> None:
    network.r1.take_over()
    turn(network.r1, {"echo": ()})
    network.listener("server", server, SERVER_PORT)

    asking = network.open_socket("r1", family_of(vip), socket.SOCK_STREAM)
    with pytest.raises(ConnectionRefusedError):
        asking.connect((vip, SERVICE_PORT))


@pytest.mark.parametrize("case", ["dropped", "fenced"])
@FAMILIES
def test_nothing_is_told(network: Network, vip: str, server: str, case: str) -> None:
    """Of a service that drops, and by a router without the right to answer."""
    network.r1.take_over()
    dropped = case == "dropped"
    turn(network.r1, {"echo": ()}, unavailable=Unavailable.DROP if dropped else Unavailable.REJECT)
    network.listener("server", server, SERVER_PORT)
    if not dropped:
        with network.r1.entered():
            network.r1.gate.withdraw()

    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        asking = network.open_socket("client", family_of(vip), kind)
        asking.settimeout(SILENCE_S)
        with pytest.raises(TimeoutError):
            _ask(asking, vip)


@FAMILIES
def test_packet_of_an_unknown_connection_is_not_refused(
    network: Network, vip: str, server: str
) -> None:
    network.r1.take_over()
    listener = network.listener("server", server, SERVER_PORT)
    near, far = network.connection(listener, "client", (vip, SERVICE_PORT))
    with network.r1.entered() as router:
        records = router.conntrack.dump()
    network.pull(network.r1)
    turn(network.r2, {"echo": ()})
    network.r2.take_over()

    near.sendall(b"early")
    until(lambda: _dropped(network.r2) > 0, "the packet to be dropped")
    with network.r2.entered() as router:
        router.conntrack.install(records)

    assert read_exactly(far, 5) == b"early"
    talk(near, far)


@FAMILIES
def test_connections_go_on_when_the_rotation_gets_empty(
    network: Network, vip: str, server: str
) -> None:
    network.r1.take_over()
    listener = network.listener("server", server, SERVER_PORT)
    near, far = network.connection(listener, "client", (vip, SERVICE_PORT))

    turn(network.r1, {"echo": ()})

    talk(near, far)


@FAMILIES
def test_sorry_server_gets_who_comes_when_nobody_else_can(
    network: Network, vip: str, server: str
) -> None:
    network.r1.take_over()
    turn(network.r1, {"echo": ()}, sorry=(Sorry(ip_address(server), 8099),))
    sorry = network.listener("server", server, 8099)

    talk(*network.connection(sorry, "client", (vip, SERVICE_PORT)))


@pytest.mark.parametrize("scheduler", Scheduler)
@FAMILIES
def test_servers_of_the_rotation_get_new_clients_and_no_others(
    network: Network, vip: str, server: str, scheduler: Scheduler
) -> None:
    network.r1.take_over()
    sockets = {port: _udp(network, server, port) for port in PORTS}
    listeners = {port: network.listener("server", server, port) for port in PORTS}
    servers = tuple(RealServer(f"s{port}", ip_address(server), port, weight=1) for port in PORTS)

    for out in (None, "s8082"):
        rotation = tuple(InRotation(s.name) for s in servers if s.name != out)
        turn(network.r1, {"echo": rotation}, scheduler=scheduler, servers=servers, hash_port=True)
        tcp = _tcp_clients(network, listeners, vip, 48)
        udp = _udp_clients(network, sockets, vip, 48)

        for found in (tcp, udp):
            assert found.total() == 48
            assert found.keys() == {int(one.name[1:]) for one in rotation}
        if scheduler in {Scheduler.RR, Scheduler.WRR, Scheduler.FO}:
            assert set(tcp.values()) == {48 // len(rotation)}


def test_client_of_sh_stays_with_its_server(network: Network) -> None:
    network.r1.take_over()
    listeners = {port: network.listener("server", SERVER, port) for port in PORTS}
    servers = tuple(RealServer(f"s{port}", ip_address(SERVER), port, weight=1) for port in PORTS)
    turn(network.r1, {}, scheduler=Scheduler.SH, servers=servers)
    ((mine, _),) = _tcp_clients(network, listeners, VIP, 6).items()

    (other, *_) = (port for port in PORTS if port != mine)
    rotation = tuple(InRotation(s.name) for s in servers if s.port != other)
    turn(network.r1, {"echo": rotation}, scheduler=Scheduler.SH, servers=servers)

    assert _tcp_clients(network, listeners, VIP, 6).keys() == {mine}


def test_new_clients_follow_the_table(network: Network) -> None:
    network.r1.take_over()
    listeners = {port: network.listener("server", SERVER, port) for port in PORTS}
    servers = tuple(RealServer(f"s{port}", ip_address(SERVER), port, weight=1) for port in PORTS)
    service = replace(CONFIGURATION.services[0], scheduler=Scheduler.LC, servers=servers)
    configuration = replace(CONFIGURATION, services=(service,))
    levels = {("echo", 4): ("s8082",) * 192 + ("s8083",) * 64}
    with network.r1.entered() as router:
        for table in ({}, levels):
            text = render_ruleset(configuration, DEVICES, router.conversation, levels=table)
            router.firewall.apply(text)

    found = _tcp_clients(network, listeners, VIP, 256)

    assert found == {8082: 192, 8083: 64}


@FAMILIES
def test_client_comes_back_to_its_server_while_that_is_in_rotation(
    network: Network, vip: str, server: str
) -> None:
    network.r1.take_over()
    listeners = {port: network.listener("server", server, port) for port in PORTS}
    follow = _Followed(network.r1, server, Persistence(600.0))
    every = tuple(follow.names)
    follow({"echo": tuple(map(InRotation, every))})
    ((mine, count),) = _tcp_clients(network, listeners, vip, 6).items()
    assert count == 6

    follow({"echo": tuple(InRotation(name) for name in every if name != f"s{mine}")})
    ((other, count),) = _tcp_clients(network, listeners, vip, 6).items()
    assert (count, other != mine) == (6, True)

    follow({"echo": ()})
    follow({"echo": tuple(InRotation(name) for name in every if name != f"s{mine}")})
    assert _tcp_clients(network, listeners, vip, 6) == {other: 6}

    listing = run("nft list table inet hanat", network.r1.namespace)
    assert len(re.findall(r" expires \S+", listing)) == 2


@FAMILIES
def test_clients_of_one_network_go_to_one_server(network: Network, vip: str, server: str) -> None:
    network.r1.take_over()
    listeners = {port: network.listener("server", server, port) for port in PORTS}
    client, neighbour, length = CLIENT, "203.0.113.7", 24
    if ":" in vip:
        client, neighbour, length = CLIENT_V6, "2001:db8:1::7", 64
    run(f"ip addr add {neighbour}/{length} dev eth0 nodad", network.made["client"])
    found = []
    for mask in (24, 32):
        masks = Persistence(600.0, netmask=mask, netmask6=64 if mask == 24 else 128)
        _Followed(network.r1, server, masks)({})
        mine = _tcp_clients(network, listeners, vip, 3, source=client)
        others = _tcp_clients(network, listeners, vip, 3, source=neighbour)
        found.append((len(mine), mine.keys() == others.keys()))

    assert found == [(1, True), (1, False)]


class _Followed:
    """The example with persistence on a router, led from one rotation to the next by steps."""

    def __init__(self, router: Router, server: str, persistence: Persistence) -> None:
        self._router = router
        servers = tuple(
            RealServer(f"s{port}", ip_address(server), port, weight=1) for port in PORTS
        )
        self.names = [one.name for one in servers]
        service = replace(CONFIGURATION.services[0], servers=servers, persistence=persistence)
        self._configuration = replace(CONFIGURATION, services=(service,))
        self._before = ""

    def __call__(self, rotations: Rotations) -> None:
        text = render_ruleset(
            self._configuration, DEVICES, self._router.conversation, rotations=rotations
        )
        with self._router.entered():
            if not self._before:
                self._router.firewall.apply(text)
            else:
                plan = steps(self._before, text)
                assert plan is not None
                for script in filter(None, (*plan.builds, plan.switch, *plan.clears)):
                    self._router.firewall.apply(script)
        self._before = text


def test_servers_with_and_without_a_port_get_clients(network: Network) -> None:
    network.r1.take_over()
    sockets = {port: _udp(network, SERVER, port) for port in (8081, SERVICE_PORT)}
    servers = (
        RealServer("one", ip_address(SERVER), 8081, weight=1),
        RealServer("same", ip_address(SERVER), None, weight=1),
    )
    for scheduler in (Scheduler.RR, Scheduler.MH, Scheduler.WLC):
        turn(network.r1, {}, scheduler=scheduler, servers=servers, hash_port=True)
        assert _udp_clients(network, sockets, VIP, 48).keys() == {8081, SERVICE_PORT}


def test_datagrams_of_one_socket_go_to_one_server(network: Network) -> None:
    """Whatever the order in which the kernel tracks them: it is a hash that decides."""
    network.r1.take_over()
    sockets = {port: _udp(network, SERVER, port) for port in PORTS}
    servers = tuple(RealServer(f"s{port}", ip_address(SERVER), port, weight=1) for port in PORTS)
    turn(network.r1, {}, servers=servers)
    asking = network.open_socket("client", socket.AF_INET, socket.SOCK_DGRAM)
    found: set[int] = set()
    for _ in range(6):
        asking.sendto(b"x", (VIP, SERVICE_PORT))
        found |= _arrived(sockets, 1).keys()
        run("conntrack -F", network.made["r1"])

    assert len(found) == 1


def test_range_of_ports_is_refused(network: Network) -> None:
    network.r1.take_over()
    listens = (Listen(ip_address(VIP), Protocol.TCP, 100, 199),)
    ranged = VirtualService("ranged", listens, Scheduler.RR, ())
    configuration = replace(CONFIGURATION, services=(ranged,))
    with network.r1.entered() as router:
        router.firewall.apply(render_ruleset(configuration, DEVICES, router.conversation))

    for port, expected in ((150, ConnectionRefusedError), (200, TimeoutError)):
        asking = network.open_socket("client", socket.AF_INET, socket.SOCK_STREAM)
        asking.settimeout(SILENCE_S)
        with pytest.raises(expected):
            asking.connect((VIP, port))


def _ask(asking: socket.socket, vip: str) -> None:
    asking.connect((vip, SERVICE_PORT))
    asking.send(b"hanat")
    asking.recv(1)


def _udp(network: Network, address: str, port: int) -> socket.socket:
    opened = network.open_socket("server", family_of(address), socket.SOCK_DGRAM)
    opened.bind((address, port))
    return opened


def _tcp_clients(
    network: Network,
    listeners: dict[int, socket.socket],
    vip: str,
    count: int,
    source: str = "",
) -> Counter[int]:
    """Connect one after the other; return how many came to each port."""
    found: Counter[int] = Counter()
    for _ in range(count):
        near = network.open_socket("client", family_of(vip), socket.SOCK_STREAM)
        near.bind((source, 0))
        near.connect((vip, SERVICE_PORT))
        (ready,), _, _ = select.select(list(listeners.values()), [], [], 5)
        far, _ = ready.accept()
        network.keep(far)
        found[ready.getsockname()[1]] += 1
    return found


def _udp_clients(
    network: Network, sockets: dict[int, socket.socket], vip: str, count: int
) -> Counter[int]:
    """Send from so many sockets; return how many came to each port."""
    found: Counter[int] = Counter()
    for _ in range(count):
        asking = network.open_socket("client", family_of(vip), socket.SOCK_DGRAM)
        asking.sendto(b"x", (vip, SERVICE_PORT))
        found += _arrived(sockets, 1)
    return found


def _arrived(sockets: dict[int, socket.socket], count: int) -> Counter[int]:
    found: Counter[int] = Counter()
    while found.total() < count:
        ready, _, _ = select.select(list(sockets.values()), [], [], 5)
        assert ready, "nothing arrived"
        for one in ready:
            one.recv(8)
            found[one.getsockname()[1]] += 1
    return found


def _dropped(router: Router) -> int:
    """Return how many packets that asked for a service without servers were dropped."""
    listing = run("nft list chain inet hanat refused", router.namespace)
    (found,) = re.findall(r"counter packets (\d+) bytes \d+ drop", listing)
    return int(found)
