"""The services of a configuration in nftables text: which server gets a client, and the way there.

A chain for each service picks a server; maps lead from what a packet asks for to its chain. So
a service that changes gets one new chain and as many elements as it listens on (`core.steps`).

Which servers get clients is the service's *rotation*. It changes more often than the
configuration: servers fail and come back. The chains follow from service and rotation alone. The
kernel looks up a server in the table of `schedulers.slots`: in an anonymous map, which is replaced
with its chain, or, if the slots follow connection counts, in a map with a name, of which single
elements are rewritten.

With nobody in rotation clients are sent to the sorry server of their IP version. If there is none,
they are refused (chain `refused`) or dropped. The kernel refuses only where a packet is delivered
or forwarded, not where it is translated: the chain of such a service lets its packets pass
untranslated, and the set `refused_v4` or `refused_v6` knows them where they are delivered.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import groupby

from hanat.core.configuration import (
    Configuration,
    Listen,
    Protocol,
    RealServer,
    Scheduler,
    Sorry,
    Unavailable,
    VirtualService,
)
from hanat.core.notation import ADDRESS_TYPE, FAMILIES, IP, chain, chain_name
from hanat.core.persistence import persistence_sets, recalling, remembering
from hanat.core.schedulers import InRotation, Key, key_of, slots
from hanat.core.service_limits import limit_blocks
from hanat.core.shares import SLOTS_MAX, Slots, level_size

# Any fixed number: all nodes must send one client to the same server.
HASH_SEED = 0x68616E61

DIGEST_DIGITS = 8  # a chain with the digest of another of the same service is changed in place

# Slots of a table of turns. By source (sh, mh) a table has SLOTS_MAX, 4,093: with 1,021 the shares
# of sh would be off by 3 points and not 2, and of ten servers of mh one that leaves would move 3 %
# of the clients of the others, not 1.4; `core.hash_tables` tells why. It has its price: for ten
# servers 12 ms from a verdict to the kernel where 1,021 slots took 4, of which the kernel's
# transaction has 2.4, for which the gate may wait; 98 KB of text, 0.4 MB of the kernel's memory.
TABLE_SLOTS = 1_021
TABLE_SERVERS = 255  # with more servers the table is as large as can be
TABLES_KEPT = 64

Rotation = tuple[InRotation, ...]
"""The servers of a service that get new clients, of both IP versions, in any order."""

Rotations = Mapping[str, Rotation]
"""By name of the service; one without an entry has its default, see `rotation_of`."""

Levels = Mapping[tuple[str, int], Slots]
"""Tables of services by counts, by name and IP version; see `schedulers.level`."""

REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Turns:
    """Who gets new clients, as far as it is known; all servers of the others by their weights."""

    rotations: Rotations = field(default_factory=dict)
    levels: Levels = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.rotations or self.levels)

    def rotation(self, service: VirtualService) -> Rotation:
        """Return the servers of a service that get clients.

        All of them if what is known is of another configuration: some are none of this one's.
        """
        found = self.rotations.get(service.name)
        if found is None or not _names(service).issuperset(one.name for one in found):
            return rotation_of(service)
        return found

    def levelled(self, service: VirtualService, version: int) -> Slots | None:
        """Return the table that follows the counts; None: there is none that fits the rotation."""
        table = self.levels.get((service.name, version))
        if table is None or not service.scheduler.by_counts:
            return None
        able = {s.name for s in members_of(service, version, self.rotation(service)) if s.weight}
        return table if able.issuperset(table) and len(table) == level_size(len(able)) else None

    def differ(self, other: Turns, service: VirtualService) -> bool:
        """Say whether a service may have other chains by these than by others."""
        name = service.name
        mine, others = self.rotations.get(name), other.rotations.get(name)
        if mine != others and self.rotation(service) != other.rotation(service):
            return True
        if not self.levels and not other.levels:
            return False
        places = ((name, version) for version in FAMILIES)
        return any(self.levels.get(place) != other.levels.get(place) for place in places)


def _names(service: VirtualService) -> set[str]:
    return {server.name for server in service.servers}


def rotation_of(service: VirtualService) -> Rotation:
    """Return the rotation of which nothing but the configuration is known: all servers."""
    return tuple(InRotation(s.name, s.weight, tier=s.tier) for s in service.servers)


def service_chains(
    service: VirtualService, version: int, rotation: Rotation, table: Slots | None = None
) -> list[list[str]]:
    """Return the blocks of a service for an IP version, the chain that maps lead to last.

    The same slots give the same text, whatever rotation they come from.

    Args:
        service: As configured.
        version: 4 or 6.
        rotation: Its servers that get new clients; others of that name are left out.
        table: The slots, if they are others than those of the rotation's weights.

    Returns:
        Lines of each block; none if the service has no address of that version.
    """
    protocols = _protocols_of(service, version)
    if not protocols:
        return []
    servers = {s.name: s for s in service.servers if s.address.version == version}
    members = tuple(members_of(service, version, rotation))
    table = slots_of(service, members) if table is None else table
    own = partial(block_of, "service", service.name, version=version)
    about = f"# {service.scheduler.value}: {shares_of(table) or 'no server'}"
    limits = limit_blocks(service, version)
    first = [f"jump {name_of(block)}" for block in limits[-1:]]
    blocks = [*limits, *(sets := persistence_sets(service, version)).values()]
    if not table:
        first.append(_without_servers(service, version, protocols))
        return [*blocks, own(lines=[about, *first])]
    # What follows counts may have no slots for a server now, and some for it a moment later.
    names = {one.name for one in members if one.weight} if service.scheduler.by_counts else table
    used = [servers[name] for name in sorted(set(names))]
    always = sets or service.scheduler.by_counts  # chains of servers; the map of those by counts
    if len(used) == 1 and not always:
        return [*blocks, own(lines=[about, *first, _dnat(used[0], version, protocols)])]
    chains: dict[str, str] = {}
    if always or len({server.port is None for server in used}) > 1:
        # One map holds addresses with a port or addresses without, never both. nft 1.0.6 does
        # not compare the port of a map with a name to that of a rule of TCP or UDP.
        for server in used:
            remembered = remembering(service, version, sets, server.name)
            to = [*remembered, _dnat(server, version, protocols)]
            blocks.append(block_of("server", service.name, server.name, version=version, lines=to))
            chains[server.name] = name_of(blocks[-1])
        verb, targets = "{} vmap", {name: f"goto {chain}" for name, chain in chains.items()}
    else:
        verb = f"dnat {IP[version]} to {{}} map"
        targets = {server.name: _target(server) for server in used}
    if service.scheduler.by_counts:
        about = f"# {service.scheduler.value}"  # the chain stays, whatever the slots are
        blocks.append(_slots_map(service, version, (targets[name] for name in table)))
        where = f"@{name_of(blocks[-1])}"
    else:
        where = f"{{ {elements_of(table, tuple(targets.items()))} }}"
    rules = [*first, *recalling(service, version, sets, chains)]
    for key, some in _by_key(service, protocols):
        choice = choice_of(service.scheduler, key, len(table), version)
        rules.append(f"{match_of(some)} {verb.format(choice)} {where}")
    return [*blocks, own(lines=[about, *rules])]


def slots_of(service: VirtualService, rotation: Rotation) -> Slots:
    """Return the table of a service by weights alone."""
    if service.scheduler.by_source:
        return _slots_of(service.scheduler, rotation, SLOTS_MAX)
    many = len(service.servers) > TABLE_SERVERS  # configured: not another table with each failure
    return _slots_of(service.scheduler, rotation, SLOTS_MAX if many else TABLE_SLOTS)


@lru_cache(maxsize=TABLES_KEPT)
def _slots_of(scheduler: Scheduler, rotation: Rotation, slots_max: int) -> Slots:
    return slots(scheduler, rotation, slots_max=slots_max)


def members_of(service: VirtualService, version: int, rotation: Rotation) -> list[InRotation]:
    """Return the part of a rotation that has addresses of an IP version."""
    names = {s.name for s in service.servers if s.address.version == version}
    return [server for server in rotation if server.name in names]


def shares_of(table: Slots) -> str:
    """Return for people how many slots each server has."""
    counts = sorted(Counter(table).items())
    return ", ".join(f"{name} {count}/{len(table)}" for name, count in counts)


def _protocols_of(service: VirtualService, version: int) -> list[Protocol]:
    found = {listen.protocol for listen in service.listens if listen.address.version == version}
    return sorted(found, key=lambda protocol: protocol.value)


def _without_servers(service: VirtualService, version: int, protocols: list[Protocol]) -> str:
    sorry = sorry_of(service, version)
    if sorry is not None:
        return _dnat(sorry, version, protocols)
    return "counter accept" if service.unavailable is Unavailable.REJECT else "counter drop"


def sorry_of(service: VirtualService, version: int) -> Sorry | None:
    """Return where clients of an IP version go when no server can take them."""
    return next((sorry for sorry in service.sorry if sorry.address.version == version), None)


def block_of(kind: str, *names: str, version: int, lines: list[str]) -> list[str]:
    """Return the block of a chain whose name says what is in it, ``service/web/v4/3f2a9c01``.

    So one that changed has another name: it can be built beside the one that is in use.
    """
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:DIGEST_DIGITS]
    return chain(f"{chain_name(kind, *names, version=version)}/{digest}", lines)


def name_of(block: list[str]) -> str:
    """Return the name of what a block defines."""
    return block[0].split()[1]


def _slots_map(service: VirtualService, version: int, targets: Iterable[str]) -> list[str]:
    """Return the map of a service whose slots are rewritten one by one."""
    elements = (f"        {slot} : {target}," for slot, target in enumerate(targets))
    return [
        f"map {chain_name('slots', service.name, version=version)} {{",
        "    typeof numgen inc mod 2 : verdict",
        "    elements = {",
        *elements,
        "    }",
        "}",
    ]


@lru_cache(maxsize=TABLES_KEPT)
def elements_of(table: Slots, targets: tuple[tuple[str, str], ...]) -> str:
    """Return the elements of a map; of few and long runs as ranges, which cost two each."""
    of = dict(targets)
    runs = [(of[name], len(list(run))) for name, run in groupby(table)]
    if 2 * len(runs) > len(table):
        return ", ".join(f"{slot} : {of[name]}" for slot, name in enumerate(table))
    return ", ".join(_ranges(runs))


def _ranges(runs: Iterable[tuple[str, int]]) -> Iterator[str]:
    first = 0
    for target, length in runs:
        last = first + length - 1
        yield f"{first} : {target}" if length == 1 else f"{first}-{last} : {target}"
        first += length


def match_of(protocols: Iterable[Protocol]) -> str:
    """Return the match nft demands before it accepts a port to translate to."""
    names = [protocol.value for protocol in protocols]
    return f"meta l4proto {names[0]}" if len(names) == 1 else "meta l4proto { tcp, udp }"


def _by_key(
    service: VirtualService, protocols: Iterable[Protocol]
) -> Iterator[tuple[Key, list[Protocol]]]:
    """Yield what the kernel chooses by, and the protocols for which it is that."""
    found: dict[Key, list[Protocol]] = {}
    for protocol in protocols:
        key = key_of(
            service.scheduler, protocol, source_port=service.hash_port, in_turn=service.ops
        )
        found.setdefault(key, []).append(protocol)
    yield from found.items()


def choice_of(scheduler: Scheduler, key: Key, count: int, version: int) -> str:
    """Return the expression that chooses one of so many slots."""
    if key is Key.NONE:
        return f"numgen {'random' if scheduler is Scheduler.RANDOM else 'inc'} mod {count}"
    fields = {
        Key.SOURCE: f"{IP[version]} saddr",
        Key.SOURCE_PORT: f"{IP[version]} saddr . th sport",
        Key.FLOW: f"{IP[version]} saddr . th sport . {IP[version]} daddr . th dport",
    }[key]
    return f"jhash {fields} mod {count} seed {HASH_SEED:#x}"


def _target(server: RealServer) -> str:
    return str(server.address) + (f" . {server.port}" if server.port is not None else "")


def _dnat(server: RealServer | Sorry, version: int, protocols: Iterable[Protocol]) -> str:
    target = str(server.address)
    if server.port is not None:
        target = f"[{target}]:{server.port}" if version == 6 else f"{target}:{server.port}"
    return f"{match_of(protocols)} dnat {IP[version]} to {target}"


# ---------------------------------------------------------------- the way to a service


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
    return f"{asked_of(listen)} : goto {target}"


def asked_of(listen: Listen) -> str:
    """Return the key of maps and sets of what packets ask for."""
    port = f"{listen.first_port}"
    if listen.last_port != listen.first_port:
        port += f"-{listen.last_port}"
    return f"{listen.address} . {listen.protocol.value} . {port}"


def refused_sets(configuration: Configuration, rotations: Rotations) -> list[list[str]]:
    """Return what is asked for of services that refuse it, a set for each IP version.

    The sets are there although they are empty, so that a rotation changes elements alone.
    """
    blocks = []
    for version in FAMILIES:
        if not listens_of(configuration, version):
            continue
        elements = [
            asked_of(listen)
            for service in configuration.services
            if _is_refused(service, version, rotations)
            for listen in service.listens
            if listen.address.version == version
        ]
        shown = ["    elements = {", *(f"        {element}," for element in elements), "    }"]
        blocks.append([
            f"set {REFUSED}_v{version} {{",
            f"    type {ADDRESS_TYPE[version]} . inet_proto . inet_service",
            "    flags interval",
            *(shown if elements else []),
            "}",
        ])  # fmt: skip
    return blocks


def _is_refused(service: VirtualService, version: int, rotations: Rotations) -> bool:
    if service.unavailable is not Unavailable.REJECT or sorry_of(service, version) is not None:
        return False
    names = {s.name for s in service.servers if s.address.version == version}
    rotation = Turns(rotations).rotation(service)
    return not any(server.weight and server.name in names for server in rotation)


def listens_of(configuration: Configuration, version: int) -> bool:
    """Say whether any service listens on an address of that version."""
    return any(
        listen.address.version == version
        for service in configuration.services
        for listen in service.listens
    )
