"""Read what a frame from a router's cable says about who holds, and ask for it.

A router *speaks* for a floating address when it sends an ARP frame with that sender address, or a
neighbour advertisement of IPv6 for it. scapy was considered and left out: some bytes at fixed
places, hundreds of times a second.
"""

from __future__ import annotations

import socket
import struct

from chaos.lab.topology import SUBNET, SUBNET_V6, floating
from chaos.observe.packet_filters import (
    AND,
    IF_EQUAL,
    INDEX_IP,
    JUMP,
    LOAD_BYTE,
    LOAD_BYTE_INDEXED,
    LOAD_HALF,
    LOAD_WORD,
    OUTGOING,
    PKTTYPE,
    Line,
    assemble,
)
from chaos.observe.run_history import AdmissionSeen, ArpSeen

ETH_P_IP, ETH_P_ARP, ETH_P_IPV6 = 0x0800, 0x0806, 0x86DD
ETHERNET, IPV6 = 14, 40  # lengths of headers
TCP, ICMPV6 = 6, 58
SYN_FLAGS_AT = 13  # RFC 9293, section 3.1
SOLICITATION, ADVERTISEMENT = 135, 136  # RFC 4861, sections 4.3 and 4.4
SOLICITED = 0x40
ARP = struct.Struct("!HHBBH6s4s6s4s")  # RFC 826
FRAME_BYTES = ETHERNET + ARP.size
BROADCAST = b"\xff" * 6
ASKER = 250  # host part of the addresses that ask

ADDRESSES = frozenset(floating())

# ARP frames, advertisements, and first packets of TCP connections that come in. Bridge ports
# need ETH_P_ALL, because a bridge takes its frames before a socket for one protocol would see
# them.
FILTER = assemble(
    (
        Line(LOAD_WORD, PKTTYPE),
        Line(IF_EQUAL, OUTGOING, yes="reject"),
        Line(LOAD_HALF, 12),
        Line(IF_EQUAL, ETH_P_ARP, yes="accept"),
        Line(IF_EQUAL, ETH_P_IPV6, yes="six"),
        Line(IF_EQUAL, ETH_P_IP, no="reject"),
        Line(LOAD_BYTE, ETHERNET + 9),
        Line(IF_EQUAL, TCP, no="reject"),
        Line(INDEX_IP, ETHERNET),
        Line(LOAD_BYTE_INDEXED, ETHERNET + SYN_FLAGS_AT),
        Line(JUMP, yes="flags"),
        Line(LOAD_BYTE, ETHERNET + 6, label="six"),
        Line(IF_EQUAL, TCP, yes="six-tcp"),
        Line(IF_EQUAL, ICMPV6, no="reject"),
        Line(LOAD_BYTE, ETHERNET + IPV6),
        Line(IF_EQUAL, ADVERTISEMENT, yes="accept", no="reject"),
        Line(LOAD_BYTE, ETHERNET + IPV6 + SYN_FLAGS_AT, label="six-tcp"),
        Line(AND, 0x17, label="flags"),  # of ACK, RST, SYN and FIN ...
        Line(IF_EQUAL, 0x02, yes="accept", no="reject"),  # ... SYN alone
    )
)


def parse(frame: bytes, *, router: str, network: str, t_ns: int) -> ArpSeen | AdmissionSeen | None:
    """Return what a frame that the filter let through says; None if nothing of interest."""
    if frame[12:14] == b"\x08\x06":
        return parse_arp(frame, router=router, network=network, t_ns=t_ns)
    if frame[12:14] == b"\x86\xdd" and frame[20:21] == bytes((ICMPV6,)):
        return parse_advertisement(frame, router=router, network=network, t_ns=t_ns)
    return parse_syn(frame, router=router, network=network, t_ns=t_ns)


def parse_arp(frame: bytes, *, router: str, network: str, t_ns: int) -> ArpSeen | None:
    """Return what an ARP frame says about a floating address; None if nothing."""
    if len(frame) < FRAME_BYTES or frame[12:14] != b"\x08\x06":
        return None
    hardware, protocol, _, _, _, mac, sender, _, target = ARP.unpack_from(frame, ETHERNET)
    address = socket.inet_ntoa(sender)
    if (hardware, protocol) != (1, ETH_P_IP) or address not in ADDRESSES:
        return None
    return ArpSeen(
        t_ns=t_ns,
        router=router,
        network=network,
        address=address,
        mac=mac.hex(":"),
        gratuitous=sender == target,
    )


def parse_advertisement(frame: bytes, *, router: str, network: str, t_ns: int) -> ArpSeen | None:
    """Return what a neighbour advertisement says about a floating address; None if nothing."""
    message = frame[ETHERNET + IPV6 :]
    if len(message) < 24 or frame[20] != ICMPV6 or message[0] != ADVERTISEMENT:
        return None
    address = socket.inet_ntop(socket.AF_INET6, message[8:24])
    if address not in ADDRESSES:
        return None
    # The option with the link-layer address; without it that of the frame holds.
    mac = message[26:32] if message[24:26] == b"\x02\x01" and len(message) >= 32 else frame[6:12]
    return ArpSeen(
        t_ns=t_ns,
        router=router,
        network=network,
        address=address,
        mac=mac.hex(":"),
        gratuitous=not message[4] & SOLICITED,
    )


def parse_syn(frame: bytes, *, router: str, network: str, t_ns: int) -> AdmissionSeen | None:
    """Return which new connection of a client a frame from a router begins; None if none.

    The filter has let only first packets of TCP connections through. Those of the routers
    themselves do not count: they need no right. The source address tells: still the client's
    in the private network, already the floating one in the public.
    """
    if len(frame) >= 34 and frame[12:14] == b"\x08\x00":
        version, subnet = 4, SUBNET[network]
        source, target = (socket.inet_ntoa(frame[at : at + 4]) for at in (26, 30))
        segment = frame[ETHERNET + 4 * (frame[ETHERNET] & 0x0F) :]
    elif len(frame) >= ETHERNET + IPV6 and frame[12:14] == b"\x86\xdd":
        version, subnet = 6, SUBNET_V6[network]
        source, target = (socket.inet_ntop(socket.AF_INET6, frame[at : at + 16]) for at in (22, 38))
        segment = frame[ETHERNET + IPV6 :]
    else:
        return None
    admitted = source in ADDRESSES if network == "public" else not source.startswith(subnet)
    if not admitted:
        return None
    own, other = struct.unpack_from("!HH", segment) if len(segment) >= 4 else (0, 0)
    return AdmissionSeen(
        t_ns, router, network, version, endpoint(source, own), endpoint(target, other)
    )


def endpoint(address: str, port: int) -> str:
    """Return how an end of a connection is written in a history."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def question(address: str, network: str, mac: bytes) -> bytes:
    """Return the frame that asks everybody in a network who has an address.

    The answers go to the asker alone and teach no host anything, so asking does not hide a missing
    announcement. The sender is an address that nobody uses: for a node that is about to take an
    address, one without a sender means a conflict (RFC 5227, section 2.1.1; RFC 4862, section
    5.4.3).
    """
    if ":" in address:
        return _solicitation(address, network, mac)
    sender = socket.inet_aton(f"{SUBNET[network]}{ASKER}")
    request = ARP.pack(1, ETH_P_IP, 6, 4, 1, mac, sender, bytes(6), socket.inet_aton(address))
    return BROADCAST + mac + ETH_P_ARP.to_bytes(2, "big") + request


def _solicitation(address: str, network: str, mac: bytes) -> bytes:
    source = socket.inet_pton(socket.AF_INET6, f"{SUBNET_V6[network]}{ASKER}")
    target = socket.inet_pton(socket.AF_INET6, address)
    # RFC 4291, section 2.7.1: the group of all whose address ends so; RFC 2464 for its frames.
    group = socket.inet_pton(socket.AF_INET6, "ff02::1:ff00:0")[:13] + target[13:]
    option = b"\x01\x01" + mac
    message = bytes((SOLICITATION, 0, 0, 0)) + bytes(4) + target + option
    pseudo = source + group + struct.pack("!II", len(message), ICMPV6)
    message = message[:2] + struct.pack("!H", checksum(pseudo + message)) + message[4:]
    header = struct.pack("!IHBB", 6 << 28, len(message), ICMPV6, 255) + source + group
    return b"\x33\x33" + group[12:] + mac + ETH_P_IPV6.to_bytes(2, "big") + header + message


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
