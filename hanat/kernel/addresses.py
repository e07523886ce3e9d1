"""Add and remove floating addresses on devices.

IPv4 addresses carry a label (``eth0:1``) so that old tools list them as aliases.
IPv6 addresses skip duplicate address detection: for a second they would be
tentative and answer nobody, and the lease already says that we are the only one.
They are deprecated from the start (RFC 4862 section 5.5.4), so that the kernel never
chooses one as the source of what this node sends for itself: such a connection would
die with the lease.

Messages are built and read here, since they are many: pyroute2 needs 0.1 ms for one, and 8 MiB
as soon as one of its constants is imported. All go to the kernel together, on a socket of our
own; see `hanat.kernel.netlink` for why. Measured: 15 us to add an IPv4 address, 12 to remove it.
IPv6 takes longer the more there are, since the kernel joins all groups of the device anew with
each (``ipv6_mc_up``): 20 us for the first one, 500 for the thousandth. In the tests pyroute2
reads the messages.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv4Interface, IPv6Interface

from hanat.core.configuration import Interface
from hanat.core.placements import LABEL_BYTES_MAX, Placement
from hanat.errors import KernelError
from hanat.kernel.fence import KernelFence
from hanat.kernel.kernel_errors import index_of, refused
from hanat.kernel.netlink import (
    HEADER,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NetlinkClient,
    attribute,
    attributes,
)

# From <linux/if_addr.h>.
_FIXED = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ADDRESS, _LOCAL, _LABEL, _LIFETIMES, _FLAGS = 1, 2, 3, 6, 8
_NODAD = struct.pack("=I", 0x02)
# From <linux/rtnetlink.h>.
_RTM_NEWADDR, _RTM_GETADDR = 20, 22
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, lengths, tos, table, protocol, scope, type, flags
_RTM_GETROUTE, _DESTINATION, _LOCAL_ROUTE = 26, 1, 2
_FOR_EVER = 0xFFFFFFFF
_DEPRECATED = struct.pack(
    "=IIII", 0, _FOR_EVER, 0, 0
)  # preferred, valid; two times of the kernel's


class KernelAddresses:
    """Implements `ports.Addresses` over rtnetlink."""

    def __init__(self) -> None:
        self._netlink = NetlinkClient(socket.NETLINK_ROUTE)
        self._fence = KernelFence()

    def close(self) -> None:
        """Release the descriptor; the next call opens another."""
        self._netlink.close()
        self._fence.close()

    def present(self, device: str) -> frozenset[Interface]:
        """See `ports.Addresses.present`."""
        operation = "list addresses"
        index = index_of(device, operation=operation)
        answers = self._netlink.dump(
            _RTM_GETADDR,
            _FIXED.pack(socket.AF_UNSPEC, 0, 0, 0, 0),
            operation=operation,
            target=device,
        )
        return frozenset(
            found for answer in answers if (found := _address_in(answer, index)) is not None
        )

    def add(self, placements: Iterable[Placement]) -> None:
        """See `ports.Addresses.add`."""
        wanted: list[Placement] = []
        bodies: list[bytes] = []
        refusals: list[KernelError] = []
        indexes: dict[str, int] = {}
        for placement in placements:
            try:
                bodies.append(_message(placement, indexes))
            except KernelError as error:
                refusals.append(error)
            else:
                wanted.append(placement)
        self._spare_others(wanted)
        numbers = self._netlink.batch(_RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, bodies)
        for placement, number in zip(wanted, numbers, strict=True):
            if number not in {0, errno.EEXIST}:
                operation = f"add {placement.address}"
                refusals.append(refused(number, operation=operation, target=placement.device))
        if refusals:
            raise refusals[0]

    def local(self, placement: Placement) -> bool:
        """See `ports.Addresses.local`."""
        ip = placement.address.ip
        if ip.version == 4:
            return True  # its route is there before the acknowledgement
        body = _ROUTE.pack(socket.AF_INET6, ip.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
        body += attribute(_DESTINATION, ip.packed)
        try:
            answer = self._netlink.get(
                _RTM_GETROUTE, body, operation=f"look up {ip}", target=placement.device
            )
        except KernelError:
            return False  # there is no route at all
        kind: int = _ROUTE.unpack_from(answer, HEADER.size)[7]
        return kind == _LOCAL_ROUTE

    def _spare_others(self, wanted: Iterable[Placement]) -> None:
        """See `kernel.fence`: what is added must not go with what was there before."""
        devices = {p.device for p in wanted if p.address.version == 4}
        self._fence.spare_others(index_of(d, operation="look at addresses") for d in devices)

    def remove(self, placements: Iterable[Placement]) -> None:
        """See `ports.Addresses.remove`."""
        self._fence.remove((placement.device, placement.address) for placement in placements)


def _message(placement: Placement, indexes: dict[str, int]) -> bytes:
    address, label = placement.address, placement.label.encode()
    operation = f"add {address}"
    if len(label) > LABEL_BYTES_MAX:
        raise refused(
            errno.ERANGE, operation=operation, target=placement.device,
            to_do=f"label {placement.label} is longer than {LABEL_BYTES_MAX} bytes",
        )  # fmt: skip
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    if placement.device not in indexes:
        indexes[placement.device] = index_of(placement.device, operation=operation)
    index = indexes[placement.device]
    message = _FIXED.pack(family, address.network.prefixlen, 0, 0, index)
    message += attribute(_LOCAL, address.ip.packed) + attribute(_ADDRESS, address.ip.packed)
    if address.version == 6:
        return message + attribute(_FLAGS, _NODAD) + attribute(_LIFETIMES, _DEPRECATED)
    return message + (attribute(_LABEL, label + b"\0") if label else b"")


def _address_in(answer: bytes, index: int) -> Interface | None:
    family, prefix, _, _, found_on = _FIXED.unpack_from(answer, HEADER.size)
    if found_on != index:
        return None
    found = {
        kind: answer[first:last]
        for kind, first, last in attributes(answer, HEADER.size + _FIXED.size, len(answer))
        if kind in {_ADDRESS, _LOCAL}
    }
    # IFA_ADDRESS is the peer's address where there is one.
    packed = found.get(_LOCAL) or found.get(_ADDRESS)
    assert packed is not None, "the kernel lists an address without an address"
    if family == socket.AF_INET:
        return IPv4Interface((packed, prefix))
    return IPv6Interface((packed, prefix))
