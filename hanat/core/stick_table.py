"""Which client goes to which server: what a cluster knows of services with persistence.

The kernel of the holder has a set of clients for each server (`core.persistence`); packets put
clients into them, which is no event of any kind. This table has the same on every node, derived
from connections: one that a client opens at a server is an entry. It is bounded as the sets are.

Where the sets keep a client of each server that it was at, the table keeps the newest alone. So a
client that was sent elsewhere while its server was down stays there when that server is back.

An entry that is refreshed is not worth telling each time: it counts as new when it is older than
`SLACK` of its timeout, so on another node it ends so much earlier at most.

Time is counted in ticks of 10 ms, of a clock of this node. Other nodes are told ages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from hanat.core.flows import RECORD_V4
from hanat.core.sticky import CLIENTS_MAX, NOBODY, Change, Key, StickyService, Told, Wanted

ENTRIES_MAX = 500_000  # of all; 125 bytes each (IPv4)
BELIEVED_PART = 2  # the half of it: who is only in a set may never have finished a handshake
TICKS = 100  # a second
SLACK = 16  # parts of the timeout
SLACK_TICKS_MIN = TICKS // 4

_TCP, _ESTABLISHED = 6, 3
_SERVER_BITS = 16
_SERVER_MASK = (1 << _SERVER_BITS) - 1
_PURGE_TICKS = 10 * TICKS
_FULL_PURGE_TICKS = TICKS

Servers = frozenset[tuple[str, int, str]]
"""Names of services, IP versions, names of servers."""
Ranges = Mapping[tuple[int, bytes], Sequence[tuple[int, int]]]
"""By protocol number and packed address, first and last port of each listen."""


@dataclass(slots=True)
class _Clients:
    """Entries of a service: in an integer the tick, and in its low bits the server's number."""

    service: StickyService
    entries: dict[bytes, int] = field(default_factory=dict)
    counts: list[int] = field(default_factory=list)
    purged_at: int = 0
    mask: int = 0
    timeout: int = 0
    slack: int = 0

    def __post_init__(self) -> None:
        self.counts = [0] * len(self.service.servers)
        bits = 32 if self.service.version == 4 else 128
        self.mask = ((1 << self.service.prefix) - 1) << (bits - self.service.prefix)
        self.timeout = self.service.timeout_s * TICKS
        self.slack = max(SLACK_TICKS_MIN, self.timeout // SLACK)

    @property
    def key(self) -> Key:
        return self.service.name, self.service.version

    def masked(self, address: bytes) -> bytes:
        size = len(address)
        if self.service.prefix == 8 * size:
            return address
        return (int.from_bytes(address, "big") & self.mask).to_bytes(size, "big")


class StickTable:
    """The newest server of each client, of all services with persistence.

    Attributes:
        servers: Those that are configured.
        refused: How often a client was not taken, since the table or its server was full.
    """

    def __init__(self) -> None:
        self._services: dict[Key, _Clients] = {}
        self._places: dict[bytes, _Clients | None] = {}
        self._ranges: dict[tuple[int, bytes], list[tuple[int, int, _Clients]]] = {}
        self._servers: dict[Key, dict[bytes, tuple[tuple[int, int], ...]]] = {}
        self._sets: dict[str, tuple[Key, int]] = {}
        self._total = self.refused = 0
        self._purged_at = 0
        self.servers: Servers = frozenset()

    def __len__(self) -> int:
        return self._total

    def __bool__(self) -> bool:
        """Say whether there is a service with persistence."""
        return bool(self._services)

    @property
    def sets(self) -> tuple[str, ...]:
        """The names of all sets, service by service."""
        return tuple(self._sets)

    @property
    def datagram_sets(self) -> tuple[str, ...]:
        """The names of those of services of UDP."""
        services = self._services
        return tuple(s for s, (key, _) in self._sets.items() if services[key].service.datagrams)

    def set_name(self, key: Key, server: int) -> str:
        """Return the name of the set of a server."""
        return self._services[key].service.servers[server].set_name

    # -------------------------------------------------------------- configuration

    def configure(self, services: Sequence[StickyService], ports: Ranges) -> None:
        """Be about other services; entries stay as far as they mean the same.

        Servers are known by their names. Entries of a service whose prefix became longer go:
        which of the addresses that counted as one was meant is not known.

        Args:
            services: Those with persistence.
            ports: Of every listen of any service: a single port is none of a range around it.
        """
        before, self._services = self._services, {}
        self._places, self._ranges, self._servers, self._sets = {}, {}, {}, {}
        self._total = 0
        for service in services:
            key = (service.name, service.version)
            old = before.get(key)
            same = old is not None and old.service == service
            made = self._services[key] = old if old and same else _Clients(service)
            by_address: dict[bytes, tuple[tuple[int, int], ...]] = {}
            for number, server in enumerate(service.servers):
                known = by_address.get(server.address, ())
                by_address[server.address] = (*known, (server.port, number))
                self._sets[server.set_name] = (key, number)
            self._servers[key] = by_address
            if same:
                self._total += len(made.entries)
            elif old is not None:
                self._carry_over(old, made)
        self.servers = frozenset(
            (s.name, s.version, one.name) for s in services for one in s.servers
        )
        self._lead(ports)

    def _carry_over(self, old: _Clients, new: _Clients) -> None:
        if new.service.prefix > old.service.prefix:
            return
        numbers = {server.name: i for i, server in enumerate(new.service.servers)}
        moved = [numbers.get(server.name, NOBODY) for server in old.service.servers]
        if new.service.prefix == old.service.prefix and moved == list(range(len(moved))):
            new.entries = old.entries  # servers were added, or the time is another
            new.counts[: len(moved)] = old.counts
            self._total += len(new.entries)
            return
        for client, packed in old.entries.items():
            server = moved[packed & _SERVER_MASK]
            if server != NOBODY:
                client = new.masked(client)  # noqa: PLW2901 - the network that it is of now
                if new.entries.get(client, -1) < packed:
                    self._put(new, client, server, packed >> _SERVER_BITS)

    def _lead(self, ports: Ranges) -> None:
        """Note where services listen."""
        for (protocol, address), some in ports.items():
            for first, last in some:
                if first == last:
                    self._places[_place(address, first, protocol)] = None
        for clients in self._services.values():
            for protocol, address, first, last in clients.service.listens:
                if first == last:
                    self._places[_place(address, first, protocol)] = clients
                else:
                    ranges = self._ranges.setdefault((protocol, address), [])
                    ranges.append((first, last, clients))

    # -------------------------------------------------------------- connections

    def note(self, records: Iterable[bytes], now: float) -> list[Change]:
        """Take connections into account that were opened; return what is worth telling.

        Args:
            records: Flows (`core.flows`) that are new or have changed.
            now: In seconds.
        """
        if not self._services:
            return []
        tick = round(now * TICKS)
        found = []
        for record in records:
            if record[-6] == _TCP and record[-5] != _ESTABLISHED:
                continue  # one that asks, from whatever address it says, or says goodbye
            opened = self._opened(record)
            if opened is None:
                continue
            clients, client, server = opened
            was = clients.entries.get(client)
            if was is not None and was & _SERVER_MASK == server:
                if tick - (was >> _SERVER_BITS) < clients.slack:
                    continue
                former = server
            else:
                former = NOBODY if was is None else was & _SERVER_MASK
            if self._put_if_room(clients, client, server, tick, now=tick):
                found.append(Change(clients.key, client, server, former))
        return found

    def _opened(self, record: bytes) -> tuple[_Clients, bytes, int] | None:
        """Return whose connection a flow is: service, client and number of the server."""
        if len(record) == RECORD_V4.size:
            address, asked, answering = record[:4], record[4:8], record[8:12]
            ports = record[18:22]
        else:
            address, asked, answering = record[:16], record[16:32], record[32:48]
            ports = record[66:70]
        place = asked + ports[:2] + record[-6:-5]
        if place in self._places:
            clients = self._places[place]
        else:
            clients = self._of_range(record[-6], asked, int.from_bytes(ports[:2], "big"))
        if clients is None:
            return None
        wanted = int.from_bytes(ports[2:], "big")
        for own_port, number in self._servers[clients.key].get(answering, ()):
            if own_port in (wanted, 0):
                return clients, clients.masked(address), number
        return None

    def _of_range(self, protocol: int, address: bytes, port: int) -> _Clients | None:
        for first, last, clients in self._ranges.get((protocol, address), ()):
            if first <= port <= last:
                return clients
        return None

    # -------------------------------------------------------------- other nodes

    def everything(self) -> Iterator[tuple[Key, bytes]]:
        """Yield all entries there are when their service has its turn."""
        for key in list(self._services):
            clients = self._services.get(key)
            for client in list(clients.entries) if clients is not None else ():
                yield key, client

    def tell(self, wanted: Iterable[tuple[Key, bytes]], now: float) -> list[Told]:
        """Return what is known of clients; nothing of those that are not known any more."""
        tick = round(now * TICKS)
        groups: dict[tuple[Key, int], Told] = {}
        for key, client in wanted:
            clients = self._services.get(key)
            packed = clients.entries.get(client) if clients is not None else None
            if clients is None or packed is None:
                continue
            age, server = tick - (packed >> _SERVER_BITS), packed & _SERVER_MASK
            if age >= clients.timeout:
                continue
            group = groups.get((key, server))
            if group is None:
                service = clients.service
                name = service.servers[server].name
                group = Told(service.name, service.version, service.prefix, name, [], [])
                groups[key, server] = group
            group.clients.append(client)
            group.ages.append(max(0, age))
        return list(groups.values())

    def learn(self, told: Told, now: float, *, late: bool = False) -> list[Change]:
        """Believe what the holder tells; return what was different here.

        What is told last is true, whatever the clocks say. Of services and servers that are not
        configured here, or have longer prefixes here, nothing is taken.

        Args:
            told: Of one server.
            now: In seconds.
            late: Others may have been told since: what is known of them and is newer stays.
        """
        key = (told.service, told.version)
        clients = self._services.get(key)
        if clients is None or clients.service.prefix > told.prefix:
            return []
        numbers = (i for i, s in enumerate(clients.service.servers) if s.name == told.server)
        server = next(numbers, NOBODY)
        if server == NOBODY:
            return []
        tick = round(now * TICKS)
        found = []
        for address, age in zip(told.clients, told.ages, strict=True):
            if age >= clients.timeout:
                continue
            client = clients.masked(address)
            was, seen = clients.entries.get(client), tick - age
            former = NOBODY if was is None else was & _SERVER_MASK
            if was is not None:
                apart = seen - (was >> _SERVER_BITS)
                if (former == server and abs(apart) < clients.slack) or (late and apart < 0):
                    continue
            if self._put_if_room(clients, client, server, seen, now=tick):
                found.append(Change(key, client, server, former))
        return found

    # -------------------------------------------------------------- the kernel's sets

    def wanted(self, set_name: str, clients: Iterable[bytes], now: float) -> list[Wanted]:
        """Return what a set is to have of these clients; nothing of those of other servers."""
        place = self._sets.get(set_name)
        if place is None:
            return []
        key, server = place
        known = self._services[key]
        tick = round(now * TICKS)
        found = []
        for client in clients:
            packed = known.entries.get(client)
            if packed is None or packed & _SERVER_MASK != server:
                continue
            left = (packed >> _SERVER_BITS) + known.timeout - tick
            if left > 0:
                found.append(Wanted(client, min(left, known.timeout) * 1000 // TICKS))
        return found

    def expected(self, set_name: str, now: float) -> dict[str, list[bytes]]:
        """Return the clients of each set of the service that a set is of."""
        place = self._sets.get(set_name)
        if place is None:
            return {set_name: []}
        clients = self._services[place[0]]
        found: list[list[bytes]] = [[] for _ in clients.service.servers]
        oldest = (round(now * TICKS) - clients.timeout) << _SERVER_BITS
        for client, packed in clients.entries.items():
            if packed >= oldest:
                found[packed & _SERVER_MASK].append(client)
        names = (server.set_name for server in clients.service.servers)
        return dict(zip(names, found, strict=True))

    def compare(
        self, set_name: str, present: Iterable[Wanted], now: float, *, packets: bool, believe: bool
    ) -> Differences:
        """Compare clients of a set with what is known of them.

        Of services of TCP alone, connections that were established tell who is there. An element
        of a set tells of a handshake that was begun, from whatever address it said.

        Args:
            set_name: Of a server.
            present: What the set has, at `now`.
            now: In seconds.
            packets: They may have put them there: what is newer than what is known stays, and is
                learnt if the service has UDP.
            believe: It is learnt of services of TCP alone, too.
        """
        found = Differences()
        place = self._sets.get(set_name)
        if place is None:
            return found
        key, server = place
        known = self._services[key]
        tick = round(now * TICKS)
        learns = believe or known.service.datagrams
        for client, left_ms in present:
            seen = tick - known.timeout + left_ms * TICKS // 1000
            was = known.entries.get(client)
            former = NOBODY if was is None else was & _SERVER_MASK
            at = seen if was is None else was >> _SERVER_BITS
            newer = seen - at >= known.slack if former == server else was is None or seen > at
            if packets and newer:
                may = learns and self._is_believable(known, server, is_new=was is None)
                if may and self._put_if_room(known, client, server, seen, now=tick):
                    found.changes.append(Change(key, client, server, former))
            elif former != server:
                found.strange.append(client)
            elif abs(at - seen) >= known.slack:
                found.outdated.append(client)
        return found

    def _is_believable(self, clients: _Clients, server: int, *, is_new: bool) -> bool:
        """Say whether there is room for who is only in a set; the rest is for who is not."""
        if is_new and self._total >= ENTRIES_MAX // BELIEVED_PART:
            return False
        part = 1 if clients.service.datagrams else BELIEVED_PART
        return clients.counts[server] < CLIENTS_MAX // part

    # -------------------------------------------------------------- entries

    def _put_if_room(
        self, clients: _Clients, client: bytes, server: int, seen: int, *, now: int
    ) -> bool:
        """Note an entry; say whether there was room for it."""
        if now - clients.purged_at >= max(_PURGE_TICKS, clients.timeout // 8):
            self._purge(clients, now)
        was = clients.entries.get(client)
        if was is None or was & _SERVER_MASK != server:
            is_new = was is None
            if self._is_full(clients, server, is_new=is_new):
                self._make_room(clients, now)
                if self._is_full(clients, server, is_new=is_new):
                    self.refused += 1
                    return False
        self._put(clients, client, server, seen)
        return True

    def _is_full(self, clients: _Clients, server: int, *, is_new: bool) -> bool:
        return clients.counts[server] >= CLIENTS_MAX or (is_new and self._total >= ENTRIES_MAX)

    def _put(self, clients: _Clients, client: bytes, server: int, seen: int) -> None:
        was = clients.entries.get(client)
        if was is None:
            self._total += 1
        else:
            clients.counts[was & _SERVER_MASK] -= 1
        clients.counts[server] += 1
        clients.entries[client] = seen << _SERVER_BITS | server

    def _make_room(self, clients: _Clients, now: int) -> None:
        """Forget what has expired; of every service if the table is full."""
        if self._total >= ENTRIES_MAX:
            if now - self._purged_at >= _FULL_PURGE_TICKS:
                self._purged_at = now
                for each in self._services.values():
                    self._purge(each, now)
        elif now - clients.purged_at >= _FULL_PURGE_TICKS:
            self._purge(clients, now)

    def _purge(self, clients: _Clients, now: int) -> None:
        """Forget what has expired."""
        clients.purged_at = now
        oldest = (now - clients.timeout) << _SERVER_BITS
        expired = [client for client, packed in clients.entries.items() if packed < oldest]
        for client in expired:
            clients.counts[clients.entries.pop(client) & _SERVER_MASK] -= 1
        self._total -= len(expired)


@dataclass(slots=True)
class Differences:
    """Between a set and the table.

    Attributes:
        changes: What the table learnt of the set.
        strange: Clients of the set that belong to another server, or to none.
        outdated: Clients whose time in the set is another.
    """

    changes: list[Change] = field(default_factory=list)
    strange: list[bytes] = field(default_factory=list)
    outdated: list[bytes] = field(default_factory=list)


def _place(address: bytes, port: int, protocol: int) -> bytes:
    return address + port.to_bytes(2, "big") + bytes((protocol,))
