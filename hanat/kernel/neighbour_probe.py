"""Ask the hosts of a network, and hear whether one answers: so it shows that it carries.

Over IPv4 those whom the kernel knows are asked by ARP, without a sender's address: hosts
answer such a probe, and nobody learns anything from it (RFC 5227, section 1.1; RFC 826). Over
IPv6 all are, by an echo request to ff02::1 (RFC 4443, section 4.1). The kernel's own table of
neighbours is only read: an entry that it asks for itself, in vain, is gone when the
network is back.

Only answers to these questions count: other frames may come from the other end of the cable, or
out of another network. They are heard on packet sockets, before a firewall can drop them: it has
not seen a connection that the answer to a multicast belongs to. Another program's questions are
told apart by the sender's address or the number in the echo request.
"""

from __future__ import annotations

import secrets
import socket
import struct
import time
from contextlib import suppress

from hanat.errors import KernelError
from hanat.kernel.announcer import arp_request, hardware_address
from hanat.kernel.claims import ETH_P_ARP, ETH_P_IPV6
from hanat.kernel.classic_bpf import Step, packet_socket
from hanat.kernel.kernel_errors import index_of
from hanat.kernel.netlink import HEADER, NetlinkClient, attributes

ASKED_MAX = 16  # over IPv4

# From <linux/rtnetlink.h> and <linux/neighbour.h>.
RTM_GETNEIGH = 30
NEIGHBOUR = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
NDA_DST, NDA_LLADDR = 1, 2
NUD_IN_VAIN = 0x01 | 0x20 | 0x40  # incomplete, failed, without ARP

# In a frame, behind the 14 bytes of Ethernet: an ARP reply, for Ethernet and IPv4, and its sender.
_ARP_KIND, _ARP_REPLY, _ARP_SENDER = 18, 0x06040002, 28
# Likewise of IPv6: where the next header is named, the type of ICMPv6, and what was asked.
_NEXT_HEADER, _ICMP_TYPE, _ECHOED = 20, 54, 58
_ICMPV6, _ECHO_REQUEST, _ECHO_REPLY = 58, 128, 129
_ALL_NODES = "ff02::1"
_FRAME_BYTES, _READ_MAX = 64, 64
# A frame of a VLAN without a device here is told without its tag, as one for another host
# (SKF_AD_PKTTYPE, PACKET_OTHERHOST).
_OWN_NETWORK: list[Step] = [("", "ld", 0xFFFFF004), ("", "jeq", 3, "drop", "")]

_RAW = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK


class Inquiry:
    """Questions to the hosts on one device, and their answers.

    Args:
        device: Kernel name.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._number = secrets.randbits(32)  # of our echo requests
        self._asked: set[bytes] = set()  # packed, over IPv4
        self._index = 0  # of the device that is heard
        self._arp: socket.socket | None = None
        self._echo: socket.socket | None = None

    def close(self) -> None:
        """Hear no more."""
        for opened in (self._arp, self._echo):
            if opened is not None:
                opened.close()
        self._arp = self._echo = None

    def ask(self, netlink: NetlinkClient) -> int:
        """See `ports.Links.ask`; `netlink` is of rtnetlink."""
        sent = 0
        with suppress(OSError):
            index = socket.if_nametoindex(self._device)
            if index != self._index:  # another device has the name now
                self.close()
                self._index = index
        # No such device, no IPv6 on it, or a full queue.
        with suppress(OSError, KernelError):
            sent += self._ask_known(netlink)
        with suppress(OSError):
            sent += self._ask_all()
        return sent

    def answered(self) -> bool:
        """See `ports.Links.answered`."""
        senders = [frame[_ARP_SENDER:][:4] for frame in _frames(self._arp)]
        echoes = _frames(self._echo)
        return bool(echoes) or not self._asked.isdisjoint(senders)

    def _ask_known(self, netlink: NetlinkClient) -> int:
        """Ask by ARP whom the kernel knows."""
        if self._arp is None:
            self._arp = self._hear(ETH_P_ARP, [
                ("", "ld", _ARP_KIND), ("", "jeq", _ARP_REPLY, "", "drop"),
            ])  # fmt: skip
        known = _known(self._device, netlink)
        own = hardware_address(self._arp, self._device)
        for address, hardware in known:
            self._asked.add(address)
            self._arp.sendto(arp_request(address, own=own, to=hardware), (self._device, 0))
        return len(known)

    def _ask_all(self) -> int:
        """Ask all by an echo request."""
        if self._echo is None:
            self._echo = self._hear(ETH_P_IPV6, [
                ("", "ldb", _NEXT_HEADER), ("", "jeq", _ICMPV6, "", "drop"),
                ("", "ldb", _ICMP_TYPE), ("", "jeq", _ECHO_REPLY, "", "drop"),
                ("", "ld", _ECHOED), ("", "jeq", self._number, "", "drop"),
            ])  # fmt: skip
        # The kernel adds the checksum.
        request = struct.pack(">BBHI", _ECHO_REQUEST, 0, 0, self._number)
        with socket.socket(socket.AF_INET6, _RAW, socket.IPPROTO_ICMPV6) as opened:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
            index = socket.if_nametoindex(self._device)
            opened.sendto(request, (_ALL_NODES, 0, 0, index))
        return 1

    def _hear(self, protocol: int, steps: list[Step]) -> socket.socket:
        program = [*_OWN_NETWORK, *steps, ("", "ret", 0xFFFF), ("drop", "ret", 0)]
        return packet_socket(self._device, protocol, program)


def _frames(opened: socket.socket | None) -> list[bytes]:
    """Return what waits at a socket, so many at most: a stranger may send any number."""
    found: list[bytes] = []
    with suppress(OSError):  # nothing more, or a device that went down
        while opened is not None and len(found) < _READ_MAX:
            found.append(opened.recv(_FRAME_BYTES))
    return found


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
