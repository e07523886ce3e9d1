"""Targets and sightings as values that JSON can carry, between daemon and checker.

Both ends are the same program: what one wrote the other reads, and nothing is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, get_args

from hanat.core.checks import Kind, Pattern, Target, TlsCheck
from hanat.core.probing import Check, Operational, Sighting

KINDS: Mapping[str, type[Kind]] = {kind.__name__: kind for kind in get_args(Kind)}

_VALUES = (Pattern, TlsCheck, Check)


def target_to_document(target: Target) -> dict[str, Any]:
    """Return a target for JSON."""
    document = {
        field.name: _plain(getattr(target, field.name))
        for field in fields(target)
        if field.name != "kind"
    }
    return {**document, "kind": type(target.kind).__name__, "options": _options(target.kind)}


def target_from_document(document: Mapping[str, Any]) -> Target:
    """Return what `target_to_document` made a document of."""
    source = document["source"]
    return Target(
        kind=KINDS[document["kind"]](**_read(document["options"])),
        timing=Check(**document["timing"]),
        address=ip_address(document["address"]),
        port=document["port"],
        source=None if source is None else ip_address(source),
        mark=document["mark"],
        service=document["service"],
        server=document["server"],
    )


def sighting_to_document(sighting: Sighting) -> dict[str, Any]:
    """Return a sighting for JSON."""
    return {field.name: _plain(getattr(sighting, field.name)) for field in fields(sighting)}


def sighting_from_document(document: Mapping[str, Any]) -> Sighting:
    """Return what `sighting_to_document` made a document of."""
    states = {name: Operational(document[name]) for name in ("state", "decided")}
    return Sighting(**{**document, **states})


def _options(value: object) -> dict[str, Any]:
    return {
        field.name: _plain(getattr(value, field.name))
        for field in fields(value)  # type: ignore[arg-type]  # one of the dataclasses above
    }


def _plain(value: object) -> object:
    match value:
        case bytes():
            return value.hex()
        case IPv4Address() | IPv6Address():
            return str(value)
        case Operational():
            return value.value
        case tuple():
            return [_plain(item) for item in value]
        case _ if isinstance(value, _VALUES):
            return _options(value)
        case _:
            return value


def _pattern(value: Mapping[str, Any] | None) -> Pattern | None:
    return None if value is None else Pattern(**value)


def _pairs(value: list[list[Any]]) -> tuple[tuple[Any, ...], ...]:
    return tuple(map(tuple, value))


# Of the options that are no values of JSON, by name: a name means the same in every kind.
_READERS: Mapping[str, Callable[[Any], object]] = {
    "send": bytes.fromhex,
    "expect": bytes.fromhex,
    "pattern": _pattern,
    "body": _pattern,
    "headers": _pairs,
    "statuses": _pairs,
    "arguments": tuple,
    "tls": lambda value: None if value is None else TlsCheck(**value),
}


def _read(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _READERS.get(name, _same)(value) for name, value in options.items()}


def _same(value: object) -> object:
    return value
