"""How much a file may hold: what is more is told at once, not found out in service.

The limits are above what was tried with all of it in force (1,000 floating addresses; 1,000
services of 10 servers each), and below what would not fit where it has to go: a last will
into one message to the supervisor, a text into one entry of the log, a ruleset into the time
that installing it may take. They are looked at before anything else of a file, so that what
is read is bounded, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hanat.config.document import Document, Findings, Location

EACH = "*"

CLUSTER_LIMITS: Mapping[tuple[str, ...], int] = {
    ("vip",): 2_000,
    ("vip", EACH, "address"): 2,
    ("masquerade",): 256,
    ("masquerade", EACH, "from"): 256,
    ("transit",): 256,
    ("transit", EACH, "network"): 256,
    ("service",): 2_000,
    ("service", EACH, "listen"): 64,
    ("service", EACH, "from"): 256,
    ("service", EACH, "allow"): 1_000,
    ("service", EACH, "deny"): 1_000,
    ("service", EACH, "check"): 8,
    ("service", EACH, "check", EACH, "arguments"): 16,
    ("service", EACH, "server"): 256,
}
# What is probed: a check of a service at one of its servers. Equal ones are probed once, and count
# each here.
TARGETS_MAX = 10_000
# Of services with ops. For each of their servers the kernel looks through two chains whenever any
# rules of services change: with 1,000 servers 1.5 ms, with 10,000 20 to 40 ms, for which the gate
# waits.
OPS_SERVERS_MAX = 2_000
NODE_LIMITS: Mapping[tuple[str, ...], int] = {
    ("peer",): 9,
    ("peer", EACH, "addresses"): 8,
    ("api", "listen"): 16,
    ("interfaces",): 64,
}
# Of all the lists of a kind together.
CLUSTER_TOTALS: Mapping[tuple[str, ...], int] = {
    ("vip", EACH, "address"): 2_000,
    ("masquerade", EACH, "from"): 4_000,
    ("transit", EACH, "network"): 4_000,
    ("service", EACH, "listen"): 8_000,
    ("service", EACH, "from"): 8_000,
    ("service", EACH, "allow"): 20_000,
    ("service", EACH, "deny"): 20_000,
    ("service", EACH, "server"): 20_000,
}


def check_limits(
    document: Document,
    findings: Findings,
    *,
    lists: Mapping[tuple[str, ...], int],
    totals: Mapping[tuple[str, ...], int],
) -> None:
    """Look whether a document holds too much.

    Args:
        document: As TOML has it; of any shape.
        findings: Of its file.
        lists: At most how many entries at a place.
        totals: At most how many in all places of a kind.

    Raises:
        ConfigError: With every list that is too long.
    """
    for pattern, most in lists.items():
        for location, count in _counts(document, pattern):
            if count > most:
                findings.add(location, f"has {count} entries, at most {most} are possible")
    for pattern, most in totals.items():
        total = sum(count for _, count in _counts(document, pattern))
        if total > most:
            name = ".".join(part for part in pattern if part != EACH)
            findings.add(
                pattern[:1], f"{name} has {total} entries in all, at most {most} are possible"
            )
    findings.raise_if_any()


def check_services(document: Document, findings: Findings) -> None:
    """Look whether checks of a cluster's file probe too much, or ops has too many servers.

    Args:
        document: As TOML has it; of any shape.
        findings: Of its file.

    Raises:
        ConfigError: With what is too much.
    """
    counts = {
        key: {at[1]: count for at, count in _counts(document, ("service", EACH, key))}
        for key in ("check", "server")
    }
    total = sum(count * counts["server"].get(at, 0) for at, count in counts["check"].items())
    if total > TARGETS_MAX:
        text = (
            f"checks of all servers are {total} in all, at most {TARGETS_MAX} are possible; "
            "take fewer checks, or fewer servers in the services that have some"
        )
        findings.add(("service",), text)
    with_ops = {at[1] for at, table in _tables(document) if table.get("ops") is True}
    total = sum(count for at, count in counts["server"].items() if at in with_ops)
    if total > OPS_SERVERS_MAX:
        text = (
            f"servers of services with ops are {total} in all, at most {OPS_SERVERS_MAX} are "
            "possible; leave ops out of some"
        )
        findings.add(("service",), text)
    findings.raise_if_any()


def _tables(document: Document) -> Iterator[tuple[Location, Mapping[str, Any]]]:
    """Yield the services of a document of any shape."""
    services = document.get("service")
    for i, table in enumerate(services if isinstance(services, list) else ()):
        if isinstance(table, dict):
            yield ("service", i), table


def _counts(
    value: Any,  # noqa: ANN401 - whatever a file has
    pattern: tuple[str, ...],
    at: Location = (),
) -> Iterator[tuple[Location, int]]:
    """Yield where the lists and tables of a pattern are, and how long."""
    if not pattern:
        if isinstance(value, list | dict):
            yield at, len(value)
    elif pattern[0] == EACH and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _counts(item, pattern[1:], (*at, index))
    elif isinstance(value, dict) and pattern[0] in value:
        yield from _counts(value[pattern[0]], pattern[1:], (*at, pattern[0]))
