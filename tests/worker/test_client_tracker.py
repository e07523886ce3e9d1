"""Clients of services with persistence between flows, on their way into a log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import ip_address

import pytest

from hanat.core.reconcile import Rules
from hanat.core.sticky import StickyServer, StickyService, Told
from hanat.worker import client_tracker as module
from hanat.worker import holder
from hanat.worker.client_batch import encode, is_of_clients
from hanat.worker.flow_batch import CHANGES_MAX, is_end
from tests.contract.flows import inbound
from tests.worker.test_flow_worker import VIP, Cluster

SERVERS = tuple(
    StickyServer(f"web{i}", ip_address(f"10.11.12.10{i}").packed, 8080, f"persist/web{i}")
    for i in (1, 2)
)
WEB = StickyService("web", 4, 32, 640, ((6, VIP.packed, 80, 80),), SERVERS)


class SlowCluster(Cluster):
    """With a service that has persistence; a log that commits one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.refused = 0
        for worker in (self.holder, self.backup):
            configure(worker)

    def _propose(self, term: int, batch: bytes, done: Callable[[bool], None]) -> bool:
        self.refused += self.losing
        return super()._propose(term, batch, done)

    @property
    def under_way(self) -> Sequence[bytes]:
        """What was proposed and is not committed."""
        return [batch for batch, _ in self._log]

    def commit_first(self) -> None:
        batch, done = self._log.popleft()
        self.backup.install(batch)
        done(True)  # noqa: FBT003 - as the log does

    async def turns(self) -> None:
        """Let what was read be proposed."""
        self.holder.status()  # reads
        for _ in range(20):
            await asyncio.sleep(0)


@pytest.fixture
async def cluster(monkeypatch: pytest.MonkeyPatch) -> SlowCluster:
    monkeypatch.setattr(module, "GATHER_S", 0.0)
    return SlowCluster()


def configure(worker: object, *services: StickyService) -> None:
    worker.reconcile(Rules(sticky=services or (WEB,)), lambda _ended: None)  # type: ignore[attr-defined]


def come(cluster: Cluster, *numbers: int) -> None:
    """Let clients open connections."""
    for number in numbers:
        flow = inbound(number % 60_000)
        client = ip_address(0xC0000000 + number)
        flow = replace(
            flow,
            original=replace(flow.original, source=client),
            reply=replace(flow.reply, destination=client),
        )
        cluster.kernels[0].track(flow.to_record())


async def test_resync_ends_while_clients_keep_coming(cluster: SlowCluster) -> None:
    """A commit takes longer than clients are gathered for: some are always on their way."""
    cluster.holder.start_capture(1)
    ended = False
    for number in range(20):
        come(cluster, number)
        await cluster.turns()
        while len(cluster.under_way) > 1:
            ended |= is_end(cluster.under_way[0])
            cluster.commit_first()
    assert ended


async def test_flows_go_first_in_a_resync(cluster: SlowCluster) -> None:
    cluster.holder.start_capture(1)
    come(cluster, *range(3 * CHANGES_MAX))
    await cluster.turns()
    await cluster.settle()
    cluster.holder.resync()
    await cluster.turns()
    kinds = []
    while cluster.under_way:
        kinds.append(is_of_clients(cluster.under_way[0]))
        cluster.commit_first()
        await cluster.turns()
    assert kinds[-1] is False  # a mark
    assert kinds.count(True) == 3
    assert kinds[-4:-1] == [True] * 3


async def test_hand_over_waits_for_a_window_of_clients_at_most(
    cluster: SlowCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLIENTS_MAX", 2)
    cluster.holder.start_capture(1)
    come(cluster, *range(1000))
    await cluster.turns()
    flushed: list[bool] = []
    cluster.holder.flush(lambda: flushed.append(True))
    batches = 0
    for _ in range(100):
        await cluster.turns()
        if flushed:
            break
        batches += is_of_clients(cluster.under_way[0])
        cluster.commit_first()
    assert flushed
    assert module.WINDOW <= batches <= 2 * module.WINDOW  # those that were on their way, too

    come(cluster, 2000)  # a hand-over that came to nothing
    await cluster.settle()
    assert cluster.holder.status().clients == cluster.backup.status().clients


async def test_what_cannot_be_told_ends_a_resync_until_the_next_one(
    cluster: SlowCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a majority each of many batches is refused: they are not tried one by one."""
    monkeypatch.setattr(module, "CLIENTS_MAX", 2)
    monkeypatch.setattr(holder, "RESYNC_AGAIN_S", 3600.0)
    cluster.holder.start_capture(1)
    come(cluster, *range(100))
    await cluster.turns()
    await cluster.settle()
    kernel = cluster.kernels[0]
    for record in kernel.flows.records():
        kernel.end_flow(record)
    await cluster.settle()  # clients are there, no flows
    cluster.refused = 0
    cluster.holder.resync()
    cluster.losing = True
    await cluster.turns()
    assert 1 <= cluster.refused <= module.WINDOW
    assert "dropped=0" not in caplog.text

    cluster.losing = False
    under_way = len(cluster.under_way)
    for _ in range(3):
        cluster.holder.resync_for_peer(again=False)
        await cluster.turns()
    assert len(cluster.under_way) == under_way  # it has its pause


NEW = StickyService("new", 4, 32, 640, ((6, VIP.packed, 81, 81),), SERVERS)


def told(*clients: int, server: str = "web1", service: str = "new") -> bytes:
    """Return a batch about clients that came just now."""
    packed = [client.to_bytes(4, "big") for client in clients]
    return encode([Told(service, 4, 32, server, packed, [0] * len(clients))])


async def test_what_came_before_its_rules_is_learnt_a_batch_a_turn(cluster: SlowCluster) -> None:
    backup = cluster.backup
    for number in range(5):
        backup.install(told(number))
    assert backup.status().clients == 0
    configure(backup, WEB, NEW)
    known = []
    for _ in range(7):
        known.append(backup.status().clients)
        await asyncio.sleep(0)
    assert known == [0, 1, 2, 3, 4, 5, 5]


async def test_what_came_long_before_its_rules_is_forgotten(cluster: SlowCluster) -> None:
    backup = cluster.backup
    backup.install(told(1))
    cluster.now = 59.0
    configure(backup, WEB)  # of something else
    await cluster.settle()
    backup.install(told(2))
    cluster.now = 61.0
    configure(backup, WEB, NEW)
    await cluster.settle()
    assert backup.status().clients == 1


async def test_client_that_moved_since_stays_there_when_the_rules_are_new(
    cluster: SlowCluster,
) -> None:
    """It was at a server that this node does not know yet, then at one that it does."""
    backup = cluster.backup
    third = replace(SERVERS[0], name="web3", set_name="persist/web3")
    backup.install(told(1, server="web3", service="web"))
    cluster.now = 1.0
    backup.install(told(1, service="web"))
    configure(backup, replace(WEB, servers=(*SERVERS, third)))
    await cluster.settle()
    table = backup._clients._table
    assert len(table.wanted("persist/web1", [bytes((0, 0, 0, 1))], cluster.now)) == 1
