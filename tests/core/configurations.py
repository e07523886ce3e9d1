"""Random configurations that `config check` would pass."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

from hypothesis import strategies as st

from hanat.core.configuration import (
    PROFILES,
    Configuration,
    FloatingAddress,
    Forward,
    Limits,
    Listen,
    Masquerade,
    Persistence,
    Protocol,
    RealServer,
    Replicate,
    Scheduler,
    Sorry,
    Transit,
    Unavailable,
    VirtualService,
)
from hanat.core.schedulers import InRotation
from hanat.core.services import Rotations
from tests.core.examples import EDGE

VPN = Transit("vpn", tuple(map(ip_network, ("10.99.0.0/16", "10.99.7.0/24", "fd00:99::/64"))))

NETWORKS = Persistence(2.0, netmask=24, netmask6=64)
PLACES = tuple(map(ip_network, ("192.0.2.0/24", "192.0.2.0/25", "2001:db8:2::/48")))
LIMITS = (
    Limits(1000, 2000),
    Limits(0, 0, 20, 41, netmask=24),
    Limits(3, 1, 1, 1, 100, netmask6=56),
    Limits(connections_per_client=1, netmask6=128),
)
SORRY = (Sorry(ip_address("10.11.12.200"), 8080), Sorry(ip_address("fd00:12::200"), None))


@st.composite
def configurations(draw: st.DrawFn) -> Configuration:
    """Return configurations with up to five services, for the devices of `examples`."""
    vips = draw(st.sampled_from([EDGE.vips, EDGE.vips[:1], tuple(map(_only_v4, EDGE.vips))]))
    count = draw(st.integers(0, 5))
    # Ports of services do not overlap: service n has the n-th thousand.
    services = tuple(draw(_services(f"s-{n}.x", vips, 1000 * (n + 1))) for n in range(count))
    return Configuration(
        name="any",
        profile=PROFILES["default"],
        vips=vips,
        masquerades=draw(st.sampled_from([EDGE.masquerades, (), (_overlapping(),)])),
        services=services,
        forward=draw(st.sampled_from(Forward)),
        transits=draw(st.sampled_from([(), (VPN,)])),
    )


def _only_v4(vip: FloatingAddress) -> FloatingAddress:
    return replace(vip, addresses=tuple(a for a in vip.addresses if a.version == 4))


def _overlapping() -> Masquerade:
    networks = tuple(map(ip_network, ("10.0.0.0/8", "10.11.12.0/24", "10.11.13.0/24")))
    return Masquerade(networks, (ip_interface("203.0.113.10/24").ip,), "public")


@st.composite
def _services(
    draw: st.DrawFn, name: str, vips: tuple[FloatingAddress, ...], base: int
) -> VirtualService:
    addresses = [address.ip for vip in vips for address in vip.addresses]
    asked = draw(st.sets(st.tuples(st.sampled_from(addresses), st.sampled_from(Protocol))))
    length = draw(st.sampled_from([0, 0, 99]))
    listens = tuple(Listen(a, p, base, base + length) for a, p in sorted(asked, key=str))
    versions = sorted({address.version for address, _ in asked})
    servers = tuple(
        RealServer(
            name=f"r{place}",
            address=ip_address(f"10.11.12.{place + 1}" if version == 4 else f"fd00:12::{place}"),
            port=draw(st.sampled_from([None, 80, 65535])),
            weight=draw(st.integers(0, 300)),
        )
        for place, version in enumerate(
            draw(st.lists(st.sampled_from(versions), max_size=8)) if versions else []
        )
    )
    replicate = draw(st.sampled_from([Replicate(), Replicate(unassured=True)]))
    sources = draw(st.sets(st.sampled_from([vip.interface for vip in vips])))
    return VirtualService(
        name,
        listens,
        draw(st.sampled_from(Scheduler)),
        servers,
        replicate,
        tuple(sorted(sources)),
        sorry=draw(st.sampled_from([(), (), SORRY[:1], SORRY])),
        unavailable=draw(st.sampled_from(Unavailable)),
        hash_port=draw(st.booleans()),
        ops=draw(st.booleans()),
        persistence=draw(st.sampled_from([None, None, Persistence(600.0), NETWORKS])),
        allow=draw(st.sampled_from([(), (), PLACES[:1], PLACES])),
        deny=draw(st.sampled_from([(), (), PLACES, PLACES[2:]])),
        limits=draw(st.sampled_from([Limits(), *LIMITS])),
    )


@st.composite
def rotations(draw: st.DrawFn, configuration: Configuration) -> Rotations:
    """Return what may be known of who gets clients, of some services or all."""
    found = {}
    for service in configuration.services:
        if draw(st.booleans()):
            continue
        names = draw(st.permutations([server.name for server in service.servers]))
        some = names[: draw(st.integers(0, len(names)))]
        weights = (draw(st.sampled_from([0, 1, 1, 2, 300])) for _ in some)
        found[service.name] = tuple(map(InRotation, some, weights))
    return found
