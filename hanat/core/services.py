"""The services of a configuration in nftables text: whose turn it is, and the way to a service.

A chain for each service picks a server; maps lead from what a packet asks for to its chain. So
a service that changes gets one new chain and as many elements as it listens on (`core.steps`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import groupby

from hanat.core.configuration import (
    Configuration,
    Listen,
    RealServer,
    Scheduler,
    VirtualService,
)
from hanat.core.notation import ADDRESS_TYPE, FAMILIES, IP, chain, chain_name
from hanat.core.shares import interleaved

# Any fixed number: all nodes must send one client to the same server.
HASH_SEED = 0x68616E61

# Up to here the turns of a weighted service are interleaved, one map element a
# turn; above, each server gets one contiguous range. An element costs nft 15 us.
SLOTS_INTERLEAVED_MAX = 64

DIGEST_DIGITS = 8  # a chain with the digest of another of the same service is changed in place


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
    """
    rotation = [server for server in servers if server.weight > 0]
    weights = [1 if scheduler is Scheduler.RR else server.weight for server in rotation]
    divisor = math.gcd(*weights) or 1
    weights = [weight // divisor for weight in weights]
    if scheduler is Scheduler.WRR and sum(weights) <= SLOTS_INTERLEAVED_MAX:
        runs = [(index, len(list(run))) for index, run in groupby(_in_turn(tuple(weights)))]
    else:
        runs = list(enumerate(weights))
    found, first = [], 0
    for index, length in runs:
        found.append(Share(first, first + length - 1, rotation[index]))
        first += length
    return tuple(found)


@lru_cache(maxsize=1024)
def _in_turn(weights: tuple[int, ...]) -> tuple[int, ...]:
    """Return whose turn it is, by place in the configuration."""
    return interleaved(dict(enumerate(weights)))


def service_chains(service: VirtualService, version: int) -> list[list[str]]:
    """Return the chains of a service; none if it has no address of that version."""
    listens = [listen for listen in service.listens if listen.address.version == version]
    if not listens:
        return []
    servers = [server for server in service.servers if server.address.version == version]
    about = f"# {service.scheduler.value}: " + (
        ", ".join(f"{server.name} weight {server.weight}" for server in servers) or "no server"
    )
    own = partial(_block, "service", service.name, version=version)
    parts = shares(service.scheduler, servers)
    if not parts:
        return [own(lines=[about, "counter drop"])]
    protocols = _protocols(listens)
    rotation = list(dict.fromkeys(part.server for part in parts))
    if len(rotation) == 1:
        return [own(lines=[about, _dnat(rotation[0], version, protocols)])]
    turns = _turns(service.scheduler, parts[-1].last + 1, version)
    if len({server.port is None for server in rotation}) == 1:
        wanted = ", ".join(f"{part} : {_target(part.server)}" for part in parts)
        rule = f"{protocols} dnat {IP[version]} to {turns} map {{ {wanted} }}"
        return [own(lines=[about, rule])]
    # One map holds addresses with a port or addresses without, never both.
    chains = {
        s.name: _block(
            "server", service.name, s.name, version=version, lines=[_dnat(s, version, protocols)]
        )
        for s in rotation
    }
    wanted = ", ".join(f"{part} : goto {name_of(chains[part.server.name])}" for part in parts)
    return [*chains.values(), own(lines=[about, f"{turns} vmap {{ {wanted} }}"])]


def _block(kind: str, *names: str, version: int, lines: list[str]) -> list[str]:
    """Return the block of a chain whose name says what is in it, ``service/web/v4/3f2a9c01``.

    So one that changed has another name: it can be built beside the one that is in use.
    """
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:DIGEST_DIGITS]
    return chain(f"{chain_name(kind, *names, version=version)}/{digest}", lines)


def name_of(block: list[str]) -> str:
    """Return the name of what a block defines."""
    return block[0].split()[1]


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


Targets = Mapping[tuple[str, int], str]
"""The chain of each service and IP version."""


def dispatch_maps(configuration: Configuration, targets: Targets) -> list[list[str]]:
    """Return the maps from what a packet asks for to the chain of its service."""
    blocks = []
    for version in FAMILIES:
        for name, ranges in (("listens", False), ("ranges", True)):
            listens = _listens(configuration, version, ranges=ranges)
            elements = [_element(listen, targets[name, version]) for name, listen in listens]
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


def is_dispatched(configuration: Configuration, version: int, *, ranges: bool) -> bool:
    """Say whether there is a map of single ports, or of ranges."""
    return any(_listens(configuration, version, ranges=ranges))


def _listens(
    configuration: Configuration, version: int, *, ranges: bool
) -> Iterator[tuple[str, Listen]]:
    """Return what services listen on, and their names."""
    for service in configuration.services:
        for listen in service.listens:
            is_range = listen.first_port != listen.last_port
            if listen.address.version == version and is_range is ranges:
                yield service.name, listen


def _element(listen: Listen, target: str) -> str:
    port = f"{listen.first_port}"
    if listen.last_port != listen.first_port:
        port += f"-{listen.last_port}"
    return f"{listen.address} . {listen.protocol.value} . {port} : goto {target}"
