"""Give up being the holder: withdraw the rights, remove the floating addresses.

What a supervisor does when its daemon is dead must not fail for want of a library
and must fit into a process that is small. So this needs the standard library only:
the one message of rtnetlink it sends, the removal of an address, has eight fixed
bytes and one attribute.

Source: ``include/uapi/linux/if_addr.h``, rtnetlink(7).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv4Interface, IPv6Interface

from hanat.core.notation import GATE_TABLE
from hanat.errors import AbsentObjectError, KernelError
from hanat.kernel.netlink import NetlinkClient, attribute
from hanat.kernel.nfnetlink import NfNetlink, Refill, SetName
from hanat.kernel.refusals import index_of, refused

ANSWERS = (SetName("inet", GATE_TABLE, "answers"), SetName("arp", GATE_TABLE, "answers"))
CARRIES = (SetName("inet", GATE_TABLE, "carries"),)
# Without its one member nothing can be granted; see `ports.Gate.permit`.
PERMIT = SetName("inet", GATE_TABLE, "permit")
NO_ANSWERS = tuple(Refill(name) for name in ANSWERS)
NO_RIGHTS = tuple(Refill(name) for name in (*ANSWERS, *CARRIES))

_RTM_DELADDR = 21
_IFA_LOCAL = 2
_IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index


class KernelFence:
    """Takes rights and addresses away, never gives any."""

    def __init__(self) -> None:
        self._sets = NfNetlink()
        self._routing = NetlinkClient(socket.NETLINK_ROUTE)

    def close(self) -> None:
        """Release the descriptors; the next call opens others."""
        self._sets.close()
        self._routing.close()

    def withdraw(self) -> None:
        """End *answers* everywhere at once; *carries* runs out by itself.

        Raises:
            AbsentObjectError: The gate is not installed, so nothing keeps this machine silent.
            KernelError: What else the kernel said; the rights are as they were.
        """
        take_away(self._sets, NO_ANSWERS, operation="withdraw answers")

    def shut(self) -> None:
        """End both rights everywhere at once; raises as `withdraw` does."""
        take_away(self._sets, NO_RIGHTS, operation="shut the gate")

    def remove(
        self, addresses: Iterable[tuple[str, IPv4Interface | IPv6Interface]]
    ) -> list[tuple[str, IPv4Interface | IPv6Interface]]:
        """Remove addresses from devices, under whatever label; return those that were there.

        Args:
            addresses: Kernel name of the device, and the address with its prefix length.

        Raises:
            KernelError: The first thing the kernel refused; all were tried. What is absent
                already is no error, a missing device neither.
        """
        wanted: list[tuple[str, IPv4Interface | IPv6Interface]] = []
        bodies: list[bytes] = []
        first: KernelError | None = None
        for device, address in addresses:
            try:
                index = index_of(device, operation=f"remove {address}")
            except AbsentObjectError:
                continue
            wanted.append((device, address))
            bodies.append(_removal(address, index))
        removed = []
        numbers = self._routing.batch(_RTM_DELADDR, 0, bodies)
        for (device, address), number in zip(wanted, numbers, strict=True):
            if not number:
                removed.append((device, address))
                continue
            error = refused(number, operation=f"remove {address}", target=device)
            if not isinstance(error, AbsentObjectError):
                first = first or error
        if first is not None:
            raise first
        return removed


def take_away(sets: NfNetlink, rights: tuple[Refill, ...], *, operation: str) -> None:
    """Empty sets of rights and end the permit to fill them; raises as `KernelFence.withdraw` does.

    A gate that an earlier release installed knows no permits.
    """
    try:
        sets.refill((*rights, Refill(PERMIT)), operation=operation, target="all interfaces")
    except AbsentObjectError:
        sets.refill(rights, operation=operation, target="all interfaces")


def _removal(address: IPv4Interface | IPv6Interface, index: int) -> bytes:
    # Without a label: the kernel calls an address under another one absent.
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    fixed = _IFADDRMSG.pack(family, address.network.prefixlen, 0, 0, index)
    return fixed + attribute(_IFA_LOCAL, address.ip.packed)
