"""From names of devices to their indexes, asked so that a loop under a lease may ask.

By name the kernel would look for a module first if there is no such device (``dev_load``, to a
caller with CAP_NET_ADMIN), which can take long. The name of an index it tells at once, without a
lock. So an index that is known is asked whether it has its name still; only if not, all devices are
listed, once a second at most.

Source: netdevice(7), SIOCGIFNAME; ``net/core/dev_ioctl.c``.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import time
from collections.abc import Iterable
from contextlib import suppress

SIOCGIFNAME = 0x8910  # linux/sockios.h
LIST_S = 1.0
_REQUEST = struct.Struct("=16si20x")  # struct ifreq: name, index


class DeviceIndexes:
    """A socket of the network namespace of its first use."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._known: dict[str, int] = {}
        self._listed_at = -LIST_S

    def close(self) -> None:
        """Release the descriptor; the next call opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._known, self._listed_at = {}, -LIST_S

    def of(self, devices: Iterable[str]) -> tuple[int, ...]:
        """Return the indexes of those devices that are there; of a new one within a second.

        Without a descriptor to ask with it is none of them.
        """
        try:
            opened = self._opened()
        except OSError:
            return ()
        found = {name: self._index(name, opened) for name in devices}
        now = time.monotonic()
        if None in found.values() and self._listed_at + LIST_S <= now:
            self._listed_at = now
            with suppress(OSError):  # as if it were not there; asked again in a second
                self._known = {name: index for index, name in socket.if_nameindex()}
            found = {name: self._known.get(name) for name in found}
        return tuple(index for index in found.values() if index is not None)

    def _opened(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        return self._socket

    def _index(self, name: str, opened: socket.socket) -> int | None:
        index = self._known.get(name)
        if index is None:
            return None
        try:
            answer = fcntl.ioctl(opened, SIOCGIFNAME, _REQUEST.pack(b"", index))
        except OSError:
            return None
        return index if answer[:16].rstrip(b"\0") == name.encode() else None
