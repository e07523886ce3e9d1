"""Ask the routing table by which device an address is reached."""

from __future__ import annotations

import socket
import struct

from hanat.errors import KernelError
from hanat.kernel.netlink import HEADER, NetlinkClient, attribute, attributes

# From <linux/rtnetlink.h>.
RTM_GETROUTE = 26
RTA_DST, RTA_OIF = 1, 4
RTM_F_LOOKUP_TABLE = 0x1000
# Family, lengths of destination and source, type of service, table, protocol, scope, type, flags.
ROUTE = struct.Struct("=BBBBBBBBI")
RTN_UNICAST, RTN_LOCAL = 1, 2
INDEX = struct.Struct("=I")


class KernelRoutes:
    """Implements `ports.Routes` over rtnetlink."""

    def __init__(self) -> None:
        self._netlink = NetlinkClient(socket.NETLINK_ROUTE)

    def close(self) -> None:
        """Release the descriptor; the next call opens another."""
        self._netlink.close()

    def device_of(self, address: bytes) -> str:
        """See `ports.Routes.device_of`."""
        family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
        body = ROUTE.pack(family, 8 * len(address), 0, 0, 0, 0, 0, 0, 0)
        try:
            answer = self._netlink.get(
                RTM_GETROUTE, body + attribute(RTA_DST, address),
                operation="look a route up", target="the routing table",
            )  # fmt: skip
        except KernelError:
            return ""
        kind = ROUTE.unpack_from(answer, HEADER.size)[7]
        if kind == RTN_LOCAL:
            return "lo"
        for found, start, _ in attributes(answer, HEADER.size + ROUTE.size, len(answer)):
            if found == RTA_OIF and kind == RTN_UNICAST:
                return _name(INDEX.unpack_from(answer, start)[0])
        return ""


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:  # it vanished
        return ""
