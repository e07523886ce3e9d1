"""Metrics of services and servers.

How many there are follows from the configuration alone: of a server 8 series, with a check 10, with
`max_conn` one more; of a service 7 and as many as its servers have different states, at most 9, and
one for each limit. So 1,000 services of 10 checked servers, none of them in trouble, have 108,000.
No series is one of a check or of a node: those multiply; `hanat server show` has them.

Sums are the cluster's, not this node's: they go on when the holder changes, so a graph needs one
node alone, or ``max``. They are absent on a node that was not told all of them yet, and packets and
bytes also while the holder's kernel does not count them: 0 would be a lie.

Of a server there is ``hanat_server_up`` only if it is checked and there is a verdict: 1 would be
a guess.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Final

from prometheus_client.core import Metric

from hanat.api.families import counter, gauge
from hanat.core.probing import Operational
from hanat.core.rotation import ServiceState
from hanat.core.service_view import Condition, ServerView, ServiceView
from hanat.core.totals import Figures

SERVICES_SLICE = 50
SAMPLES_MAX = 500  # of servers, in a part: 4 ms
HEALTHY = frozenset({ServiceState.UP, ServiceState.DEGRADED})


def service_families(services: Sequence[ServiceView]) -> Iterator[Metric]:
    """Return families in parts, one behind the other.

    A part has at most `SERVICES_SLICE` services, and `SAMPLES_MAX` servers if it has several.
    """
    parts = _parts(services)
    for family in (_up, _states, _connections, _refused):
        for part in parts:
            yield family(part)
    for family in (
        _weights, _in_rotation, _server_connections, _datagrams, _full, _server_up, _latencies,
    ):  # fmt: skip
        for part in parts:
            yield family(part)
    for what, text in _SUMS.items():
        for part in parts:
            yield _sums_of_services(what, text, part)
        for part in parts:
            yield _sums_of_servers(what, text, part)
    yield _age(services)


def _parts(services: Sequence[ServiceView]) -> list[Sequence[ServiceView]]:
    parts: list[Sequence[ServiceView]] = []
    first = servers = 0
    for place, service in enumerate(services):
        servers += len(service.servers)
        if place == first + SERVICES_SLICE or (servers > SAMPLES_MAX and place > first):
            parts.append(services[first:place])
            first, servers = place, len(service.servers)
    return [*parts, services[first:]]


def _up(services: Sequence[ServiceView]) -> Metric:
    return gauge(
        "hanat_service_up",
        "1 when healthy servers get the clients, though maybe not all servers are; else 0.",
        [((service.name,), service.state in HEALTHY) for service in services],
        labels=("service",),
    )


def _states(services: Sequence[ServiceView]) -> Metric:
    return gauge(
        "hanat_service_servers",
        "Servers that get clients (serving, panic), and those that do not, by the reason.",
        [
            ((service.name, state), count)
            for service in services
            for state, count in _count(service).items()
        ],
        labels=("service", "state"),
    )


def _count(service: ServiceView) -> Counter[str]:
    """Return how many servers are in each state that occurs; ``serving`` always does."""
    counts = Counter({Condition.SERVING.value: 0})
    counts.update(server.condition.value for server in service.servers)
    return counts


def _connections(services: Sequence[ServiceView]) -> Metric:
    return gauge(
        "hanat_service_connections",
        "Established, translated flows of the service.",
        [((service.name,), service.connections) for service in services],
        labels=("service",),
    )


def _refused(services: Sequence[ServiceView]) -> Metric:
    return counter(
        "hanat_service_refused",
        "First packets that this node dropped because of a limit, or of where they came from.",
        [
            ((service.name, limit), count)
            for service in services
            for limit, count in service.refused.items()
        ],
        labels=("service", "limit"),
    )


def _weights(services: Sequence[ServiceView]) -> Metric:
    return gauge(
        "hanat_server_weight",
        "Configured share of new flows; 0 gets none.",
        [((name, server.name), server.weight) for name, server in _servers(services)],
        labels=("service", "server"),
    )


def _in_rotation(services: Sequence[ServiceView]) -> Metric:
    return gauge(
        "hanat_server_in_rotation",
        "1 when the server gets new clients.",
        [((name, server.name), server.gets_clients) for name, server in _servers(services)],
        labels=("service", "server"),
    )


def _server_connections(services: Sequence[ServiceView]) -> Metric:
    return gauge(
        "hanat_server_connections",
        "Established, translated flows to the real server.",
        [((name, server.name), server.connections) for name, server in _servers(services)],
        labels=("service", "server"),
    )


def _full(services: Sequence[ServiceView]) -> Metric:
    return counter(
        "hanat_server_full",
        "How often the server had max_conn connections, while this node held.",
        [
            ((name, server.name), server.times_full)
            for name, server in _servers(services)
            if server.max_conn
        ],
        labels=("service", "server"),
    )


def _datagrams(services: Sequence[ServiceView]) -> Metric:
    return counter(
        "hanat_server_datagrams",
        "Datagrams that this node sent by themselves: to the server, and its answers to clients.",
        [
            ((name, server.name, way), count)
            for name, server in _servers(services)
            if server.datagrams is not None
            for way, count in asdict(server.datagrams).items()
        ],
        labels=("service", "server", "way"),
    )


def _server_up(services: Sequence[ServiceView]) -> Metric:
    return gauge(
        "hanat_server_up",
        "What the checks say, 1 up, 0 down; absent without a check or a verdict.",
        [
            ((name, server.name), server.operational is Operational.UP)
            for name, server in _servers(services)
            if server.checks and server.operational is not Operational.UNKNOWN
        ],
        labels=("service", "server"),
    )


def _latencies(services: Sequence[ServiceView]) -> Metric:
    return gauge(
        "hanat_server_check_latency_seconds",
        "How long this node's last probe took, the slowest if there are several checks.",
        [
            ((name, server.name), latency_s)
            for name, server in _servers(services)
            if (latency_s := server.latency_s) is not None
        ],
        labels=("service", "server"),
    )


_SUMS: Final = {
    "connections": "Connections that were established, counted by the holders in turn.",
    "bytes_in": "Bytes of IP packets from clients.",
    "bytes_out": "Bytes of IP packets to clients.",
    "packets_in": "Packets from clients.",
    "packets_out": "Packets to clients.",
}


def _sums_of_services(what: str, text: str, services: Sequence[ServiceView]) -> Metric:
    samples = [
        ((service.name,), value)
        for service in services
        if (value := _sum(service.figures, what)) is not None
    ]
    return counter(f"hanat_service_{_NAMES.get(what, what)}", text, samples, labels=("service",))


def _sums_of_servers(what: str, text: str, services: Sequence[ServiceView]) -> Metric:
    samples = [
        ((name, server.name), value)
        for name, server in _servers(services)
        if (value := _sum(server.figures, what)) is not None
    ]
    labels = ("service", "server")
    return counter(f"hanat_server_{_NAMES.get(what, what)}", text, samples, labels=labels)


# The gauge of those that are there now has the plain name.
_NAMES: Final = {"connections": "connections_opened"}


def _sum(figures: Figures | None, what: str) -> int | None:
    """Return a sum, None if it is not known."""
    if figures is None or (what != "connections" and not figures.has_bytes):
        return None
    value: int = getattr(figures.totals, what)
    return value


def _age(services: Sequence[ServiceView]) -> Metric:
    ages = [service.figures.age_s for service in services[:1] if service.figures is not None]
    return gauge(
        "hanat_totals_age_seconds",
        "Since the holder counted the sums of services and servers, or this node heard of them.",
        [((), age_s) for age_s in ages],
    )


def _servers(services: Sequence[ServiceView]) -> Iterator[tuple[str, ServerView]]:
    return ((service.name, server) for service in services for server in service.servers)
