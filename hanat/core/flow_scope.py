"""Which flows are replicated: those of the floating addresses, as their service wants it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

from hanat.core.configuration import PROTOCOL_NUMBERS, Address, Configuration, Replicate
from hanat.core.crowds import Crowd
from hanat.core.flows import RECORD_V4
from hanat.core.service_limits import crowds_of

ESTABLISHED = Replicate()
Place = tuple[int, bytes]  # protocol number, packed address
Ports = tuple[int, int, Replicate]  # first, last


@dataclass(frozen=True, slots=True)
class ReplicationScope:
    """What of a kernel's table counts; everything else is left alone.

    Attributes:
        addresses: Packed floating addresses: a flow is asked of one, or answered to one.
        services: Of those whose policy is not the usual one, where they listen.
        ports: First and last port of every listen.
        own: Packed addresses of this node: their flows are its kernel's alone.
        crowds: Of whose clients to know those that have too many connections; nothing of this
            is replicated, so another one changes nothing of what is captured.
    """

    addresses: frozenset[bytes] = frozenset()
    services: Mapping[Place, tuple[Ports, ...]] = field(default_factory=dict)
    ports: Mapping[Place, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    own: frozenset[bytes] = frozenset()
    crowds: tuple[Crowd, ...] = field(default=(), compare=False)

    @property
    def unassured(self) -> bool:
        """Whether a service wants flows that were not answered."""
        policies = (policy for ports in self.services.values() for _, _, policy in ports)
        return any(policy.unassured for policy in policies)

    def covered(self, records: Sequence[bytes]) -> list[bytes]:
        """Return the flows that are ours."""
        ours = self.addresses
        return [
            r
            for r in records
            if (
                (r[4:8] in ours or r[12:16] in ours)
                if len(r) == RECORD_V4.size
                else (r[16:32] in ours or r[48:64] in ours)
            )
        ]

    def foreign(self, records: list[bytes]) -> list[bytes]:
        """Return the flows that do not begin or end on this node.

        A program here that asks a floating address has an entry of its own, which the holder's,
        with its translation, must not replace: its packets would go to a server past the holder.
        """
        own = self.own
        if not own:
            return records
        return [
            r
            for r in records
            if not (
                (r[0:4] in own or r[8:12] in own)
                if len(r) == RECORD_V4.size
                else (r[0:16] in own or r[32:48] in own)
            )
        ]

    def policy(self, record: bytes) -> Replicate:
        """Return what the service of a flow wants."""
        if not self.services:
            return ESTABLISHED
        is_v4 = len(record) == RECORD_V4.size
        address = record[4:8] if is_v4 else record[16:32]
        port = int.from_bytes(record[18:20] if is_v4 else record[66:68], "big")
        for first, last, policy in self.services.get((record[-6], address), ()):
            if first <= port <= last:
                return policy
        return ESTABLISHED

    def to_document(self) -> dict[str, Any]:
        """Return the scope as values that JSON can carry."""
        services = [
            (protocol, address.hex(), first, last, *astuple(policy))
            for (protocol, address), ports in self.services.items()
            for first, last, policy in ports
        ]
        return {
            "addresses": sorted(a.hex() for a in self.addresses),
            "own": sorted(a.hex() for a in self.own),
            "services": services,
            "ports": [
                (protocol, address.hex(), first, last)
                for (protocol, address), ports in self.ports.items()
                for first, last in ports
            ],
            "crowds": [crowd.to_document() for crowd in self.crowds],
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> ReplicationScope:
        """Return what `to_document` made a document of."""
        services: dict[Place, tuple[Ports, ...]] = {}
        for protocol, address, first, last, *policy in document["services"]:
            place = (protocol, bytes.fromhex(address))
            services[place] = (*services.get(place, ()), (first, last, Replicate(*policy)))
        ports: dict[Place, tuple[tuple[int, int], ...]] = {}
        for protocol, address, first, last in document["ports"]:
            place = (protocol, bytes.fromhex(address))
            ports[place] = (*ports.get(place, ()), (first, last))
        addresses, own = (frozenset(map(bytes.fromhex, document[k])) for k in ("addresses", "own"))
        crowds = tuple(map(Crowd.from_document, document["crowds"]))
        return cls(addresses, services, ports, own, crowds)


def scope_of(configuration: Configuration, own: Iterable[Address] = ()) -> ReplicationScope:
    """Return what a configuration replicates on a node with these addresses of its own."""
    services: dict[Place, tuple[Ports, ...]] = {}
    every: dict[Place, tuple[tuple[int, int], ...]] = {}
    for service in configuration.services:
        for listen in service.listens:
            place = (PROTOCOL_NUMBERS[listen.protocol], listen.address.packed)
            ports = (listen.first_port, listen.last_port)
            every[place] = (*every.get(place, ()), ports)
            if service.replicate != ESTABLISHED:
                services[place] = (*services.get(place, ()), (*ports, service.replicate))
    addresses = frozenset(
        address.ip.packed for vip in configuration.vips for address in vip.addresses
    )
    foreign = frozenset(a.packed for a in own) - addresses
    return ReplicationScope(addresses, services, every, foreign, crowds_of(configuration))
