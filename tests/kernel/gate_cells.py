"""What a router without, with one and with both rights may be asked: one cell a question."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

from chaos.lab.netns import entered
from tests.kernel.namespaces import run
from tests.kernel.network import (
    CLOSING_PORT,
    CLOSING_SERVER_PORT,
    SERVICE_PORT,
    Network,
    echo_socket,
    family_of,
)

WAIT_S = 0.03
TRIES_MAX = 300  # bounds a test that fails; what is awaited comes at the first or second
TRIES_REFUSED = 3  # one could be lost for another reason
OUTSIDE_PORT = 7000
OWN_PORT = 7022  # of a router; those of the cluster are for its peers only


@dataclass(frozen=True)
class Addresses:
    """The addresses of one family."""

    client: str
    server: str
    vip: str
    inside_vip: str
    own: str


def holds(cell: Callable[[], bool], *, expected: bool) -> bool:
    """Say whether a cell is true: asked often where it should be, thrice where it should not."""
    return any(cell() for _ in range(TRIES_MAX if expected else TRIES_REFUSED))


class Flow:
    """A UDP flow, asked again and again; it is new until it was answered once.

    Args:
        network: Where it runs.
        place: Who asks.
        far: Who answers.
        to: Address and port to ask.
        text_bytes: Length of a question; above the MTU it comes in fragments.
    """

    def __init__(
        self,
        network: Network,
        place: str,
        far: socket.socket,
        to: tuple[str, int],
        *,
        text_bytes: int = 16,
    ) -> None:
        self.near = network.open_socket(place, far.family, socket.SOCK_DGRAM)
        self._far, self._to, self._text_bytes, self._asked = far, to, text_bytes, 0

    def passes(self) -> bool:
        """Ask once; say whether question and answer came through."""
        self._asked += 1
        text = f"{id(self)} {self._asked}".encode().ljust(self._text_bytes)
        try:
            self.near.sendto(text, self._to)
            peer = _await(self._far, text)
            self._far.sendto(text, peer)
            _await(self.near, text)
        except OSError:
            return False
        return True


class Ping:
    """Echo requests of one identifier, which are one flow."""

    def __init__(self, network: Network, place: str, to: str, device: str = "") -> None:
        run("sysctl -qw net.ipv4.ping_group_range='0 0'", network.made[place])
        v6 = ":" in to
        self._kind = 128 if v6 else 8
        protocol = socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP
        with entered(network.made[place]):
            self._socket = socket.socket(family_of(to), socket.SOCK_DGRAM, protocol)
            self._to = (to, 0, 0, socket.if_nametoindex(device)) if device else (to, 0)
        network.keep(self._socket)
        self._asked = 0

    def answered(self) -> bool:
        """Ask once; say whether the answer came."""
        self._asked += 1
        head = bytes((self._kind, 0, 0, 0, 0, 0)) + self._asked.to_bytes(2, "big")
        try:
            self._socket.sendto(head + b"hanat", self._to)
            self._socket.settimeout(WAIT_S)
            while self._socket.recv(64)[6:8] != head[6:8]:
                continue
        except OSError:
            return False
        return True


def _await(receiver: socket.socket, text: bytes) -> tuple[str, int]:
    receiver.settimeout(WAIT_S)
    while True:
        found, peer = receiver.recvfrom(8192)
        if found == text:  # an older question may have waited for a neighbour
            return peer[0], peer[1]


def is_neighbour(network: Network, place: str, address: str) -> bool:
    """Ask the network who has an address, as if it were the first time; say whether one answers."""
    namespace = network.made[place]
    if run(f"ip neigh show {address} dev eth0", namespace):
        run(f"ip neigh del {address} dev eth0", namespace)
    ping = Ping(network, place, address)
    return any(
        ping.answered() or "lladdr" in run(f"ip neigh show {address} dev eth0", namespace)
        for _ in range(2)
    )


class Refusal:
    """A flow whose far end is closed: what comes back is an ICMP error that belongs to it."""

    def __init__(
        self, network: Network, place: str, far: socket.socket, to: tuple[str, int]
    ) -> None:
        self._near = network.open_socket(place, far.family, socket.SOCK_DGRAM)
        self._near.connect(to)
        self._near.send(b"?")
        far.settimeout(5)
        _, peer = far.recvfrom(16)
        far.sendto(b"!", peer)
        self._near.recv(16)
        far.close()

    def refused(self) -> bool:
        """Send once; say whether the port's absence was reported."""
        try:
            self._near.send(b"?")
            self._near.settimeout(WAIT_S)
            self._near.recv(16)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return False


class Cells:
    """All questions of one family, the flows among them established by a holder."""

    def __init__(self, network: Network, a: Addresses) -> None:
        self._network, self._a = network, a
        self._inside = echo_socket(network, a.server)
        self._outside = network.open_socket("client", family_of(a.client), socket.SOCK_DGRAM)
        self._outside.bind((a.client, OUTSIDE_PORT))
        self._own = network.open_socket("r1", family_of(a.own), socket.SOCK_DGRAM)
        self._own.bind((a.own, OWN_PORT))
        self._flows = {"established " + name: flow for name, flow in self._make_flows().items()}
        self._ping = Ping(network, "client", a.vip)
        for flow in self._flows.values():
            assert holds(flow.passes, expected=True)
        assert holds(self._ping.answered, expected=True)
        errors = {}
        for name, place, far, at, to in (
            ("error to the client", "client", "server", a.server, (a.vip, CLOSING_PORT)),
            ("error to the server", "server", "client", a.client, (a.client, CLOSING_SERVER_PORT)),
        ):
            closing = network.open_socket(far, family_of(at), socket.SOCK_DGRAM)
            closing.bind((at, CLOSING_SERVER_PORT))
            errors[name] = Refusal(network, place, closing, to).refused
        self._errors = errors
        for place, address in (("client", a.vip), ("server", a.inside_vip)):
            _pin_neighbour(network, place, address)

    def _make_flows(self) -> dict[str, Flow]:
        network, a, service = self._network, self._a, (self._a.vip, SERVICE_PORT)
        out = (a.client, OUTSIDE_PORT)
        return {
            "flow in": Flow(network, "client", self._inside, service),
            "flow in, fragments": Flow(network, "client", self._inside, service, text_bytes=4000),
            "flow out": Flow(network, "server", self._outside, out),
            "flow out, fragments": Flow(network, "server", self._outside, out, text_bytes=4000),
            "flow out and in again": Flow(network, "server", self._inside, service),
        }

    def ask(self, expected: dict[str, bool]) -> dict[str, bool]:
        """Return what is true; `expected` only says how patiently to ask."""
        network, a = self._network, self._a
        mesh = Flow(network, "client", self._own, (a.own, OWN_PORT))
        outward = Flow(network, "r1", self._outside, (a.client, OUTSIDE_PORT))
        cells: dict[str, Callable[[], bool]] = {
            **{name: flow.passes for name, flow in self._flows.items()},
            **{"new " + name: flow.passes for name, flow in self._make_flows().items()},
            **self._errors,
            "established delivery": self._ping.answered,
            "new delivery": Ping(network, "client", a.vip).answered,
            "own address, in": mesh.passes,
            "own address, out": outward.passes,
            "own address, echo": Ping(network, "client", a.own).answered,
            "own link-local address": Ping(
                network, "client", link_local(network, "r1"), "eth0"
            ).answered,
            "neighbour outside": lambda: is_neighbour(network, "client", a.vip),
            "neighbour inside": lambda: is_neighbour(network, "server", a.inside_vip),
            "neighbour own": lambda: is_neighbour(network, "client", a.own),
        }
        assert cells.keys() == expected.keys()
        return {name: holds(cell, expected=expected[name]) for name, cell in cells.items()}


def link_local(network: Network, place: str, device: str = "eth0") -> str:
    """Return the IPv6 link-local address of a device."""
    listing = run(f"ip -6 -o addr show dev {device} scope link", network.made[place])
    return listing.split("inet6 ")[1].partition("/")[0]


def _pin_neighbour(network: Network, place: str, address: str) -> None:
    """Keep what neighbour discovery told, whoever answers later."""
    device = {"client": "eth0", "server": "eth1"}[place]
    hardware = run(f"cat /sys/class/net/{device}/address", network.made["r1"]).strip()
    run(f"ip neigh replace {address} lladdr {hardware} dev eth0 nud permanent", network.made[place])
