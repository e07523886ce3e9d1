"""``[[service.check]]``: which options belong to which kind, what excludes what, and the values.

A table has the options of one kind, beside those that all kinds share. An option of another kind
is a problem that names the kinds that have it: it would be without effect.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hanat.config.check_fields import (
    INTERVAL_DEFAULT_S,
    SCRIPT_INTERVAL_S_MIN,
    TIMEOUT_DEFAULT_S,
    parse_dns_name,
    parse_script,
)
from hanat.config.document import Findings, Location, kept
from hanat.config.fields import shown_duration
from hanat.config.models import CheckTable
from hanat.core.checks import (
    AgentCheck,
    DnsCheck,
    HttpCheck,
    Kind,
    PingCheck,
    ScriptCheck,
    ServiceCheck,
    TcpCheck,
    TlsCheck,
    UdpCheck,
)
from hanat.core.configuration import Address, RealServer
from hanat.core.probing import Check

SHARED = frozenset(
    {
        "kind",
        "interval",
        "timeout",
        "fall",
        "rise",
        "fast_interval",
        "address",
        "port",
        "source",
        "mark",
    }
)
_BYTES = frozenset({"send", "expect", "match"})
_TLS = frozenset({"sni", "verify", "warn"})
_HTTP = frozenset({"method", "path", "host", "headers", "status", "body", "match", "digest"})
OWN: Mapping[str, frozenset[str]] = {
    "tcp": _BYTES,
    "udp": _BYTES,
    "tls": _TLS,
    "http": _HTTP,
    "https": _HTTP | _TLS,
    "dns": frozenset({"name", "type", "rcode", "answer", "tcp"}),
    "ping": frozenset({"size", "count"}),
    "script": frozenset({"name", "arguments"}),
    "agent": frozenset({"send"}),
}
WITHOUT: Mapping[str, Mapping[str, str]] = {
    "ping": {"port": "a ping has no port"},
    "script": {
        "source": "a script makes its own connections",
        "mark": "a script makes its own connections",
    },
}
Complaint = tuple[str, str]
"""A key, and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Whom the checks of a service ask.

    Attributes:
        servers: Of the service.
        ports: What the service listens on, in text, if that is surely more than one port.
        floating: The floating addresses, and the names of their vips.
        is_known: All servers are known.
    """

    servers: tuple[RealServer, ...]
    ports: str
    floating: Mapping[Address, str]
    is_known: bool


def read_checks(
    tables: list[CheckTable | None] | None, asked: Asked, findings: Findings, where: Location
) -> tuple[ServiceCheck, ...]:
    """Return the checks of a service.

    Args:
        tables: Those of the file.
        asked: Whom they ask.
        findings: Gets what is wrong.
        where: The service in its file.
    """
    places: dict[ServiceCheck, int] = {}
    for j, table in kept(tables):
        here = (*where, "check", j)
        for key, text in (*_strange(table), *_missing(table), *_timing(table), *_question(table)):
            findings.add((*here, key), text)
        for key, text in (*_answers(table), *_place(table, asked)):
            findings.add((*here, key), text)
        check = _check(table)
        if places.setdefault(check, j) != j and _is_sound(table):
            text = f"is the same as check[{places[check]}] of this service; leave it out"
            findings.add(here, text)
    return tuple(places)


def _written(table: CheckTable) -> frozenset[str]:
    """Return the keys that the file has, also those whose value was wrong."""
    known = CheckTable.model_fields
    return frozenset(known[name].alias or name for name in table.model_fields_set)


def _is_sound(table: CheckTable) -> bool:
    """Say whether no value was wrong, so that its check is the one that was meant."""
    return all(getattr(table, name) is not None for name in table.model_fields_set)


# ------------------------------------------------------------------------ what is wrong


def _strange(table: CheckTable) -> Iterator[Complaint]:
    """Yield the options of other kinds."""
    for key in sorted(_written(table) - SHARED - OWN[table.kind]):
        kinds = [kind for kind, keys in OWN.items() if key in keys]
        yield key, f"is not an option of kind {table.kind}, but of {', '.join(kinds)}"
    for key, reason in WITHOUT.get(table.kind, {}).items():
        if key in _written(table):
            kinds = [kind for kind in OWN if key not in WITHOUT.get(kind, {})]
            text = f"is not an option of kind {table.kind} ({reason}), but of {', '.join(kinds)}"
            yield key, text


def _missing(table: CheckTable) -> Iterator[Complaint]:
    written = _written(table)
    if table.kind == "script" and "name" not in written:
        yield "name", "is missing: the file's name of the script"
    if table.kind == "agent" and "port" not in written:
        yield "port", "is missing: an agent listens on a port of its own"


def _timing(table: CheckTable) -> Iterator[Complaint]:
    interval_s, fast_s = _interval_s(table), table.fast_interval
    if interval_s is None:
        return
    longer = f"is longer than interval ({shown_duration(interval_s)})"
    if table.timeout is not None and table.timeout > interval_s:
        todo = "a probe ends before the next begins; write a shorter timeout or a longer interval"
        yield "timeout", f"{shown_duration(table.timeout)} {longer}: {todo}"
    if fast_s is not None and fast_s > interval_s:
        todo = "it is for the probes after a first failure; write a shorter one"
        yield "fast_interval", f"{shown_duration(fast_s)} {longer}: {todo}"
    if table.kind == "script":
        least = f'each probe is a process; write at least "{shown_duration(SCRIPT_INTERVAL_S_MIN)}"'
        for key, value in (("interval", interval_s), ("fast_interval", fast_s)):
            if value is not None and value < SCRIPT_INTERVAL_S_MIN:
                yield key, f"{shown_duration(value)} is too short for a script: {least}"


def _question(table: CheckTable) -> Iterator[Complaint]:
    """Yield what is wrong with what is asked."""
    if table.name is not None and (parse := _NAMES.get(table.kind)) is not None:
        try:
            parse(table.name)
        except ValueError as error:
            yield "name", str(error)
    if table.verify and table.kind in {"tls", "https"} and not _server_name(table):
        unknown = {"sni", "host"} & _written(table) and (table.sni, table.host) == (None, None)
        if not unknown:
            keys = "sni" if table.kind == "tls" else "sni or host"
            yield "verify", f"for which name must the certificate be valid? write {keys}"


def _answers(table: CheckTable) -> Iterator[Complaint]:
    """Yield what is wrong with what is expected."""
    written, kind = _written(table), table.kind
    first = "body" if kind in {"http", "https"} else "expect"
    if "match" in OWN[kind] and {first, "match"} <= written:
        yield "match", f"and {first} both say what must come; write one of them"
    if "method" in OWN[kind] and table.method == "HEAD":
        for key in sorted({"body", "match", "digest"} & written):
            yield key, 'a HEAD is answered without a body; write method = "GET", or leave it out'
    if kind == "dns" and table.answer is not None and table.rcode not in {None, "NOERROR"}:
        yield "answer", f"with rcode {table.rcode} there is no answer; leave one of them out"


def _place(table: CheckTable, asked: Asked) -> Iterator[Complaint]:
    """Yield what is wrong with who asks whom."""
    for key, address, todo in (
        ("address", table.address, "leave it out to ask the servers themselves"),
        ("source", table.source, "leave it out, each node probes from an address of its own"),
    ):
        if address is not None and address in asked.floating:
            vip = asked.floating[address]
            yield key, f'{address} is the floating address of vip "{vip}" and moves; {todo}'
    if table.source is not None and table.kind != "script":
        yield from _families(table.source, table.address, asked)
    if table.kind in {"ping", "agent"} or "port" in _written(table):
        return
    portless = next((server for server in asked.servers if server.port is None), None)
    if portless is not None and asked.ports:
        name, ports = portless.name, asked.ports
        yield (
            "port",
            f'is missing: server "{name}" keeps the port that a client asked for, and the service '
            f"listens on several ({ports}); write the one to ask",
        )


def _families(source: Address, address: Address | None, asked: Asked) -> Iterator[Complaint]:
    others: list[str] = []
    if address is not None and address.version != source.version:
        others = [f"{address}, which is asked,"]
    elif address is None and asked.is_known:
        others = [
            f'server "{server.name}" ({server.address})'
            for server in asked.servers
            if server.address.version != source.version
        ]
    if others:
        yield (
            "source",
            (
                f"{source} is IPv{source.version}, and {others[0]} is not; leave it out, or make a "
                "service for each family"
            ),
        )


# ------------------------------------------------------------------------ the values


def _check(table: CheckTable) -> ServiceCheck:
    interval_s = _interval_s(table) or INTERVAL_DEFAULT_S
    timing = Check(
        interval_s=interval_s,
        timeout_s=table.timeout or min(TIMEOUT_DEFAULT_S, interval_s),
        fast_interval_s=table.fast_interval,
        **_given(fall=table.fall, rise=table.rise),
    )
    return ServiceCheck(
        kind=_VALUES[table.kind](table),
        timing=timing,
        address=table.address,
        port=table.port,
        source=table.source,
        **_given(mark=table.mark),
    )


def _interval_s(table: CheckTable) -> float | None:
    """Return the interval; None if the one of the file was wrong."""
    return table.interval if "interval" in table.model_fields_set else INTERVAL_DEFAULT_S


def _given(**values: object) -> dict[str, Any]:
    """Return what was written, so that the rest keeps the defaults of the core."""
    return {key: value for key, value in values.items() if value is not None}


def _server_name(table: CheckTable) -> str:
    """Return the name that a handshake asks for: `sni`, or the host, if that is a name."""
    if table.sni is not None or table.kind == "tls" or table.host is None:
        return table.sni or ""
    host = table.host if table.host.startswith("[") else table.host.partition(":")[0]
    try:
        ipaddress.ip_address(host.partition("]")[0].removeprefix("["))
    except ValueError:
        return host
    return ""


def _tcp(table: CheckTable) -> Kind:
    return TcpCheck(**_given(send=table.send, expect=table.expect, pattern=table.regex))


def _udp(table: CheckTable) -> Kind:
    return UdpCheck(**_given(send=table.send, expect=table.expect, pattern=table.regex))


def _tls(table: CheckTable) -> TlsCheck:
    return TlsCheck(
        sni=_server_name(table), **_given(verify=table.verify, warn_days=table.warn_days)
    )


def _http(table: CheckTable) -> Kind:
    return HttpCheck(
        tls=_tls(table) if table.kind == "https" else None,
        **_given(
            method=table.method,
            path=table.path,
            host=table.host,
            headers=table.headers,
            statuses=table.statuses,
            body=table.body or table.regex,
            digest=table.digest,
        ),
    )


def _dns(table: CheckTable) -> Kind:
    return DnsCheck(
        **_given(
            name=_name(table),
            kind=table.record_type,
            rcode=table.rcode,
            answer=table.answer,
            tcp=table.tcp,
        )
    )


def _ping(table: CheckTable) -> Kind:
    return PingCheck(**_given(size=table.size, count=table.count))


def _script(table: CheckTable) -> Kind:
    arguments: list[tuple[int, str]] = kept(table.arguments)
    return ScriptCheck(_name(table) or "", tuple(text for _, text in arguments))


def _agent(table: CheckTable) -> Kind:
    return AgentCheck(**_given(send=table.send))


def _name(table: CheckTable) -> str | None:
    if table.name is None:
        return None
    try:
        return _NAMES[table.kind](table.name)
    except ValueError:
        return None  # `_question` yields the reason


_NAMES: Mapping[str, Callable[[object], str]] = {"dns": parse_dns_name, "script": parse_script}
_VALUES: Mapping[str, Callable[[CheckTable], Kind]] = {
    "tcp": _tcp,
    "udp": _udp,
    "tls": _tls,
    "http": _http,
    "https": _http,
    "dns": _dns,
    "ping": _ping,
    "script": _script,
    "agent": _agent,
}
