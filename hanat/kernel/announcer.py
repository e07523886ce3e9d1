"""Tell the neighbours that a floating address has moved here.

Switches and hosts remember which link-layer address answered for an IP address;
until they hear otherwise they go on sending to the old holder. Each new holder
therefore announces every address: gratuitous ARP for IPv4 (RFC 5227 section 3,
in both forms, since some hosts learn from requests only and some from replies
only), unsolicited neighbour advertisement with the override flag for IPv6 (RFC
4861 section 7.2.6).

Announcing is not owning: the caller adds the address first and announces only
while its lease lasts. Frames from a packet socket pass neither the gate nor any
other rule. When to repeat is the core's decision. A queue that is full refuses a frame; the
others are sent nevertheless, and nothing here ever waits.

Frames are built once per address and hardware address: scapy needs 0.3 ms for
one, sending it 10 us. scapy's IPv6 layer is loaded when the first IPv6 address
appears (50 ms); `prepare` does both ahead of a takeover.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
from collections.abc import Iterable

from scapy.layers.l2 import ARP, Ether

from hanat.errors import KernelError
from hanat.kernel.ports import Announced, Placement
from hanat.kernel.refusals import refused

BROADCAST = "ff:ff:ff:ff:ff:ff"
SIOCGIFHWADDR = 0x8927  # <linux/sockios.h>


class KernelAnnouncer:
    """Implements `ports.Announcer` on a packet socket."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._frames: dict[tuple[Placement, str], tuple[bytes, ...]] = {}

    def close(self) -> None:
        """Release the descriptor; the next call opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def prepare(self, placements: Iterable[Placement]) -> None:
        """Build the frames ahead, so that a takeover only has to send them.

        Devices that are missing now are left to `announce`.
        """
        for placement in placements:
            try:
                self._frames_for(self._opened(), placement)
            except KernelError:
                continue

    def announce(self, placements: Iterable[Placement]) -> Announced:
        """See `ports.Announcer.announce`."""
        sent = 0
        refused: dict[Placement, KernelError] = {}
        opened = self._opened()
        for placement in placements:
            try:
                frames = self._frames_for(opened, placement)
            except KernelError as error:
                refused[placement] = error
                continue
            for frame in frames:
                try:
                    opened.sendto(frame, (placement.device, 0))
                    sent += 1
                except OSError as error:
                    refused[placement] = _refusal(error, placement)
        return Announced(sent, tuple(refused.items()))

    def _opened(self) -> socket.socket:
        if self._socket is None:
            try:
                # Protocol 0: this socket only sends, the kernel queues nothing for it. What it
                # sent may wait in a device's queue, and must not make the next one wait.
                kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
                self._socket = socket.socket(socket.AF_PACKET, kind, 0)
            except OSError as error:
                raise refused(
                    error.errno or errno.EIO, operation="announce", target="all interfaces"
                ) from error
        return self._socket

    def _frames_for(self, opened: socket.socket, placement: Placement) -> tuple[bytes, ...]:
        try:
            request = struct.pack("16s32x", placement.device.encode())
            answer = fcntl.ioctl(opened, SIOCGIFHWADDR, request)
        except OSError as error:
            raise _refusal(error, placement) from error
        hardware = answer[18:24].hex(":")
        key = (placement, hardware)
        if key not in self._frames:
            self._frames[key] = _frames(placement, hardware)
        return self._frames[key]


def _refusal(error: OSError, placement: Placement) -> KernelError:
    return refused(
        error.errno or errno.EIO,
        operation=f"announce {placement.address.ip}",
        target=placement.device,
        to_do="bring the interface up" if error.errno == errno.ENETDOWN else "",
    )


def _frames(placement: Placement, hardware: str) -> tuple[bytes, ...]:
    if placement.address.version == 6:
        return (_advertisement(str(placement.address.ip), hardware),)
    address = str(placement.address.ip)
    ether = Ether(src=hardware, dst=BROADCAST)
    # RFC 5227 section 1.2 leaves the target's hardware address of an announcement
    # open; zero in the request and broadcast in the reply is what arping sends.
    forms = (("who-has", "00:00:00:00:00:00"), ("is-at", BROADCAST))
    return tuple(
        bytes(ether / ARP(op=form, hwsrc=hardware, psrc=address, hwdst=target, pdst=address))
        for form, target in forms
    )


def _advertisement(address: str, hardware: str) -> bytes:
    from scapy.layers.inet6 import (  # 2 MiB and 50 ms for IPv6 only
        ICMPv6ND_NA,
        ICMPv6NDOptDstLLAddr,
        IPv6,
    )

    return bytes(
        Ether(src=hardware, dst="33:33:00:00:00:01")
        / IPv6(src=address, dst="ff02::1", hlim=255)
        / ICMPv6ND_NA(tgt=address, R=1, S=0, O=1)
        / ICMPv6NDOptDstLLAddr(lladdr=hardware)
    )
