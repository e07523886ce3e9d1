"""A service as people see it: who gets its new clients, and why the others do not.

Everything comes from `core.rotation` and `core.verdicts`; nothing is decided here. The three facts
about a server stay apart, see `core.server_facts`: what is configured, what operators made of it,
what its checks say. What follows from them is one word (`Condition`), a share of the new clients,
and a sentence if there is something to say.

A service never looks healthy while clients of one IP version are not served, though all servers
of the other version are.

Shares are those of one IP version: a server gets clients of its own only. With schedulers that
follow connection counts they are what new clients come to once the counts are level, if
connections last equally long everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from hanat.core.check_view import CheckView, ProbeView
from hanat.core.configuration import RealServer, Unavailable, VirtualService
from hanat.core.lookup import no_such
from hanat.core.probing import Operational
from hanat.core.rotation import Rotations, ServiceState, ServiceStatus
from hanat.core.schedulers import InRotation, weights_of
from hanat.core.server_facts import Administrative, Cause, ServerId, ServerStatus
from hanat.core.totals import OF_SERVICE, Figures, nobody_counts
from hanat.core.verdicts import TargetStatus, Verdicts
from hanat.errors import NoSuchError

FACTOR_MAX = 10.0  # so that "50" for half a weight is a mistake that is seen


class Condition(Enum):
    """What a server does for new clients, the first reason if there are several."""

    SERVING = "serving"
    PANIC = "panic"  # it gets clients although it is not healthy: too few are
    RESERVE = "reserve"  # it could, but those of a better tier do
    FULL = "full"  # it has as many connections as it may have
    WEIGHT = "weight"  # its weight is 0
    MAINT = "maint"
    DRAIN = "drain"
    DOWN = "down"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Datagrams:
    """How many datagrams this node sent by themselves, without a flow, and how many answers."""

    to_server: int = 0
    to_clients: int = 0


@dataclass(frozen=True, slots=True)
class ServerView:
    """A server of a service.

    Attributes:
        place: Address and port.
        weight: As configured; `factor` is the runtime weight, `effective_weight` their product.
        share_percent: Of the new clients of its IP version, 0 to 100.
        administrative: What operators made of it.
        operational: The worst that its checks say.
        checks: All must hold; none: always up.
        why: One sentence: why it gets no clients, or gets some all the same; may be empty.
        connections: Established now, as far as this node knows; at most about `max_conn`, 0: any.
        times_full: How often it had so many, while this node held.
        connections: Established now, as far as this node knows.
        figures: What it carried; None: not known.
        datagrams: Of a service with ``ops``; None of others.
    """

    name: str
    place: str
    condition: Condition
    weight: int
    factor: float
    effective_weight: int
    share_percent: float
    administrative: Administrative
    operational: Operational
    checks: tuple[CheckView, ...]
    why: str
    connections: int
    max_conn: int = 0
    times_full: int = 0
    figures: Figures | None = None
    datagrams: Datagrams | None = None

    @property
    def gets_clients(self) -> bool:
        """Say whether new clients go there."""
        return self.share_percent > 0

    @property
    def latency_s(self) -> float | None:
        """Return how long the slowest of this node's last probes took; None if there is none."""
        return max((c.probe.latency_s for c in self.checks if c.probe is not None), default=None)

    def to_document(self, *, checks: bool = True) -> dict[str, Any]:
        """Return it as JSON-ready values.

        Args:
            checks: With each check; thousands of servers are too much for that.
        """
        record, operational = self.administrative, {"state": self.operational.value}
        return {
            "name": self.name,
            "address": self.place,
            "condition": self.condition.value,
            "gets_clients": self.gets_clients,
            "share_percent": round(self.share_percent, 2),
            "connections": self.connections,
            "totals": _document(self.figures),
            "datagrams": None if self.datagrams is None else asdict(self.datagrams),
            "why": self.why,
            "configured": {"weight": self.weight, "max_conn": self.max_conn or None},
            "runtime": {
                "factor": self.factor,
                "weight": self.effective_weight,
                "times_full": self.times_full,
            },
            "administrative": {
                "mode": record.mode.value,
                "by": record.by,
                "reason": record.reason,
                "since": _rfc3339(record.since_s or None),
                "until": _rfc3339(record.until_s),
            },
            "operational": operational
            | ({"checks": [c.to_document() for c in self.checks]} if checks else {}),
        }


@dataclass(frozen=True, slots=True)
class ServiceView:
    """A service.

    Attributes:
        state: The worst that matters to clients.
        why: One sentence about that state; empty if it is up.
        listens: As the operator wrote them, addresses resolved.
        candidates: How many servers should serve; `healthy`: how many of them can.
        servers: In the order of the configuration.
        refused: First packets that this node dropped, by the limit: `service_limits.REASONS`.
        figures: What it carried, with what servers did that are gone; None: not known.
    """

    name: str
    state: ServiceState
    why: str
    scheduler: str
    listens: tuple[str, ...]
    candidates: int
    healthy: int
    min_healthy_percent: int
    servers: tuple[ServerView, ...]
    refused: Mapping[str, int] = field(default_factory=dict)
    figures: Figures | None = None

    @property
    def connections(self) -> int:
        """Established now, of all servers."""
        return sum(server.connections for server in self.servers)

    def server(self, name: str) -> ServerView:
        """Return a server.

        Raises:
            NoSuchError: There is none of that name.
        """
        found = next((server for server in self.servers if server.name == name), None)
        if found is None:
            known = (server.name for server in self.servers)
            raise NoSuchError(no_such(f"server of {self.name}", name, known))
        return found

    def to_document(self, *, checks: bool = True) -> dict[str, Any]:
        """Return it as JSON-ready values; `checks` as of `ServerView.to_document`."""
        return {
            "name": self.name,
            "state": self.state.value,
            "why": self.why,
            "scheduler": self.scheduler,
            "listen": list(self.listens),
            "candidates": self.candidates,
            "healthy": self.healthy,
            "min_healthy_percent": self.min_healthy_percent,
            "connections": self.connections,
            "refused": dict(self.refused),
            "totals": _document(self.figures),
            "servers": [server.to_document(checks=checks) for server in self.servers],
        }


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What one node knows at a moment.

    Attributes:
        rotations: Configured with the services that are looked at.
        verdicts: What those were made of.
        node_id: This node.
        names: Of all nodes.
        connections: Of each server that has some.
        now: Seconds of the clock of the verdicts.
        slow_start: Percent of its weight, of each server that came back not long ago.
        full: Servers that have as many connections as they may have; `filled`: how often each had,
            while this node held.
        refused: Of each service with limits, what `ServiceView.refused` is.
        figures: Returns what a server carried, or a service.
        datagrams: Of each server of a service with ``ops``.
    """

    rotations: Rotations
    verdicts: Verdicts
    node_id: int
    names: Mapping[int, str]
    connections: Mapping[ServerId, int]
    now: float
    slow_start: Mapping[ServerId, int] = field(default_factory=dict)
    full: Collection[ServerId] = ()
    filled: Mapping[ServerId, int] = field(default_factory=dict)
    refused: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    figures: Callable[[ServerId], Figures | None] = nobody_counts
    datagrams: Mapping[ServerId, Datagrams] = field(default_factory=dict)

    def name_of(self, node_id: int) -> str:
        """Return the name of a node."""
        return self.names.get(node_id, f"node {node_id}")


def view_of(service: VirtualService, known: Knowledge) -> ServiceView:
    """Return a service as a node sees it.

    Args:
        service: As configured. A server that the rotations do not know, or at another place,
            because another revision is in force there, is left out.
        known: By the node.
    """
    nothing = ServiceStatus(service.name, (), 0, 0, 0)
    status = known.rotations.statuses.get(service.name, nothing)
    statuses = {(server.name, server.place): server for server in status.servers}
    tried = ((server, statuses.get((server.name, server.place))) for server in service.servers)
    pairs = [(server, found) for server, found in tried if found is not None]
    if len(pairs) < len(service.servers):
        service = replace(service, servers=tuple(server for server, _ in pairs))
    shares = _shares(service, status, known)
    servers = tuple(_server_view(server, found, status, shares, known) for server, found in pairs)
    unserved = _unserved(service, shares)
    full = sum(server.condition is Condition.FULL for server in servers)
    return ServiceView(
        name=service.name,
        state=_state(service, status, unserved, full),
        why=_why(service, status, servers, unserved, full),
        scheduler=service.scheduler.value,
        listens=tuple(map(str, service.listens)),
        candidates=status.candidates,
        healthy=status.healthy,
        min_healthy_percent=status.min_healthy_percent,
        servers=servers,
        refused=known.refused.get(service.name, {}),
        figures=known.figures(ServerId(service.name, OF_SERVICE)),
    )


# ------------------------------------------------------------------------------ servers


def _server_view(
    server: RealServer,
    found: ServerStatus,
    status: ServiceStatus,
    shares: Mapping[str, float],
    known: Knowledge,
) -> ServerView:
    me = ServerId(status.name, server.name)
    checks = tuple(_check_view(target, known) for target in known.rotations.targets(me))
    share = shares.get(server.name, 0.0)
    is_full = status.gets_clients(found) and me in known.full
    condition = _condition(found, gets_clients=status.gets_clients(found), share=share)
    why = known.rotations.why(me, "; ".join(check.note for check in checks if check.note))
    if is_full:
        condition = Condition.FULL
        why = f"{me} gets no clients: it has as many connections as it may have, {server.max_conn}"
    elif condition is Condition.RESERVE:
        why = f"{me} gets no clients: it is of tier {server.tier}, and those of a better one do"
    return ServerView(
        name=server.name,
        place=found.place,
        condition=condition,
        weight=server.weight,
        factor=known.rotations.factor(me),
        effective_weight=found.weight,
        share_percent=share,
        administrative=known.rotations.administrative(me),
        operational=found.operational,
        checks=checks,
        why=why,
        connections=known.connections.get(me, 0),
        max_conn=server.max_conn,
        times_full=known.filled.get(me, 0),
        figures=known.figures(me),
        datagrams=known.datagrams.get(me),
    )


def _document(figures: Figures | None) -> dict[str, Any] | None:
    return None if figures is None else figures.to_document()


def _condition(found: ServerStatus, *, gets_clients: bool, share: float) -> Condition:
    if not gets_clients:
        return _CONDITIONS[found.causes[0]]
    if not share:
        return Condition.RESERVE
    return Condition.PANIC if found.causes else Condition.SERVING


_CONDITIONS = {
    Cause.WEIGHT: Condition.WEIGHT,
    Cause.MAINT: Condition.MAINT,
    Cause.DRAIN: Condition.DRAIN,
    Cause.DOWN: Condition.DOWN,
    Cause.UNKNOWN: Condition.UNKNOWN,
}


def _check_view(target: str, known: Knowledge) -> CheckView:
    shown = known.verdicts.show(target, known.now)
    verdict, own = shown.verdict, shown.own
    probe = None
    if own is not None:
        ago_s = max(0.0, known.now - own.at)
        probe = ProbeView(own.ok, own.answer, own.in_a_row, own.latency_s, ago_s)
    decided = verdict.node_id is not None
    return CheckView(
        target=target,
        state=verdict.state,
        for_s=max(0.0, known.now - verdict.since) if decided else None,
        answer=verdict.answer,
        in_a_row=verdict.in_a_row,
        latency_s=verdict.latency_s,
        decided_by=None if verdict.node_id is None else known.name_of(verdict.node_id),
        nodes=_nodes(shown, known),
        probe=probe,
        note=shown.note,
    )


def _nodes(shown: TargetStatus, known: Knowledge) -> tuple[tuple[str, Operational], ...]:
    own = [] if shown.own is None else [(known.name_of(known.node_id), shown.own.state)]
    others = [(known.name_of(node_id), view.state) for node_id, view in shown.views.items()]
    return (*own, *others)


# ----------------------------------------------------------------------------- services


def _shares(service: VirtualService, status: ServiceStatus, known: Knowledge) -> dict[str, float]:
    """Return the percentage of new clients of each server that gets some."""
    rotation = {
        name: weight
        for name, weight in status.rotation
        if ServerId(service.name, name) not in known.full
    }
    shares: dict[str, float] = {}
    for version in _versions(service):
        weights = weights_of(
            service.scheduler,
            (
                InRotation(
                    server.name,
                    rotation[server.name],
                    known.slow_start.get(ServerId(service.name, server.name), 100),
                    server.tier,
                )
                for server in service.servers
                if server.address.version == version and server.name in rotation
            ),
        )
        total = sum(weights.values())
        shares |= {name: 100 * weight / total for name, weight in weights.items()}
    return shares


def _versions(service: VirtualService) -> tuple[int, ...]:
    """Return the IP versions that a service listens on."""
    return tuple(sorted({listen.address.version for listen in service.listens}))


def _unserved(service: VirtualService, shares: Mapping[str, float]) -> tuple[int, ...]:
    """Return the IP versions whose clients no server gets."""
    served = {server.address.version for server in service.servers if server.name in shares}
    return tuple(version for version in _versions(service) if version not in served)


def _state(
    service: VirtualService, status: ServiceStatus, unserved: tuple[int, ...], full: int
) -> ServiceState:
    """Return the worst that matters, also to clients of one IP version alone."""
    if unserved == _versions(service):
        return ServiceState.DOWN
    if status.state is ServiceState.UP and (unserved or full):
        return ServiceState.DEGRADED
    return status.state


def _why(
    service: VirtualService,
    status: ServiceStatus,
    servers: Iterable[ServerView],
    unserved: tuple[int, ...],
    full: int,
) -> str:
    clauses = []
    if status.is_panic:
        clauses.append(
            f"only {status.healthy} of {status.candidates} servers are healthy, fewer than "
            f"{status.min_healthy_percent} %: all that should serve get clients"
        )
    elif status.healthy < status.candidates:
        clauses.append(f"{status.healthy} of {status.candidates} servers are healthy")
    elif unserved and not status.candidates:
        clauses.append("no server should serve")
    if full:
        clauses.append(f"{full} of {status.candidates} servers have all connections they may have")
    if unserved:
        every = unserved == _versions(service)
        clients = "" if every else f"{' and '.join(f'IPv{v}' for v in unserved)} "
        clauses.append(f"no server gets {clients}clients: {_rest(service, unserved)}")
    if not clauses:
        return ""
    counts: dict[str, int] = {}
    for server in servers:
        if server.condition is not Condition.SERVING:
            counts[server.condition.value] = counts.get(server.condition.value, 0) + 1
    found = ", ".join(f"{count} {word}" for word, count in sorted(counts.items()))
    return f"{service.name}: {'; '.join(clauses)}" + (f" ({found})" if found else "")


def _rest(service: VirtualService, versions: Iterable[int]) -> str:
    """Say what becomes of clients that no server gets."""
    sorry = [str(s.address) for s in service.sorry if s.address.version in versions]
    if sorry:
        return f"the sorry server {' and '.join(sorry)} does"
    refused = service.unavailable is Unavailable.REJECT
    return "they are refused" if refused else "their packets are dropped"


def _rfc3339(wall_s: float | None) -> str | None:
    """Return a time of the wall clock; None if there is none, or no calendar has it."""
    if wall_s is None:
        return None
    try:
        return datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return None
