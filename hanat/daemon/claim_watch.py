"""Tell the core when another machine claims a floating address.

However many claims come, this process is woken once a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from hanat.core.configuration import Address, FloatingAddress
from hanat.core.inputs import ClaimHeard, Input
from hanat.errors import KernelError
from hanat.kernel.ports import Claims

log = logging.getLogger(__name__)

PAUSE_S = 1.0


class ClaimWatch:
    """Hears claims.

    Args:
        claims: The kernel.
        vips: Returns the floating addresses of the configuration in force.
        feed: Takes inputs of the core.
    """

    def __init__(
        self,
        claims: Claims,
        vips: Callable[[], tuple[FloatingAddress, ...]],
        feed: Callable[[Input], None],
    ) -> None:
        self._claims, self._vips, self._feed = claims, vips, feed
        self._watched: tuple[Address, ...] | None = None
        self._descriptors: tuple[int, ...] = ()
        self._timer: asyncio.TimerHandle | None = None
        self._said = ""

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Listen from now on."""
        self._loop = loop
        self._listen()

    def close(self) -> None:
        """Stop."""
        if self._timer is not None:
            self._timer.cancel()
        self._ignore()
        self._claims.close()

    def _listen(self) -> None:
        """Listen for the addresses of now; come back to look whether they changed."""
        self._ignore()
        wanted = tuple(address.ip for vip in self._vips() for address in vip.addresses)
        try:
            if wanted != self._watched:
                self._watched, self._descriptors = wanted, self._claims.watch(wanted)
        except KernelError as error:
            self._watched, self._descriptors = None, ()
            if str(error) != self._said:
                self._said = str(error)
                log.warning("claims found=%r", self._said)
        for descriptor in self._descriptors:
            self._loop.add_reader(descriptor, self._heard)
        self._timer = self._loop.call_later(PAUSE_S, self._listen)

    def _ignore(self) -> None:
        for descriptor in self._descriptors:
            self._loop.remove_reader(descriptor)

    def _heard(self) -> None:
        self._ignore()  # until the timer
        if self._claims.read():
            self._feed(ClaimHeard())
