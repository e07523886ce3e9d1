"""Watch the carriers of devices, and addresses that are taken off them.

A router without carrier on one side must not hold the addresses of either, so
the loss of a carrier is an event, not something to be polled for.

Carrier means the kernel's ``RUNNING`` and ``LOWER_UP`` together: the first is
false while a bond or bridge member still negotiates (RFC 2863), the second
while the medium is missing.

The kernel looks at carriers when they change, but at most once a second unless
somebody would lose packets (``net/core/link_watch.c``): a cable that is out for
less may never be told of.

Of addresses the kernel tells each addition and removal, the removals by this process
too. When it had to drop messages, both are asked for anew and compared.
"""

from __future__ import annotations

import errno
import logging
import mmap
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Interface, IPv6Interface

from hanat.core.configuration import Interface
from hanat.errors import AbsentObjectError, KernelError
from hanat.kernel.kernel_errors import device_names, index_of, refused
from hanat.kernel.neighbour_probe import Inquiry
from hanat.kernel.netlink import (
    HEADER,
    RECEIVE_BYTES,
    NetlinkClient,
    attributes,
    messages,
    open_socket,
)
from hanat.kernel.ports import AddressRemoved, CarrierChanged, LinkChange

complaints = logging.getLogger("hanat.complaints")

READS_MAX = 256  # of one turn, 20 us each: other programs may change devices without end

# From <linux/rtnetlink.h>, <linux/if_link.h>, <linux/if_addr.h>, <net/if.h>.
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100
IFLA_IFNAME, IFLA_STATS64 = 3, 23
IFA_ADDRESS, IFA_LOCAL = 1, 2
IFF_UP, IFF_RUNNING, IFF_LOWER_UP = 0x1, 0x40, 0x10000
CARRIER = IFF_UP | IFF_RUNNING | IFF_LOWER_UP

INTERFACE = struct.Struct("=BxHiII")  # family, hardware type, index, flags, change mask
ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index

Place = tuple[int, int, bytes]
"""Index of a device, prefix length and packed address on it: a thousand come at once, and most
are never looked at."""


class KernelLinks:
    """Implements `ports.Links` over rtnetlink."""

    def __init__(self) -> None:
        self._netlink = NetlinkClient(socket.NETLINK_ROUTE)
        self._inquiries: dict[str, Inquiry] = {}  # device → what its hosts are asked

    def close(self) -> None:
        """Release the descriptors; the next call opens others."""
        self._netlink.close()
        for device in [*self._inquiries]:
            self.ask_no_more(device)

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

    def received(self, device: str) -> int:
        """See `ports.Links.received`."""
        operation = "ask for counters"
        body = INTERFACE.pack(0, 0, index_of(device, operation=operation), 0, 0)
        answer = self._netlink.get(RTM_GETLINK, body, operation=operation, target=device)
        for kind, first, _ in attributes(answer, HEADER.size + INTERFACE.size, len(answer)):
            if kind == IFLA_STATS64:  # the first one is rx_packets
                return int.from_bytes(answer[first : first + 8], sys.byteorder)
        return 0

    def ask(self, device: str) -> int:
        """See `ports.Links.ask`."""
        return self._inquiries.setdefault(device, Inquiry(device)).ask(self._netlink)

    def answered(self, device: str) -> bool:
        """See `ports.Links.answered`."""
        inquiry = self._inquiries.get(device)
        return inquiry is not None and inquiry.answered()

    def ask_no_more(self, device: str) -> None:
        """See `ports.Links.ask_no_more`."""
        if inquiry := self._inquiries.pop(device, None):
            inquiry.close()

    def watch(self) -> KernelLinkWatch:
        """See `ports.Links.watch`."""
        return KernelLinkWatch()


class KernelLinkWatch:
    """Implements `ports.LinkWatch`: the kernel's announcements, less what is no change."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[str, bool]] = {}
        self._places: set[Place] = set()
        # Mapped: what nothing was received into is no memory.
        self._room = memoryview(mmap.mmap(-1, RECEIVE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        self.stale = False
        groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR
        try:
            self._socket = open_socket(socket.NETLINK_ROUTE, groups=groups)
        except OSError as error:
            raise refused(
                error.errno or errno.EIO, operation="watch devices", target="all interfaces"
            ) from error
        self._socket.setblocking(False)  # noqa: FBT003 - the library's signature
        # After the socket is bound: a change in between comes twice, never not at all.
        self._resync()
        self._places = _all_places()

    def fileno(self) -> int:
        """See `ports.LinkWatch.fileno`."""
        return self._socket.fileno()

    def close(self) -> None:
        """See `ports.LinkWatch.close`."""
        self._socket.close()

    def read(self) -> list[LinkChange]:
        """See `ports.LinkWatch.read`."""
        found: list[CarrierChanged] = []
        gone: dict[Place, None] = {}
        for _ in range(READS_MAX):
            if self._socket.fileno() < 0:
                break
            try:
                size = self._socket.recv_into(self._room)
            except BlockingIOError:
                if self.stale:  # not before: what waited is older
                    found += self._look_again(gone)
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise refused(
                        error.errno or errno.EIO, operation="read changes", target="rtnetlink"
                    ) from error
                self.stale = True
                continue
            buffer = self._room[:size]
            for kind, start, end in messages(buffer):
                found += self._observed(kind, buffer, start, end)
                gone |= self._taken(kind, buffer, start, end)
        return [*found, *self._removals(gone)]

    def _look_again(self, gone: dict[Place, None]) -> list[CarrierChanged]:
        """Return what became of the carriers; add the addresses that are not there any more."""
        try:
            found, there = self._resync(), _all_places()
        except KernelError as error:  # devices that come and go fast tear each dump
            complaints.warning("devices found=%r action=look_again", str(error))
            return []
        gone |= dict.fromkeys(self._places - there)
        self._places, self.stale = there, False
        return found

    def _taken(
        self, kind: int, buffer: bytes | memoryview, start: int, end: int
    ) -> dict[Place, None]:
        """Keep account of addresses; return the one that a message takes away."""
        if kind not in {RTM_NEWADDR, RTM_DELADDR}:
            return {}
        place = _place_in(buffer, start, end)
        if kind == RTM_NEWADDR:
            self._places.add(place)
            return {}
        self._places.discard(place)
        return {place: None}

    def _removals(self, gone: Iterable[Place]) -> Iterator[AddressRemoved]:
        for place in gone:
            index, prefix, packed = place
            if index in self._known and place not in self._places:
                yield AddressRemoved(self._known[index][0], _interface_of(packed, prefix))

    def _observed(
        self, kind: int, buffer: bytes | memoryview, start: int, end: int
    ) -> list[CarrierChanged]:
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
        answers = _dump(RTM_GETLINK, INTERFACE.pack(0, 0, 0, 0, 0), operation="list devices")
        found, seen = [], set()
        for answer in answers:
            index, name, flags = _interface_in(answer, 0, len(answer))
            seen.add(index)
            found += self._became(index, name, carrier=flags & CARRIER == CARRIER)
        for index in self._known.keys() - seen:
            found += self._vanished(index)
        return found


def _dump(kind: int, body: bytes, *, operation: str) -> list[bytes]:
    netlink = NetlinkClient(socket.NETLINK_ROUTE)
    try:
        return netlink.dump(kind, body, operation=operation, target="all interfaces")
    except AbsentObjectError:
        return []
    finally:
        netlink.close()


def _all_places() -> set[Place]:
    answers = _dump(RTM_GETADDR, ADDRESS.pack(0, 0, 0, 0, 0), operation="list addresses")
    return {_place_in(answer, 0, len(answer)) for answer in answers}


def _place_in(buffer: bytes | memoryview, start: int, end: int) -> Place:
    _, prefix, _, _, index = ADDRESS.unpack_from(buffer, start + HEADER.size)
    packed = b""
    for kind, first, last in attributes(buffer, start + HEADER.size + ADDRESS.size, end):
        # IFA_ADDRESS is the peer's address where there is one.
        if kind == IFA_LOCAL or (kind == IFA_ADDRESS and not packed):
            packed = bytes(buffer[first:last])
            if kind == IFA_LOCAL:
                break
    return index, prefix, packed


def _interface_of(packed: bytes, prefix: int) -> Interface:
    return (IPv4Interface if len(packed) == 4 else IPv6Interface)((packed, prefix))


def _interface_in(buffer: bytes | memoryview, start: int, end: int) -> tuple[int, str, int]:
    """Return index, name and flags."""
    _, _, index, flags, _ = INTERFACE.unpack_from(buffer, start + HEADER.size)
    name = ""
    for kind, first, last in attributes(buffer, start + HEADER.size + INTERFACE.size, end):
        if kind == IFLA_IFNAME:
            name = bytes(buffer[first:last]).rstrip(b"\0").decode(errors="replace")
            break
    return index, name, flags
