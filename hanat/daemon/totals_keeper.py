"""The sums of services and servers between the flow worker, the peers and people.

The holder tells its peers what changed, 200 sums in a message, so that nothing takes long, and
each second at least that it is there. A new connection, and a new holder, is told everything;
a backup tells a new holder what it knows from before.

A message rides in one of views (`daemon.server_messages`), under a key of its own: a node of an
older build takes that for no views at all. A kind of its own would make it cut the connection.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from hanat.core.accounting import Place
from hanat.core.configuration import PROTOCOL_NUMBERS, Configuration, Listen, VirtualService
from hanat.core.server_facts import ServerId
from hanat.core.totals import NOTHING, OF_SERVICE, TOLD_S, Books, Figures, Told, Totals
from hanat.daemon.servers import QUEUED_BYTES_MAX
from hanat.raft.guard import Guard
from hanat.raft.replica import Replica

log = logging.getLogger(__name__)

# A peer takes 1.6 ms to read it. With 20,000 busy servers a sum is told each five seconds.
SUMS_A_MESSAGE = 200
MESSAGE_GAP_S = 0.05
TELL_S = 1.0
PRUNED_A_TURN = 200
KEY = "totals"
_HEAD = b'{"anew":false,"views":[],"totals":'


class Message(NamedTuple):
    """What a node tells another.

    Attributes:
        term: Of the sender.
        before: Sums from before that term, for the holder; else those of the holder.
        has_bytes: See `core.totals.Books`.
        is_all: The peer was told all that there is with this; None: an older node does not say.
    """

    term: int
    before: bool
    has_bytes: bool
    told: Sequence[Told]
    is_all: bool | None = None


def to_bytes(message: Message) -> bytes:
    """Return a message as bytes, which are views as well: none."""
    document = {
        "term": message.term,
        "before": message.before,
        "has_bytes": message.has_bytes,
        "all": message.is_all,
        "sums": [[*t.name, t.since_s, *t.totals] for t in message.told],
    }
    return _HEAD + json.dumps(document, separators=(",", ":")).encode() + b"}"


def from_bytes(data: bytes) -> Message | None:
    """Return what `to_bytes` made bytes of; None if it is something else."""
    try:
        found: dict[str, Any] = json.loads(data)[KEY]
        told = [_told(*row) for row in found["sums"]]
        is_all = found["all"] is True if found.get("all") is not None else None
        return Message(
            _count(found["term"]), found["before"] is True, found["has_bytes"] is True, told, is_all
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _told(service: object, server: object, since_s: object, *sums: object) -> Told:
    if len(sums) < len(NOTHING):  # a newer node may tell more
        raise ValueError(f"{len(sums)} numbers")
    totals = Totals(*map(_count, sums[: len(NOTHING)]))
    return Told(ServerId(str(service), str(server)), _count(since_s), totals)


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


class TotalsKeeper:
    """The sums as this node knows them.

    Args:
        guard: Speaks with the peers; its views that are none of ours go where they went before.
        replica: Knows the holder.
        wall: Seconds since 1970.
    """

    def __init__(self, guard: Guard, replica: Replica, *, wall: Callable[[], float]) -> None:
        self._guard, self._replica = guard, replica
        self._clock, self._wall = guard.clock, wall
        self._books = Books()
        self._services = _Services(())
        self._pruning: Iterator[None] | None = None
        self._tenure: tuple[int, int | None, bool] | None = None
        self._holder: int | None = None
        self._connections: dict[int, int] = {}
        self._waiting: dict[int, _Untold] = {}  # by peer
        self._told_at: dict[int, float] = {}
        self._held_at, self._is_full_told = 0.0, False
        self._told_in: dict[int, int] = {}  # the term for which a peer told all that it knows
        self._views = guard.on_views

    def begin(self) -> None:
        """Hear the peers from now on; what takes their views is there already."""
        self._views, self._guard.on_views = self._guard.on_views, self._heard

    def figures(self, name: ServerId) -> Figures | None:
        """Return what people see of a server, or of a service (`OF_SERVICE`)."""
        return self._books.figures(name, self._clock())

    def configure(self, configuration: Configuration) -> None:
        """Take a configuration; the sums of what is gone go, in some turns."""
        self._services = _Services(configuration.services)
        services = {service.name: service for service in configuration.services}
        self._pruning = self._books.prune(services, PRUNED_A_TURN)

    # -------------------------------------------------------------- from the worker

    def count(self, added: Mapping[Place, Totals], has_bytes: bool) -> None:  # noqa: FBT001 - a callback
        """Add what this node's kernel counted since the last call."""
        now, wall_s = self._clock(), self._wall()
        for place, totals in added.items():
            for name in self._services.names(place):
                self._books.count(name, totals, now, wall_s)
                self._changed(name)
        if self._books.is_holder:
            self._books.counted(now, has_bytes=has_bytes)

    # -------------------------------------------------------------------- the peers

    def _heard(self, peer: int, data: bytes) -> None:
        if not data.startswith(_HEAD):
            self._views(peer, data)
            return
        message = from_bytes(data)
        if message is None:
            log.warning("peer=%d totals=unreadable action=ignored", peer)
        elif message.before:
            for name in self._books.learn(message.term, message.told):
                self._changed(name)
            if message.is_all:
                self._told_in[peer] = message.term
        else:
            self._books.hear(
                message.term, message.told, self._clock(),
                has_bytes=message.has_bytes, is_all=message.is_all,
            )  # fmt: skip

    def _changed(self, name: ServerId) -> None:
        """Tell who has to know: all, as the holder; else the holder."""
        for peer in self._connections:
            if self._books.is_holder or peer == self._holder:
                self._waiting.setdefault(peer, _Untold()).changed[name] = None

    def _tell_all(self, peer: int) -> None:
        if self._books.is_holder or peer == self._holder:
            self._waiting[peer] = _Untold(self._books.names())
        else:
            self._waiting.pop(peer, None)

    def look(self, now: float) -> None:
        """Note who holds, and tell some of what is not told yet; call it often."""
        self._look_who_holds(now)
        connections = self._guard.connections
        if connections != self._connections:
            was, self._connections = self._connections, dict(connections)
            for peer in was.keys() - connections.keys():
                self._waiting.pop(peer, None)
            for peer, number in connections.items():
                if was.get(peer) != number:
                    self._tell_all(peer)
        books = self._books
        if books.is_holder and not books.is_whole:
            books.is_whole = now >= self._held_at + TOLD_S or all(
                self._told_in.get(peer) == books.term for peer in self._connections
            )
        for peer in self._connections:
            past_s = now - self._told_at.get(peer, 0.0)
            due_s = MESSAGE_GAP_S if self._waiting.get(peer) else TELL_S
            tells = books.is_holder or self._waiting.get(peer)
            if tells and past_s >= due_s and self._guard.wire.queued(peer) <= QUEUED_BYTES_MAX:
                self._told_at[peer] = now
                self._tell(peer)
        if books.is_full and not self._is_full_told:
            self._is_full_told = True
            log.warning("totals=%d action=none_for_more", len(books))
        if self._pruning is not None and next(self._pruning, self) is self:
            self._pruning = None

    def _look_who_holds(self, now: float) -> None:
        state, leading = self._replica.state, self._replica.leading
        if (state.term, state.holder, leading) != self._tenure:
            self._tenure = (state.term, state.holder, leading)
            self._held_at = now
            self._holder = state.holder
            # A node that was started again knows from its log that it held.
            mine = leading and state.holder == self._guard.node_id
            self._books.begin(state.term, is_holder=mine)
            for peer in self._connections:
                self._tell_all(peer)

    def _tell(self, peer: int) -> None:
        books, waiting = self._books, self._waiting.get(peer)
        names = [] if waiting is None else waiting.take(SUMS_A_MESSAGE)
        told = books.tell(names, before=not books.is_holder)
        # What a holder does not know yet it cannot have told.
        is_all = (waiting is None or waiting.is_all) and (books.is_whole or not books.is_holder)
        message = Message(books.term, not books.is_holder, books.has_bytes, told, is_all)
        self._guard.wire.send(peer, {"type": "views", "views": to_bytes(message)})


class _Untold:
    """What a peer was not told yet.

    Args:
        rest: Told in passing; what changed goes beside it.
    """

    def __init__(self, rest: list[ServerId] | None = None) -> None:
        self._rest, self._says_all = [] if rest is None else rest, False
        self.changed: OrderedDict[ServerId, None] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._rest or self.changed or not self._says_all)

    @property
    def is_all(self) -> bool:
        """Whether all was told that there was at first."""
        return not self._rest

    def take(self, count: int) -> list[ServerId]:
        """Return some, which are told now: of the rest as many as of the changed ones."""
        of_rest = min(len(self._rest), max(count // 2, count - len(self.changed)))
        found = [self._rest.pop() for _ in range(of_rest)]
        while self.changed and len(found) < count:
            found.append(self.changed.popitem(last=False)[0])
        self._says_all = not self._rest
        return found


class _Services:
    """Which sums a flow counts for."""

    def __init__(self, services: Iterable[VirtualService]) -> None:
        self._listens: dict[tuple[int, bytes, int], tuple[VirtualService, Listen]] = {
            (PROTOCOL_NUMBERS[listen.protocol], listen.address.packed, listen.first_port): (
                service,
                listen,
            )
            for service in services
            for listen in service.listens
        }
        self._servers: dict[str, dict[bytes, list[tuple[int | None, str]]]] = {}

    def names(self, place: Place) -> tuple[ServerId, ...]:
        """Return the service and, if it is one of its own, the server."""
        found = self._listens.get((place.protocol, place.listen, place.port))
        if found is None:
            return ()
        service, listen = found
        servers = self._servers.get(service.name)
        if servers is None:
            servers = self._servers[service.name] = {}
            for server in service.servers:
                at = servers.setdefault(server.address.packed, [])
                at.append((server.port, server.name))
        every = (ServerId(service.name, OF_SERVICE),)
        name = _server_at(servers.get(place.server, ()), place.server_port, listen)
        return every if name is None else (*every, ServerId(service.name, name))


def _server_at(servers: Sequence[tuple[int | None, str]], port: int, listen: Listen) -> str | None:
    """Return who answers from a port, of servers that share an address."""
    for own, name in servers:
        if own == port or (not port and (own is None or _is_within(own, listen))):
            return name
    return None


def _is_within(port: int, listen: Listen) -> bool:
    return listen.first_port <= port <= listen.last_port
