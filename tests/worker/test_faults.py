"""What a backup lacks although everything was told, and what a holder nearly forgets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest

from hanat.core.configuration import Replicate
from hanat.core.flow_scope import ReplicationScope
from hanat.core.flow_selection import FlowQuery
from hanat.core.flows import key_of
from hanat.worker.flow_batch import CHANGES_MAX, Changes, Mark, encode, encode_mark
from hanat.worker.holder import WINDOW_BATCHES
from hanat.worker.worker_channel import Answer
from tests.contract.flows import inbound, outbound
from tests.fakes.kernel import FakeConntrack
from tests.worker.test_flow_worker import SCOPE, VIP, Cluster, close_flow, look_up, open_flow

ALSO = ip_address("203.0.113.11")


@pytest.fixture
async def cluster() -> Cluster:
    return Cluster()


def mark(number: int, *, ends: bool) -> bytes:
    return encode_mark(Mark(number, ends=ends))


async def test_flow_whose_place_was_taken_is_installed_once_that_is_free(cluster: Cluster) -> None:
    wanted = outbound(1)
    stale = replace(
        wanted, original=replace(wanted.original, source=ip_address("10.11.12.102"))
    )  # asks from the same translated port
    cluster.kernels[1].flows.put(stale.to_record())
    cluster.kernels[0].flows.put(wanted.to_record())

    cluster.holder.start_capture(1)
    await cluster.settle()

    assert cluster.tables()[1] == {key_of(wanted.to_record())}
    assert cluster.backup.status().clashed == 1


async def test_kernel_without_room_is_not_complete(cluster: Cluster) -> None:
    for port in range(10):
        open_flow(cluster, port)
    cluster.kernels[1].flows.room = 9
    cluster.holder.start_capture(1)
    await cluster.settle()
    assert cluster.complete == [True, False]

    cluster.kernels[1].flows.room = 100
    cluster.holder.resync()
    await cluster.settle()
    assert cluster.complete == [True, True]

    cluster.kernels[1].flows.room = 10
    open_flow(cluster, 99)
    await cluster.settle()
    assert cluster.complete == [True, False]


async def test_shorter_age_is_not_waited_for_until_a_longer_one_is_over(cluster: Cluster) -> None:
    services = {
        (6, VIP.packed): ((80, 80, Replicate(min_age_s=60.0)),),
        (6, ALSO.packed): ((80, 80, Replicate(min_age_s=0.001)),),
    }
    addresses = SCOPE.addresses | {ALSO.packed}
    for worker in (cluster.holder, cluster.backup):
        worker.set_scope(ReplicationScope(addresses, services))
    short = inbound(2)
    short = replace(short, original=replace(short.original, destination=ALSO))
    cluster.holder.start_capture(1)
    await cluster.settle()

    open_flow(cluster, 1)
    cluster.holder.status()
    cluster.kernels[0].track(short.to_record())
    cluster.holder.status()
    cluster.now = 1.0
    await cluster.settle()

    assert cluster.tables()[1] == {key_of(short.to_record())}


async def test_end_of_a_flow_that_waited_when_a_resync_began_is_told(cluster: Cluster) -> None:
    cluster.holder.start_capture(1)
    await cluster.settle()
    for port in range(WINDOW_BATCHES * CHANGES_MAX + 1):
        open_flow(cluster, port)
    cluster.holder.status()
    assert cluster.holder.status().pending > WINDOW_BATCHES * CHANGES_MAX
    cluster.holder.resync()
    await cluster.settle()

    for port in range(WINDOW_BATCHES * CHANGES_MAX + 1):
        close_flow(cluster, port)
    for _ in range(10):
        await cluster.settle()

    assert cluster.tables() == [set(), set()]


async def test_flow_that_is_killed_before_it_was_told_of_is_gone(cluster: Cluster) -> None:
    cluster.holder.start_capture(1)
    await cluster.settle()
    open_flow(cluster, 1)  # not read yet
    await look_up(cluster.holder, FlowQuery(protocol=6), kill=True)
    await cluster.settle()
    assert cluster.tables() == [set(), set()]


async def test_who_does_not_hold_kills_nothing(cluster: Cluster) -> None:
    open_flow(cluster, 1)
    answers: list[Answer] = []
    cluster.holder.query(FlowQuery(), limit=1, kill=True, done=answers.append)
    await cluster.settle()
    assert len(cluster.tables()[0]) == 1
    (answer,) = answers
    assert "stopped holding" in answer.error
    assert (answer.total, answer.records) == (0, [])


async def test_who_lacks_flows_while_everything_is_told_is_told_after_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hanat.worker.holder.RESYNC_AGAIN_S", 0.001)
    cluster.holder.start_capture(1)
    cluster.restart_backup()
    cluster.commit()  # the begin was for the one before
    cluster.restart_backup()
    cluster.holder.resync_for_peer(again=True)
    await cluster.settle()
    await cluster.settle()
    assert cluster.complete == [True, True]


async def test_peer_that_saw_the_beginning_is_not_told_twice(cluster: Cluster) -> None:
    cluster.holder.start_capture(1)  # everything is being told from here on
    cluster.holder.resync_for_peer(again=False)
    assert cluster.holder._holder._wanted_again is False
    assert cluster.holder.status().resyncs == 1
    await cluster.settle()
    assert cluster.complete == [True, True]


async def test_flow_that_ended_unnoticed_while_young_is_not_told_of(cluster: Cluster) -> None:
    cluster.scope(Replicate(min_age_s=10.0))
    cluster.holder.start_capture(1)
    await cluster.settle()
    for port in (1, 2):
        open_flow(cluster, port)
    cluster.holder.status()
    cluster.kernels[0].flows.pop(inbound(1).to_record())  # and nobody says so
    cluster.now = 5.0
    cluster.holder.resync()
    await cluster.settle()
    cluster.now = 10.0  # the other one is as old as it was
    cluster.holder._holder._mature()
    await cluster.settle()
    assert cluster.tables()[1] == {key_of(inbound(2).to_record())}
    assert cluster.backup.status().received == 1


async def test_scope_that_changes_during_a_resync_spares_nothing(cluster: Cluster) -> None:
    for port in range(2000):
        cluster.kernels[1].flows.put(inbound(port).to_record())
    cluster.backup.install(mark(1, ends=False))
    cluster.backup.set_scope(ReplicationScope(SCOPE.addresses | {ALSO.packed}))
    cluster.backup.install(encode(Changes([inbound(1).to_record()], [])))
    cluster.backup.install(mark(1, ends=True))
    await cluster.settle()
    assert cluster.tables()[1] == {key_of(inbound(1).to_record())}
    assert cluster.complete[1]


async def test_slice_of_a_moment_ago_deletes_no_flow_that_came_since(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = inbound(1)
    new = replace(old, reply=replace(old.reply, source=ip_address("10.11.12.102")))

    def walk(_: FakeConntrack) -> Iterator[list[bytes]]:
        yield []
        yield [old.to_record()]

    monkeypatch.setattr(FakeConntrack, "walk", walk)
    cluster.backup.install(mark(1, ends=False))
    cluster.backup.install(mark(1, ends=True))
    cluster.backup.install(encode(Changes([new.to_record()], [])))
    await cluster.settle()
    assert cluster.tables()[1] == {key_of(new.to_record())}


async def test_end_of_a_flow_goes_before_a_new_one_in_its_place(cluster: Cluster) -> None:
    cluster.holder.start_capture(1)
    old = outbound(1)
    new = replace(old, original=replace(old.original, source=ip_address("10.11.12.102")))
    cluster.kernels[0].track(old.to_record())
    await cluster.settle()
    for port in range(WINDOW_BATCHES * CHANGES_MAX + 2 * CHANGES_MAX):
        open_flow(cluster, port)
    cluster.holder.status()
    cluster.kernels[0].end_flow(old.to_record())
    cluster.kernels[0].track(new.to_record())
    cluster.holder.status()
    await cluster.settle()
    assert key_of(new.to_record()) in cluster.tables()[1]
    assert cluster.backup.status().clashed == 0


async def test_flush_waits_for_everything_the_kernel_had_to_tell(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hanat.worker.holder.READS_MAX", 0)
    cluster.holder.start_capture(1)
    open_flow(cluster, 1)
    flushed = asyncio.Event()
    cluster.holder.flush(flushed.set)
    await cluster.settle()
    assert not flushed.is_set()
    monkeypatch.setattr("hanat.worker.holder.READS_MAX", 4)
    await cluster.settle()
    assert flushed.is_set()
    assert cluster.tables()[0] == cluster.tables()[1]
