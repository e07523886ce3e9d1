"""Pass on what the kernel says about this node's devices."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial

from hanat.core.configuration import Address, Interface
from hanat.core.inputs import CarrierObserved, Input, RemovalObserved
from hanat.kernel.ports import AddressRemoved, CarrierChanged, Links
from hanat.net.udp import missing

log = logging.getLogger(__name__)

AGAIN_S = 0.5


class DeviceWatch:
    """Tells the core of logical interfaces what the kernel tells of devices.

    Args:
        links: The kernel.
        interfaces: Logical name to kernel device.
        feed: Takes inputs of the core.
        usable: Takes a device, and whether it has a carrier, before the core hears of it.
        own: Addresses of this node on its paths: what takes them away takes the path.
    """

    def __init__(
        self,
        links: Links,
        interfaces: Mapping[str, str],
        *,
        feed: Callable[[Input], None],
        usable: Callable[[str, bool], None],
        own: Collection[Address] = (),
    ) -> None:
        self._links, self._interfaces = links, interfaces
        self._feed, self._usable = feed, usable
        self._own, self._missing = frozenset(own), frozenset[Address]()
        self._again: asyncio.TimerHandle | None = None

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tell of all carriers once, and of what changes from here on."""
        self._loop, self._watch = loop, self._links.watch()
        loop.add_reader(self._watch.fileno(), self._read)
        for device in sorted(set(self._interfaces.values())):
            self._carrier(device, carrier=self._links.carrier(device))

    def close(self) -> None:
        """Stop."""
        if self._again is not None:
            self._again.cancel()
        self._loop.remove_reader(self._watch.fileno())
        self._watch.close()

    def _read(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None
        gone: dict[str, list[Interface]] = {}
        for change in self._watch.read():
            match change:
                case CarrierChanged(device, carrier):
                    self._carrier(device, carrier=carrier)
                case AddressRemoved(device, address):
                    gone.setdefault(device, []).append(address)
        for device, addresses in gone.items():  # a thousand of them are one input
            self._tell(device, partial(RemovalObserved, addresses=tuple(addresses)))
        if self._missing or any(a.ip in self._own for some in gone.values() for a in some):
            self._look_at_own()
        if self._watch.stale:
            self._again = self._loop.call_later(AGAIN_S, self._read)

    def _look_at_own(self) -> None:
        """Say which of this node's own addresses are gone or back; sockets on them go on then."""
        was, self._missing = self._missing, frozenset(missing(self._own))
        for address in sorted(self._missing - was, key=str):
            log.error(
                "own_address=%s found=removed to_do='add it again: its path is dead'", address
            )
        for address in sorted(was - self._missing, key=str):
            log.info("own_address=%s found=back", address)

    def _carrier(self, device: str, *, carrier: bool) -> None:
        self._usable(device, carrier)
        self._tell(device, partial(CarrierObserved, carrier=carrier))

    def _tell(self, device: str, said: Callable[[str], Input]) -> None:
        for logical, mapped in self._interfaces.items():
            if mapped == device:
                self._feed(said(logical))
