"""A small configuration that has one of everything."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

from hanat.core.configuration import (
    PROFILES,
    Configuration,
    FloatingAddress,
    Listen,
    Masquerade,
    Protocol,
    RealServer,
    Scheduler,
    VirtualService,
)
from hanat.core.control_traffic import ClusterPath, ControlTraffic
from hanat.core.outcomes import Cause, Failed

DEVICES = {"public": "eth0", "private": "eth1"}
PUBLIC = ip_address("203.0.113.10")
PUBLIC_V6 = ip_address("2001:db8:1::10")
CONVERSATION = ControlTraffic(
    own=(ip_address("203.0.113.11"), ip_address("fd00:12::11")),
    peers=tuple(
        ip_address(text) for text in ("203.0.113.12", "fd00:12::12", "203.0.113.13", "fd00:12::13")
    ),
    raft_port=7411,
    mesh_port=7412,
    paths=tuple(
        ClusterPath(ip_address(own), device, (ip_address(near),), (ip_address(far),))
        for own, device, near, far in (
            ("203.0.113.11", "eth0", "203.0.113.12", "203.0.113.13"),
            ("fd00:12::11", "eth1", "fd00:12::12", "fd00:12::13"),
        )
    ),
)

WEB = VirtualService(
    name="web",
    listens=(Listen(PUBLIC, Protocol.TCP, 80, 80), Listen(PUBLIC_V6, Protocol.TCP, 80, 80)),
    scheduler=Scheduler.WRR,
    servers=(
        RealServer("web1", ip_address("10.11.12.101"), 8080, weight=2),
        RealServer("web2", ip_address("10.11.12.102"), 8080, weight=1),
        RealServer("web3", ip_address("10.11.12.103"), 8080, weight=0),
        RealServer("web6", ip_address("fd00:12::101"), 8080, weight=1),
    ),
)
MEDIA = VirtualService(
    name="media",
    listens=(
        Listen(PUBLIC, Protocol.UDP, 5000, 5099),
        Listen(PUBLIC, Protocol.TCP, 5000, 5000),
    ),
    scheduler=Scheduler.SH,
    servers=(
        RealServer("any", ip_address("10.11.12.101"), None, weight=200),
        RealServer("one", ip_address("10.11.12.102"), 5000, weight=300),
    ),
)
OFF = VirtualService(
    name="off",
    listens=(Listen(PUBLIC, Protocol.UDP, 9, 9),),
    scheduler=Scheduler.RR,
    servers=(RealServer("old", ip_address("10.11.12.101"), None, weight=0),),
)
EDGE = Configuration(
    name="edge1",
    profile=PROFILES["default"],
    vips=(
        FloatingAddress(
            "public",
            "public",
            (ip_interface("203.0.113.10/24"), ip_interface("2001:db8:1::10/64")),
        ),
        FloatingAddress(
            "private", "private", (ip_interface("10.11.12.1/24"), ip_interface("fd00:12::1/64"))
        ),
    ),
    masquerades=(
        Masquerade(
            networks=(
                ip_network("10.11.12.0/24"),
                ip_network("10.11.12.128/25"),
                ip_network("fd00:12::/64"),
            ),
            sources=(PUBLIC, PUBLIC_V6),
            interface="public",
        ),
    ),
    services=(WEB, MEDIA, OFF),
)


def because(detail: str) -> Failed:
    """Return a failure that is the kernel's doing."""
    return Failed(Cause.KERNEL, detail)


NO_PEER = Failed(Cause.NO_PEER, "no connected peer has the whole log")
