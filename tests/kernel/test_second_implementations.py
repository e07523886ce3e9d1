"""Other libraries build the same bytes: scapy the frames, pyroute2 the messages of rtnetlink."""

from __future__ import annotations

import struct
from ipaddress import ip_address, ip_interface

import pytest
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

from hanat.core.placements import Placement
from hanat.kernel import addresses, announcer, netlink

OWN, HOST = "02:00:5e:10:00:0b", "02:00:5e:10:00:01"


@pytest.mark.parametrize("operation", [1, 2])
def test_gratuitous_arp_is_as_scapy_builds_it(operation: int) -> None:
    target = "00:00:00:00:00:00" if operation == 1 else "ff:ff:ff:ff:ff:ff"
    arp = ARP(
        op=operation, hwsrc=OWN, psrc="203.0.113.10", hwdst=target, pdst="203.0.113.10"
    )  # fmt: skip

    frames = announcer._frames(Placement("eth0", ip_interface("203.0.113.10/24")), OWN)

    assert frames[operation - 1] == bytes(Ether(dst="ff:ff:ff:ff:ff:ff", src=OWN) / arp)


# The sums of their words differ in how often they carry; RFC 1071.
@pytest.mark.parametrize("address", ["2001:db8::10", "ffff:ffff:ffff:ffff::ffff", "::1:0:0"])
def test_neighbour_advertisement_is_as_scapy_builds_it(address: str) -> None:
    advertisement = (
        Ether(dst="33:33:00:00:00:01", src=OWN)
        / IPv6(src=address, dst="ff02::1", hlim=255)
        / ICMPv6ND_NA(R=1, S=0, O=1, tgt=address)
        / ICMPv6NDOptDstLLAddr(lladdr=OWN)
    )

    (frame,) = announcer._frames(Placement("eth0", ip_interface(f"{address}/64")), OWN)

    assert frame == bytes(advertisement)


def test_arp_probe_is_as_scapy_builds_it() -> None:
    arp = ARP(op=1, hwsrc=OWN, psrc="0.0.0.0", hwdst="00:00:00:00:00:00", pdst="203.0.113.1")  # noqa: S104 - RFC 5227, section 1.1

    own, to = (bytes.fromhex(text.replace(":", "")) for text in (OWN, HOST))
    frame = announcer.arp_request(ip_address("203.0.113.1").packed, own=own, to=to)

    assert frame == bytes(Ether(dst=HOST, src=OWN) / arp)


@pytest.mark.parametrize("version", [4, 6])
def test_pyroute2_reads_the_message_that_adds_an_address(version: int) -> None:
    address = "203.0.113.10/24" if version == 4 else "2001:db8:1::10/64"
    label = "eth0:1" if version == 4 else ""

    body = addresses._message(Placement("eth0", ip_interface(address), label), {"eth0": 7})

    header = struct.pack("=IHHII", 16 + len(body), addresses._RTM_NEWADDR, 0, 0, 0)
    message = ifaddrmsg(header + body)
    message.decode()
    ip, _, prefix = address.partition("/")
    assert (message["index"], message["prefixlen"]) == (7, int(prefix))
    assert message.get_attr("IFA_LOCAL") == message.get_attr("IFA_ADDRESS") == ip
    assert message.get_attr("IFA_LABEL") == (label or None)
    if version == 6:  # IFA_F_NODAD; deprecated, for ever
        lifetimes = message.get_attr("IFA_CACHEINFO")
        assert message.get_attr("IFA_FLAGS") == 0x02
        assert (lifetimes["ifa_preferred"], lifetimes["ifa_valid"]) == (0, 0xFFFFFFFF)


def test_types_of_messages_are_those_of_pyroute2() -> None:
    from pyroute2.netlink.rtnl import RTM_GETADDR, RTM_NEWADDR

    assert (addresses._RTM_NEWADDR, addresses._RTM_GETADDR) == (RTM_NEWADDR, RTM_GETADDR)
    assert netlink.HEADER.size == 16
