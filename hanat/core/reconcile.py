"""Which flows of a kernel's table no longer fit the rules.

Only the first packet of a flow meets the rules; what was decided then lasts as long as the flow.
A client of UDP that sends from one port for ever keeps the server that is gone, a flow that was
there before its masquerade leaves untranslated for ever, and so does one that came while another
program had flushed the ruleset. So after every change of the rules the holder goes through its
table and ends what would be decided otherwise today; the next packet is decided anew.

What becomes of the connections of a server that was removed is for its service to say
(`core.endings`): they are deleted, or reset, or kept. Not ended are TCP
connections of a server that has only left the rotation (weight 0): it drains.
Whether an untranslated flow passes hanat at all is not in its entry; the routing table tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from enum import Enum
from ipaddress import collapse_addresses
from typing import Any, NamedTuple

from hanat.core.configuration import (
    PROTOCOL_NUMBERS,
    Address,
    Configuration,
    Forward,
    Network,
    OnServerDown,
    RealServer,
    Sorry,
    VirtualService,
)
from hanat.core.endings import fate
from hanat.core.flows import (
    RECORD_V4,
    STATUS_DST_NAT,
    STATUS_EXPECTED,
    STATUS_SRC_NAT,
    awaits_reset,
    is_over,
)
from hanat.core.forward_policy import entry_devices
from hanat.core.notation import FAMILIES
from hanat.core.persistence import sticky_services
from hanat.core.services import Rotation
from hanat.core.sticky import StickyService

Range = tuple[bytes, bytes]  # packed addresses, both included
Endpoint = tuple[bytes, int]  # packed address and port, 0: that which the client asked for
DeviceOf = Callable[[bytes], str]
UDP = 17


class Misfit(Enum):
    """Why a flow does not fit."""

    ADDRESS = "address"  # the floating address is gone
    SERVICE = "service"  # it is not published any more
    SERVER = "server"  # the server is gone or, for UDP, gets no new clients
    RESET = "reset"  # the server is gone: the entry stays, and its client gets a reset
    MASQUERADE = "masquerade"  # nothing is masqueraded so any more
    UNTRANSLATED = "untranslated"  # a rule covers it
    FORBIDDEN = "forbidden"  # nothing lets it pass


_FATES = {
    OnServerDown.KEEP: None, OnServerDown.EXPIRE: Misfit.SERVER, OnServerDown.RESET: Misfit.RESET
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Servers:
    """Those of a service that exist, the sorry server too, and those that get new clients.

    Attributes:
        policy: What becomes of the connections of others; None: the usual of each protocol.
    """

    present: frozenset[Endpoint]
    rotation: frozenset[Endpoint]
    policy: OnServerDown | None = None


class Ports(NamedTuple):
    """A listen of a service; `servers` is shared by all of them."""

    first: int
    last: int
    servers: Servers


@dataclass(frozen=True, slots=True)
class Out:
    """A masquerade: networks by the devices `entry`, out by `device` as `source`."""

    networks: tuple[Range, ...]
    entry: frozenset[str]
    device: str
    source: bytes


@dataclass(frozen=True, slots=True)
class Rules:
    """What the ruleset of a configuration decides, as far as a flow's entry shows it.

    Attributes:
        addresses: Packed floating addresses.
        gone: Such as there were before.
        listens: By protocol number and packed address.
        masquerades: In the order of the ruleset.
        transits: Networks that are left alone.
        devices: Those of hanat.
        own: Packed addresses of this machine.
        closed: What no rule lets pass is dropped.
        sticky: Services with persistence.
    """

    addresses: frozenset[bytes] = frozenset()
    gone: frozenset[bytes] = frozenset()
    listens: Mapping[tuple[int, bytes], tuple[Ports, ...]] = field(default_factory=dict)
    masquerades: tuple[Out, ...] = ()
    transits: tuple[Range, ...] = ()
    devices: frozenset[str] = frozenset()
    own: frozenset[bytes] = frozenset()
    closed: bool = True
    sticky: tuple[StickyService, ...] = ()

    def after(self, before: Rules) -> Rules:
        """Return the same rules, with what is gone since others."""
        return replace(self, gone=(before.gone | before.addresses) - self.addresses)

    def misfit(self, record: bytes, device_of: DeviceOf) -> Misfit | None:
        """Return why a flow no longer fits, None if it does.

        Args:
            record: In the layout of `core.flows`.
            device_of: Returns the device that the routing table names for a packed address;
                ``lo`` for this machine's own, empty if there is none.
        """
        status = record[-17]
        if is_over(record) or status & STATUS_EXPECTED:  # a helper decides on those
            return None
        if awaits_reset(record):
            return None
        size = 4 if len(record) == RECORD_V4.size else 16
        asked, back = record[size : 2 * size], record[3 * size : 4 * size]
        translated = status & STATUS_DST_NAT, status & STATUS_SRC_NAT
        if (translated[0] and asked in self.gone) or (translated[1] and back in self.gone):
            return Misfit.ADDRESS
        if translated[0]:
            return self._asked(record, size) if asked in self.addresses else None
        client = record[:size]
        if translated[1]:
            fits = back not in self.addresses or any(
                back == out.source and _within(client, out.networks) for out in self.masquerades
            )
            return None if fits else Misfit.MASQUERADE
        return self._untranslated(record, client, asked, device_of)

    def _ports(self, record: bytes, size: int) -> Ports | None:
        asked, port = record[size : 2 * size], _port(record, 4 * size + 2)
        listens = self.listens.get((record[-6], asked), ())
        return next((one for one in listens if one.first <= port <= one.last), None)

    def _asked(self, record: bytes, size: int) -> Misfit | None:
        """Judge a flow that was translated to a server."""
        ports = self._ports(record, size)
        if ports is None:
            return Misfit.SERVICE
        server, port = record[2 * size : 3 * size], _port(record, 4 * size + 4)
        wanted = {(server, port)}
        if port == _port(record, 4 * size + 2):
            wanted.add((server, 0))
        servers = ports.servers
        # With nobody in rotation there is no better server.
        udp = record[-6] == UDP and servers.rotation
        if not wanted.isdisjoint(servers.present):
            return Misfit.SERVER if udp and wanted.isdisjoint(servers.rotation) else None
        return _FATES[fate(servers.policy, record, self.own | self.addresses)]

    def _untranslated(
        self, record: bytes, client: bytes, asked: bytes, device_of: DeviceOf
    ) -> Misfit | None:
        if asked in self.addresses:
            return Misfit.UNTRANSLATED if self._ports(record, len(asked)) else None
        if client in self.own or asked in self.own:
            return None
        if _within(client, self.transits) or _within(asked, self.transits):
            return None
        to = device_of(asked)
        if to not in self.devices:
            return None
        by = device_of(client)
        for out in self.masquerades:
            if out.device == to and by in out.entry and _within(client, out.networks):
                return Misfit.UNTRANSLATED
        forbidden = self.closed and by in self.devices and by != to
        return Misfit.FORBIDDEN if forbidden else None

    def to_document(self) -> dict[str, Any]:
        """Return the rules as values that JSON can carry."""
        every = dict.fromkeys(p.servers for listens in self.listens.values() for p in listens)
        numbers = {servers: number for number, servers in enumerate(every)}
        return {
            "addresses": [a.hex() for a in self.addresses],
            "servers": [
                [(a.hex(), port, (a, port) in servers.rotation) for a, port in servers.present]
                for servers in every
            ],
            "policies": [servers.policy and servers.policy.value for servers in every],
            "listens": [
                (protocol, address.hex(), ports.first, ports.last, numbers[ports.servers])
                for (protocol, address), listens in self.listens.items()
                for ports in listens
            ],
            "masquerades": [
                (_ranges_out(out.networks), sorted(out.entry), out.device, out.source.hex())
                for out in self.masquerades
            ],
            "transits": _ranges_out(self.transits),
            "devices": sorted(self.devices),
            "own": [a.hex() for a in self.own],
            "closed": self.closed,
            "sticky": [service.to_document() for service in self.sticky],
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Rules:
        """Return what `to_document` made a document of; nothing is gone yet."""
        servers = list(map(_servers_in, document["servers"], document["policies"]))
        listens: dict[tuple[int, bytes], tuple[Ports, ...]] = {}
        for protocol, address, first, last, number in document["listens"]:
            place = (protocol, bytes.fromhex(address))
            listens[place] = (*listens.get(place, ()), Ports(first, last, servers[number]))
        return cls(
            addresses=frozenset(map(bytes.fromhex, document["addresses"])),
            listens=listens,
            masquerades=tuple(
                Out(_ranges_in(networks), frozenset(entry), device, bytes.fromhex(source))
                for networks, entry, device, source in document["masquerades"]
            ),
            transits=_ranges_in(document["transits"]),
            devices=frozenset(document["devices"]),
            own=frozenset(map(bytes.fromhex, document["own"])),
            closed=document["closed"],
            sticky=tuple(map(StickyService.from_document, document["sticky"])),
        )


def rules_of(
    configuration: Configuration,
    devices: Mapping[str, str],
    own: Iterable[Address],
    rotations: Mapping[str, Rotation] | None = None,
) -> Rules:
    """Return what a configuration decides on a node.

    Which servers a UDP client may stay at follows from their configured weights: one that is down
    or in drain keeps those it has, or its service has ended them. But if the rotation in force
    is empty, because all are down, no server is better than the one that a client has.

    Args:
        configuration: In force.
        devices: Kernel name of each logical interface of the configuration.
        own: Addresses of the node.
        rotations: In force, by name of the service; one without has all its servers.
    """
    rotations = rotations or {}
    listens: dict[tuple[int, bytes], tuple[Ports, ...]] = {}
    for service in configuration.services:
        rotation = rotations.get(service.name)
        names = None if rotation is None else {server.name for server in rotation}
        servers = {version: _servers_of(service, version, names) for version in FAMILIES}
        for listen in service.listens:
            place = (PROTOCOL_NUMBERS[listen.protocol], listen.address.packed)
            ports = Ports(listen.first_port, listen.last_port, servers[listen.address.version])
            listens[place] = (*listens.get(place, ()), ports)
    transits = (network for transit in configuration.transits for network in transit.networks)
    return Rules(
        addresses=frozenset(a.ip.packed for vip in configuration.vips for a in vip.addresses),
        listens=listens,
        masquerades=tuple(
            Out(
                _ranges(n for n in masquerade.networks if n.version == source.version),
                frozenset(entry_devices(configuration, masquerade, devices)),
                devices[masquerade.interface],
                source.packed,
            )
            for masquerade in configuration.masquerades
            for source in masquerade.sources
        ),
        transits=_ranges(transits),
        devices=frozenset(devices[name] for name in configuration.interfaces),
        own=frozenset(address.packed for address in own),
        closed=configuration.forward is Forward.SERVICES,
        sticky=sticky_services(configuration),
    )


def _servers_of(service: VirtualService, version: int, names: Set[str] | None) -> Servers:
    servers = [server for server in service.servers if server.address.version == version]
    sorry = [sorry for sorry in service.sorry if sorry.address.version == version]
    weighed = [server for server in servers if server.weight]
    if names is not None and names.isdisjoint(server.name for server in weighed):
        weighed = []
    return Servers(_endpoints([*servers, *sorry]), _endpoints(weighed), service.on_server_down)


def _endpoints(some: Iterable[RealServer | Sorry]) -> frozenset[Endpoint]:
    return frozenset((one.address.packed, one.port or 0) for one in some)


def _ranges(networks: Iterable[Network]) -> tuple[Range, ...]:
    by_version: dict[int, list[Any]] = {}
    for network in networks:
        by_version.setdefault(network.version, []).append(network)
    return tuple(
        (network.network_address.packed, network.broadcast_address.packed)
        for some in by_version.values()
        for network in collapse_addresses(some)
    )


def _within(address: bytes, ranges: Iterable[Range]) -> bool:
    return any(len(first) == len(address) and first <= address <= last for first, last in ranges)


def _port(record: bytes, place: int) -> int:
    return int.from_bytes(record[place : place + 2], "big")


def _ranges_out(ranges: Iterable[Range]) -> list[tuple[str, str]]:
    return [(first.hex(), last.hex()) for first, last in ranges]


def _ranges_in(ranges: Iterable[tuple[str, str]]) -> tuple[Range, ...]:
    return tuple((bytes.fromhex(first), bytes.fromhex(last)) for first, last in ranges)


def _servers_in(document: Iterable[tuple[str, int, bool]], policy: str | None) -> Servers:
    found = [((bytes.fromhex(address), port), rotates) for address, port, rotates in document]
    return Servers(
        frozenset(one for one, _ in found),
        frozenset(one for one, rotates in found if rotates),
        None if policy is None else OnServerDown(policy),
    )
