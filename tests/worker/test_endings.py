"""Connections of servers that go: deleted or marked on every node, and asked for without loss."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_address

import pytest

from hanat.core.configuration import OnServerDown, Replicate
from hanat.core.endings import Ended, Ending
from hanat.core.flows import RESET_MARK, Flow
from hanat.core.reconcile import Rules
from hanat.daemon import ending_requests
from hanat.errors import KernelError
from hanat.kernel.client_sets import KernelClientSets
from hanat.worker.flow_service import FlowService
from hanat.worker.worker_channel import NUMBER, Channel, Kind
from tests.contract.flows import TCP, UDP, inbound
from tests.fakes.kernel import FakeConntrack, FakeKernel, FakeRoutes
from tests.worker.listener import TURNS, Listener
from tests.worker.test_flow_worker import SCOPE, VIP, Cluster, open_flow

EXPIRE, RESET = OnServerDown.EXPIRE, OnServerDown.RESET


@pytest.fixture
async def cluster() -> Cluster:
    return Cluster()


def ending(policy: OnServerDown | None = None, *, last: int = 101) -> Ending:
    """Return the end of the connections of the server of `inbound`, or of another one."""
    listens = ((TCP, VIP.packed, 80, 80), (UDP, VIP.packed, 80, 80))
    return Ending("web", listens, ip_address(f"10.11.12.{last}").packed, 8080, policy)


async def holding(cluster: Cluster, count: int) -> None:
    for port in range(count):
        open_flow(cluster, port)
    cluster.holder.start_capture(1)
    await cluster.settle()


def marks(cluster: Cluster) -> list[dict[int, int]]:
    """Return the marks of both kernels' flows, by the client's port."""
    return [
        {f.original.source_port: f.mark for f in map(Flow.from_record, kernel.flows.records())}
        for kernel in cluster.kernels
    ]


async def test_connections_that_expire_are_gone_everywhere(cluster: Cluster) -> None:
    await holding(cluster, 5)
    told: list[Sequence[Ended]] = []

    cluster.holder.end_connections([ending(last=102), ending(EXPIRE)], told.append)
    await cluster.settle()

    assert told == [[Ended(), Ended(expired=5)]]
    assert marks(cluster) == [{}, {}]
    assert cluster.holder.status().ended == 5


async def test_connections_to_be_reset_are_marked_everywhere(cluster: Cluster) -> None:
    await holding(cluster, 5)
    assert sum(cluster.holder.counts().values()) == 5
    told: list[Sequence[Ended]] = []

    for _ in range(2):
        cluster.holder.end_connections([ending()], told.append)
        await cluster.settle()

    assert told == [[Ended(reset=5)], [Ended()]]
    assert marks(cluster) == [dict.fromkeys(range(5), RESET_MARK)] * 2
    for worker in (cluster.holder, cluster.backup):
        assert sum(worker.counts().values()) == 0  # nobody is served by it


async def test_marks_outlast_a_resync(cluster: Cluster) -> None:
    await holding(cluster, 3)
    cluster.holder.end_connections([ending()], lambda _: None)
    await cluster.settle()

    cluster.holder.resync()
    await cluster.settle()
    cluster.restart_backup()
    cluster.kernels[1].flows.pop(inbound(1).to_record())
    cluster.holder.resync()
    await cluster.settle()

    assert marks(cluster) == [dict.fromkeys(range(3), RESET_MARK)] * 2
    assert cluster.complete == [True, True]


async def test_what_happened_before_a_mark_is_told_before_it(cluster: Cluster) -> None:
    await holding(cluster, 0)
    open_flow(cluster, 1)  # unread

    cluster.holder.end_connections([ending()], lambda _: None)
    await cluster.settle()

    assert marks(cluster) == [{1: RESET_MARK}, {1: RESET_MARK}]


async def test_client_that_connects_again_is_no_longer_marked(cluster: Cluster) -> None:
    await holding(cluster, 1)
    cluster.holder.end_connections([ending()], lambda _: None)
    await cluster.settle()

    marked = cluster.kernels[0].flows.records()[0]
    cluster.kernels[0].end_flow(marked)  # its SYN does that
    open_flow(cluster, 0)
    await cluster.settle()

    assert marks(cluster) == [{0: 0}, {0: 0}]
    assert sum(cluster.backup.counts().values()) == 1


async def test_who_was_not_told_of_a_connection_is_not_told_of_its_end(cluster: Cluster) -> None:
    cluster.scope(Replicate(min_age_s=10.0))
    await holding(cluster, 1)
    told: list[Sequence[Ended]] = []

    cluster.holder.end_connections([ending()], told.append)
    await cluster.settle()
    cluster.now = 20.0
    cluster.holder._holder._mature()
    await cluster.settle()

    assert told == [[Ended(reset=1)]]
    assert marks(cluster) == [{0: RESET_MARK}, {}]


async def test_who_does_not_hold_ends_nothing(cluster: Cluster) -> None:
    await holding(cluster, 1)
    told: list[Sequence[Ended]] = []

    cluster.backup.end_connections([ending(), ending()], told.append)

    assert told == [[Ended(), Ended()]]
    await cluster.settle()
    assert marks(cluster) == [{0: 0}, {0: 0}]


class Slices:
    """Lets the fake kernel hand out its table flow by flow.

    Attributes:
        walks: How often it was read from the beginning.
        met: Called with the number of flows handed out so far, before the next.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.walks = 0
        self.met: Callable[[int], None] = lambda _count: None
        whole = FakeConntrack.walk

        def walk(conntrack: FakeConntrack, *, every: bool = False) -> Iterator[list[bytes]]:
            self.walks += 1
            (records,) = whole(conntrack, every=every)
            for count, record in enumerate(records):
                self.met(count)
                yield [record]

        monkeypatch.setattr(FakeConntrack, "walk", walk)


async def test_what_is_asked_at_once_takes_one_walk(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await holding(cluster, 5)
    slices = Slices(monkeypatch)
    told: list[Sequence[Ended]] = []

    for last in range(101, 121):
        cluster.holder.end_connections([ending(last=last)], told.append)
    cluster.holder.end_connections([ending(OnServerDown.KEEP)], told.append)
    await cluster.settle()

    assert slices.walks == 1
    assert told == [[Ended(reset=5)], *[[Ended()]] * 20]


async def test_what_is_asked_meanwhile_waits_for_one_more_walk(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await holding(cluster, 5)
    slices = Slices(monkeypatch)
    told: list[str] = []

    def meet(count: int) -> None:
        if slices.walks == 1 and count in {1, 3}:
            cluster.holder.end_connections([ending(EXPIRE)], lambda e: told.append(f"second {e}"))

    slices.met = meet
    cluster.holder.end_connections([ending(last=102)], lambda e: told.append(f"first {e}"))
    await cluster.settle()

    assert slices.walks == 2
    assert told == [
        f"first {[Ended()]}", f"second {[Ended(expired=5)]}", f"second {[Ended()]}"
    ]  # fmt: skip


async def test_node_that_stops_holding_tells_what_it_did(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await holding(cluster, 5)
    slices = Slices(monkeypatch)
    told: list[Sequence[Ended]] = []

    def meet(count: int) -> None:
        if count == 2:
            cluster.holder.end_connections([ending()], told.append)
            asyncio.get_running_loop().call_soon(cluster.holder.stop_capture)

    slices.met = meet
    cluster.holder.end_connections([ending()], told.append)
    await cluster.settle()

    ((first,), second) = told
    assert 0 < first.reset < 5
    assert second == [Ended()]
    assert list(marks(cluster)[0].values()).count(RESET_MARK) == first.reset


async def test_kernel_that_refuses_ends_the_walk(cluster: Cluster) -> None:
    await holding(cluster, 1)
    cluster.kernels[0].faults["conntrack.mark_for_reset"] = KernelError(
        operation="change flows", target="conntrack", found="no memory"
    )
    told: list[Sequence[Ended]] = []

    cluster.holder.end_connections([ending()], told.append)
    await cluster.settle()

    assert told == [[Ended()]]
    cluster.kernels[0].faults.clear()
    cluster.holder.end_connections([ending()], told.append)
    await cluster.settle()
    assert told[1:] == [[Ended(reset=1)]]


async def test_rules_are_reconciled_after_what_was_asked_before(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its service in the rules a connection would be deleted."""
    await holding(cluster, 3)
    slices = Slices(monkeypatch)
    without = Rules(frozenset({VIP.packed}), devices=frozenset({"eth0"}))
    told: list[object] = []

    def meet(count: int) -> None:
        if (slices.walks, count) == (1, 0):
            cluster.holder.end_connections([ending()], told.append)
            cluster.holder.reconcile(without, told.append)
            cluster.holder.reconcile(without, told.append)

    slices.met = meet
    cluster.holder.end_connections([ending(last=102)], lambda _: None)
    await cluster.settle()

    assert told == [{}, [Ended(reset=3)], {}]
    assert marks(cluster) == [dict.fromkeys(range(3), RESET_MARK)] * 2


# ------------------------------------------------------------------------ the daemon's end


class Worker(Listener):
    """A flow worker in this process, or one that only listens.

    Attributes:
        deaf: It answers nothing.
    """

    def __init__(self) -> None:
        super().__init__(self._propose)
        self.kernel = FakeKernel((), lambda: 0.0)
        self.deaf = False
        self.client.set_scope(SCOPE)

    @staticmethod
    def _propose(_term: int, _batch: bytes, done: Callable[[bool], None]) -> bool:
        asyncio.get_running_loop().call_soon(done, True)  # noqa: FBT003 - as the log does
        return True

    def _begin(self, opened: socket.socket) -> tuple[Channel, asyncio.Task[object]]:
        if self.deaf:
            return super()._begin(opened)
        conntrack, routes = FakeConntrack(self.kernel), FakeRoutes(self.kernel)
        service = FlowService(conntrack, routes, KernelClientSets(), clock=lambda: 0.0)
        return service._channel, asyncio.get_running_loop().create_task(service.run(opened))

    @property
    def asked(self) -> list[dict[str, object]]:
        """What was to end, while it was deaf."""
        return [json.loads(body[NUMBER.size :]) for kind, body in self.heard if kind is Kind.END]

    async def end(self, *endings: Ending) -> Sequence[Ended]:
        told: asyncio.Future[Sequence[Ended]] = asyncio.get_running_loop().create_future()
        self.client.end_connections(endings, told.set_result)
        async with asyncio.timeout(10):
            return await told


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    found = Worker()
    yield found
    await found.close()


async def test_counts_come_back_to_the_daemon(worker: Worker) -> None:
    for port in range(4):
        worker.kernel.track(inbound(port).to_record())
        worker.kernel.track(replace(inbound(port), protocol=UDP, tcp_state=0).to_record())
    worker.client.start()
    worker.client.start_capture(1)

    assert await worker.end(ending(last=102), ending()) == [Ended(), Ended(expired=4, reset=4)]


async def test_backup_answers_that_it_ended_nothing(worker: Worker) -> None:
    worker.kernel.track(inbound().to_record())
    worker.client.start()

    assert await worker.end(ending()) == [Ended()]
    assert list(await worker.end()) == []


async def test_many_endings_are_asked_in_parts_and_answered_as_one(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending_requests, "ENDINGS_MAX", 10)
    worker.kernel.track(inbound().to_record())
    worker.client.start()
    worker.client.start_capture(1)
    endings = [ending(last=last) for last in range(1, 130)]

    ended = await worker.end(*endings)

    assert ended == [Ended(reset=1) if last == 101 else Ended() for last in range(1, 130)]


async def test_worker_that_died_over_it_is_followed_by_one_that_does_it(worker: Worker) -> None:
    worker.kernel.track(inbound().to_record())
    worker.deaf = True
    worker.client.start()
    worker.client.start_capture(1)
    told: list[Sequence[Ended]] = []
    worker.client.end_connections([ending()], told.append)
    for _ in range(TURNS):
        await asyncio.sleep(0)
    assert len(worker.asked) == 1
    assert told == []

    worker.deaf = False
    await worker.restarted()

    async with asyncio.timeout(10):
        while not told:  # noqa: ASYNC110 - another task answers
            await asyncio.sleep(0)
    assert told == [[Ended(reset=1)]]


async def test_what_nobody_answers_is_not_kept_for_ever(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending_requests, "UNANSWERED_MAX", 3)
    told: list[Sequence[Ended]] = []

    for _ in range(5):  # there is no worker
        worker.client.end_connections([ending()], told.append)

    assert told == [[Ended()]] * 2
