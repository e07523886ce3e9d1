"""Hear that another machine claims a floating address: by ARP, or by neighbour advertisement.

A filter in the kernel lets nothing else wake this process: of ARP what names one of the
addresses as its sender's, of IPv6 the advertisements whose target is one of them (by their last
32 bits). Sockets of one protocol are not given what this machine sends itself.

Source: RFC 826; RFC 4861, section 4.4; ``Documentation/networking/filter.rst``.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable

from hanat.core.configuration import Address
from hanat.kernel.classic_bpf import Step, packet_socket
from hanat.kernel.kernel_errors import refused

ADDRESSES_MAX = 100  # of each family: a jump of a filter reaches 255 steps
ETH_P_ARP, ETH_P_IPV6 = 0x0806, 0x86DD
# Offsets in a frame, behind the 14 bytes of Ethernet.
_ARP_SENDER = 28
_NEXT_HEADER, _ICMP_TYPE, _TARGET_END = 20, 54, 74
_ICMPV6, _ADVERTISEMENT = 58, 136
_KEEP: Step = ("keep", "ret", 0xFFFF)
_DROP: Step = ("drop", "ret", 0)
_BYTES_MAX = 128
_READ_MAX = 64


class KernelClaims:
    """Implements `ports.Claims`.

    Args:
        devices: Where to listen, kernel names.
    """

    def __init__(self, devices: Iterable[str]) -> None:
        self._devices = tuple(sorted(set(devices)))
        self._sockets: list[socket.socket] = []

    def watch(self, addresses: Iterable[Address]) -> tuple[int, ...]:
        """See `ports.Claims.watch`."""
        self.close()
        found = list(addresses)
        v4 = [int(a) for a in found if a.version == 4][:ADDRESSES_MAX]
        v6 = [int(a) & 0xFFFFFFFF for a in found if a.version == 6][:ADDRESSES_MAX]
        try:
            for device in self._devices if v4 else ():
                self._open(device, ETH_P_ARP, [("", "ld", _ARP_SENDER), *_any_of(v4)])
            for device in self._devices if v6 else ():
                head: list[Step] = [
                    ("", "ldb", _NEXT_HEADER), ("", "jeq", _ICMPV6, "", "drop"),
                    ("", "ldb", _ICMP_TYPE), ("", "jeq", _ADVERTISEMENT, "", "drop"),
                    ("", "ld", _TARGET_END),
                ]  # fmt: skip
                self._open(device, ETH_P_IPV6, [*head, *_any_of(v6)])
        except OSError as error:
            self.close()
            raise refused(
                error.errno or errno.EIO, operation="watch claims", target=", ".join(self._devices)
            ) from error
        return tuple(opened.fileno() for opened in self._sockets)

    def _open(self, device: str, protocol: int, steps: list[Step]) -> None:
        self._sockets.append(packet_socket(device, protocol, steps))

    def read(self) -> bool:
        """See `ports.Claims.read`."""
        heard = False
        for opened in self._sockets:
            for _ in range(_READ_MAX):
                try:
                    opened.recv(_BYTES_MAX)
                except OSError:  # nothing more, or a device that went down
                    break
                heard = True
        return heard

    def close(self) -> None:
        """See `ports.Claims.close`."""
        for opened in self._sockets:
            opened.close()
        self._sockets = []


def _any_of(words: list[int]) -> list[Step]:
    return [*(("", "jeq", word, "keep", "") for word in words), _DROP, _KEEP]
