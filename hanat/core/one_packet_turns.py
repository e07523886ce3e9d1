"""Which server gets a datagram of a service with ``ops``: chains, maps and counters.

What leads to these chains, and back from the servers, is in `core.one_packet`. They follow from the
service and its rotation, as the chains of flows do (`core.services`), and have the same slots.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from hanat.core.configuration import (
    Address,
    Configuration,
    Listen,
    Protocol,
    RealServer,
    Sorry,
    Unavailable,
    VirtualService,
)
from hanat.core.notation import ADDRESS_TYPE, FAMILIES, IP, chain_name
from hanat.core.schedulers import key_of
from hanat.core.service_limits import limit_blocks
from hanat.core.services import (
    Rotation,
    asked_of,
    block_of,
    choice_of,
    elements_of,
    match_of,
    members_of,
    name_of,
    shares_of,
    slots_of,
    sorry_of,
)

TURNS = "one_packet/"  # chains that maps lead to
MAP = "one_packet_turns"
_TURN, _TO, FROM = TURNS.rstrip("/"), "one_packet_to", "one_packet_from"


def turn_blocks(service: VirtualService, version: int, rotation: Rotation) -> list[list[str]]:
    """Return the blocks that send a datagram to a server of the rotation.

    Slots and limits are those of `services.service_chains`; the chain of limits is there, too.

    Returns:
        Lines of each block, the chain that maps lead to last; none if the service has no such
        datagrams of that IP version.
    """
    if not datagram_listens(service, version):
        return []
    table = slots_of(service, tuple(members_of(service, version, rotation)))
    first = [f"# {service.scheduler.value}: {shares_of(table) or 'no server'}"]
    first += [f"jump {name_of(block)}" for block in limit_blocks(service, version)[-1:]]
    blocks = [[f"counter {name} {{", "}"] for name in _counters(service, version)]
    if not table:
        blocks += (to := _without_servers(service, version))[:-1]
        first += to[-1]
        return [*blocks, block_of(_TURN, service.name, version=version, lines=first)]
    servers = {s.name: s for s in service.servers if s.address.version == version}
    targets = {}
    for name in sorted(set(table)):
        blocks.append(_block_to(service, servers[name]))
        targets[name] = f"goto {name_of(blocks[-1])}"
    if len(targets) == 1:
        first += targets.values()
    else:
        key = key_of(service.scheduler, Protocol.UDP, source_port=service.hash_port, in_turn=True)
        choice = choice_of(service.scheduler, key, len(table), version)
        elements = elements_of(table, tuple(targets.items()))
        first.append(f"{match_of([Protocol.UDP])} {choice} vmap {{ {elements} }}")
    return [*blocks, block_of(_TURN, service.name, version=version, lines=first)]


def _without_servers(service: VirtualService, version: int) -> list[list[str]]:
    """Return the blocks that are needed, and behind them the rules of the service."""
    sorry = sorry_of(service, version)
    if sorry is not None:
        block = _block_to(service, sorry)
        return [block, [f"goto {name_of(block)}"]]
    # It is refused where it is delivered, as what asks for other services without servers.
    rejects = service.unavailable is Unavailable.REJECT
    return [["counter accept" if rejects else "counter drop"]]


def _block_to(service: VirtualService, place: RealServer | Sorry) -> list[str]:
    """Return the block of the chain that sends a datagram to a server."""
    version = place.address.version
    counted = f"counter name {counter_name(_TO, service.name, place)}"
    lines = [counted, *rewriting("d", place.address, place.port)]
    return block_of(_TO, service.name, place_name(place), version=version, lines=lines)


# ---------------------------------------------------------------------- what was counted


def counters_of(service: VirtualService, server: RealServer) -> tuple[str, str]:
    """Return the names of what counts the datagrams to a server, and its answers."""
    to, back = (counter_name(kind, service.name, server) for kind in (_TO, FROM))
    return to, back


def is_counted(service: VirtualService, server: RealServer) -> bool:
    """Say whether a service sends single datagrams to a server."""
    return service.ops and bool(datagram_listens(service, server.address.version))


def _counters(service: VirtualService, version: int) -> list[str]:
    places = places_of(service, version)
    return [counter_name(kind, service.name, place) for place in places for kind in (_TO, FROM)]


def counter_name(kind: str, service: str, place: RealServer | Sorry) -> str:
    """Return the name of what counts datagrams of a server one way."""
    return chain_name(kind, service, place_name(place), version=place.address.version)


def place_name(place: RealServer | Sorry) -> str:
    """Return the name of a server, for chains and counters."""
    return place.name if isinstance(place, RealServer) else ".sorry"  # which no server is named


def turn_maps(
    configuration: Configuration, targets: Mapping[tuple[str, int], str]
) -> list[list[str]]:
    """Return the maps from what a datagram asks for to the chain of its service.

    Args:
        configuration: With the services of `targets`.
        targets: The chain of each service and IP version, the last of `turn_blocks`.
    """
    found: dict[Ports, list[str]] = {}
    for service in datagram_services(configuration):
        for version in FAMILIES:
            for listen in datagram_listens(service, version):
                element = f"{asked_of(listen)} : goto {targets[service.name, version]}"
                found.setdefault(ports_of(listen), []).append(element)
    return [
        block_of_ports("map", MAP, ports, elements) for ports, elements in sorted(found.items())
    ]


def rewriting(end: str, address: Address, port: int | None) -> list[str]:
    """Return the rules that make an address and a port the source or destination of a datagram.

    Args:
        end: ``s`` or ``d``.
        address: The new one.
        port: None: it stays as it is.
    """
    family = IP[address.version]
    if port is None:
        return [f"{family} {end}addr set {address} accept"]
    lines = [f"{family} {end}addr set {address}"]
    if address.version == FAMILIES[0]:
        # No checksum (RFC 768). The kernel knows that of addresses, and would mend it for ports.
        lines.append(f"udp checksum 0 @th,{16 if end == 'd' else 0},16 set {port} accept")
    return [*lines, f"udp {end}port set {port} accept"]


def datagram_services(configuration: Configuration) -> list[VirtualService]:
    """Return the services that send each datagram by itself."""
    return [
        service
        for service in configuration.services
        if service.ops and any(datagram_listens(service, version) for version in FAMILIES)
    ]


def datagram_listens(service: VirtualService, version: int) -> list[Listen]:
    """Return what they listen on by UDP."""
    return [
        listen
        for listen in service.listens
        if listen.protocol is Protocol.UDP and listen.address.version == version
    ]


def places_of(service: VirtualService, version: int) -> list[RealServer | Sorry]:
    """Return all that may answer, in rotation or not."""
    places: list[RealServer | Sorry] = [*service.servers, *service.sorry]
    return [place for place in places if place.address.version == version]


class Ports(NamedTuple):
    """What sets and maps are of: an IP version, and single ports or ranges.

    The kernel finds a single port by its hash; among ranges it compares bit by bit, and copies all
    of them for a change.
    """

    version: int
    ranged: bool

    def name(self, what: str) -> str:
        """Return the name of such a set, map or chain."""
        return f"{what}{'_ranges' if self.ranged else ''}_v{self.version}"


def ports_of(listen: Listen) -> Ports:
    """Return where a listen belongs."""
    return Ports(listen.address.version, listen.first_port != listen.last_port)


def block_of_ports(kind: str, what: str, ports: Ports, elements: Iterable[str]) -> list[str]:
    """Return the block of a ``set`` or ``map`` by address, protocol and ports."""
    target = " : verdict" if kind == "map" else ""
    return [
        f"{kind} {ports.name(what)} {{",
        f"    type {ADDRESS_TYPE[ports.version]} . inet_proto . inet_service{target}",
        *(["    flags interval"] if ports.ranged else []),
        "    elements = {",
        *(f"        {element}," for element in elements),
        "    }",
        "}",
    ]
