"""Who may come to a service, and how many, in nftables text.

A service that limits its clients has a chain which its own chain begins with, whoever is in
rotation. Only the first packet of a connection gets there; what the chain drops is lost, as if the
network had lost it, and counted. In this order, so that who must not come, or comes too often,
does not use up what all have together:

1. ``deny``: nobody from these networks, also if they are allowed.
2. ``allow``: if there is such a list, nobody from anywhere else.
3. ``new_per_second_per_client``, ``connections_per_client``: a bucket and a count of each client.
4. ``new_per_second``: a bucket of all clients, of both IP versions.

Buckets begin full. A connection counts as long as connection tracking has it, but TCP only until
it is closed. What a kernel did not see begin it does not count: for that there is a set of clients
that have too many by the table of flows, see `core.crowds`.

The sets of clients have room for `CLIENTS_MAX` each. Of more than that the kernel remembers
nothing, and a client it cannot remember may come: addresses can be forged, and whoever forges
them must not shut others out.

Chain, sets and buckets follow from the configuration alone, and have the names of what they hold:
a rotation leaves them as they are. Counters have the names of the limits, so they go on when a
limit gets another value.

Source: nft(8), ``limit``, ``ct count`` and stateful objects.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from hanat.core.configuration import (
    PROTOCOL_NUMBERS,
    Configuration,
    Limits,
    Network,
    VirtualService,
)
from hanat.core.crowds import Crowd
from hanat.core.forward_policy import networks_of
from hanat.core.notation import ADDRESS_TYPE, FAMILIES, IP, chain, chain_name, source
from hanat.core.steps import LIMITS

CLIENTS_MAX = 65_536
# All of a configuration: 20,000 networks in each of two kinds of lists, of 2,000 services, for each
# version.
NETWORKS_KEPT = 2 * 2 * (20_000 + 2_000)
DIGEST_DIGITS = 8

REASONS = (
    "deny",
    "allow",
    "new_per_second_per_client",
    "connections_per_client",
    "new_per_second",
)
"""Why a connection is dropped: the keys of the configuration."""

_KIND = LIMITS.rstrip("/")


def reasons_of(service: VirtualService) -> tuple[str, ...]:
    """Return why a service may drop a connection; empty if it takes all."""
    limits = service.limits
    held: tuple[object, ...] = (
        service.deny,
        service.allow,
        limits.new_per_second_per_client,
        limits.connections_per_client,
        limits.new_per_second,
    )
    return tuple(reason for reason, value in zip(REASONS, held, strict=True) if value)


def counter_of(service: str, reason: str) -> str:
    """Return the name of what counts the connections that a service dropped."""
    return f"{LIMITS}{service}/{reason}"


def limit_blocks(service: VirtualService, version: int) -> list[list[str]]:
    """Return the blocks that limit a service's clients of an IP version; the last is the chain.

    What both versions share is among those of the first.

    Returns:
        Lines of each block; none if all clients may come.
    """
    reasons = reasons_of(service)
    versions = {listen.address.version for listen in service.listens}
    if not reasons or version not in versions:
        return []
    blocks = []
    if version == min(versions):
        blocks = [[f"counter {counter_of(service.name, r)} {{", "}"] for r in reasons]
        blocks += _bucket(service)
    rules = [*_by_address(service, version)]
    for made, rule in (*_rate_of_each(service, version), *_count_of_each(service, version)):
        blocks.append(made)
        rules.append(rule)
    if service.limits.new_per_second:
        name = _bucket(service)[0][0].split()[1]
        rules.append(f"limit name {name} {_dropped(service, 'new_per_second')}")
    lines = "\n".join(rules)
    name = f"{chain_name(_KIND, service.name, version=version)}/{_digest(lines)}"
    return [*blocks, chain(name, rules)]


def _dropped(service: VirtualService, reason: str) -> str:
    return f"counter name {counter_of(service.name, reason)} drop"


def _by_address(service: VirtualService, version: int) -> Iterator[str]:
    if denied := _listed(service.deny, version):
        yield f"{IP[version]} saddr {denied} {_dropped(service, 'deny')}"
    if service.allow:
        allowed = _listed(service.allow, version)
        elsewhere = f"{IP[version]} saddr != {allowed} " if allowed else ""
        yield f"{elsewhere}{_dropped(service, 'allow')}"


class _Lists:
    """Networks as sets of rules; to make one of a thousand takes 20 ms, in each rotation.

    Those of a whole configuration are kept, and at most as many that were used before. Several
    threads may ask: at worst they make one twice.
    """

    def __init__(self) -> None:
        self._used: dict[tuple[tuple[Network, ...], int], str] = {}
        self._before = self._used
        self._size = 0

    def of(self, networks: tuple[Network, ...], version: int) -> str:
        """Return networks of a version as a set; empty if there are none."""
        key = networks, version
        text = self._used.get(key)
        if text is None:
            text = self._before.get(key)
            if text is None:
                found = networks_of(networks, version)
                text = f"{{ {', '.join(found)} }}" if found else ""
            size = len(networks) + 1
            if self._size + size > NETWORKS_KEPT:
                self._before, self._used, self._size = self._used, {}, 0
            self._used[key] = text
            self._size += size
        return text


_listed = _Lists().of


def _bucket(service: VirtualService) -> list[list[str]]:
    """Return the block of what all clients have together."""
    limits = service.limits
    if not limits.new_per_second:
        return []
    rate = f"rate over {_rate(limits.new_per_second, limits.burst)}"
    return [[f"limit {LIMITS}{service.name}/{_digest(rate)} {{", f"    {rate}", "}"]]


def _rate(per_second: int, burst: int) -> str:
    assert burst, "a bucket of no size lets nobody pass"
    return f"{per_second}/second burst {burst} packets"


def _rate_of_each(service: VirtualService, version: int) -> Iterator[tuple[list[str], str]]:
    limits, reason = service.limits, "new_per_second_per_client"
    if not limits.new_per_second_per_client:
        return
    rate = _rate(limits.new_per_second_per_client, limits.burst_per_client)
    # A bucket that nobody takes from is full again, and need not be remembered.
    full_s = 1 - -limits.burst_per_client // limits.new_per_second_per_client
    more = ["flags dynamic,timeout", f"timeout {full_s}s"]
    made, name, client = _set(service, version, (reason, rate), more)
    over = f"limit rate over {rate}"
    yield made, f"update @{name} {{ {client} {over} }} {_dropped(service, reason)}"


def _count_of_each(service: VirtualService, version: int) -> Iterator[tuple[list[str], str]]:
    most, reason = service.limits.connections_per_client, "connections_per_client"
    if not most:
        return
    made, name, client = _crowd(service, version)
    yield made, f"{client} @{name} {_dropped(service, reason)}"
    made, name, client = _set(service, version, (reason, str(most)), ["flags dynamic"])
    yield made, f"add @{name} {{ {client} ct count over {most} }} {_dropped(service, reason)}"


def _crowd(service: VirtualService, version: int) -> tuple[list[str], str, str]:
    """Return the set of the clients that have too many by the table of flows."""
    return _set(service, version, ("crowd", ""), ["flags timeout", "timeout 10m"])


def crowds_of(configuration: Configuration) -> tuple[Crowd, ...]:
    """Return where to look which clients have too many connections."""
    return tuple(
        Crowd(
            name=_crowd(service, version)[1],
            most=service.limits.connections_per_client,
            prefix=prefix_of(service.limits, version),
            protocol=PROTOCOL_NUMBERS[listen.protocol],
            listen=listen.address.packed,
            first_port=listen.first_port,
            last_port=listen.last_port,
        )
        for service in configuration.services
        if service.limits.connections_per_client
        for version in FAMILIES
        for listen in service.listens
        if listen.address.version == version
    )


def _set(
    service: VirtualService, version: int, what: tuple[str, str], more: Sequence[str]
) -> tuple[list[str], str, str]:
    """Return a set of clients, its name, and what tells them apart."""
    reason, value = what
    client = source(version, prefix_of(service.limits, version))
    lines = [f"type {ADDRESS_TYPE[version]}", f"size {CLIENTS_MAX}", *more]
    digest = _digest(f"{lines} {client} {value}")
    name = f"{chain_name(_KIND, service.name, reason, version=version)}/{digest}"
    return [f"set {name} {{", *(f"    {line}" for line in lines), "}"], name, client


def prefix_of(limits: Limits, version: int) -> int:
    """Return how long the prefix is of what counts as one client."""
    return limits.netmask if version == FAMILIES[0] else limits.netmask6


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_DIGITS]
