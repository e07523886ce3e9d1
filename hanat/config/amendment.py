"""Read a text of which nearly all was read before: one weight of ten thousand has changed.

To read a thousand services of ten servers takes half a second. So the text is cut where its
services begin. A piece that the text of before had as well stands for the service that it was
then; only the others are parsed, checked, and held against the rest.

It says what a text means or that it does not know: then the whole is read, and only that tells
what is wrong. So whatever is unusual is left to that: another order, tables of other kinds in
what changed, headers with blanks in them, text over several lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from pydantic import ValidationError

from hanat.config.cluster_toml import read_services
from hanat.config.document import TEXT_BYTES_MAX, Findings, parse_toml
from hanat.config.limits import (
    CLUSTER_LIMITS,
    CLUSTER_TOTALS,
    EACH,
    OPS_SERVERS_MAX,
    TARGETS_MAX,
    check_limits,
)
from hanat.config.models import ServiceTable
from hanat.config.one_packet_sources import ambiguities
from hanat.core.configuration import Address, Configuration, Listen, Protocol, VirtualService
from hanat.errors import ConfigError

HEADER = "\n[[service]]"  # as the first of its line no value of TOML has it, but such a text:
LONG_QUOTES = ('"""', "'''")
CHANGED_BYTES_MAX = 4096  # two milliseconds


def amended(text: str, *, known_text: str, known: Configuration) -> Configuration | None:
    """Return what a text says by what is known of another; None if only a whole reading can tell.

    Args:
        text: Of ``cluster.toml``.
        known_text: Another one, that was read.
        known: What that says.
    """
    if len(text) > TEXT_BYTES_MAX or any(q in t for q in LONG_QUOTES for t in (text, known_text)):
        return None
    found = _compare(known_text.split(HEADER), text.split(HEADER), known)
    if found is None:
        return None
    new, gone = _tables(found.new), _tables(found.gone)
    if new is None or gone is None:
        return None
    made = _services(new, known)
    if made is None:
        return None
    fresh = iter(made)
    services = tuple(next(fresh) if s is None else s for s in found.services)
    old = [known.services[place] for place in found.gone_places]
    kept = [s for s in found.services if s is not None]
    if not _fits(services, new, gone) or not _goes_with(made, old, kept, known):
        return None
    return replace(known, services=services)


@dataclass(frozen=True, slots=True)
class _Compared:
    """Services in the order of the new text, None where it has a new piece; the other pieces."""

    services: Sequence[VirtualService | None]
    new: Sequence[str]
    gone: Sequence[str]
    gone_places: Sequence[int]


def _compare(was: list[str], will: list[str], known: Configuration) -> _Compared | None:
    # A lone carriage return is no end of a line: the text was cut before a header.
    if was[0] != will[0] or len(was) - 1 != len(known.services) or will[-1].endswith("\r"):
        return None
    place_of = {piece: place for place, piece in enumerate(was[1:])}
    places = [place_of.get(piece) for piece in will[1:]]
    kept = [place for place in places if place is not None]
    # A piece may end with tables of other kinds, such as a transit: these stay in their order.
    if any(after <= before for before, after in pairwise(kept)):
        return None
    remaining = set(kept)
    gone = [place for place in range(len(known.services)) if place not in remaining]
    new = [piece for piece, place in zip(will[1:], places, strict=True) if place is None]
    left = [was[1 + place] for place in gone]
    if sum(map(len, (*new, *left))) > CHANGED_BYTES_MAX:
        return None
    services = [None if place is None else known.services[place] for place in places]
    return _Compared(services, new, left, gone)


def _tables(pieces: Iterable[str]) -> list[dict[str, Any]] | None:
    """Return the services in pieces; None if there is anything else in one."""
    found = []
    for piece in pieces:
        try:
            document = parse_toml(HEADER + piece, file="")
        except ConfigError:
            return None
        if document.keys() != {"service"} or len(document["service"]) != 1:
            return None
        found.append(document["service"][0])
    return found


def _services(
    tables: Sequence[dict[str, Any]], known: Configuration
) -> tuple[VirtualService, ...] | None:
    document = {"service": list(tables)}
    findings = Findings("", document)
    try:
        check_limits(document, findings, lists=CLUSTER_LIMITS, totals={})
        models = [ServiceTable.model_validate(table) for table in tables]
    except (ConfigError, ValidationError):
        return None
    made = read_services(models, known, findings)
    return None if findings else made


def _fits(
    services: Sequence[VirtualService],
    new: Sequence[dict[str, Any]],
    gone: Sequence[dict[str, Any]],
) -> bool:
    """Say whether all of it is surely within the limits."""
    sources_more = sum(len(t.get("from", ())) for t in new) - sum(
        len(t.get("from", ())) for t in gone
    )
    totals = CLUSTER_TOTALS
    return (
        len(services) <= CLUSTER_LIMITS["service",]
        and sum(len(s.servers) for s in services) <= totals["service", EACH, "server"]
        # What is written once may be published for two families.
        and sum(len(s.listens) for s in services) <= totals["service", EACH, "listen"]
        and sum(len(s.checks) * len(s.servers) for s in services) <= TARGETS_MAX
        and sum(len(s.servers) for s in services if s.ops) <= OPS_SERVERS_MAX
        and sources_more <= 0  # of those before only the different ones are known
    )


def _goes_with(
    made: Sequence[VirtualService],
    gone: Sequence[VirtualService],
    kept: Sequence[VirtualService],
    known: Configuration,
) -> bool:
    """Say whether new services are in the way of nothing that stays."""
    names = {service.name for service in kept}
    networks = [network for transit in known.transits for network in transit.networks]
    addresses = {server.address for service in made for server in service.servers}
    addresses |= {sorry.address for service in made for sorry in service.sorry}
    if any(service.name in names for service in made):
        return False
    if any(address in network for network in networks for address in addresses):
        return False
    if not _tells_answers_apart(made, kept, addresses):
        return False
    free = {listen for service in gone for listen in service.listens}
    asked: dict[tuple[Address, Protocol], list[Listen]] = {}
    for listen in (one for service in made for one in service.listens if one not in free):
        asked.setdefault((listen.address, listen.protocol), []).append(listen)
    if not asked:
        return True
    return not any(
        listen.first_port <= other.last_port and other.first_port <= listen.last_port
        for service in kept
        for other in service.listens
        for listen in asked.get((other.address, other.protocol), ())
    )


def _tells_answers_apart(
    made: Sequence[VirtualService], kept: Sequence[VirtualService], addresses: set[Address]
) -> bool:
    """Say whether no answer to a single datagram may be of a new service or of another one."""
    if not any(service.ops for services in (made, kept) for service in services):
        return True
    near = [
        service
        for service in kept
        if any(server.address in addresses for server in service.servers)
        or any(sorry.address in addresses for sorry in service.sorry)
    ]
    return not any(ambiguities(list(enumerate((*made, *near)))))
