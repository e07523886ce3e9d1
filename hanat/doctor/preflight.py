"""Is this machine fit to run a node? Asked before anything on it is touched.

What is missing here would be missing at the first takeover: then it costs the
addresses, now it costs a message. The doctor tells more; these are the things
without which starting would do harm.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address

from hanat.config.key import Keys
from hanat.config.settings import NodeSettings
from hanat.core.configuration import Address, Configuration, nominal_lease_s
from hanat.core.control_traffic import ClusterPath, ControlTraffic
from hanat.core.identity import Identity
from hanat.core.members import members_of
from hanat.errors import StartupError
from hanat.kernel.facts import capabilities, way_out, who_answers
from hanat.kernel.ports import Addresses, Links

log = logging.getLogger(__name__)

NEEDED_CAPABILITIES = ("CAP_NET_ADMIN", "CAP_NET_RAW")


def identity(settings: NodeSettings, configuration: Configuration, keys: Keys) -> Identity:
    """Return who this node is to its peers, and whom it counts."""
    members = members_of(peer.node_id for peer in settings.peers)
    lease_s = nominal_lease_s(configuration.profile)
    return Identity(
        keys.used, configuration.name, lease_s, settings.node_id, members, keys.accepted
    )


def check(
    settings: NodeSettings, configuration: Configuration, *, links: Links, addresses: Addresses
) -> Mapping[str, int]:
    """Check capabilities, devices and addresses of this machine.

    Returns:
        Which path (index of this node's addresses) runs over which device.

    Raises:
        StartupError: Something is missing, or in the way.
    """
    missing = [name for name in NEEDED_CAPABILITIES if name not in capabilities()]
    if missing:
        raise StartupError(
            tried="program the kernel",
            found=f"this process lacks {' and '.join(missing)}",
            to_do="run as root, or grant the capabilities (systemd: AmbientCapabilities=)",
        )
    names = links.names()
    for logical, device in settings.interfaces.items():
        if device not in names:
            raise StartupError(
                tried=f"use {device} as interface {logical!r}",
                found=f"no such interface; interfaces are {', '.join(names)}",
                to_do="correct [interfaces] in node.toml",
            )
    present = {name: {i.ip for i in addresses.present(name)} for name in names}
    # Before the journal is made, which keeps the name of the first node that opened it.
    for address in settings.myself.addresses:
        if not any(address in found for found in present.values()):
            raise StartupError(
                tried=f"run node {settings.myself.name!r} with its own address {address}",
                found="it is on no interface of this machine",
                to_do="correct node or [[peer]] in node.toml, or add the address to its device",
            )
    _warn_of_routes(settings, configuration, present)
    for vip in configuration.vips:
        own = settings.interfaces.get(vip.interface)
        for device in names:
            taken = {a.ip for a in vip.addresses} & present[device]
            if taken and device != own:
                raise StartupError(
                    tried=f"take the floating address {min(map(str, taken))} on {own}",
                    found=f"it is on {device} of this machine",
                    to_do=f"remove it: ip addr del {min(map(str, taken))} dev {device}",
                )
    return {
        device: path
        for path, address in enumerate(settings.myself.addresses)
        for device in names
        if address in present[device]
    }


def own_addresses(links: Links, addresses: Addresses) -> frozenset[Address]:
    """Return all addresses of this machine; floating ones may be among them."""
    return frozenset(i.ip for name in links.names() for i in addresses.present(name))


def conversation_of(
    settings: NodeSettings, *, links: Links, addresses: Addresses
) -> ControlTraffic:
    """Return how this node and its peers reach each other, with the devices of this machine.

    A peer is reached without a router if the network of the path's own address has it.
    """
    others = [peer.addresses for peer in settings.peers if peer.node_id != settings.node_id]
    present = [(name, found) for name in links.names() for found in addresses.present(name)]
    paths = []
    for number, own in enumerate(settings.myself.addresses):
        there = [a[number] for a in others if number < len(a) and a[number].version == own.version]
        for device, network in ((name, i.network) for name, i in present if i.ip == own):
            on_link = tuple(address for address in there if address in network)
            routed = tuple(address for address in there if address not in network)
            paths.append(ClusterPath(own, device, on_link, routed))
    return replace(settings.conversation, paths=tuple(paths))


def _warn_of_routes(
    settings: NodeSettings, configuration: Configuration, present: Mapping[str, set[Address]]
) -> None:
    """Say what the kernel will take away with the last address of a device: its routes."""
    floating = {a.ip for vip in configuration.vips for a in vip.addresses}
    for device in sorted(way_out() & set(settings.interfaces.values())):
        if not any(a.version == 4 for a in present[device] - floating):
            log.warning(
                "device=%s found='default route, and no IPv4 address of its own' to_do='add one: "
                "the kernel removes the route with the last floating address'", device,
            )  # fmt: skip


async def check_neighbours(settings: NodeSettings, configuration: Configuration) -> None:
    """Ask the networks whether a stranger has a floating address (IPv4).

    A peer may have it, being the holder; it is known by answering for its own
    address with the same link-layer address. All addresses of a device are asked for
    together, all devices at the same time.

    Raises:
        StartupError: Somebody else answers for a floating address.
    """
    loop = asyncio.get_running_loop()
    peers = {a for p in settings.peers for a in p.addresses if isinstance(a, IPv4Address)}
    floating: dict[str, list[IPv4Address]] = {}
    for vip in configuration.vips:
        device = settings.interfaces.get(vip.interface)
        addresses = [a.ip for a in vip.addresses if isinstance(a.ip, IPv4Address)]
        if addresses and device is not None:
            floating.setdefault(device, []).extend(addresses)
    asked = (
        loop.run_in_executor(None, who_answers, device, [*peers, *addresses])
        for device, addresses in floating.items()
    )
    answered = await asyncio.gather(*asked)
    for (device, addresses), answers in zip(floating.items(), answered, strict=True):
        known = {mac for address in peers for mac in answers.get(address, ())}
        for address in addresses:
            strangers = sorted(set(answers.get(address, ())) - known)
            if strangers:
                raise StartupError(
                    tried=f"use the floating address {address} on {device}",
                    found=f"{strangers[0]} answers for it and is none of the peers",
                    to_do="take it from that machine, or choose another address",
                )
