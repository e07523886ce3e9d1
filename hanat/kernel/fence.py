"""Give up being the holder: withdraw the rights, remove the floating addresses.

What a supervisor does when its daemon is dead must not fail for want of a library
and must fit into a process that is small. So this needs the standard library only:
the messages of rtnetlink it sends, to remove an address and to spare others, have some
fixed bytes and one attribute.

Linux removes with an IPv4 address all that were added later with the same network, unless
``promote_secondaries`` is set. After a restart of the network the router's own address may
be one of those. So that is set on each device before anything is removed there; by netlink,
since a service may not write below /proc/sys.

Source: ``include/uapi/linux/if_addr.h``, ``if_link.h``, ``ip.h``; rtnetlink(7).
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
    ip_address,
    ip_interface,
)

from hanat.core.notation import ATTACHED_SET, CARRIES_SET, GATE_TABLE
from hanat.errors import AbsentObjectError, KernelError
from hanat.kernel.deadline_map import Deadlines
from hanat.kernel.kernel_errors import index_of, refused
from hanat.kernel.netlink import HEADER, IFINFOMSG, NetlinkClient, attribute, attributes, nested
from hanat.kernel.nfnetlink import NfNetlink, Refill, SetName, members_in
from hanat.kernel.traffic_filters import INGRESS, TrafficFilters

ATTACHED = (SetName("inet", GATE_TABLE, ATTACHED_SET), SetName("arp", GATE_TABLE, ATTACHED_SET))
ANSWERS = (SetName("inet", GATE_TABLE, "answers"), SetName("arp", GATE_TABLE, "answers"))
CARRIES = SetName("inet", GATE_TABLE, CARRIES_SET)
# Without its one member nothing can be granted; see `ports.Gate.permit`.
PERMIT = SetName("inet", GATE_TABLE, "permit")
NO_ANSWERS = tuple(Refill(name) for name in ANSWERS)
NO_RIGHTS = tuple(Refill(name) for name in (*ANSWERS, CARRIES))
# What the gate guards, and on which devices.
VIPS = (SetName("inet", GATE_TABLE, "vips_v4"), SetName("inet", GATE_TABLE, "vips_v6"))
PORTS = SetName("inet", GATE_TABLE, "ports")
# What an earlier release called that right, while this one has not installed its gate yet.
CARRIED = SetName("inet", GATE_TABLE, "carries")

_RTM_DELADDR, _RTM_GETADDR = 21, 22
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTM_SETLINK = 19
_IFLA_AF_SPEC, _IFLA_INET_CONF = 26, 1
_PROMOTE_SECONDARIES = 20  # IPV4_DEVCONF_PROMOTE_SECONDARIES
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

    def withdraw(self, deadlines: int | None = None) -> None:
        """End *answers* everywhere at once; *carries* runs out by itself.

        Args:
            deadlines: Descriptor of the map with the rights; None: they are timeouts.

        Raises:
            AbsentObjectError: The gate is not installed, so nothing keeps this machine silent.
            KernelError: What else the kernel said; the rights are as they were.
        """
        if deadlines is None:
            take_away(self._sets, NO_ANSWERS, operation="withdraw answers")
            return
        try:
            mapped = Deadlines(deadlines)
        except OSError as error:
            raise refused(
                error.errno or errno.EIO, operation="withdraw answers", target="all interfaces"
            ) from error
        mapped.withdraw()
        mapped.close()

    def shut(self, devices: Iterable[str]) -> None:
        """End both rights at once; raises as `withdraw` does.

        Where rights are deadlines the program goes that tells them, from each of the devices.
        """
        try:
            self._sets.refill(
                [Refill(name) for name in ATTACHED], operation="shut the gate", target="interfaces"
            )
        except AbsentObjectError:
            take_away(self._sets, NO_RIGHTS, operation="shut the gate")
            return
        filters = TrafficFilters()
        try:
            for device in sorted(set(devices)):
                with suppress(AbsentObjectError):
                    index = index_of(device, operation="shut the gate")
                    filters.detach(index, INGRESS, None, device=device)
        finally:
            filters.close()

    def guarded(self, devices: Iterable[str]) -> list[tuple[str, IPv4Interface | IPv6Interface]]:
        """Return the addresses on these devices, or the gate's, that are floating ones to the gate.

        Raises:
            AbsentObjectError: The gate is not installed.
            KernelError: The kernel does not tell.
        """
        floating = guarded_addresses()
        names = {*devices, *guarded_devices()}
        known = {index: name for index, name in socket.if_nameindex() if name in names}
        answers = self._routing.dump(
            _RTM_GETADDR, _IFADDRMSG.pack(0, 0, 0, 0, 0),
            operation="list addresses", target=", ".join(sorted(names)),
        )  # fmt: skip
        found = []
        for answer in answers:
            _, prefix_bits, _, _, index = _IFADDRMSG.unpack_from(answer, HEADER.size)
            packed = _address_in(answer)
            if index in known and packed is not None:
                address = ip_interface((packed, prefix_bits))
                if address.ip in floating:
                    found.append((known[index], address))
        return sorted(found, key=str)

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
        indexes: set[int] = set()
        first: KernelError | None = None
        known: dict[str, int] = {}
        for device, address in addresses:
            try:
                if device not in known:
                    known[device] = index_of(device, operation=f"remove {address}")
            except AbsentObjectError:
                continue
            index = known[device]
            wanted.append((device, address))
            bodies.append(_removal(address, index))
            if address.version == 4:
                indexes.add(index)
        self.spare_others(indexes)
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

    def spare_others(self, indexes: Iterable[int]) -> None:
        """Let other addresses of these devices stay when one is removed; see the module.

        If the kernel refuses it will hardly do the removal either, and that is told.
        """
        self._routing.batch(_RTM_SETLINK, 0, [_promotion(index) for index in sorted(indexes)])


def take_away(sets: NfNetlink, rights: tuple[Refill, ...], *, operation: str) -> None:
    """Empty sets of rights and end the permit to fill them; raises as `KernelFence.withdraw` does.

    A gate that an earlier release installed lacks some of the sets, and may have others.
    """
    try:
        sets.refill((*rights, Refill(PERMIT)), operation=operation, target="all interfaces")
    except AbsentObjectError:
        sets.refill(NO_ANSWERS, operation=operation, target="all interfaces")
        others = (PERMIT, CARRIES, CARRIED) if rights == NO_RIGHTS else (PERMIT,)
        for name in others:
            with suppress(AbsentObjectError):
                sets.refill([Refill(name)], operation=operation, target="all interfaces")


def guarded_addresses() -> frozenset[IPv4Address | IPv6Address]:
    """Return the floating addresses of the gate that is installed.

    Raises:
        AbsentObjectError: None is.
        KernelError: The kernel does not tell.
    """
    return frozenset(ip_address(member) for name in VIPS for member in members_in(name))


def guarded_devices() -> frozenset[str]:
    """Return the devices of the gate that is installed; raises as `guarded_addresses` does."""
    return frozenset(member.rstrip(b"\0").decode() for member in members_in(PORTS))


def _address_in(answer: bytes) -> bytes | None:
    """Return the address of a message of rtnetlink(7).

    With a peer IFA_ADDRESS is the peer's; without any the kernel may leave it out.
    """
    start = HEADER.size + _IFADDRMSG.size
    values = {kind: bytes(answer[a:b]) for kind, a, b in attributes(answer, start, len(answer))}
    return values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS)


def _promotion(index: int) -> bytes:
    promote = attribute(_PROMOTE_SECONDARIES, struct.pack("=I", 1))
    configuration = nested(socket.AF_INET, nested(_IFLA_INET_CONF, promote))
    return IFINFOMSG.pack(0, 0, index, 0, 0) + nested(_IFLA_AF_SPEC, configuration)


def _removal(address: IPv4Interface | IPv6Interface, index: int) -> bytes:
    # Without a label: the kernel calls an address under another one absent.
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    fixed = _IFADDRMSG.pack(family, address.network.prefixlen, 0, 0, index)
    return fixed + attribute(_IFA_LOCAL, address.ip.packed)
