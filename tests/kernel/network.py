"""Two routers between a client and a server: what a takeover is about.

    client ── public bridge ── r1, r2 ── private bridge ── server

Nothing of the daemon runs here: the tests do by hand what it would do.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

from chaos.lab.netns import entered
from hanat.core.configuration import (
    Configuration,
    Listen,
    Protocol,
    RealServer,
    Scheduler,
    VirtualService,
)
from hanat.core.control_traffic import ClusterPath, ControlTraffic
from hanat.core.gate_rules import render_gate
from hanat.core.placements import Placement
from hanat.core.rights import Enforcement
from hanat.core.ruleset import render_ruleset
from hanat.kernel.addresses import KernelAddresses
from hanat.kernel.announcer import KernelAnnouncer
from hanat.kernel.conntrack import KernelConntrack
from hanat.kernel.deadline_gate import KernelDeadlineGate
from hanat.kernel.firewall import KernelFirewall
from hanat.kernel.timeout_gate import KernelGate
from hanat.net.udp import prefer_ttl
from tests.core.examples import DEVICES, EDGE
from tests.gates import Kind, grant, open_gate
from tests.kernel.namespaces import cable, run

CLIENT, CLIENT_V6 = "203.0.113.2", "2001:db8:1::2"
SERVER, SERVER_V6 = "10.11.12.101", "fd00:12::101"
VIP, VIP_V6 = "203.0.113.10", "2001:db8:1::10"
INSIDE_VIP, INSIDE_VIP_V6 = "10.11.12.1", "fd00:12::1"
SERVICE_PORT, SERVER_PORT = 80, 8080
CLOSING_PORT, CLOSING_SERVER_PORT = 90, 8090
ANSWER_S_MAX = 5.0

_VIPS = (ip_address(VIP), ip_address(VIP_V6))


def _conversation(name: str, peer: str) -> ControlTraffic:
    own, peers = (tuple(map(ip_address, OWN[router])) for router in (name, peer))
    paths = (ClusterPath(o, d, (p,)) for o, d, p in zip(own, PATH_DEVICES, peers, strict=True))
    return ControlTraffic(own, peers, RAFT_PORT, MESH_PORT, tuple(paths))


def service(
    name: str, port: int, server_port: int, *, sources: tuple[str, ...] = ()
) -> VirtualService:
    """Return a service on both floating addresses, TCP and UDP."""
    return VirtualService(
        name=name,
        listens=tuple(Listen(vip, protocol, port, port) for vip in _VIPS for protocol in Protocol),
        scheduler=Scheduler.RR,
        servers=(
            RealServer("one", ip_address(SERVER), server_port, weight=1),
            RealServer("six", ip_address(SERVER_V6), server_port, weight=1),
        ),
        sources=sources,
    )


OWN = {  # of the routers
    name: (
        f"203.0.113.{number}",
        f"2001:db8:1::{number}",
        f"10.11.12.{number}",
        f"fd00:12::{number}",
    )
    for name, number in (("r1", 11), ("r2", 12))
}
PATH_DEVICES = ("eth0", "eth0", "eth1", "eth1")
RAFT_PORT, MESH_PORT = 7411, 7412
CONFIGURATION = replace(
    EDGE,
    services=(
        service("echo", SERVICE_PORT, SERVER_PORT, sources=("public", "private")),
        service("closing", CLOSING_PORT, CLOSING_SERVER_PORT),
    ),
)
PLACEMENTS = tuple(
    Placement(DEVICES[vip.interface], address, f"{DEVICES[vip.interface]}:1")
    for vip in CONFIGURATION.vips
    for address in vip.addresses
)


@dataclass(frozen=True)
class Router:
    """A router's namespace and the adapters that live in it."""

    namespace: str
    conversation: ControlTraffic
    addresses: KernelAddresses
    announcer: KernelAnnouncer
    firewall: KernelFirewall
    gate: KernelGate | KernelDeadlineGate
    by: Enforcement
    conntrack: KernelConntrack

    @contextmanager
    def entered(self) -> Iterator[Router]:
        """Be on this router."""
        with entered(self.namespace):
            yield self

    def prepare(self, configuration: Configuration = CONFIGURATION) -> None:
        """Install gate and ruleset, as at the start of a node."""
        with self.entered():
            self.gate.install(render_gate(configuration, DEVICES, self.by))
            self.firewall.apply(render_ruleset(configuration, DEVICES, self.conversation))

    def take_over(self, *, answers_s: float = 60.0, carries_s: float = 60.0) -> None:
        """Add the addresses, open the gate, announce."""
        with self.entered():
            self.addresses.add(PLACEMENTS)
            grant(self.gate, DEVICES.values(), answers_s=answers_s, carries_s=carries_s)
            self.announcer.announce(PLACEMENTS)

    def close(self) -> None:
        """Release all descriptors."""
        for adapter in (self.addresses, self.announcer, self.firewall, self.gate, self.conntrack):
            adapter.close()


class Network:
    """The namespaces, cabled.

    Args:
        made: Names as the system knows them, by ``client``, ``server``, ``r1``,
            ``r2`` and ``switch``.
        kind: Of both routers' gates.
    """

    def __init__(self, made: Mapping[str, str], kind: Kind = Kind.DEADLINE) -> None:
        self.made = made
        self.r1, self.r2 = (
            Router(
                namespace=made[name],
                conversation=_conversation(name, peer),
                addresses=KernelAddresses(),
                announcer=KernelAnnouncer(),
                firewall=KernelFirewall(),
                gate=open_gate(kind, DEVICES.values()),
                by=kind.by,
                conntrack=KernelConntrack(),
            )
            for name, peer in (("r1", "r2"), ("r2", "r1"))
        )
        self._sockets: list[socket.socket] = []

    def build(self) -> None:
        """Cable everything and prepare both routers."""
        switch = self.made["switch"]
        for bridge in ("public", "private"):
            run(f"ip link add {bridge} type bridge", switch)
            run(f"ip link set {bridge} up", switch)
        # Where the module is loaded, bridges would ask the switch's own tables.
        for path in Path("/proc/sys/net/bridge").glob("bridge-nf-call-*"):
            with entered(switch):
                path.write_text("0")
        self._port("client", "eth0", "public", (f"{CLIENT}/24", f"{CLIENT_V6}/64"))
        self._port("server", "eth0", "private", (f"{SERVER}/24", f"{SERVER_V6}/64"))
        for router, (public, public_v6, private, private_v6) in OWN.items():
            self._port(router, "eth0", "public", (f"{public}/24", f"{public_v6}/64"))
            self._port(router, "eth1", "private", (f"{private}/24", f"{private_v6}/64"))
            namespace = self.made[router]
            run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1", namespace)
        run(f"ip route add default via {INSIDE_VIP}", self.made["server"])
        run(f"ip -6 route add default via {INSIDE_VIP_V6}", self.made["server"])
        self.r1.prepare()
        self.r2.prepare()

    def close(self) -> None:
        """Close what was opened here."""
        for opened in self._sockets:
            opened.close()
        self.r1.close()
        self.r2.close()

    def pull(self, router: Router) -> None:
        """Unplug both cables of a router."""
        name = next(name for name, known in self.made.items() if known == router.namespace)
        for device in DEVICES.values():
            run(f"ip link set {name}-{device} down", self.made["switch"])

    def open_socket(self, place: str, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Return a socket that lives in a namespace, with a time limit."""
        with entered(self.made[place]):
            opened = socket.socket(family, kind, protocol)
        opened.settimeout(ANSWER_S_MAX)
        self.keep(opened)
        return opened

    def keep(self, opened: socket.socket) -> None:
        """Close a socket at the end."""
        self._sockets.append(opened)

    def listener(self, place: str, address: str, port: int) -> socket.socket:
        """Return a listening TCP socket."""
        opened = self.open_socket(place, family_of(address), socket.SOCK_STREAM)
        opened.bind((address, port))
        opened.listen()
        return opened

    def connection(
        self, listener: socket.socket, place: str, to: tuple[str, int]
    ) -> tuple[socket.socket, socket.socket]:
        """Connect from a namespace; return both ends."""
        near = self.open_socket(place, family_of(to[0]), socket.SOCK_STREAM)
        prefer_ttl(near)  # or the cluster's ports are closed to it
        near.connect(to)
        far, _ = listener.accept()
        far.settimeout(ANSWER_S_MAX)
        self._sockets.append(far)
        return near, far

    def _port(self, place: str, device: str, bridge: str, addresses: tuple[str, ...]) -> None:
        namespace, switch = self.made[place], self.made["switch"]
        cable((namespace, device), (switch, f"{place}-{device}"))
        run(f"ip link set {place}-{device} master {bridge}", switch)
        for address in addresses:
            flags = "nodad" if ":" in address else ""
            run(f"ip addr add {address} dev {device} {flags}", namespace)


def family_of(address: str) -> int:
    """Return the socket family of an address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def read_exactly(receiver: socket.socket, size: int) -> bytes:
    """Return so many bytes; a socket with a time limit does not wait for all of them at once.

    Raises:
        EOFError: The other end closed before.
    """
    found = bytearray()
    while len(found) < size:
        some = receiver.recv(size - len(found))
        if not some:
            raise EOFError(f"{len(found)} of {size} bytes")
        found += some
    return bytes(found)


def talk(near: socket.socket, far: socket.socket) -> None:
    """Send a line each way and check that it arrives."""
    for sender, receiver, text in ((near, far, b"there"), (far, near, b"back!")):
        sender.sendall(text)
        assert read_exactly(receiver, len(text)) == text


class Probe:
    """One UDP flow through the service, asked again and again.

    Args:
        network: Where it runs.
        echo: The server's socket.
        vip: Floating address to ask.
    """

    def __init__(self, network: Network, echo: socket.socket, vip: str = VIP) -> None:
        self.network, self.echo, self.vip = network, echo, vip
        self._socket = network.open_socket("client", family_of(vip), socket.SOCK_DGRAM)
        self._to = (vip, SERVICE_PORT)
        self._asked = 0

    def answers(self) -> bool:
        """Ask once; say whether the answer came back, waiting 20 ms each way."""
        self._asked += 1
        question = f"{id(self)} {self._asked}".encode()
        try:
            self._socket.sendto(question, self._to)
            peer = self._await(self.echo, question)
            self.echo.sendto(question, peer)
            self._await(self._socket, question)
        except (TimeoutError, OSError):
            return False
        return True

    def _await(self, receiver: socket.socket, text: bytes) -> tuple[str, int]:
        receiver.settimeout(0.02)
        while True:
            found, peer = receiver.recvfrom(64)
            if found == text:  # an older question may have waited for a neighbour
                return peer[0], peer[1]


def echo_socket(network: Network, address: str = SERVER) -> socket.socket:
    """Return the server's UDP socket."""
    opened = network.open_socket("server", family_of(address), socket.SOCK_DGRAM)
    opened.bind((address, SERVER_PORT))
    return opened


def answers_echo(network: Network, place: str, address: str) -> bool:
    """Ping once from a namespace; say whether an answer came within two seconds."""
    run("sysctl -qw net.ipv4.ping_group_range='0 0'", network.made[place])
    v6 = ":" in address
    protocol = socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP
    with entered(network.made[place]):
        asking = socket.socket(family_of(address), socket.SOCK_DGRAM, protocol)
    with asking:
        asking.settimeout(2.0)
        try:
            asking.sendto(bytes((128 if v6 else 8, 0, 0, 0, 0, 0, 0, 1)) + b"hanat", (address, 0))
            return asking.recv(64)[8:] == b"hanat"
        except OSError:
            return False
