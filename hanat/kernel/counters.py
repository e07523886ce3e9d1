"""Read the counters of a table of nftables: what services refused.

Rules count by themselves as well, but are replaced with what they belong to. A counter with a name
stays until it is deleted.

Source: ``include/uapi/linux/netfilter/nf_tables.h``, ``NFT_MSG_GETOBJ``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from hanat.errors import AbsentObjectError
from hanat.kernel.netlink import NETLINK_NETFILTER, NetlinkClient, attribute, attributes
from hanat.kernel.nfnetlink import FAMILIES, GENERIC, SUBSYSTEM

_GET_OBJECT = SUBSYSTEM << 8 | 19
_TABLE, _NAME, _TYPE, _DATA = 1, 2, 3, 4
_COUNTER = 1  # NFT_OBJECT_COUNTER
_PACKETS = 2
_BODY = 16 + 4  # behind the header of the message, and the family
_NUMBER = struct.Struct(">Q")


class KernelCounters:
    """A socket of its own that stays open.

    To close one may keep the gate from being armed, see `kernel.conntrack.KernelCapture`.
    """

    def __init__(self) -> None:
        self._netlink = NetlinkClient(NETLINK_NETFILTER)

    def close(self) -> None:
        """Release the descriptor; the next call opens another."""
        self._netlink.close()

    def walk(self, family: str, name: str) -> Iterator[Mapping[str, int]]:
        """Yield how many packets each counter of a table has counted, by name, in parts.

        The kernel makes the next part when one is read. Without such a table there is none.

        Raises:
            KernelError: What the kernel answered instead, also halfway.
        """
        asked = (
            GENERIC.pack(FAMILIES[family], 0, 0)
            + attribute(_TABLE, name.encode() + b"\0")
            + attribute(_TYPE, struct.pack(">I", _COUNTER))
        )
        try:
            for part in self._netlink.walk(
                _GET_OBJECT, asked, operation="read counters", target=f"{family} {name}"
            ):
                yield dict(_counted(*message) for message in part)
        except AbsentObjectError:
            return


def _counted(buffer: bytes, start: int, end: int) -> tuple[str, int]:
    """Return name and packets of a counter."""
    name, packets = "", 0
    for kind, first, last in attributes(buffer, start + _BODY, end):
        if kind == _NAME:
            name = buffer[first:last].rstrip(b"\0").decode()
        elif kind == _DATA:
            for part, a, b in attributes(buffer, first, last):
                if part == _PACKETS:
                    (packets,) = _NUMBER.unpack_from(buffer[a:b])
    return name, packets
