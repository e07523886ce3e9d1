"""Where servers of one packet scheduling answer from must tell what was asked.

With ``ops`` there is no flow that knows which floating address and port a client asked. The way
back is found by the server's address and port alone (`hanat.core.one_packet`), so no two
addresses or ports of services may lead to the same of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from hanat.config.document import Location
from hanat.core.configuration import Address, Listen, Protocol, VirtualService


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a server of UDP answers from, asked for one address and range of ports."""

    address: Address
    first: int
    last: int
    index: int  # of its service
    service: VirtualService
    listen: Listen
    server: str

    @property
    def shown(self) -> str:
        ports = str(self.first) if self.first == self.last else f"{self.first}-{self.last}"
        return f"{self.address} udp/{ports}"


def ambiguities(services: Sequence[tuple[int, VirtualService]]) -> Iterator[tuple[Location, str]]:
    """Yield the services whose answers may be those of another address or port, and what to do.

    Args:
        services: Each with its index in the file.
    """
    if not any(service.ops for _, service in services):
        return
    told: set[frozenset[int]] = set()
    places = sorted(_places(services), key=lambda one: (one.address.packed, one.first, one.last))
    for _, some in groupby(places, key=lambda one: one.address):
        widest: _Place | None = None
        for one in some:
            if widest is not None and one.first <= widest.last:
                pair = frozenset((widest.index, one.index))
                if (widest.service.ops or one.service.ops) and pair not in told:
                    told.add(pair)
                    yield _ambiguity(widest, one)
            if widest is None or one.last > widest.last:
                widest = one


def _ambiguity(one: _Place, other: _Place) -> tuple[Location, str]:
    one, other = sorted((one, other), key=lambda place: (place.service.ops, place.index))
    where: Location = ("service", other.index, "ops")
    text = "without flows an answer has to tell by its server what was asked, "
    if one.index != other.index:
        return where, (
            f'{text}and service "{one.service.name}" has {other.shown}, too (server '
            f'"{one.server}"); give one of them another port'
        )
    if one.listen.address != other.listen.address:
        asked, advice = f"{one.listen} and {other.listen}", "listen on one address of a family"
    elif one.listen != other.listen:
        asked, advice = f"{one.listen} and {other.listen}", "leave the port of the server out"
    else:
        asked, advice = f"each port of {one.listen}", "leave the port of the server out"
    return where, f'{text}and server "{one.server}" answers {asked} from {one.shown}; {advice}'


def _places(services: Sequence[tuple[int, VirtualService]]) -> Iterator[_Place]:
    for index, service in services:
        servers = [(s.address, s.port, s.name) for s in service.servers]
        servers += [(sorry.address, sorry.port, "sorry") for sorry in service.sorry]
        for listen in service.listens:
            if listen.protocol is not Protocol.UDP:
                continue
            for address, port, name in servers:
                if address.version != listen.address.version:
                    continue
                first, last = (port, port) if port else (listen.first_port, listen.last_port)
                one = _Place(address, first, last, index, service, listen, name)
                yield one
                if port and listen.first_port != listen.last_port:
                    yield one  # that of the other ports of the range
