"""The services of a configuration in nftables text: whose turn it is, and the way to a service.

A chain for each service picks a server; maps lead from what a packet asks for to its chain.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from hanat.core.configuration import (
    Configuration,
    Listen,
    RealServer,
    Scheduler,
    VirtualService,
)
from hanat.core.notation import ADDRESS_TYPE, FAMILIES, IP, chain, chain_name

# Any fixed number: all nodes must send one client to the same server.
HASH_SEED = 0x68616E61

# Up to here the turns of a weighted service are interleaved, one map element a
# turn; above, each server gets one contiguous range. An element costs nft 15 us.
SLOTS_INTERLEAVED_MAX = 64


@dataclass(frozen=True, slots=True)
class Share:
    """A server's part of the turns `first` to `last`, both included."""

    first: int
    last: int
    server: RealServer

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def shares(scheduler: Scheduler, servers: Iterable[RealServer]) -> tuple[Share, ...]:
    """Divide the turns of a service among its servers.

    Returns:
        Shares in order, without gaps from turn 0 on; empty if no server has a weight.

    Source: the interleaving is nginx's smooth weighted round robin
    (``ngx_http_upstream_round_robin.c``).
    """
    rotation = [server for server in servers if server.weight > 0]
    weights = [1 if scheduler is Scheduler.RR else server.weight for server in rotation]
    divisor = math.gcd(*weights) or 1
    weights = [weight // divisor for weight in weights]
    if scheduler is Scheduler.WRR and sum(weights) <= SLOTS_INTERLEAVED_MAX:
        runs = [(index, len(list(run))) for index, run in groupby(_smooth(tuple(weights)))]
    else:
        runs = list(enumerate(weights))
    found, first = [], 0
    for index, length in runs:
        found.append(Share(first, first + length - 1, rotation[index]))
        first += length
    return tuple(found)


@lru_cache(maxsize=1024)
def _smooth(weights: tuple[int, ...]) -> tuple[int, ...]:
    total, credit, turns = sum(weights), [0] * len(weights), []
    for _ in range(total):
        credit = [have + weight for have, weight in zip(credit, weights, strict=True)]
        chosen = max(range(len(credit)), key=credit.__getitem__)
        credit[chosen] -= total
        turns.append(chosen)
    return tuple(turns)


def service_chains(service: VirtualService, version: int) -> list[list[str]]:
    """Return the chains of a service; none if it has no address of that version."""
    listens = [listen for listen in service.listens if listen.address.version == version]
    if not listens:
        return []
    servers = [server for server in service.servers if server.address.version == version]
    name = chain_name("service", service.name, version=version)
    about = f"# {service.scheduler.value}: " + (
        ", ".join(f"{server.name} weight {server.weight}" for server in servers) or "no server"
    )
    parts = shares(service.scheduler, servers)
    if not parts:
        return [chain(name, [about, "counter drop"])]
    protocols = _protocols(listens)
    rotation = list(dict.fromkeys(part.server for part in parts))
    if len(rotation) == 1:
        return [chain(name, [about, _dnat(rotation[0], version, protocols)])]
    turns = _turns(service.scheduler, parts[-1].last + 1, version)
    if len({server.port is None for server in rotation}) == 1:
        wanted = ", ".join(f"{part} : {_target(part.server)}" for part in parts)
        rule = f"{protocols} dnat {IP[version]} to {turns} map {{ {wanted} }}"
        return [chain(name, [about, rule])]
    # One map holds addresses with a port or addresses without, never both.
    chains = {
        server.name: chain_name("server", service.name, server.name, version=version)
        for server in rotation
    }
    wanted = ", ".join(f"{part} : goto {chains[part.server.name]}" for part in parts)
    return [
        *(chain(chains[s.name], [_dnat(s, version, protocols)]) for s in rotation),
        chain(name, [about, f"{turns} vmap {{ {wanted} }}"]),
    ]


def _protocols(listens: Iterable[Listen]) -> str:
    """Return the match nft demands before it accepts a port to translate to."""
    names = sorted({listen.protocol.value for listen in listens})
    return f"meta l4proto {names[0]}" if len(names) == 1 else "meta l4proto { tcp, udp }"


def _turns(scheduler: Scheduler, count: int, version: int) -> str:
    if scheduler is Scheduler.SH:
        return f"jhash {IP[version]} saddr mod {count} seed {HASH_SEED:#x}"
    return f"numgen inc mod {count}"


def _target(server: RealServer) -> str:
    return str(server.address) + (f" . {server.port}" if server.port is not None else "")


def _dnat(server: RealServer, version: int, protocols: str) -> str:
    target = str(server.address)
    if server.port is not None:
        target = f"[{target}]:{server.port}" if version == 6 else f"{target}:{server.port}"
    return f"{protocols} dnat {IP[version]} to {target}"


def dispatch_maps(configuration: Configuration) -> list[list[str]]:
    """Return the maps from what a packet asks for to the chain of its service."""
    blocks = []
    for version in FAMILIES:
        for name, ranges in (("listens", False), ("ranges", True)):
            elements = dispatch_elements(configuration, version, ranges=ranges)
            if not elements:
                continue
            kind = f"{ADDRESS_TYPE[version]} . inet_proto . inet_service : verdict"
            blocks.append([
                f"map {name}_v{version} {{",
                f"    type {kind}",
                *(["    flags interval"] if ranges else []),
                "    elements = {",
                *(f"        {element}," for element in elements),
                "    }",
                "}",
            ])  # fmt: skip
    return blocks


def dispatch_elements(configuration: Configuration, version: int, *, ranges: bool) -> list[str]:
    """Return the elements of one map: of single ports, or of ranges."""
    found = []
    for service in configuration.services:
        target = chain_name("service", service.name, version=version)
        for listen in service.listens:
            is_range = listen.first_port != listen.last_port
            if listen.address.version == version and is_range is ranges:
                port = f"{listen.first_port}-{listen.last_port}" if ranges else listen.first_port
                wanted = f"{listen.address} . {listen.protocol.value} . {port}"
                found.append(f"{wanted} : goto {target}")
    return found
