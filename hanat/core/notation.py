"""Words of nftables that gate and ruleset have in common: tables, families, blocks of text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a supervisor does not load it for a type
    from hanat.core.configuration import Configuration, Interface

TABLE = "hanat"
GATE_TABLE = "hanat_gate"
NOTES_TABLE = "hanat_notes"  # what is at the devices, for whoever comes after a killed node
ATTACHED_SET = "attached"  # indexes of the devices that have the programs
CARRIES_SET = "carries_by_index"  # up to 0.1.0 "carries", of names

FAMILIES = (4, 6)
IP = {4: "ip", 6: "ip6"}
ADDRESS_TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}


def devices_of(configuration: Configuration, devices: Mapping[str, str]) -> tuple[str, ...]:
    """Return the kernel devices that carry a floating address, sorted."""
    missing = [name for name in configuration.interfaces if name not in devices]
    assert not missing, f"no device for the interfaces {missing}; devices are {dict(devices)}"
    return tuple(sorted(devices[name] for name in configuration.interfaces))


def addresses_of(configuration: Configuration, version: int) -> list[Interface]:
    """Return the floating addresses of an IP version, sorted."""
    return sorted(
        address
        for vip in configuration.vips
        for address in vip.addresses
        if address.version == version
    )


def chain(name: str, lines: Iterable[str]) -> list[str]:
    """Return the block that defines a chain."""
    return [f"chain {name} {{", *(f"    {line}" for line in lines), "}"]


def quoted(names: Iterable[str]) -> str:
    """Return names as elements of a set."""
    return ", ".join(f'"{name}"' for name in names)


def chain_name(kind: str, *names: str, version: int) -> str:
    """Return e.g. ``service/web/v4``; the slash cannot be part of a name."""
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name), f"{name!r} cannot be part of a chain's name"
    return "/".join((kind, *names, f"v{version}"))


def source(version: int, length: int) -> str:
    """Return what tells clients apart that have so many bits of their address in common."""
    if length == {4: 32, 6: 128}[version]:
        return f"{IP[version]} saddr"
    unspecified = {4: "0.0.0.0", 6: "::"}[version]  # noqa: S104 - nothing is bound
    return f"{IP[version]} saddr and {ip_network(f'{unspecified}/{length}').netmask}"
