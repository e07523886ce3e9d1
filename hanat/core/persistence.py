"""Clients that go to the server they were at, in nftables text.

Each server of a service with persistence has a set of clients. The chain of a server puts the
client into it, with the first packet of each connection; the chain of the service looks into the
sets of the servers in rotation before anything is chosen. So a server that left the rotation gets
nobody by its entries, and has them again if it comes back in time.

The sets have the names of servers and follow from the configuration alone: a rotation does not
touch them, nor does another configuration that leaves service and timeout as they are; and where
the table is replaced as a whole, they are left in it (`core.steps.keeping_clients`).

A client that was at one server, and at a second one while the first was out of rotation, has an
entry of both, until the flow worker deletes the older one: packets cannot. With two it goes to the
server whose name comes first.

Packets that put clients into sets tell nobody. What other nodes get of them is derived from flows:
`core.stick_table`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from hanat.core.configuration import PROTOCOL_NUMBERS, Configuration, Protocol, VirtualService
from hanat.core.notation import ADDRESS_TYPE, FAMILIES, chain_name, source
from hanat.core.steps import CLIENTS
from hanat.core.sticky import CLIENTS_MAX, StickyServer, StickyService

PersistenceSets = Mapping[str, list[str]]
"""By name of the server, the block of its set; empty without persistence."""


def persistence_sets(service: VirtualService, version: int) -> PersistenceSets:
    """Return the sets of all servers of an IP version, in rotation or not."""
    if service.persistence is None:
        return {}
    lines = [
        f"type {ADDRESS_TYPE[version]}",
        f"size {CLIENTS_MAX}",
        "flags dynamic,timeout",
        f"timeout {max(1, round(service.persistence.timeout_s))}s",
    ]
    # Another mask makes other clients of the same addresses.
    said = f"{lines} {_client(service, version)}"
    digest = hashlib.sha256(said.encode()).hexdigest()[:8]
    kind = CLIENTS.rstrip("/")
    return {
        server.name: [
            f"set {chain_name(kind, service.name, server.name, version=version)}/{digest} {{",
            *(f"    {line}" for line in lines),
            "}",
        ]
        for server in service.servers
        if server.address.version == version
    }


def sticky_services(configuration: Configuration) -> tuple[StickyService, ...]:
    """Return the services with persistence, once for each IP version that they have servers of."""
    found = []
    for service in configuration.services:
        for version in FAMILIES:
            sets = persistence_sets(service, version)
            listens = tuple(
                (PROTOCOL_NUMBERS[one.protocol], one.address.packed, one.first_port, one.last_port)
                for one in service.listens
                if one.address.version == version
            )
            if not sets or not listens:
                continue
            assert service.persistence is not None
            kept = service.persistence
            found.append(
                StickyService(
                    name=service.name,
                    version=version,
                    prefix=kept.netmask if version == 4 else kept.netmask6,
                    timeout_s=max(1, round(kept.timeout_s)),
                    listens=listens,
                    servers=tuple(
                        StickyServer(s.name, s.address.packed, s.port or 0, _name(sets[s.name]))
                        for s in service.servers
                        if s.name in sets
                    ),
                    datagrams=any(one.protocol is Protocol.UDP for one in service.listens),
                )
            )
    return tuple(found)


def remembering(
    service: VirtualService, version: int, sets: PersistenceSets, server: str
) -> Iterator[str]:
    """Yield the rule by which a server's chain remembers its client."""
    if sets:
        yield f"update @{_name(sets[server])} {{ {_client(service, version)} }}"


def recalling(
    service: VirtualService, version: int, sets: PersistenceSets, chains: Mapping[str, str]
) -> Iterator[str]:
    """Yield the rules that send known clients to their servers.

    Args:
        service: As configured.
        version: 4 or 6.
        sets: Of all servers.
        chains: Of the servers in rotation.
    """
    if sets:
        for server, chain in chains.items():
            yield f"{_client(service, version)} @{_name(sets[server])} goto {chain}"


def _client(service: VirtualService, version: int) -> str:
    kept = service.persistence
    assert kept is not None
    return source(version, kept.netmask if version == 4 else kept.netmask6)


def _name(block: list[str]) -> str:
    return block[0].split()[1]
