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

Frames are built once per address and hardware address, here and not by scapy, which needs
0.3 ms for one: a thousand addresses would hold the loop for longer than a lease. Sending one
takes 10 us. The tests let scapy read them.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
from collections.abc import Iterable
from ipaddress import ip_address

from hanat.core.placements import Placement
from hanat.errors import KernelError
from hanat.kernel.kernel_errors import refused
from hanat.kernel.ports import Announced

_BROADCAST, _MULTICAST = b"\xff" * 6, bytes.fromhex("333300000001")
_ETHERNET = struct.Struct(">6s6sH")
_ETH_P_IP, _ETH_P_ARP, _ETH_P_IPV6 = 0x0800, 0x0806, 0x86DD
_ARP = struct.Struct(">HHBBH6s4s6s4s")
_ARP_REQUEST, _ARP_REPLY = 1, 2
_ICMPV6 = 58
_NA = bytes([136, 0, 0, 0])  # type, code, checksum
_NA_FLAGS = bytes([0xA0, 0, 0, 0])  # router, override
_TARGET_ADDRESS = bytes([2, 1])  # option: link-layer address, 8 bytes
_ALL_NODES = ip_address("ff02::1").packed
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
            hardware = hardware_address(opened, placement.device).hex(":")
        except OSError as error:
            raise _refusal(error, placement) from error
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
    own = bytes.fromhex(hardware.replace(":", ""))
    if placement.address.version == 6:
        return (_advertisement(placement.address.ip.packed, own),)
    address = placement.address.ip.packed
    # RFC 5227 section 1.2 leaves the target's hardware address of an announcement
    # open; zero in the request and broadcast in the reply is what arping sends.
    forms = ((_ARP_REQUEST, bytes(6)), (_ARP_REPLY, _BROADCAST))
    return tuple(
        _ETHERNET.pack(_BROADCAST, own, _ETH_P_ARP)
        + _ARP.pack(1, _ETH_P_IP, 6, 4, form, own, address, target, address)
        for form, target in forms
    )


def hardware_address(opened: socket.socket, device: str) -> bytes:
    """Return the hardware address of a device. Raises OSError."""
    answer = fcntl.ioctl(opened, SIOCGIFHWADDR, struct.pack("16s32x", device.encode()))
    return answer[18:24]


def arp_request(address: bytes, *, own: bytes, to: bytes) -> bytes:
    """Return a probe: who has the packed address, from nobody (RFC 5227 section 1.1)."""
    body = _ARP.pack(1, _ETH_P_IP, 6, 4, _ARP_REQUEST, own, bytes(4), bytes(6), address)
    return _ETHERNET.pack(to, own, _ETH_P_ARP) + body


def _advertisement(address: bytes, own: bytes) -> bytes:
    """Return an unsolicited neighbour advertisement (RFC 4861 section 4.4)."""
    body = _NA_FLAGS + address + _TARGET_ADDRESS + own
    pseudo = address + _ALL_NODES + struct.pack(">II", 4 + len(body), _ICMPV6)
    total = sum(struct.unpack(f">{(len(pseudo) + 4 + len(body)) // 2}H", pseudo + _NA + body))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    message = _NA[:2] + struct.pack(">H", checksum) + body
    header = struct.pack(">IHBB", 6 << 28, len(message), _ICMPV6, 255) + address + _ALL_NODES
    return _ETHERNET.pack(_MULTICAST, own, _ETH_P_IPV6) + header + message
