"""A flow worker over the real table, with a log that commits at once and a fake backup."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address

import pytest

from hanat.core.flow_scope import ReplicationScope
from hanat.core.flows import key_of
from hanat.kernel import conntrack
from hanat.kernel.conntrack import KernelConntrack
from hanat.worker import holder
from hanat.worker.flow_worker import FlowWorker
from tests.contract.flows import inbound
from tests.fakes.kernel import FakeConntrack, FakeKernel, FakeRoutes

pytestmark = pytest.mark.kernel

SCOPE = ReplicationScope(frozenset({ip_address("203.0.113.10").packed}))
WAIT_S_MAX = 10


class Pair:
    """A holder on this kernel and a backup on a fake one."""

    def __init__(self) -> None:
        self.kernel, self.stranger = KernelConntrack(), KernelConntrack()
        self.other = FakeKernel((), lambda: 0.0)
        self.complete = False
        self.holder = FlowWorker(
            self.kernel,
            FakeRoutes(self.other),
            propose=self._propose,
            completed=lambda _: None,
            clock=lambda: 0.0,
        )
        self.backup = FlowWorker(
            FakeConntrack(self.other),
            FakeRoutes(self.other),
            propose=self._propose,
            completed=self._note,
            clock=lambda: 0.0,
        )
        for worker in (self.holder, self.backup):
            worker.set_scope(SCOPE)

    def _note(self, complete: bool) -> None:  # noqa: FBT001 - called by the worker
        self.complete = complete

    def _propose(self, _term: int, batch: bytes, done: Callable[[bool], None]) -> bool:
        def commit() -> None:
            self.backup.install(batch)
            done(True)  # noqa: FBT003 - as the log does

        asyncio.get_running_loop().call_soon(commit)
        return True

    def open_flows(self, ports: range) -> None:
        """Let a stranger make flows, with the events of packets."""
        records = [inbound(port).to_record() for port in ports]
        self.stranger.install(records)
        self.stranger.extend(records)

    def close_flows(self, ports: range) -> None:
        self.stranger.delete([inbound(port).to_record() for port in ports])

    def equal(self) -> bool:
        """Say whether both tables have the same flows."""
        ours = {key_of(record) for record in self.kernel.dump()}
        return ours == {key_of(record) for record in self.other.flows.records()}

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S_MAX):
            while not condition():  # noqa: ASYNC110 - the kernel sets no event
                await asyncio.sleep(0.01)

    def close(self) -> None:
        self.holder.stop_capture()
        self.holder.accounting.close()
        self.kernel.close()
        self.stranger.close()


@pytest.fixture
async def pair(inside: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:  # noqa: ARG001 - the namespace
    monkeypatch.setattr(holder, "RESYNC_AGAIN_S", 0.05)
    opened = Pair()
    yield opened
    opened.close()


async def test_events_that_the_kernel_dropped_are_made_good(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conntrack, "CAPTURE_BUFFER_BYTES", 1 << 16)
    pair.open_flows(range(1000, 1500))
    pair.holder.start_capture(1)
    await pair.until(lambda: pair.complete and pair.equal())
    pair.open_flows(range(2000, 5000))
    pair.close_flows(range(1000, 1200))
    await pair.until(pair.equal)
    status = pair.holder.status()
    assert status.overruns >= 1
    assert status.resyncs >= 2
    assert len(pair.other.flows.records()) == 3300


async def test_changes_during_a_resync_arrive(pair: Pair) -> None:
    pair.open_flows(range(1000, 21_000))
    pair.holder.start_capture(1)
    for first in range(1000, 11_000, 500):
        pair.close_flows(range(first, first + 200))
        pair.open_flows(range(first + 30_000, first + 30_100))
        await asyncio.sleep(0)
    await pair.until(lambda: pair.complete and pair.equal())
    assert pair.holder.status().overruns == 0
