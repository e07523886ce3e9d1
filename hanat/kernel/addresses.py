"""Add and remove floating addresses on devices.

IPv4 addresses carry a label (``eth0:1``) so that old tools list them as aliases.
IPv6 addresses skip duplicate address detection: for a second they would be
tentative and answer nobody, and the lease already says that we are the only one.
They are deprecated from the start (RFC 4862 section 5.5.4), so that the kernel never
chooses one as the source of what this node sends for itself: such a connection would
die with the lease.

Messages are built and read with pyroute2 and sent on a socket of our own; see
`hanat.kernel.netlink` for why. Measured: 0.1 ms to add or to remove one.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from ipaddress import IPv4Interface, IPv6Interface

from pyroute2.netlink.rtnl import RTM_GETADDR, RTM_NEWADDR
from pyroute2.netlink.rtnl.ifaddrmsg import IFA_F_NODAD, ifaddrmsg

from hanat.core.configuration import Interface
from hanat.errors import AlreadyPresentError
from hanat.kernel.fence import KernelFence
from hanat.kernel.netlink import HEADER, NLM_F_CREATE, NLM_F_EXCL, NetlinkClient
from hanat.kernel.ports import LABEL_BYTES_MAX, Placement
from hanat.kernel.refusals import index_of, refused

FOR_EVER = 0xFFFFFFFF  # INFINITY_LIFE_TIME of <linux/if_addr.h>
DEPRECATED = {"ifa_preferred": 0, "ifa_valid": FOR_EVER}


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
            RTM_GETADDR, _body(ifaddrmsg()), operation=operation, target=device
        )
        return frozenset(
            found for answer in answers if (found := _address_in(answer, index)) is not None
        )

    def add(self, placements: Iterable[Placement]) -> None:
        """See `ports.Addresses.add`."""
        for placement in placements:
            operation = f"add {placement.address}"
            index = index_of(placement.device, operation=operation)
            if len(placement.label.encode()) > LABEL_BYTES_MAX:
                raise refused(
                    errno.ERANGE, operation=operation, target=placement.device,
                    to_do=f"label {placement.label} is longer than {LABEL_BYTES_MAX} bytes",
                )  # fmt: skip
            try:
                self._netlink.request(
                    RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, _body(_message(placement, index)),
                    operation=operation, target=placement.device,
                )  # fmt: skip
            except AlreadyPresentError:
                continue

    def remove(self, placements: Iterable[Placement]) -> None:
        """See `ports.Addresses.remove`."""
        self._fence.remove((placement.device, placement.address) for placement in placements)


def _message(placement: Placement, index: int) -> ifaddrmsg:
    address = placement.address
    message = ifaddrmsg()
    message["family"] = socket.AF_INET if address.version == 4 else socket.AF_INET6
    message["prefixlen"] = address.network.prefixlen
    message["index"] = index
    attributes: list[tuple[str, object]] = [
        ("IFA_LOCAL", str(address.ip)),
        ("IFA_ADDRESS", str(address.ip)),
    ]
    if address.version == 6:
        attributes.append(("IFA_FLAGS", IFA_F_NODAD))
        attributes.append(("IFA_CACHEINFO", DEPRECATED))
    elif placement.label:
        attributes.append(("IFA_LABEL", placement.label))
    message["attrs"] = attributes
    return message


def _body(message: ifaddrmsg) -> bytes:
    """Return the message without its header, which the client writes."""
    message.encode()
    return bytes(message.data[HEADER.size :])


def _address_in(answer: bytes, index: int) -> Interface | None:
    message = ifaddrmsg(answer)
    message.decode()
    if message["index"] != index:
        return None
    # IFA_ADDRESS is the peer's address where there is one.
    address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    text = f"{address}/{message['prefixlen']}"
    return IPv4Interface(text) if message["family"] == socket.AF_INET else IPv6Interface(text)
