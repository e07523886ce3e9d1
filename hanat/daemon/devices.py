"""Pass on what the kernel says about this node's devices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from hanat.core.inputs import CarrierObserved, Input
from hanat.kernel.ports import Links


class DeviceWatch:
    """Tells the core of logical interfaces what the kernel tells of devices.

    Args:
        links: The kernel.
        interfaces: Logical name to kernel device.
        feed: Takes inputs of the core.
        usable: Takes a device, and whether it has a carrier, before the core hears of it.
    """

    def __init__(
        self,
        links: Links,
        interfaces: Mapping[str, str],
        *,
        feed: Callable[[Input], None],
        usable: Callable[[str, bool], None],
    ) -> None:
        self._links, self._interfaces = links, interfaces
        self._feed, self._usable = feed, usable

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tell of all carriers once, and of what changes from here on."""
        self._loop, self._watch = loop, self._links.watch()
        loop.add_reader(self._watch.fileno(), self._read)
        for device in sorted(set(self._interfaces.values())):
            self._carrier(device, carrier=self._links.carrier(device))

    def close(self) -> None:
        """Stop."""
        self._loop.remove_reader(self._watch.fileno())
        self._watch.close()

    def _read(self) -> None:
        for change in self._watch.read():
            self._carrier(change.device, carrier=change.carrier)

    def _carrier(self, device: str, *, carrier: bool) -> None:
        self._usable(device, carrier)
        for logical, mapped in self._interfaces.items():
            if mapped == device:
                self._feed(CarrierObserved(logical, carrier))
