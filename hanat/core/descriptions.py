"""A service, its servers and its checks in words: for differences, for a status, for people.

Two values that differ have different words, so that a change is never silent. A default is not
mentioned. The value of an HTTP header may be a secret, and the words go to terminals and logs:
they have a digest of it instead.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache

from hanat.core.checks import (
    PING_BYTES,
    AgentCheck,
    DnsCheck,
    HttpCheck,
    Kind,
    Pattern,
    PingCheck,
    ScriptCheck,
    ServiceCheck,
    TcpCheck,
    TlsCheck,
    UdpCheck,
)
from hanat.core.configuration import (
    Address,
    Limits,
    Network,
    OnServerDown,
    RealServer,
    Replicate,
    Unavailable,
    VirtualService,
)

DIGEST_DIGITS = 8  # of a header's value
CHECKS_KEPT = 256
NETWORKS_NAMED = 4

_CONNECTIONS = {
    OnServerDown.KEEP: "connections of a server that is down kept",
    OnServerDown.EXPIRE: "connections of a server that is down expire",
    OnServerDown.RESET: "connections of a server that is down reset",
}


def describe_service(service: VirtualService) -> tuple[str, ...]:
    """Return the scheduler of a service, then a clause for each thing that is not the default.

    What it listens on, its checks and servers are not in it.
    """
    return (*_for_clients(service), *_without_servers(service))


def _for_clients(service: VirtualService) -> Iterator[str]:
    yield service.scheduler.value
    if service.hash_port:
        yield "by address and port"
    if service.sources:
        yield f"from {', '.join(sorted(service.sources))}"
    if replicated := _replicated(service.replicate):
        yield replicated
    if service.slow_start_s:
        yield f"slow start in {_seconds(service.slow_start_s)}"
    if (kept := service.persistence) is not None:
        yield f"persistent for {_seconds(kept.timeout_s)} (/{kept.netmask}, /{kept.netmask6})"
    if service.ops:
        yield "each datagram by itself"
    if service.allow:
        yield f"only clients from {_networks(service.allow)}"
    if service.deny:
        yield f"no clients from {_networks(service.deny)}"
    yield from _limited(service.limits)


def _networks(networks: tuple[Network, ...]) -> str:
    """Name networks, of many their number and a digest: lists of a thousand are usual."""
    names = sorted(map(str, networks))
    if len(names) <= NETWORKS_NAMED:
        return ", ".join(names)
    return f"{len(names)} networks ({_digest(' '.join(names))})"


def _limited(limits: Limits) -> Iterator[str]:
    if limits.new_per_second:
        yield f"at most {_rate(limits.new_per_second, limits.burst)}"
    if limits.new_per_second_per_client:
        rate = _rate(limits.new_per_second_per_client, limits.burst_per_client)
        yield f"of a client at most {rate}"
    if limits.connections_per_client:
        yield f"of a client at most {limits.connections_per_client} connections"
    if limits.new_per_second_per_client or limits.connections_per_client:
        yield f"a client is a /{limits.netmask}, /{limits.netmask6}"


def _rate(per_second: int, burst: int) -> str:
    return f"{per_second} new connections a second, {burst} at once"


def _without_servers(service: VirtualService) -> Iterator[str]:
    if service.min_healthy_percent:
        yield f"all servers used below {service.min_healthy_percent} % healthy"
    if service.on_server_down is not None:
        yield _CONNECTIONS[service.on_server_down]
    for sorry in sorted(service.sorry, key=lambda sorry: sorry.address.version):
        yield f"sorry server {_place(sorry.address, sorry.port)}"
    if service.unavailable is Unavailable.DROP:
        yield "dropped without a server"


def _replicated(replicate: Replicate) -> str:
    if not replicate.established:
        return "not replicated"
    if replicate.unassured:
        return "replicated unanswered too"
    return f"replicated after {_seconds(replicate.min_age_s)}" if replicate.min_age_s else ""


def describe_server(server: RealServer) -> str:
    """Return a server without its name: ``10.11.12.101:8080 weight 2``."""
    priority = f" priority {server.tier + 1}" if server.tier else ""
    most = f" at most {server.max_conn} connections" if server.max_conn else ""
    return f"{_place(server.address, server.port)} weight {server.weight}{priority}{most}"


@lru_cache(maxsize=CHECKS_KEPT)  # a thousand services have few different ones
def describe_check(check: ServiceCheck) -> str:
    """Return a check without the word for its kind: ``GET "/health", every 2 s, ...``."""
    timing = check.timing
    clauses = [
        *_asked(check.kind),
        *([f"at {check.address}"] if check.address is not None else []),
        *([f"port {check.port}"] if check.port is not None else []),
        *([f"by {check.source}"] if check.source is not None else []),
        *([f"mark {check.mark}"] if check.mark else []),
        f"every {_seconds(timing.interval_s)}",
        f"timeout {_seconds(timing.timeout_s)}",
        f"fall {timing.fall}",
        f"rise {timing.rise}",
    ]
    if timing.fast_interval_s is not None:
        clauses.append(f"every {_seconds(timing.fast_interval_s)} in doubt")
    return ", ".join(clauses)


def _asked(kind: Kind) -> list[str]:
    found: list[str]
    match kind:
        case TcpCheck() | UdpCheck():
            found = _conversation(kind)
        case TlsCheck():
            found = _tls(kind)
        case HttpCheck():
            found = _http(kind)
        case DnsCheck():
            answer = [f"answer {_quoted(kind.answer)}"] if kind.answer else []
            over = ["over UDP and TCP"] if kind.tcp else []
            found = [f"{kind.kind} of {kind.name}", kind.rcode, *answer, *over]
        case PingCheck():
            size = [f"{kind.size} bytes"] if kind.size != PING_BYTES else []
            found = [*size, *([f"{kind.count} requests"] if kind.count > 1 else [])]
        case ScriptCheck():
            found = [" ".join([_quoted(kind.name), *map(_quoted, kind.arguments)])]
        case AgentCheck():
            found = [f"send {_bytes(kind.send)}"] if kind.send else []
    return found


def _conversation(kind: TcpCheck | UdpCheck) -> list[str]:
    return [
        *([f"send {_bytes(kind.send)}"] if kind.send else []),
        *([f"expect {_bytes(kind.expect)}"] if kind.expect else []),
        *([f"expect {_pattern(kind.pattern)}"] if kind.pattern is not None else []),
    ]


def _http(kind: HttpCheck) -> list[str]:
    statuses = " ".join(str(a) if a == b else f"{a}-{b}" for a, b in kind.statuses)
    return [
        f"{kind.method} {_quoted(kind.path)}",
        *([f"host {_quoted(kind.host)}"] if kind.host else []),
        *(f"header {name} ({_digest(value)})" for name, value in kind.headers),
        *([f"status {statuses}"] if kind.statuses != HttpCheck().statuses else []),
        *([f"body {_pattern(kind.body)}"] if kind.body is not None else []),
        *([f"digest {kind.digest}"] if kind.digest else []),
        *(_tls(kind.tls) if kind.tls is not None else []),
    ]


def _tls(kind: TlsCheck) -> list[str]:
    return [
        *([f"name {_quoted(kind.sni)}"] if kind.sni else []),
        *(["certificate verified"] if kind.verify else []),
        *([f"warn {kind.warn_days} days before its end"] if kind.warn_days else []),
    ]


def _pattern(pattern: Pattern) -> str:
    return f"{'matches' if pattern.is_regex else 'has'} {_quoted(pattern.text)}"


def _bytes(content: bytes) -> str:
    try:
        return _quoted(content.decode())
    except UnicodeDecodeError:
        return f"hex:{content.hex()}"


def _quoted(text: str) -> str:
    return json.dumps(text)  # in ASCII: no control character, whatever a file has


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_DIGITS]


def _seconds(seconds: float) -> str:
    return f"{seconds:.12g} s"


def _place(address: Address, port: int | None) -> str:
    host = f"[{address}]" if address.version == 6 else str(address)
    return host if port is None else f"{host}:{port}"
