"""What one machine reaches of others: everything is asked at once, then it is seen what arrived."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from chaos.lab.netns import entered
from tests.kernel.gate_cells import Ping
from tests.kernel.namespaces import run
from tests.kernel.network import Network, family_of

QUIET_S = 0.4  # a packet passes the lab within a millisecond, the first asks for a neighbour
PLACES = ("client", "server", "r1", "r2")
TRIES = 2  # of pings


@dataclass(frozen=True)
class Target:
    """An address, and what is asked there.

    Attributes:
        source: Own address of who asks; the kernel chooses if there is none.
    """

    address: str
    ports: tuple[int, ...]
    source: str = ""


class Reach:
    """Listens on ports of every place, for datagrams and for connections.

    Args:
        network: The lab.
        ports: Where.
    """

    def __init__(self, network: Network, ports: Iterable[int]) -> None:
        self._network = network
        self._datagrams: dict[socket.socket, str] = {}
        self._asked = 0
        for place in PLACES:
            for port in ports:
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                    opened = network.open_socket(place, socket.AF_INET6, kind)
                    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                    opened.bind(("::", port))
                    if kind is socket.SOCK_STREAM:
                        opened.listen(64)
                    else:
                        self._datagrams[opened] = place

    def reached(self, place: str, targets: Mapping[str, Target]) -> dict[str, str]:
        """Return what `place` reached of each target: ``"echo tcp/80 udp/80"``.

        A datagram counts where it arrived, a connection or a ping when it was answered.
        """
        echo = {name: self._pings(place, target) for name, target in targets.items()}
        questions: dict[str, tuple[str, str]] = {}
        connecting: dict[socket.socket, tuple[str, str]] = {}
        for name, target in targets.items():
            for port in target.ports:
                self._ask(place, target, port, (name, f"udp/{port}"), questions)
                near = self._socket(place, target, socket.SOCK_STREAM)
                near.connect_ex((target.address, port))
                connecting[near] = (name, f"tcp/{port}")
        found = self._arrived(questions) | self._connected(connecting)
        return {
            name: " ".join(
                [*(["echo"] if echo[name] else []), *sorted(w for n, w in found if n == name)]
            )
            for name in targets
        }

    def _pings(self, place: str, target: Target) -> bool:
        if target.source:
            return False  # a ping socket of another address is no other question
        ping = Ping(self._network, place, target.address)
        return any(ping.answered() for _ in range(TRIES))

    def _socket(self, place: str, target: Target, kind: int) -> socket.socket:
        near = self._network.open_socket(place, family_of(target.address), kind)
        near.setblocking(False)  # noqa: FBT003 - the library's signature
        if target.source:
            near.bind((target.source, 0))
        return near

    def _ask(
        self, place: str, target: Target, port: int, what: tuple[str, str],
        questions: dict[str, tuple[str, str]],
    ) -> None:  # fmt: skip
        self._asked += 1
        text = f"{id(self)} {self._asked}"
        questions[text] = what
        with suppress(OSError):
            self._socket(place, target, socket.SOCK_DGRAM).sendto(
                text.encode(), (target.address, port)
            )

    def _arrived(self, questions: Mapping[str, tuple[str, str]]) -> set[tuple[str, str]]:
        found = set()
        until = time.monotonic() + QUIET_S
        while (left_s := until - time.monotonic()) > 0:
            ready, _, _ = select.select(list(self._datagrams), [], [], left_s)
            for opened in ready:
                text = opened.recv(100).decode()
                if text in questions:
                    found.add(questions[text])
        return found

    @staticmethod
    def _connected(connecting: dict[socket.socket, tuple[str, str]]) -> set[tuple[str, str]]:
        """Look at connections that were begun a while ago; a refusal is an answer, too."""
        answered = select.poll()
        for near in connecting:
            answered.register(near, select.POLLOUT | select.POLLERR | select.POLLHUP)
        ready = {number for number, _ in answered.poll(0)}
        found = set()
        for near, what in connecting.items():
            # "No route" is the asking machine's own answer, and of ICMP; both are not the target's.
            if near.fileno() in ready and near.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in {
                0,
                111,  # ECONNREFUSED
            }:
                found.add(what)
        return found


def give(network: Network, place: str, address: str, device: str = "eth0") -> None:
    """Give a machine one more address, which it takes as its own only when told so."""
    flags = "nodad preferred_lft 0" if ":" in address else ""
    run(f"ip addr add {address} dev {device} {flags}", network.made[place])


def route(network: Network, place: str, to: str, via: str) -> None:
    """Send what is for an address by way of a router."""
    run(f"ip route replace {to} via {via}", network.made[place])


def counted(network: Network, place: str, chain: str) -> int:
    """Return how many packets a chain of the ruleset dropped."""
    with entered(network.made[place]):
        listing = run(f"nft list chain inet hanat {chain}", network.made[place])
    return sum(int(part.split()[0]) for part in listing.split("counter packets ")[1:])
