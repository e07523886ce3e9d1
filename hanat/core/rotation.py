"""Which servers of a service get new clients, and why the others do not.

For one server that follows from three facts, see `core.server_facts`.

A server whose checks have no verdict yet is unknown, and out of rotation. But one that was in
rotation when a check was added, or replaced by another, *stays* until that check's first
verdict: a new configuration must not empty a service. The set of those that stay follows from
the order of the log, so every node has the same; a snapshot carries it.

If fewer than `min_healthy` percent of the servers that should serve are healthy, the service is
in *panic*: all of them are used. Those in drain, in maintenance or of weight 0 neither count nor
are used. (Envoy calls this a panic threshold; its own is a share of all hosts.)

A verdict is looked at only where its target is used; of a service only its own servers are.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from hanat.core.configuration import OnServerDown
from hanat.core.probing import Operational
from hanat.core.server_facts import (
    WEIGHT_MAX,
    Administrative,
    Cause,
    CheckedServer,
    CheckedService,
    ServerId,
    ServerStatus,
    judge,
    scaled,
    words,
)
from hanat.core.verdicts import NO_VERDICT, Verdict

HUNDREDTHS = 100


class ServiceState(Enum):
    """The worst that matters to clients."""

    UP = "up"  # all servers that should serve do
    DEGRADED = "degraded"  # some of them do not
    PANIC = "panic"  # too few are healthy: all of them are used
    DOWN = "down"  # no server gets clients


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """What follows for a service.

    Attributes:
        servers: In the order of the configuration.
        candidates: How many should serve; `healthy`: how many of them can.
    """

    name: str
    servers: tuple[ServerStatus, ...]
    candidates: int
    healthy: int
    min_healthy_percent: int

    @property
    def is_panic(self) -> bool:
        """Say whether servers are used that are not healthy."""
        return 100 * self.healthy < self.min_healthy_percent * self.candidates

    @property
    def state(self) -> ServiceState:
        """The service's own state."""
        if self.is_panic:
            return ServiceState.PANIC
        if not self.healthy:
            return ServiceState.DOWN
        return ServiceState.UP if self.healthy == self.candidates else ServiceState.DEGRADED

    def gets_clients(self, server: ServerStatus) -> bool:
        """Say whether a server of this service is in rotation."""
        return not server.causes or (self.is_panic and server.is_candidate)

    @property
    def rotation(self) -> tuple[tuple[str, int], ...]:
        """Names and weights of the servers that get new clients.

        Only ratios count. Where runtime weights make no whole numbers of them, all are in
        hundredths: half of the usual weight, 1, would be 1.
        """
        found = [s for s in self.servers if self.gets_clients(s)]
        heaviest = max((s.exact for s in found), default=0.0)
        if all(s.exact == s.weight for s in found) or HUNDREDTHS * heaviest > WEIGHT_MAX:
            return tuple((s.name, s.weight) for s in found)
        return tuple((s.name, scaled(HUNDREDTHS, s.exact)) for s in found)

    def loses_connections(self, server: ServerStatus) -> bool:
        """Say whether the service's `on_server_down` applies to a server."""
        if Cause.MAINT in server.causes:
            return True
        return Cause.DOWN in server.causes and not self.gets_clients(server)


@dataclass(frozen=True, slots=True)
class ServiceChanged:
    """A service is another one than before; None: it was not there, or is not any more."""

    name: str
    was: ServiceStatus | None
    now: ServiceStatus | None

    @property
    def rotates_anew(self) -> bool:
        """Say whether other servers get clients, or with other weights."""
        if self.was is None or self.now is None:
            return True
        return self.was.rotation != self.now.rotation


@dataclass(frozen=True, slots=True)
class ConnectionsEnd:
    """A server went down, into maintenance, or away: this is to happen to its connections."""

    server: ServerId
    place: str
    policy: OnServerDown


Event = ServiceChanged | ConnectionsEnd


@dataclass(frozen=True, slots=True)
class Facts:
    """All that decides beside the verdicts; equal facts give equal rotations on every node."""

    services: tuple[CheckedService, ...] = ()
    administrative: Mapping[ServerId, Administrative] = field(default_factory=dict)
    factors: Mapping[ServerId, float] = field(default_factory=dict)
    stays: frozenset[ServerId] = frozenset()


class Rotations:
    """The rotations of all services.

    Args:
        verdicts: What is committed, by target; read whenever something may have changed.
        facts: Of a snapshot, or nothing.
    """

    def __init__(self, verdicts: Mapping[str, Verdict], facts: Facts | None = None) -> None:
        facts = Facts() if facts is None else facts
        self._verdicts = verdicts
        self._services: dict[str, CheckedService] = {s.name: s for s in facts.services}
        self._indices = _indices(self._services)
        self._administrative = dict(facts.administrative)
        self._factors = dict(facts.factors)
        self._stays = set(facts.stays)
        self._users = _users(self._services)
        self._statuses = {name: self._judge(s) for name, s in self._services.items()}

    @property
    def facts(self) -> Facts:
        """What a snapshot needs."""
        services = tuple(self._services.values())
        return Facts(
            services, dict(self._administrative), dict(self._factors), frozenset(self._stays)
        )

    @property
    def statuses(self) -> Mapping[str, ServiceStatus]:
        """All services, in the order of the configuration."""
        return self._statuses

    # ------------------------------------------------------------------ what is told

    def configure(self, services: Iterable[CheckedService]) -> tuple[Event, ...]:
        """Take these services and no others; the same object as before is not looked at.

        Before this, `Verdicts.configure` dropped the verdicts of targets that are gone.
        """
        new = {s.name: s for s in services}
        gone = [name for name in self._services if name not in new]
        changed = [s for s in new.values() if self._services.get(s.name) is not s]
        events = self.replace(changed, gone)
        self._services = new
        self._statuses = {name: self._statuses[name] for name in new}
        return events

    def replace(
        self, changed: Iterable[CheckedService], gone: Iterable[str] = ()
    ) -> tuple[Event, ...]:
        """Take services that are new or have changed, and drop some; the others stay."""
        events: list[Event] = []
        for name in gone:
            old, was = self._services.pop(name), self._statuses.pop(name)
            self._forget(old)
            events += _changes(was, None, old.on_server_down)
        for service in changed:
            events += self._replace(service)
        return tuple(events)

    def _replace(self, service: CheckedService) -> tuple[Event, ...]:
        name = service.name
        old, was = self._services.get(name), self._statuses.get(name)
        in_rotation = () if was is None else (s for s in was.servers if not s.causes)
        had = {(s.name, s.place) for s in in_rotation}
        kept = {server.name for server in service.servers}
        if old is not None:
            self._forget(old, kept)
        self._services[name] = service
        for i, server in enumerate(service.servers):
            me = ServerId(name, server.name)
            self._indices[me] = i
            for target in server.targets:
                self._users.setdefault(target, {})[me] = None
            if (server.name, server.place) in had and not self._has_verdicts(server):
                self._stays.add(me)
        now = self._statuses[name] = self._judge(service)
        return _changes(was, now, service.on_server_down) if was != now else ()

    def _forget(self, service: CheckedService, kept: Collection[str] = ()) -> None:
        """Drop what is known of a service's servers; of those that are kept, facts stay."""
        for server in service.servers:
            me = ServerId(service.name, server.name)
            del self._indices[me]
            self._stays.discard(me)
            if server.name not in kept:
                self._administrative.pop(me, None)
                self._factors.pop(me, None)
            for target in server.targets:
                users = self._users.get(target, {})
                users.pop(me, None)
                if not users:
                    self._users.pop(target, None)

    def administer(self, server: ServerId, record: Administrative) -> tuple[Event, ...]:
        """Apply a record of the log; one of a server that is gone is nothing."""
        if not self.knows(server):
            return ()
        self._administrative[server] = record
        return self._rejudge({server})

    def weigh(self, server: ServerId, factor: float) -> tuple[Event, ...]:
        """Apply a runtime weight, a factor on the configured one.

        Raises:
            ValueError: It is negative or no number.
        """
        if not math.isfinite(factor) or factor < 0:
            raise ValueError(f"runtime weight of {server}: {factor} is not a factor of 0 or more")
        if not self.knows(server):
            return ()
        self._factors[server] = factor
        return self._rejudge({server})

    def stay(self, server: ServerId) -> tuple[Event, ...]:
        """Apply a record of the log: a server gets clients as before until its first verdict.

        One that is gone, or has verdicts by now, is nothing.
        """
        if not self.knows(server) or server in self._stays:
            return ()
        if self._has_verdicts(self._services[server.service].servers[self._indices[server]]):
            return ()
        self._stays.add(server)
        return self._rejudge({server})

    def reconsider(self, targets: Iterable[str]) -> tuple[Event, ...]:
        """Look at verdicts that changed; many at once cost less than one after the other."""
        users = {user for target in targets for user in self._users.get(target, ())}
        for user in users & self._stays:
            if self._has_verdicts(self._services[user.service].servers[self._indices[user]]):
                self._stays.discard(user)
        return self._rejudge(users)

    def users(self, target: str) -> Collection[ServerId]:
        """Return the servers that a target is probed for."""
        return self._users.get(target, {}).keys()

    def knows(self, server: ServerId) -> bool:
        """Say whether a server is configured."""
        return server in self._indices

    def stays(self, server: ServerId) -> bool:
        """Say whether a server is in rotation as before, without a verdict."""
        return server in self._stays

    @property
    def staying(self) -> Collection[ServerId]:
        """All that do."""
        return frozenset(self._stays)

    def administrative(self, server: ServerId) -> Administrative:
        """Return what operators made of a server."""
        return self._administrative.get(server, Administrative())

    def factor(self, server: ServerId) -> float:
        """Return the runtime weight of a server, a factor on the configured one."""
        return self._factors.get(server, 1.0)

    def targets(self, server: ServerId) -> tuple[str, ...]:
        """Return what is probed for a server that is configured, one per check."""
        return self._services[server.service].servers[self._indices[server]].targets

    # -------------------------------------------------------------------- the rules

    def _judge(self, service: CheckedService) -> ServiceStatus:
        indices = range(len(service.servers))
        servers = tuple(self._judge_server(service.name, i) for i in indices)
        candidates = sum(s.is_candidate for s in servers)
        healthy = sum(not s.causes for s in servers)
        return ServiceStatus(
            service.name, servers, candidates, healthy, service.min_healthy_percent
        )

    def _judge_server(self, service: str, index: int) -> ServerStatus:
        server = self._services[service].servers[index]
        me = ServerId(service, server.name)
        return judge(
            server,
            self.administrative(me),
            self._verdicts,
            factor=self.factor(me),
            stays=me in self._stays,
        )

    def _rejudge(self, servers: Iterable[ServerId]) -> tuple[Event, ...]:
        """Judge some servers again; the others of their services are only counted with."""
        concerned: dict[str, list[int]] = {}
        for server in servers:
            concerned.setdefault(server.service, []).append(self._indices[server])
        events: list[Event] = []
        for name, indices in sorted(concerned.items()):
            was = self._statuses[name]
            now = self._replaced(was, indices)
            if now != was:
                self._statuses[name] = now
                # Panic takes all in, and its end lets many go.
                some = None if now.is_panic is not was.is_panic else sorted(indices)
                events += _changes(was, now, self._services[name].on_server_down, some)
        return tuple(events)

    def _replaced(self, was: ServiceStatus, indices: Iterable[int]) -> ServiceStatus:
        servers = list(was.servers)
        candidates, healthy = was.candidates, was.healthy
        for i in indices:
            new = self._judge_server(was.name, i)
            candidates += new.is_candidate - servers[i].is_candidate
            healthy += (not new.causes) - (not servers[i].causes)
            servers[i] = new
        return ServiceStatus(was.name, tuple(servers), candidates, healthy, was.min_healthy_percent)

    def _has_verdicts(self, server: CheckedServer) -> bool:
        unknown = Operational.UNKNOWN
        return all(self._verdicts.get(t, NO_VERDICT).state is not unknown for t in server.targets)

    # ------------------------------------------------------------------- for people

    def why(self, server: ServerId, note: str = "") -> str:
        """Return in one sentence why a server gets no clients; empty if it does as it should.

        Args:
            server: One that is configured.
            note: What else is known, for instance `TargetStatus.note`.
        """
        index = self._indices[server]
        service, configured = self._statuses[server.service], self._services[server.service]
        status = service.servers[index]
        if status.stays:
            return f"{server} gets clients as before: its checks have no verdict yet"
        if not status.causes:
            return ""
        record = self.administrative(server)
        clauses = words(status, configured.servers[index], record, self._verdicts)
        clauses += f"; {note}" if note else ""
        if not service.gets_clients(status):
            return f"{server} gets no clients: {clauses}"
        return (
            f"{server} gets clients although {clauses}: only {service.healthy} of "
            f"{service.candidates} servers are healthy, fewer than {service.min_healthy_percent} %"
        )


def _indices(services: Mapping[str, CheckedService]) -> dict[ServerId, int]:
    return {
        ServerId(name, server.name): i
        for name, service in services.items()
        for i, server in enumerate(service.servers)
    }


def _users(services: Mapping[str, CheckedService]) -> dict[str, dict[ServerId, None]]:
    """Return the servers that each target is checked for."""
    users: dict[str, dict[ServerId, None]] = {}
    for name, service in services.items():
        for server in service.servers:
            for target in server.targets:
                users.setdefault(target, {})[ServerId(name, server.name)] = None
    return users


def _changes(
    was: ServiceStatus | None,
    now: ServiceStatus | None,
    policy: OnServerDown,
    indices: Iterable[int] | None = None,
) -> tuple[Event, ...]:
    """Return the events of a service that changed, at some servers or anywhere."""
    status = now or was
    assert status is not None
    name = status.name
    if was is None:
        return (ServiceChanged(name, was, now),)
    pairs: list[tuple[ServerStatus, ServerStatus | None]]
    if now is None:
        pairs = [(old, None) for old in was.servers]
    elif indices is None:
        there = {(s.name, s.place): s for s in now.servers}
        places = {s.place: s for s in now.servers}  # a machine that only got another name stays
        pairs = [(o, there.get((o.name, o.place)) or places.get(o.place)) for o in was.servers]
    else:
        pairs = [(was.servers[i], now.servers[i]) for i in indices]
    ends = (
        ConnectionsEnd(ServerId(name, old.name), old.place, policy)
        for old, new in pairs
        if not was.loses_connections(old)
        and (new is None or (now is not None and now.loses_connections(new)))
    )
    return (ServiceChanged(name, was, now), *ends)
