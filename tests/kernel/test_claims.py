"""Another machine claims a floating address, and the holder hears it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_address, ip_interface

import pytest

from hanat.core.configuration import FloatingAddress
from hanat.core.inputs import ClaimHeard, Input
from hanat.core.placements import Placement
from hanat.daemon.claim_watch import ClaimWatch
from hanat.kernel.announcer import KernelAnnouncer
from hanat.kernel.claims import KernelClaims
from tests.kernel.namespaces import cable, until

pytestmark = pytest.mark.kernel

VIPS = (
    FloatingAddress(
        "public", "public", (ip_interface("203.0.113.10/24"), ip_interface("2001:db8::10/64"))
    ),
)
ADDRESSES = [a.ip for a in VIPS[0].addresses]


@pytest.fixture
def claims(inside: str) -> KernelClaims:
    cable((inside, "eth0"), (inside, "far0"))
    return KernelClaims(["eth0"])


def claim(device: str, address: str) -> Callable[[], None]:
    announcer = KernelAnnouncer()

    def again() -> None:
        announcer.announce([Placement(device, ip_interface(address))])
        announcer.close()

    return again


@pytest.mark.parametrize("address", ["203.0.113.10/24", "2001:db8::10/64"])
def test_claim_of_another_is_heard_and_nothing_else(claims: KernelClaims, address: str) -> None:
    claims.watch(ADDRESSES)
    for other in ("203.0.113.11/24", "2001:db8::11/64"):
        claim("far0", other)()
    assert not claims.read()
    claim("far0", address)()
    until(claims.read, "the claim")
    claims.close()


def test_many_addresses_fit_the_filter(claims: KernelClaims) -> None:
    many = [ip_address(f"10.{n >> 8}.{n & 255}.1") for n in range(1000)]
    claims.watch(many)
    claim("far0", "10.0.99.1/24")()
    until(claims.read, "the claim")
    claims.close()


async def test_watch_is_woken_once_however_many_claims_come(claims: KernelClaims) -> None:
    heard: list[Input] = []
    watch = ClaimWatch(claims, lambda: VIPS, heard.append)
    watch.begin(asyncio.get_running_loop())
    again = claim("far0", "203.0.113.10/24")
    async with asyncio.timeout(10):
        while not heard:
            again()
            await asyncio.sleep(0)
    for _ in range(50):
        again()
        await asyncio.sleep(0)
    watch.close()
    assert heard == [ClaimHeard()]
