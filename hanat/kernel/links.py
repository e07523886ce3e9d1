"""Watch the carriers of devices.

A router without carrier on one side must not hold the addresses of either, so
the loss of a carrier is an event, not something to be polled for.

Carrier means the kernel's ``RUNNING`` and ``LOWER_UP`` together: the first is
false while a bond or bridge member still negotiates (RFC 2863), the second
while the medium is missing.

The kernel looks at carriers when they change, but at most once a second unless
somebody would lose packets (``net/core/link_watch.c``): a cable that is out for
less may never be told of.
"""

from __future__ import annotations

import errno
import socket
import struct

from hanat.errors import AbsentObjectError
from hanat.kernel.netlink import (
    HEADER,
    RECEIVE_BYTES,
    NetlinkClient,
    attributes,
    messages,
    open_socket,
)
from hanat.kernel.ports import CarrierChanged
from hanat.kernel.refusals import device_names, index_of, refused

# From <linux/rtnetlink.h>, <linux/if_link.h>, <net/if.h>.
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTMGRP_LINK = 1
IFLA_IFNAME = 3
IFF_UP, IFF_RUNNING, IFF_LOWER_UP = 0x1, 0x40, 0x10000
CARRIER = IFF_UP | IFF_RUNNING | IFF_LOWER_UP

INTERFACE = struct.Struct("=BxHiII")  # family, hardware type, index, flags, change mask


class KernelLinks:
    """Implements `ports.Links` over rtnetlink."""

    def __init__(self) -> None:
        self._netlink = NetlinkClient(socket.NETLINK_ROUTE)

    def close(self) -> None:
        """Release the descriptor; the next call opens another."""
        self._netlink.close()

    def names(self) -> tuple[str, ...]:
        """See `ports.Links.names`."""
        return device_names()

    def carrier(self, device: str) -> bool:
        """See `ports.Links.carrier`."""
        operation = "ask for the carrier"
        body = INTERFACE.pack(0, 0, index_of(device, operation=operation), 0, 0)
        answer = self._netlink.get(RTM_GETLINK, body, operation=operation, target=device)
        _, _, flags = _interface_in(answer, 0, len(answer))
        return flags & CARRIER == CARRIER

    def watch(self) -> KernelLinkWatch:
        """See `ports.Links.watch`."""
        return KernelLinkWatch()


class KernelLinkWatch:
    """Implements `ports.LinkWatch`: the kernel's announcements, less what is no change."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[str, bool]] = {}
        try:
            self._socket = open_socket(socket.NETLINK_ROUTE, groups=RTMGRP_LINK)
        except OSError as error:
            raise refused(
                error.errno or errno.EIO, operation="watch carriers", target="all interfaces"
            ) from error
        self._socket.setblocking(False)  # noqa: FBT003 - the library's signature
        # After the socket is bound: a change in between comes twice, never not at all.
        self._resync()

    def fileno(self) -> int:
        """See `ports.LinkWatch.fileno`."""
        return self._socket.fileno()

    def close(self) -> None:
        """See `ports.LinkWatch.close`."""
        self._socket.close()

    def read(self) -> list[CarrierChanged]:
        """See `ports.LinkWatch.read`."""
        found: list[CarrierChanged] = []
        while self._socket.fileno() >= 0:
            try:
                buffer = self._socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise refused(
                        error.errno or errno.EIO, operation="read carriers", target="rtnetlink"
                    ) from error
                found += self._resync()
                continue
            for kind, start, end in messages(buffer):
                found += self._observed(kind, buffer, start, end)
        return found

    def _observed(self, kind: int, buffer: bytes, start: int, end: int) -> list[CarrierChanged]:
        if kind not in {RTM_NEWLINK, RTM_DELLINK}:
            return []
        # A bridge tells of its ports in the same group, and of a port that leaves it
        # as if the device were deleted.
        if buffer[start + HEADER.size] != socket.AF_UNSPEC:
            return []
        index, name, flags = _interface_in(buffer, start, end)
        if kind == RTM_DELLINK:
            return self._vanished(index)
        return self._became(index, name, carrier=flags & CARRIER == CARRIER)

    def _became(self, index: int, name: str, *, carrier: bool) -> list[CarrierChanged]:
        found = []
        was_name, was_carrier = self._known.get(index, (name, False))
        if was_name != name:
            found += self._vanished(index)
            was_carrier = False
        self._known[index] = (name, carrier)
        if carrier != was_carrier:
            found.append(CarrierChanged(device=name, carrier=carrier))
        return found

    def _vanished(self, index: int) -> list[CarrierChanged]:
        name, carrier = self._known.pop(index, ("", False))
        return [CarrierChanged(device=name, carrier=False)] if carrier else []

    def _resync(self) -> list[CarrierChanged]:
        """Ask for all devices and return what differs from what was known."""
        netlink = NetlinkClient(socket.NETLINK_ROUTE)
        try:
            answers = netlink.dump(
                RTM_GETLINK, INTERFACE.pack(0, 0, 0, 0, 0),
                operation="list devices", target="all interfaces",
            )  # fmt: skip
        except AbsentObjectError:
            answers = []
        finally:
            netlink.close()
        found, seen = [], set()
        for answer in answers:
            index, name, flags = _interface_in(answer, 0, len(answer))
            seen.add(index)
            found += self._became(index, name, carrier=flags & CARRIER == CARRIER)
        for index in self._known.keys() - seen:
            found += self._vanished(index)
        return found


def _interface_in(buffer: bytes, start: int, end: int) -> tuple[int, str, int]:
    """Return index, name and flags."""
    _, _, index, flags, _ = INTERFACE.unpack_from(buffer, start + HEADER.size)
    name = ""
    for kind, first, last in attributes(buffer, start + HEADER.size + INTERFACE.size, end):
        if kind == IFLA_IFNAME:
            name = bytes(buffer[first:last]).rstrip(b"\0").decode()
            break
    return index, name, flags
