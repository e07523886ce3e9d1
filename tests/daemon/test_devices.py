"""What the kernel tells of this node's devices, as the core hears it."""

from __future__ import annotations

import asyncio
from ipaddress import ip_interface

from hanat.core.inputs import CarrierObserved, Input, RemovalObserved
from hanat.core.placements import Placement
from hanat.daemon.devices import DeviceWatch
from tests.fakes.kernel import FakeAddresses, FakeKernel, FakeLinks

MANY = [Placement("eth0", ip_interface(f"10.9.{n // 250}.{n % 250 + 1}/32")) for n in range(1000)]


async def test_thousand_addresses_that_go_at_once_are_one_input() -> None:
    """A holder that gives up takes off a thousand: each as a turn of the core held it 0.1 s."""
    kernel = FakeKernel(["eth0", "eth1"], now=lambda: 0.0)
    told: list[Input] = []
    heard = asyncio.Event()

    def feed(item: Input) -> None:
        told.append(item)
        heard.set()

    watch = DeviceWatch(
        FakeLinks(kernel), {"public": "eth0", "private": "eth1"}, feed=feed,
        usable=lambda _device, _carrier: None,
    )  # fmt: skip
    watch.begin(asyncio.get_running_loop())
    assert sorted(told, key=str) == [
        CarrierObserved(name, carrier=True) for name in ("private", "public")
    ]
    told.clear()
    heard.clear()

    addresses = FakeAddresses(kernel)
    addresses.add(MANY)
    addresses.remove(MANY)
    await asyncio.wait_for(heard.wait(), 10)

    assert told == [RemovalObserved("public", tuple(p.address for p in MANY))]
    watch.close()
