"""Two workers with a log between them: a backup's table becomes that of the holder."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import ip_address

import pytest

from hanat.core.configuration import OnServerDown, Replicate
from hanat.core.flow_scope import ReplicationScope
from hanat.core.flow_selection import FlowQuery
from hanat.core.flows import (
    STATUS_ASSURED,
    STATUS_CONFIRMED,
    STATUS_DST_NAT,
    STATUS_SRC_NAT,
    Flow,
    key_of,
)
from hanat.core.reconcile import Ports, Rules, Servers
from hanat.worker.flow_batch import CHANGES_MAX, Changes, encode
from hanat.worker.flow_worker import FlowWorker
from hanat.worker.worker_channel import Answer
from tests.contract.flows import inbound, outbound
from tests.fakes.kernel import FakeConntrack, FakeKernel, FakeRoutes

TURNS_MAX = 2000
VIP, OTHER = ip_address("203.0.113.10"), ip_address("203.0.113.99")
SCOPE = ReplicationScope(
    frozenset(ip_address(a).packed for a in ("203.0.113.10", "2001:db8:1::10")),
    ports={(6, VIP.packed): ((80, 80),)},
)


class Cluster:
    """A holder, a backup, and a log that commits when it is told to.

    Attributes:
        losing: Proposals come to nothing.
    """

    def __init__(self) -> None:
        self.kernels = [FakeKernel((), lambda: 0.0) for _ in range(2)]
        self.complete = [False, False]
        self.losing = False
        self.now = 0.0
        self._log: deque[tuple[bytes, Callable[[bool], None]]] = deque()
        self.holder = self._worker(0)
        self.backup = self._worker(1)

    def _worker(self, place: int) -> FlowWorker:
        def completed(complete: bool) -> None:  # noqa: FBT001 - as the daemon has it
            self.complete[place] = complete

        conntrack = FakeConntrack(self.kernels[place])
        worker = FlowWorker(
            conntrack,
            FakeRoutes(self.kernels[place]),
            propose=self._propose,
            completed=completed,
            clock=lambda: self.now,
        )
        worker.set_scope(SCOPE)
        return worker

    def scope(self, replicate: Replicate) -> None:
        """Give the service of `inbound` a policy."""
        services = {(6, VIP.packed): ((80, 80, replicate),)}
        for worker in (self.holder, self.backup):
            worker.set_scope(ReplicationScope(SCOPE.addresses, services, SCOPE.ports))

    def restart_backup(self) -> None:
        """Let the backup's worker forget what it knew; its kernel does not."""
        self.complete[1] = False
        self.backup = self._worker(1)

    def _propose(self, term: int, batch: bytes, done: Callable[[bool], None]) -> bool:
        assert term == 1
        if not self.losing:
            self._log.append((batch, done))
        return not self.losing

    def commit(self) -> None:
        """Commit everything that waits."""
        while self._log:
            batch, done = self._log.popleft()
            self.backup.install(batch)
            done(True)  # noqa: FBT003 - as the log does

    async def settle(self) -> None:
        """Let everything happen until nothing is under way."""
        for _ in range(TURNS_MAX):
            await asyncio.sleep(0)
            self.commit()
        await asyncio.sleep(0.02)  # a gathering
        self.commit()

    def tables(self) -> list[set[bytes]]:
        return [{key_of(r) for r in kernel.flows.records()} for kernel in self.kernels]


@pytest.fixture
async def cluster() -> Cluster:
    return Cluster()


def open_flow(cluster: Cluster, port: int) -> None:
    cluster.kernels[0].track(inbound(port).to_record())


def close_flow(cluster: Cluster, port: int) -> None:
    cluster.kernels[0].end_flow(inbound(port).to_record())


async def test_start_of_a_term_tells_the_backup_everything(cluster: Cluster) -> None:
    for port in range(3 * CHANGES_MAX):
        open_flow(cluster, port)
    cluster.holder.start_capture(1)
    await cluster.settle()
    assert len(cluster.tables()[0]) == 3 * CHANGES_MAX
    assert cluster.tables()[0] == cluster.tables()[1]
    assert cluster.complete == [True, True]


async def test_worker_knows_all_flows_when_it_has_read_the_table_or_was_told(
    cluster: Cluster,
) -> None:
    for port in range(3 * CHANGES_MAX):
        open_flow(cluster, port)
    cluster.holder.start_capture(1)
    assert (cluster.holder.whole, cluster.backup.whole) == (False, False)
    await cluster.settle()
    assert (cluster.holder.whole, cluster.backup.whole) == (True, True)
    cluster.holder.resync()
    assert cluster.holder.whole  # nothing is forgotten meanwhile

    cluster.backup.start_capture(1)
    assert cluster.backup.whole  # it was told everything before
    cluster.restart_backup()
    cluster.backup.start_capture(1)
    assert not cluster.backup.whole


async def test_flows_that_the_holder_lacks_are_deleted(cluster: Cluster) -> None:
    known, unknown = inbound(7), inbound(8)
    cluster.backup.install(encode(Changes([known.to_record()], [])))
    cluster.kernels[1].flows.put(unknown.to_record())  # by an earlier process
    open_flow(cluster, 1)
    cluster.holder.start_capture(1)
    await cluster.settle()
    assert cluster.tables()[1] == {key_of(inbound(1).to_record())}
    assert sum(cluster.backup.counts().values()) == 1


async def test_changes_during_a_resync_win(cluster: Cluster) -> None:
    for port in range(10 * CHANGES_MAX):
        open_flow(cluster, port)
    cluster.holder.start_capture(1)
    for port in range(0, 10 * CHANGES_MAX, 7):
        close_flow(cluster, port)
        open_flow(cluster, 20_000 + port)
        if port % 100 == 0:
            await asyncio.sleep(0)
            cluster.holder._holder.collect()
            cluster.commit()
    await cluster.settle()
    assert cluster.tables()[0] == cluster.tables()[1]


async def test_what_was_lost_is_told_anew(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hanat.worker.holder.RESYNC_AGAIN_S", 0.01)
    cluster.holder.start_capture(1)
    await cluster.settle()
    cluster.losing = True
    open_flow(cluster, 1)
    cluster.holder._holder.collect()
    assert cluster.holder.status().dropped == 1
    cluster.losing = False
    await asyncio.sleep(0.02)
    await cluster.settle()
    assert cluster.tables()[0] == cluster.tables()[1]


async def test_backup_that_started_anew_is_complete_after_a_resync(cluster: Cluster) -> None:
    open_flow(cluster, 1)
    cluster.holder.start_capture(1)
    await cluster.settle()
    cluster.restart_backup()
    open_flow(cluster, 2)
    await cluster.settle()
    assert cluster.complete == [True, False]
    cluster.holder.resync_for_peer(again=True)
    await cluster.settle()
    assert cluster.complete == [True, True]
    assert cluster.tables()[0] == cluster.tables()[1]


async def test_backup_that_came_in_the_middle_is_not_complete_at_the_end(
    cluster: Cluster,
) -> None:
    for port in range(3 * CHANGES_MAX):
        open_flow(cluster, port)
    cluster.holder.start_capture(1)
    await asyncio.sleep(0)
    cluster.commit()
    cluster.restart_backup()
    await cluster.settle()
    assert cluster.complete == [True, False]


async def test_flows_of_others_are_left_alone(cluster: Cluster) -> None:
    """A router may translate for something else, too."""
    elsewhere = replace(inbound(5), original=replace(inbound(5).original, destination=OTHER))
    for kernel in cluster.kernels:
        kernel.flows.put(elsewhere.to_record())
    open_flow(cluster, 1)
    cluster.holder.start_capture(1)
    await cluster.settle()
    assert cluster.tables()[0] == cluster.tables()[1]
    assert len(cluster.tables()[1]) == 2
    assert cluster.backup.status().received == 1


async def test_half_open_flows_are_not_told(cluster: Cluster) -> None:
    half = replace(inbound(5), status=STATUS_CONFIRMED | STATUS_DST_NAT)
    cluster.kernels[0].flows.put(half.to_record())
    cluster.holder.start_capture(1)
    await cluster.settle()
    assert cluster.tables()[1] == set()


async def test_backup_has_long_timeouts_and_the_holder_those_in_use(cluster: Cluster) -> None:
    cluster.kernels[1].flows.put(inbound(1).to_record())  # it was the holder
    cluster.backup.set_scope(ReplicationScope())
    cluster.backup.set_scope(SCOPE)
    cluster.kernels[0].flows.install([inbound(port).to_record() for port in (1, 2)])
    cluster.holder.start_capture(1)
    await cluster.settle()
    holder, backup = (
        {Flow.from_record(r).timeout_s for r in kernel.flows.records()}
        for kernel in cluster.kernels
    )
    assert (holder, backup) == ({432_000}, {20 * 86_400})


async def test_what_vanished_from_a_backup_is_found_and_repaired(cluster: Cluster) -> None:
    for port in (1, 2):
        open_flow(cluster, port)
    cluster.holder.start_capture(1)
    await cluster.settle()
    cluster.kernels[1].flows.pop(inbound(1).to_record())  # by whomever
    cluster.kernels[1].flows.put(inbound(3).to_record())
    cluster.holder.resync()
    await cluster.settle()
    assert cluster.tables()[0] == cluster.tables()[1]
    assert cluster.backup.status().repaired == 2


async def test_service_that_wants_no_replication_gets_none(cluster: Cluster) -> None:
    cluster.scope(Replicate(established=False))
    open_flow(cluster, 1)
    cluster.holder.start_capture(1)
    open_flow(cluster, 2)
    close_flow(cluster, 2)
    await cluster.settle()
    assert cluster.tables()[1] == set()
    assert cluster.backup.status().received == 0


async def test_service_that_wants_everything_gets_unanswered_flows_too(cluster: Cluster) -> None:
    begun = replace(inbound(1), status=STATUS_CONFIRMED | STATUS_DST_NAT, tcp_state=1)
    other = replace(outbound(1), status=STATUS_CONFIRMED | STATUS_SRC_NAT, tcp_state=1)
    before = replace(inbound(2), status=STATUS_CONFIRMED | STATUS_DST_NAT, tcp_state=1)
    cluster.holder.start_capture(1)
    cluster.kernels[0].track(before.to_record())
    cluster.scope(Replicate(unassured=True))
    for flow in (begun, other):
        cluster.kernels[0].track(flow.to_record())
    await cluster.settle()
    assert cluster.tables()[1] == {key_of(begun.to_record()), key_of(before.to_record())}

    open_flow(cluster, 1)
    close_flow(cluster, 2)
    await cluster.settle()
    (left,) = cluster.kernels[1].flows.records()
    assert Flow.from_record(left).tcp_state == 3
    assert Flow.from_record(left).status & STATUS_ASSURED


async def test_flow_is_told_once_it_is_old_enough(cluster: Cluster) -> None:
    cluster.scope(Replicate(min_age_s=10.0))
    cluster.holder.start_capture(1)
    await cluster.settle()
    open_flow(cluster, 1)
    open_flow(cluster, 2)
    cluster.holder.status()
    close_flow(cluster, 2)
    await cluster.settle()
    assert cluster.tables()[1] == set()
    cluster.now = 10.0
    cluster.holder._holder._mature()
    await cluster.settle()
    assert cluster.tables()[1] == {key_of(inbound(1).to_record())}
    assert cluster.backup.status().received == 1
    close_flow(cluster, 1)
    await cluster.settle()
    assert cluster.tables()[1] == set()


async def test_young_flows_are_told_before_the_holder_leaves(cluster: Cluster) -> None:
    cluster.scope(Replicate(min_age_s=10.0))
    cluster.holder.start_capture(1)
    await cluster.settle()
    open_flow(cluster, 1)
    flushed = asyncio.Event()
    cluster.holder.flush(flushed.set)
    await cluster.settle()
    assert flushed.is_set()
    assert cluster.tables()[1] == cluster.tables()[0]


async def test_flows_are_looked_up_on_every_node(cluster: Cluster) -> None:
    for port in range(5):
        open_flow(cluster, port)
    cluster.holder.start_capture(1)
    await cluster.settle()
    client = inbound(1).original.source.packed
    for worker in (cluster.holder, cluster.backup):
        assert await look_up(worker, FlowQuery(client=client, protocol=6), limit=3) == (5, 3)
        assert await look_up(worker, FlowQuery(server=client)) == (0, 0)
        assert await look_up(worker, FlowQuery(protocol=17)) == (0, 0)
        listens = ((6, VIP.packed, 80, 80),)
        assert await look_up(worker, FlowQuery(listens=listens), limit=0) == (5, 0)
        assert await look_up(worker, FlowQuery(listens=((6, VIP.packed, 81, 90),))) == (0, 0)


async def test_killed_flows_are_gone_everywhere(cluster: Cluster) -> None:
    for port in range(3):
        open_flow(cluster, port)
    for kernel in cluster.kernels:
        kernel.flows.put(outbound(9).to_record())
    cluster.holder.start_capture(1)
    await cluster.settle()
    listens = ((6, VIP.packed, 80, 80),)
    assert (await look_up(cluster.holder, FlowQuery(listens=listens), kill=True))[0] == 3
    await cluster.settle()
    left = {key_of(outbound(9).to_record())}
    assert cluster.tables() == [left, left]


async def look_up(
    worker: FlowWorker, selection: FlowQuery, *, limit: int = 100, kill: bool = False
) -> tuple[int, int]:
    done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    worker.query(selection, limit=limit, kill=kill, done=done.set_result)
    answer = await done
    return answer.total, len(answer.records)


def rules(*servers: str) -> Rules:
    """Return rules for the service of `inbound`, with these servers."""
    endpoints = frozenset((ip_address(server).packed, 8080) for server in servers)
    ports = Ports(80, 80, Servers(endpoints, endpoints, OnServerDown.EXPIRE))
    return Rules(
        frozenset({VIP.packed}), listens={(6, VIP.packed): (ports,)}, devices=frozenset({"eth0"})
    )


async def test_flows_that_fit_no_more_end_on_every_node(cluster: Cluster) -> None:
    for port in range(40000, 40005):
        cluster.kernels[0].track(inbound(port).to_record())
    cluster.holder.start_capture(1)
    await cluster.settle()
    told: list[Mapping[str, int]] = []

    cluster.holder.reconcile(rules("10.11.12.101"), told.append)
    await cluster.settle()
    assert told == [{}]
    assert list(map(len, cluster.tables())) == [5, 5]

    cluster.holder.reconcile(rules("10.11.12.102"), told.append)
    await cluster.settle()
    assert told == [{}, {"server": 5}]
    assert list(map(len, cluster.tables())) == [0, 0]
    assert cluster.holder.status().ended == 5


async def test_new_holder_ends_what_the_former_one_left(cluster: Cluster) -> None:
    cluster.kernels[0].track(inbound().to_record())
    told: list[Mapping[str, int]] = []
    cluster.holder.reconcile(rules("10.11.12.102"), told.append)
    assert told == [{}]  # it does not hold: its flows are those of the holder

    cluster.holder.start_capture(1)
    await cluster.settle()

    assert list(map(len, cluster.tables())) == [0, 0]


async def test_each_flow_that_ended_is_told_once(cluster: Cluster) -> None:
    cluster.kernels[0].track(inbound().to_record())
    cluster.holder.start_capture(1)
    await cluster.settle()
    told: list[Mapping[str, int]] = []
    cluster.holder.reconcile(rules("10.11.12.101"), told.append)
    cluster.holder.reconcile(rules("10.11.12.102"), told.append)
    await cluster.settle()
    assert told == [{}, {"server": 1}]


async def test_who_was_the_holder_is_complete_no_more(cluster: Cluster) -> None:
    cluster.holder.start_capture(1)
    await cluster.settle()
    cluster.holder.stop_capture()
    assert cluster.complete == [False, True]
