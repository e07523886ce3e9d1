"""On which device each floating address goes, and under which alias."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count

from hanat.core.configuration import FloatingAddress, Interface

LABEL_BYTES_MAX = 15  # IFNAMSIZ less the closing zero


@dataclass(frozen=True, slots=True, order=True)
class Placement:
    """A floating address on a device.

    Attributes:
        device: Kernel name, ``eth0``.
        address: With prefix length.
        label: Alias as shown by ``ip addr``, ``eth0:1``; IPv4 only, at most
            `LABEL_BYTES_MAX` bytes.
    """

    device: str
    address: Interface
    label: str = ""


def placements(
    vips: tuple[FloatingAddress, ...],
    interfaces: Mapping[str, str],
    labels: Labels | None = None,
) -> list[Placement]:
    """Return where each floating address goes, IPv4 with an alias label ``eth0:1``.

    Args:
        vips: All of a configuration, or some.
        interfaces: Kernel name of each logical interface.
        labels: Those that are known; without them the first address gets the first one.
    """
    labels = Labels() if labels is None else labels
    return [
        Placement(device, address, labels.of(device, address) if address.version == 4 else "")
        for vip in vips
        # One without a device: InstallRuleset says so, and the node is not eligible.
        if (device := interfaces.get(vip.interface)) is not None
        for address in vip.addresses
    ]


class Labels:
    """Which alias each address has: the same as long as it is configured, and nobody else's."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, Interface], int] = {}
        self._free: dict[str, Iterator[int]] = {}

    def configure(self, vips: Iterable[FloatingAddress], interfaces: Mapping[str, str]) -> None:
        """Forget the addresses that are not configured any more: their numbers are free."""
        places = {(interfaces.get(vip.interface), a) for vip in vips for a in vip.addresses}
        self._numbers = {place: n for place, n in self._numbers.items() if place in places}
        self._free.clear()

    def of(self, device: str, address: Interface) -> str:
        """Return the alias of an IPv4 address; empty if the device's name is too long for one."""
        place = device, address
        if place not in self._numbers:
            self._numbers[place] = next(self._of_device(device))
        label = f"{device}:{self._numbers[place]}"
        return label if len(label) <= LABEL_BYTES_MAX else ""

    def _of_device(self, device: str) -> Iterator[int]:
        """Return the numbers that no address of a device has."""
        if device not in self._free:
            taken = {n for (name, _), n in self._numbers.items() if name == device}
            self._free[device] = (n for n in count(1) if n not in taken)
        return self._free[device]
