"""A flow worker on a router, with a log that commits at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_address

from hanat.core.configuration import Address, Configuration
from hanat.core.endings import Ended, Ending
from hanat.core.flow_scope import scope_of
from hanat.core.reconcile import rules_of
from hanat.kernel.conntrack import KernelConntrack
from hanat.kernel.route_lookup import KernelRoutes
from hanat.worker.flow_worker import FlowWorker
from tests.core.examples import DEVICES
from tests.kernel.network import CONFIGURATION, OWN, Network, Router

WAIT_S_MAX = 10


class Holder:
    """A router with a flow worker; this process is in its namespace.

    Attributes:
        log: The batches that were committed.
    """

    def __init__(self, network: Network, router: Router) -> None:
        self.network, self.router = network, router
        self.conntrack, self.routes = KernelConntrack(), KernelRoutes()
        self.log: list[bytes] = []
        self.worker = FlowWorker(
            self.conntrack,
            self.routes,
            propose=self._propose,
            completed=lambda _: None,
            clock=lambda: 0.0,
        )
        self.worker.set_scope(scope_of(CONFIGURATION, self.own))

    @property
    def own(self) -> tuple[Address, ...]:
        """Addresses of the router."""
        name = "r1" if self.router is self.network.r1 else "r2"
        return tuple(ip_address(text) for text in OWN[name])

    def _propose(self, _term: int, batch: bytes, done: Callable[[bool], None]) -> bool:
        self.log.append(batch)
        asyncio.get_running_loop().call_soon(done, True)  # noqa: FBT003 - as the log does
        return True

    def install(self, configuration: Configuration) -> None:
        """Put a configuration in force."""
        self.router.prepare(configuration)
        self.worker.set_scope(scope_of(configuration, self.own))

    async def reconcile(self, configuration: Configuration) -> dict[str, int]:
        """Do what follows an installed ruleset; return how many flows ended, by reason."""
        told: asyncio.Future[Mapping[str, int]] = asyncio.get_running_loop().create_future()
        self.worker.reconcile(rules_of(configuration, DEVICES, self.own), told.set_result)
        async with asyncio.timeout(WAIT_S_MAX):
            return dict(await told)

    async def end(self, *endings: Ending) -> Sequence[Ended]:
        """End connections; return how many there were of each."""
        told: asyncio.Future[Sequence[Ended]] = asyncio.get_running_loop().create_future()
        self.worker.end_connections(endings, told.set_result)
        async with asyncio.timeout(WAIT_S_MAX):
            return await told

    async def flush(self) -> None:
        """Wait until everything is committed."""
        done = asyncio.Event()
        self.worker.flush(done.set)
        async with asyncio.timeout(WAIT_S_MAX):
            await done.wait()

    def close(self) -> None:
        """Stop, and release all descriptors."""
        self.worker.stop_capture()
        self.worker.accounting.close()
        self.conntrack.close()
        self.routes.close()


@contextmanager
def holding(network: Network, router: Router, log: Sequence[bytes] = ()) -> Iterator[Holder]:
    """Let a router take over, after it installed what others committed."""
    with router.entered():
        made = Holder(network, router)
        try:
            for batch in log:
                made.worker.install(batch)
            router.take_over()
            made.worker.start_capture(1)
            yield made
        finally:
            made.close()
