"""The floating addresses of a file: what others refer to, as far as it is known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hanat.config.document import Findings, Location, kept, nearest, whole
from hanat.config.models import VipTable
from hanat.core.configuration import Address, FloatingAddress, Interface


@dataclass(frozen=True, slots=True)
class Vip:
    """A floating address with what is known of it; incomplete after a problem."""

    value: FloatingAddress
    complete: bool


class FloatingAddresses:
    """All vips by name, and all their addresses.

    Args:
        findings: Gets what is wrong.
        all_sound: Whether no vip was taken out of the file, so that absence means something.
    """

    def __init__(self, findings: Findings, *, all_sound: bool) -> None:
        self._findings = findings
        self.all_sound = all_sound
        self.vips: dict[str, Vip] = {}
        self.owners: dict[Address, str] = {}  # to the vip's name

    @property
    def complete(self) -> bool:
        """Whether every floating address of the file is known."""
        return self.all_sound and all(vip.complete for vip in self.vips.values())

    @property
    def interfaces(self) -> frozenset[str]:
        """Logical interfaces that vips are on."""
        return frozenset(vip.value.interface for vip in self.vips.values())

    def know(self, vips: Iterable[FloatingAddress]) -> None:
        """Take those of a configuration that was read before."""
        for vip in vips:
            self.vips[vip.name] = Vip(vip, complete=True)
            self.owners |= {address.ip: vip.name for address in vip.addresses}

    def read(self, tables: list[tuple[int, VipTable]]) -> None:
        """Read the tables of a file, each with its index."""
        for i, table in tables:
            if table.name in self.vips:
                self._findings.add(("vip", i, "name"), f'another vip is named "{table.name}"')
                continue
            if table.address == []:
                self._findings.add(("vip", i, "address"), "needs at least one address")
            self.vips[table.name] = Vip(
                FloatingAddress(table.name, table.interface or "", self._addresses(i, table)),
                complete=whole(table.address),
            )

    def _addresses(self, i: int, table: VipTable) -> tuple[Interface, ...]:
        addresses: dict[int, Interface] = {}
        listed: list[tuple[int, Interface]] = kept(table.address)
        for j, address in listed:
            where: Location = ("vip", i, "address", j)
            if address.version in addresses:
                self._findings.add(where, f"a vip has at most one IPv{address.version} address")
            elif address.ip in self.owners:
                self._findings.add(
                    where, f'vip "{self.owners[address.ip]}" has {address.ip} already'
                )
            else:
                addresses[address.version] = address
                self.owners[address.ip] = table.name
        return tuple(addresses.values())

    def find(self, name: str, where: Location) -> Vip | None:
        """Return the vip of that name; that there is none is a problem of the place given."""
        vip = self.vips.get(name)
        if vip is None and self.all_sound:
            self._findings.add(where, f'there is no vip "{name}"; {nearest(name, self.vips)}')
        return vip
