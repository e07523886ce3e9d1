"""A client's connections that a new holder inherited count for its limit again."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest

from hanat.core.configuration import Configuration, Limits
from hanat.core.service_limits import crowds_of
from hanat.core.sticky import Wanted
from hanat.kernel.client_sets import KernelClientSets
from hanat.worker.crowd_watch import CrowdWatch
from tests.kernel.holders import Holder, holding
from tests.kernel.namespaces import run
from tests.kernel.network import (
    CONFIGURATION,
    SERVER,
    SERVER_PORT,
    SERVER_V6,
    SERVICE_PORT,
    VIP,
    VIP_V6,
    Network,
    Router,
    family_of,
)

pytestmark = pytest.mark.kernel

FAMILIES = pytest.mark.parametrize(
    ("vip", "server"), [(VIP, SERVER), (VIP_V6, SERVER_V6)], ids=["v4", "v6"]
)
SILENCE_S = 0.3
WAIT_S_MAX = 20


def limited(most: int) -> Configuration:
    echo, *others = CONFIGURATION.services
    limits = Limits(connections_per_client=most)
    return replace(CONFIGURATION, services=(replace(echo, limits=limits), *others))


@pytest.fixture
def sets() -> Iterator[KernelClientSets]:
    made = KernelClientSets()
    yield made
    made.close()


class Site:
    """A client of the service, and a server that takes its connections."""

    def __init__(self, network: Network, vip: str, server: str) -> None:
        self._network, self._vip = network, vip
        self._listener = network.listener("server", server, SERVER_PORT)
        self.pairs: list[tuple[socket.socket, socket.socket]] = []

    def connect(self, count: int) -> None:
        for _ in range(count):
            to = (self._vip, SERVICE_PORT)
            self.pairs.append(self._network.connection(self._listener, "client", to))

    async def connects(self) -> bool:
        """Say whether another connection comes through; it is closed at once then."""
        asking = self._network.open_socket("client", family_of(self._vip), socket.SOCK_STREAM)
        asking.setblocking(False)  # noqa: FBT003 - the library's signature
        try:
            async with asyncio.timeout(SILENCE_S):
                loop = asyncio.get_running_loop()
                await loop.sock_connect(asking, (self._vip, SERVICE_PORT))
        except TimeoutError:
            return False
        finally:
            asking.close()
        self._listener.accept()[0].close()
        return True

    async def until(self, *, connects: bool) -> None:
        async with asyncio.timeout(WAIT_S_MAX):
            while await self.connects() is not connects:
                pass

    def end(self) -> None:
        for pair in self.pairs:
            for one in pair:
                one.close()


@FAMILIES
async def test_limit_holds_again_for_connections_that_a_new_holder_inherited(
    network: Network, sets: KernelClientSets, vip: str, server: str
) -> None:
    configuration = limited(3)
    for router in (network.r1, network.r2):
        router.prepare(configuration)
    site = Site(network, vip, server)
    with holding(network, network.r1) as first:
        site.connect(3)
        await first.flush()
        assert not await site.connects()
    network.pull(network.r1)
    with holding(network, network.r2, first.log) as second:
        watch = CrowdWatch(second.worker.keys, sets, whole=lambda: True)
        watch.configure(crowds_of(configuration))
        watch.begin()
        name = set_for(vip, configuration)
        await filled(second, name)
        assert not await site.connects()

        site.end()
        await site.until(connects=True)
        watch.end()


async def test_kernel_counts_no_connection_that_it_was_given(network: Network) -> None:
    """Why there is somebody who looks: without, a client has as many more at a takeover."""
    for router in (network.r1, network.r2):
        router.prepare(limited(3))
    site = Site(network, VIP, SERVER)
    with holding(network, network.r1) as first:
        site.connect(3)
        await first.flush()
    network.pull(network.r1)
    with holding(network, network.r2, first.log):
        site.connect(3)
        assert not await site.connects()


@FAMILIES
async def test_connections_from_before_there_was_a_limit_count(
    network: Network, sets: KernelClientSets, vip: str, server: str
) -> None:
    site = Site(network, vip, server)
    with holding(network, network.r1) as holder:
        watch = CrowdWatch(holder.worker.keys, sets, whole=lambda: True)
        watch.begin()
        site.connect(3)
        configuration = limited(3)
        holder.install(configuration)
        watch.configure(crowds_of(configuration))
        await filled(holder, set_for(vip, configuration))

        assert not await site.connects()
        watch.end()


async def test_node_that_stops_looking_refuses_nobody_for_long(
    network: Network, sets: KernelClientSets
) -> None:
    """Its sets forget: nobody is shut out by a worker that died."""
    configuration = limited(1)
    network.r1.prepare(configuration)
    site = Site(network, VIP, SERVER)
    with holding(network, network.r1):
        name = set_for(VIP, configuration)
        sets.write(name, put=[Wanted(ip_address("203.0.113.2").packed, 1_000)], gone=[])
        assert not await site.connects()
        await site.until(connects=True)


def set_for(vip: str, configuration: Configuration) -> str:
    """Return the name of the set of clients that have too many."""
    version = f"/v{ip_address(vip).version}/"
    (name,) = {crowd.name for crowd in crowds_of(configuration) if version in crowd.name}
    return name


def elements(router: Router, name: str) -> int:
    return run(f"nft list set inet hanat {name}", router.namespace).count(" expires ")


async def filled(holder: Holder, name: str) -> None:
    """Wait until a set has a client."""
    async with asyncio.timeout(WAIT_S_MAX):
        while not elements(holder.router, name):  # noqa: ASYNC110 - by a timer
            await asyncio.sleep(0.01)
