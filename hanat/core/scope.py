"""Which flows are replicated: those of the floating addresses, as their service wants it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

from hanat.core.configuration import PROTOCOL_NUMBERS, Configuration, Replicate
from hanat.core.flows import RECORD_V4

ESTABLISHED = Replicate()
Place = tuple[int, bytes]  # protocol number, packed address
Ports = tuple[int, int, Replicate]  # first, last


@dataclass(frozen=True, slots=True)
class Scope:
    """What of a kernel's table counts; everything else is left alone.

    Attributes:
        addresses: Packed floating addresses: a flow is asked of one, or answered to one.
        services: Of those whose policy is not the usual one, where they listen.
    """

    addresses: frozenset[bytes] = frozenset()
    services: Mapping[Place, tuple[Ports, ...]] = field(default_factory=dict)

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
        return {"addresses": sorted(a.hex() for a in self.addresses), "services": services}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Scope:
        """Return what `to_document` made a document of."""
        services: dict[Place, tuple[Ports, ...]] = {}
        for protocol, address, first, last, *policy in document["services"]:
            place = (protocol, bytes.fromhex(address))
            services[place] = (*services.get(place, ()), (first, last, Replicate(*policy)))
        return cls(frozenset(map(bytes.fromhex, document["addresses"])), services)


def scope_of(configuration: Configuration) -> Scope:
    """Return what a configuration replicates."""
    services: dict[Place, tuple[Ports, ...]] = {}
    for service in configuration.services:
        if service.replicate == ESTABLISHED:
            continue
        for listen in service.listens:
            place = (PROTOCOL_NUMBERS[listen.protocol], listen.address.packed)
            ports = (listen.first_port, listen.last_port, service.replicate)
            services[place] = (*services.get(place, ()), ports)
    addresses = frozenset(
        address.ip.packed for vip in configuration.vips for address in vip.addresses
    )
    return Scope(addresses, services)
