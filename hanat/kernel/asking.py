"""Make the hosts of a network answer, so that a device shows whether its network carries.

Over IPv4 those whom the kernel knows are asked by ARP, without a sender's address: hosts
answer such a probe, and nobody learns anything from it (RFC 5227, section 1.1; RFC 826). Over
IPv6 all are, by an echo request to ff02::1 (RFC 4443, section 4.1). The kernel's own table of
neighbours is only read: an entry that it asks for itself, in vain, is gone when the
network is back. Nobody listens to the answers; the counter of received frames tells.
"""

from __future__ import annotations

import socket
import struct
import time
from contextlib import suppress

from hanat.errors import KernelError
from hanat.kernel.announcer import arp_request, hardware_address
from hanat.kernel.netlink import HEADER, NetlinkClient, attributes
from hanat.kernel.refusals import index_of

ASKED_MAX = 16  # over IPv4

# From <linux/rtnetlink.h> and <linux/neighbour.h>.
RTM_GETNEIGH = 30
NEIGHBOUR = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
NDA_DST, NDA_LLADDR = 1, 2
NUD_IN_VAIN = 0x01 | 0x20 | 0x40  # incomplete, failed, without ARP

_ECHO_REQUEST = struct.pack(">BBHHH", 128, 0, 0, 0, 0)  # the kernel adds the checksum
_ALL_NODES = "ff02::1"


def ask_hosts(device: str, netlink: NetlinkClient) -> int:
    """See `ports.Links.ask`.

    Args:
        device: Kernel name.
        netlink: Of rtnetlink.
    """
    sent = 0
    # No such device, no IPv6 on it, or a full queue.
    with suppress(OSError, KernelError):
        sent += _ask_known(device, netlink)
    with suppress(OSError):
        sent += _ask_all(device)
    return sent


def _ask_known(device: str, netlink: NetlinkClient) -> int:
    """Ask by ARP whom the kernel knows."""
    known = _known(device, netlink)
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    with socket.socket(socket.AF_PACKET, kind, 0) as opened:
        own = hardware_address(opened, device)
        for address, hardware in known:
            frame = arp_request(address, own=own, to=hardware)
            opened.sendto(frame, (device, 0))
    return len(known)


def _known(device: str, netlink: NetlinkClient) -> list[tuple[bytes, bytes]]:
    """Return packed addresses and hardware addresses of IPv4."""
    operation = "list neighbours"
    index = index_of(device, operation=operation)
    body = NEIGHBOUR.pack(socket.AF_INET, 0, 0, 0, 0)
    answers = []
    for answer in netlink.dump(RTM_GETNEIGH, body, operation=operation, target=device):
        _, on, state, *_ = NEIGHBOUR.unpack_from(answer, HEADER.size)
        if on == index and not state & NUD_IN_VAIN:
            answers.append(answer)
    # Others each second, if there are many: some may be long gone.
    begin = int(time.monotonic()) * ASKED_MAX % max(1, len(answers))
    found = []
    for answer in [*answers[begin:], *answers[:begin]][:ASKED_MAX]:
        first_attribute = HEADER.size + NEIGHBOUR.size
        parts = {
            kind: bytes(answer[first:last])
            for kind, first, last in attributes(answer, first_attribute, len(answer))
        }
        address, hardware = parts.get(NDA_DST, b""), parts.get(NDA_LLADDR, b"")
        if len(address) == 4 and len(hardware) == 6:
            found.append((address, hardware))
    return found


def _ask_all(device: str) -> int:
    """Ask all by an echo request."""
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    with socket.socket(socket.AF_INET6, kind, socket.IPPROTO_ICMPV6) as opened:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        opened.sendto(_ECHO_REQUEST, (_ALL_NODES, 0, 0, socket.if_nametoindex(device)))
    return 1
