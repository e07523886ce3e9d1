"""Connections to the peers: asyncio sockets under the guard.

Each pair of nodes keeps one connection on every path (public, private), dialled
by the node with the lower id from its address on that path. Messages go over
one of them, the *current* one. The dialling end chooses it and keeps it until it
goes silent or its interface loses its carrier; the other end follows, unless its
own interface is down. (Both following each other never settled: 5000 changes a
second under load.) A change of path counts as a new connection for the guard,
because what was in flight may be lost; order across two paths is not needed, the
guard checks every message by term, generation and prefix.

Which paths are good is known from the beacons, which go over all of them; a
connection carries a keepalive now and then, so that a dead one is found. A path on
which a beacon comes again after a silence is dialled at once, and a connection that
waits to repeat what was lost there is given up: the kernel would wait as long again
as the silence was, and a leader that the beacons had elected meanwhile for it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from hanat.core.configuration import Address
from hanat.core.identity import Identity
from hanat.errors import StartupError, WireError
from hanat.net.secure_stream import NONCE_BYTES, SecureStream
from hanat.raft.guard import Guard
from hanat.raft.messages import Message, decode, encode
from hanat.raft.promises import HEARTBEAT_BEACONS

log = logging.getLogger(__name__)
complaints = logging.getLogger("hanat.complaints")

DIAL_S_MAX = 1.0
RETRY_S = (0.05, 0.1, 0.2, 0.5, 1.0)
YOUNG_S = 1.0
HELLO_S_MAX = 2.0
KEEPALIVE = b""
KEEPALIVE_BEACONS = 25  # period of keepalives, on every connection
# A path this silent is left for another. Between leader and follower a beacon goes each
# period, between others less often, and a peer that sends none is known by its connection.
SILENT_BEACONS_BUSY = 3
SILENT_BEACONS = 15
SILENT_BEACONS_ALONE = 3 * KEEPALIVE_BEACONS
STUCK_BEACONS = 4 * HEARTBEAT_BEACONS  # without the log's own heartbeats
DEAD_BEACONS = 100  # a connection this silent is dialled anew
BUFFER_BYTES_MAX = 32 << 20  # a peer that reads this slowly is cut off
TCP_INFO_RETRANSMITS = 2  # offset in struct tcp_info (linux/tcp.h), of eight bytes we ask for
LINGER_NONE = struct.pack("ii", 1, 0)  # close with a reset, whatever is unsent
BACKLOG = 8  # a few peers on a few paths
TTL = 255  # what opens a connection must have it where no router is between (`core.cluster_chains`)
# Connections that have not proved anything yet: of one address, and in all.
STRANGERS_PER_ADDRESS_MAX, STRANGERS_MAX = 4, 16


class Connection(asyncio.Protocol):
    """One TCP connection on one path."""

    def __init__(self, owner: RaftTransport, *, path: int, peer: int | None) -> None:
        self.owner, self.path, self.dialled = owner, path, peer
        self.session = SecureStream(
            owner.identity, nonce=secrets.token_bytes(NONCE_BYTES), peer=peer
        )
        self.opened_at = self.heard_at = owner.clock()
        self.up = False
        self.settled = asyncio.Event()  # up, or closed before it was
        self.closed = asyncio.Event()
        self.remote = "?"
        self.wire: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Speak first if we dialled."""
        assert isinstance(transport, asyncio.Transport)
        self.wire = transport
        address = transport.get_extra_info("peername")
        self.remote = str(address[0]) if address else "?"
        self._socket: socket.socket = transport.get_extra_info("socket")
        self._socket.setsockopt(
            socket.IPPROTO_TCP,
            socket.TCP_NODELAY,
            True,  # noqa: FBT003 - the socket API's own
        )
        if not self.owner.admit(self):
            self.abort()
        elif self.dialled is not None:
            transport.write(self.session.opening())

    def data_received(self, data: bytes) -> None:
        """Hand whole frames to the owner, in order."""
        try:
            was_keyed = self.session.keyed
            contents, reply = self.session.receive(data)
            if reply:
                self.wire.write(reply)
            if self.session.keyed and not was_keyed:
                self.wire.write(self.session.seal(KEEPALIVE))
            if self.session.established and not self.up:
                self.up = self.owner.established(self)
                self.settled.set()
            if self.up:
                self.heard_at = self.owner.clock()
                self.owner.frames(self, contents)
        except WireError as error:
            self.owner.refused(self, error)
            self.abort()
        except Exception as error:  # noqa: BLE001 - asyncio would hide an OSError from here
            self.owner.broken(error)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Tell the owner."""
        self.up = False
        self.settled.set()
        self.closed.set()
        self.owner.lost(self)

    def write(self, content: bytes) -> bool:
        """Send one frame; False if the connection is closing or its peer too slow."""
        if self.wire.is_closing():
            return False
        if self.wire.get_write_buffer_size() > BUFFER_BYTES_MAX:
            log.warning(
                "raft peer=%s path=%d action=cut reason=too_slow", self.session.peer, self.path
            )
            self.abort()
            return False
        self.wire.write(self.session.seal(content))
        return True

    def abort(self) -> None:
        """Close without waiting for anything."""
        self.wire.abort()

    @property
    def repeats(self) -> bool:
        """Whether something sent was lost, and the kernel waits to send it again."""
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)
        return info[TCP_INFO_RETRANSMITS] > 0

    def reset(self) -> None:
        """Close so that the other end learns of it at once."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
        self.abort()


class RaftTransport:
    """All connections of a node; the guard's `Wire`.

    Args:
        identity: Who we are, and the cluster key.
        own: This node's addresses, one a path.
        peers: Addresses of the other nodes by id, one a path, in the same order.
        port: TCP port of every node.
        guard: Gets messages, connects and disconnects.
        clock: Seconds of CLOCK_BOOTTIME.
        kick: Called after messages were handed to the guard: tick soon.

    Attributes:
        path_heard_at: When a beacon of a peer came on a path [s], None if never.
    """

    path_heard_at: Callable[[int, int], float | None]

    def __init__(
        self,
        *,
        identity: Identity,
        own: Sequence[Address],
        peers: Mapping[int, Sequence[Address]],
        port: int,
        guard: Guard,
        kick: Callable[[], None],
    ) -> None:
        self.identity, self.clock = identity, guard.clock
        self._own, self._peers, self._port = own, peers, port
        self._guard, self._kick = guard, kick
        self.path_heard_at = lambda _peer, _path: None
        self._beacon_s = guard.profile.beacon_s
        self._open: set[Connection] = set()
        self._paths: dict[int, dict[int, Connection]] = {peer: {} for peer in peers}
        self._current: dict[int, Connection] = {}
        self._chosen_at: dict[int, float] = {}
        self._down: set[int] = set()
        self._servers: list[asyncio.Server] = []
        self._known_addresses = {str(a) for addresses in peers.values() for a in addresses}
        self._keepalive_at = 0.0
        self._beacon_at: dict[tuple[int, int], float] = {}  # by peer and path, as seen last
        self._returned: dict[tuple[int, int], asyncio.Event] = {}
        self._dialling: dict[tuple[int, int], asyncio.Timeout] = {}
        self._closing = False
        self.accepting = False  # until the owner is ready for messages
        self.refusals = 0

    # ------------------------------------------------------------------- running

    async def listen(self) -> None:
        """Bind every path.

        Raises:
            StartupError: An address is not on this machine, or the port is taken.
        """
        loop = asyncio.get_running_loop()
        for path, address in enumerate(self._own):

            def accept(path: int = path) -> Connection:
                return Connection(self, path=path, peer=None)

            try:
                server = await loop.create_server(accept, str(address), self._port, backlog=BACKLOG)
            except OSError as error:
                raise StartupError(
                    tried=f"listen for peers on {address} port {self._port}",
                    found=error.strerror or str(error),
                    to_do="the address must be on an interface of this node (peer.addresses "
                    "in node.toml) and the port free; is another hanat running?",
                ) from error
            self._servers.append(server)

    async def dial(self) -> None:
        """Keep connections to all peers with a higher id; runs until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for peer, addresses in self._peers.items():
                if peer > self.identity.node_id:
                    for path in range(min(len(addresses), len(self._own))):
                        tasks.create_task(self._keep(peer, path))

    async def _keep(self, peer: int, path: int) -> None:
        returned = self._returned.setdefault((peer, path), asyncio.Event())
        failures = 0
        while True:
            if path in self._paths[peer]:
                connection = self._paths[peer][path]
                await connection.closed.wait()
                failures = failures_after(failures, self.clock() - connection.opened_at)
            elif not await self._dial_once(peer, path):
                failures += 1
            with suppress(TimeoutError):
                delay_s = RETRY_S[min(failures, len(RETRY_S) - 1)]
                await asyncio.wait_for(returned.wait(), delay_s)
                returned.clear()
                failures = 0

    async def _dial_once(self, peer: int, path: int) -> bool:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(DIAL_S_MAX) as limit:
                self._dialling[peer, path] = limit
                try:
                    _, connection = await loop.create_connection(
                        lambda: Connection(self, path=path, peer=peer),
                        sock=await _dialled(self._own[path], self._peers[peer][path], self._port),
                    )
                finally:
                    del self._dialling[peer, path]
                await connection.settled.wait()
        except (OSError, TimeoutError):
            return False
        return connection.up

    async def close(self) -> None:
        """Close listeners and connections."""
        self._closing = True
        for server in self._servers:
            server.close()
        for connection in list(self._open):
            connection.abort()
        for server in self._servers:
            with suppress(OSError):
                await server.wait_closed()

    # ------------------------------------------------------- the guard's wire

    def send(self, peer: int, message: Message) -> bool:
        """Send over the peer's current path; False when there is none."""
        connection = self._current.get(peer)
        return connection is not None and connection.write(encode(message, self._guard.level()))

    def queued(self, peer: int) -> int:
        """Return how many bytes wait here, not in the kernel, to be sent to a peer."""
        connection = self._current.get(peer)
        return 0 if connection is None else connection.wire.get_write_buffer_size()

    def tick(self) -> None:
        """Keep idle paths alive, leave silent ones; call it about twice a beacon."""
        now = self.clock()
        for peer, current in list(self._current.items()):
            # A path just chosen gets as long as it takes to call one silent.
            chosen_at = self._chosen_at.get(peer, 0.0)
            silent_s = now - max(self._heard_at(current), chosen_at)
            # Beacons may pass where a connection is stuck.
            stuck = now - max(current.heard_at, chosen_at) > STUCK_BEACONS * self._beacon_s
            if silent_s > self._silent_s(peer) or (stuck and self._busy(peer)):
                self._choose(peer)
        if now >= self._keepalive_at:
            self._keepalive_at = now + KEEPALIVE_BEACONS * self._beacon_s
            self._keep_alive(now)
        for peer, addresses in self._peers.items():
            for path in range(min(len(addresses), len(self._own))):
                self._look_whether_returned(peer, path)

    def _look_whether_returned(self, peer: int, path: int) -> None:
        """Renew the connection where a peer is heard again after a silence, if it needs that."""
        heard_at, before = self.path_heard_at(peer, path), self._beacon_at.get((peer, path))
        if heard_at is None or heard_at == before:
            return
        self._beacon_at[peer, path] = heard_at
        if before is not None and heard_at - before <= SILENT_BEACONS * self._beacon_s:
            return
        connection = self._paths[peer].get(path)
        if connection is not None and connection.repeats:
            connection.reset()
        if (peer, path) in self._returned:
            self._returned[peer, path].set()
        if (peer, path) in self._dialling:
            # It dials into the silence still: what it sent will be repeated in a second.
            with suppress(RuntimeError):  # it is over by itself, in this very moment
                self._dialling[peer, path].reschedule(asyncio.get_running_loop().time())

    def _silent_s(self, peer: int) -> float:
        if not self._guard.mesh_knows(peer):
            return SILENT_BEACONS_ALONE * self._beacon_s
        beacons = SILENT_BEACONS_BUSY if self._busy(peer) else SILENT_BEACONS
        return beacons * self._beacon_s

    def _busy(self, peer: int) -> bool:
        """Say whether one of the two ends leads, so that heartbeats and beacons are frequent."""
        return self._guard.leading or self._guard.promise.leader == peer

    def _heard_at(self, connection: Connection) -> float:
        """Return when anything came on the path of a connection."""
        assert connection.session.peer is not None
        beacon_at = self.path_heard_at(connection.session.peer, connection.path)
        return max(connection.heard_at, beacon_at or 0.0)

    def _keep_alive(self, now: float) -> None:
        for connection in list(self._open):
            if not connection.up:
                if now - connection.opened_at > HELLO_S_MAX:
                    connection.abort()
            elif now - connection.heard_at > DEAD_BEACONS * self._beacon_s:
                connection.abort()
            else:
                connection.write(KEEPALIVE)

    def path_changed(self, path: int, *, usable: bool) -> None:
        """Note that the interface of a path lost or got its carrier."""
        if usable:
            self._down.discard(path)
            return
        self._down.add(path)
        for peer, current in list(self._current.items()):
            if current.path == path:
                self._choose(peer)

    # ------------------------------------------------------- from the connections

    def admit(self, connection: Connection) -> bool:
        """Take a new connection; False when it can only be a stranger's."""
        if self._closing or not self.accepting:
            return False
        if connection.dialled is None:
            if connection.remote not in self._known_addresses:
                self.refused(connection, WireError("no peer has this address"))
                return False
            self._make_room(connection.remote)
        self._open.add(connection)
        return True

    def _make_room(self, remote: str) -> None:
        """Cut off the oldest of connections that prove nothing: the newest is likelier real."""
        strangers = [c for c in self._open if not c.up and c.dialled is None]
        beside = [c for c in strangers if c.remote == remote]
        if len(beside) >= STRANGERS_PER_ADDRESS_MAX:
            oldest = min(beside, key=lambda c: c.opened_at)
        elif len(strangers) >= STRANGERS_MAX:
            oldest = min(strangers, key=lambda c: c.opened_at)
        else:
            return
        oldest.abort()
        self._open.discard(oldest)

    def established(self, connection: Connection) -> bool:
        """Take a connection whose other end proved itself; False to refuse it."""
        peer = connection.session.peer
        if peer is None or peer not in self._peers:
            raise WireError(f"node {peer} is not among the peers of this node's file")
        if connection.remote not in map(str, self._peers[peer]):
            raise WireError(
                f"node {peer} calls from {connection.remote}, which is not its address here; "
                "is its id in use on two machines?"
            )
        old = self._paths[peer].get(connection.path)
        self._paths[peer][connection.path] = connection
        if old is not None:
            old.abort()
        if peer not in self._current or self._current[peer] is old:
            self._switch(peer, connection)
        return True

    def frames(self, connection: Connection, contents: list[bytes]) -> None:
        """Take the contents that one connection received."""
        peer = connection.session.peer
        assert peer is not None
        contents = [content for content in contents if content != KEEPALIVE]
        messages = list(map(decode, contents))
        if not messages or self._paths[peer].get(connection.path) is not connection:
            return
        if self._current.get(peer) is not connection and self._follows(peer, connection):
            self._switch(peer, connection)
        self._guard.level_heard = max(self._guard.level_heard, *(c[0] for c in contents))
        for message in messages:
            self._guard.receive(peer, message)
        self._kick()

    def _follows(self, peer: int, connection: Connection) -> bool:
        """Say whether to change to the path that a message of the peer came on."""
        if connection.path in self._down:
            return False
        if connection.dialled is None:
            return True
        current = self._current.get(peer)
        return current is None or self.clock() - self._heard_at(current) > self._silent_s(peer)

    def broken(self, error: Exception) -> None:
        """Pass on an exception nobody expected: the node must not go on."""
        context = {"message": "while a message took effect", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)

    def refused(self, connection: Connection, error: WireError) -> None:
        """Note why a connection is cut."""
        self.refusals += 1
        complaints.warning("raft refused from=%s reason=%r", connection.remote, str(error))

    def lost(self, connection: Connection) -> None:
        """Note a closed connection."""
        self._open.discard(connection)
        peer = connection.session.peer
        if peer is None or self._paths.get(peer, {}).get(connection.path) is not connection:
            return
        del self._paths[peer][connection.path]
        if self._current.get(peer) is connection:
            self._choose(peer)

    def _choose(self, peer: int) -> None:
        """Switch to the best other path, if it is better: usable, then heard not long ago."""
        current = self._current.get(peer)
        others = [c for c in self._paths[peer].values() if c is not current and c.up]
        best = max(
            others, key=lambda c: (c.path not in self._down, self._heard_at(c)), default=None
        )
        gone = current is None or not current.up or current.path in self._down
        recent = self.clock() - self._silent_s(peer)
        if best is not None and (gone or self._heard_at(best) > recent):
            self._switch(peer, best)
        elif current is not None and not current.up:
            del self._current[peer]
            self._guard.peer_disconnected(peer)
            self._kick()

    def _switch(self, peer: int, connection: Connection) -> None:
        self._current[peer] = connection
        self._chosen_at[peer] = self.clock()
        self._guard.peer_connected(peer)

    # ------------------------------------------------------------------- status

    def connected(self) -> Mapping[int, tuple[str, float]]:
        """Return for each connected peer its address in use and when it was heard [s]."""
        return {peer: (c.remote, c.heard_at) for peer, c in self._current.items()}


def failures_after(failures: int, lived_s: float) -> int:
    """Return how often in a row there was no useful connection, after one that lived so long.

    A peer that does not understand this node cuts it off, again and again.
    """
    return failures + 1 if lived_s < YOUNG_S else 0


async def _dialled(own: Address, peer: Address, port: int) -> socket.socket:
    """Return a socket that is connected from one address to another."""
    family = socket.AF_INET6 if own.version == 6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if own.version == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, TTL)
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, TTL)
        sock.bind((str(own), 0))
        await asyncio.get_running_loop().sock_connect(sock, (str(peer), port))
    except BaseException:
        sock.close()
        raise
    return sock
