"""Beacons over UDP: one socket a path, every datagram on every path.

Nothing here waits: what the kernel does not take at once is dropped and counted, the
next beacon says the same again.

Datagrams leave with the highest TTL there is, by which a peer on the same link knows that
no router had them (RFC 5082; `core.cluster_chains`).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from hanat.core.beacon import Beacon, Died, Heard
from hanat.core.configuration import Address
from hanat.errors import StartupError, WireError
from hanat.net.beacon_wire import DATAGRAM_BYTES_MAX, MAGIC
from hanat.net.death_notice import MAGIC as RELEASE_MAGIC
from hanat.net.freshness import Exchange, Stranger

complaints = logging.getLogger("hanat.complaints")

BURST_MAX = 64  # datagrams read before the loop may do something else
TTL = 255

# Restricts a socket to datagrams of these sources with one of these beginnings.
Restrict = Callable[[socket.socket, Sequence[Address], Sequence[bytes]], None]


@dataclass(slots=True)
class MeshCounts:
    """What happened to datagrams since the start."""

    sent: int = 0
    unsent: int = 0  # not taken by the kernel: no route, interface down, buffer full
    heard: int = 0
    refused: int = 0  # forged, late, of another cluster, or nothing we know


class MeshSockets:
    """This node's beacons on the wire.

    Args:
        own: This node's addresses, one a path.
        peers: Addresses of the other nodes by id, one a path, in the same order.
        port: UDP port of every node.
        exchange: Seals and opens.
        hear: Takes what was believed.
        view: Returns what to tell a peer now, for those that do not know this node yet.
    """

    def __init__(
        self,
        *,
        own: Sequence[Address],
        peers: Mapping[int, Sequence[Address]],
        port: int,
        exchange: Exchange,
        hear: Callable[[Heard | Died], None],
        view: Callable[[int], Beacon],
    ) -> None:
        self._own, self._port, self._exchange = own, port, exchange
        self._hear, self._view = hear, view
        self._sockets: list[socket.socket] = []
        self._targets = {
            peer: [(path, (str(a), port)) for path, a in enumerate(addresses[: len(own)])]
            for peer, addresses in peers.items()
        }
        self._peers = peers
        self._sources = {str(a): peer for peer, addresses in peers.items() for a in addresses}
        self.refused: dict[int, str] = {}  # peer → why its newest datagram was not believed
        self.counts = MeshCounts()

    def bind(self, restrict: Restrict = lambda _opened, _sources, _magics: None) -> None:
        """Take the port on every path.

        Args:
            restrict: Keeps strangers' datagrams from a socket.

        Raises:
            StartupError: An address is not on this machine, or the port is taken.
        """
        for path, address in enumerate(self._own):
            family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            self._sockets.append(sock)
            try:
                prefer_ttl(sock)
                restrict(sock, self._peers_on(path), (MAGIC, RELEASE_MAGIC))
                sock.bind((str(address), self._port))
            except OSError as error:
                self.close()
                raise StartupError(
                    tried=f"take UDP port {self._port} on {address} for beacons",
                    found=error.strerror or str(error),
                    to_do="the address must be on an interface of this node (peer.addresses "
                    "in node.toml) and the port free (ports.mesh); is another hanat running?",
                ) from error

    def _peers_on(self, path: int) -> list[Address]:
        """Return the peers' addresses on a path."""
        version = self._own[path].version
        return [
            addresses[path]
            for addresses in self._peers.values()
            if path < len(addresses) and addresses[path].version == version
        ]

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read from now on; what arrived since `bind` comes first."""
        for sock in self._sockets:
            loop.add_reader(sock.fileno(), self._read_all)

    def heard_at(self, peer: int, path: int | None = None) -> float | None:
        """Return when a peer was heard last [s], on one path or on any; None if never."""
        return self._exchange.heard_at(peer, path)

    def close(self) -> None:
        """Give the ports back."""
        for sock in self._sockets:
            if sock.fileno() >= 0:
                with suppress(RuntimeError):
                    asyncio.get_running_loop().remove_reader(sock.fileno())
                sock.close()

    # ------------------------------------------------------------------- sending

    def send(self, peer: int, beacon: Beacon, payload: bytes = b"") -> None:
        """Send a beacon on every path, perhaps with a Raft message."""
        self._spread(peer, self._exchange.seal(peer, beacon, payload=payload))

    def _spread(self, peer: int, data: bytes) -> None:
        for path, target in self._targets[peer]:
            try:
                self._sockets[path].sendto(data, target)
                self.counts.sent += 1
            except OSError as error:
                self.counts.unsent += 1
                complaints.warning("mesh to %s reason=%r", target[0], f"not sent: {error.strerror}")

    # ------------------------------------------------------------------ receiving

    def _read_all(self) -> None:
        """Read every path when one is readable: copies arrive microseconds apart."""
        for path, sock in enumerate(self._sockets):
            self._read(path, sock)

    def _read(self, path: int, sock: socket.socket) -> None:
        for _ in range(BURST_MAX):
            try:
                data, source = sock.recvfrom(DATAGRAM_BYTES_MAX + 1)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error of an earlier datagram
            self._take(path, source[0], data)

    def _take(self, path: int, source: str, data: bytes) -> None:
        if source not in self._sources:
            self._refuse(source, "no peer has this address")
            return
        try:
            said = self._exchange.open(data, path=path, source=self._sources[source])
            if said is None:
                return
            if isinstance(said, Stranger):
                answer = self._exchange.seal(said.peer, self._view(said.peer), echo=said.mark)
                self._spread(said.peer, answer)
                return
            self.counts.heard += 1
            self.refused.pop(self._sources[source], None)
            self._hear(said)
        except WireError as error:
            self.refused[self._sources[source]] = str(error)
            self._refuse(source, str(error))

    def _refuse(self, source: str, why: str) -> None:
        self.counts.refused += 1
        complaints.warning("mesh from %s reason=%r", source, why)


def prefer_ttl(sock: socket.socket) -> None:
    """Let packets of a socket leave with a TTL or hop limit that no router has touched."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, TTL)
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, TTL)


def missing(addresses: Iterable[Address]) -> tuple[Address, ...]:
    """Return those of some addresses that no device of this machine has."""
    return tuple(address for address in addresses if not _is_here(address))


def _is_here(address: Address) -> bool:
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        try:
            asking.bind((str(address), 0))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
    return True
