"""Operators' orders by several nodes, over connections that hang, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from hanat.core.server_facts import Administrative, Mode, ServerId
from hanat.daemon import order_routing
from hanat.errors import NoQuorumError, RefusedError
from tests.sim.bench import tell
from tests.sim.run import converged
from tests.sim.serving import ServingProcess, serving_cluster
from tests.sim.world import World

WEB1 = ServerId("web", "web1")
Give = Callable[[ServingProcess], Awaitable[None]]


def cluster() -> tuple[World, ServingProcess, ServingProcess, ServingProcess]:
    """Return a world, the leader, and the two others."""
    world, _ = serving_cluster(seed=1)
    assert world.run_until(lambda: converged(world), within_s=10), tell(world)
    nodes = [p for p in world.processes.values() if isinstance(p, ServingProcess)]
    assert world.run_until(lambda: all(len(node.clients) == 4 for node in nodes), within_s=5)
    leader, backup, other = sorted(nodes, key=lambda node: not node.guard.leading)
    return world, leader, backup, other


async def outcome(world: World, *given: Awaitable[None]) -> list[BaseException | None]:
    """Let time pass until operators have their answers."""
    answers = asyncio.gather(*given, return_exceptions=True)
    while not answers.done():
        world.run(0.02)
        await asyncio.sleep(0)
    return list(await answers)


def drain(node: ServingProcess) -> Awaitable[None]:
    wanted = Administrative(Mode.DRAIN, "op", since_s=node.servers.wall_s)
    return node.servers.orders.administer(WEB1, wanted)


def maint(node: ServingProcess) -> Awaitable[None]:
    wanted = Administrative(Mode.MAINT, "op", since_s=node.servers.wall_s)
    return node.servers.orders.administer(WEB1, wanted)


def ready(node: ServingProcess) -> Awaitable[None]:
    wanted = Administrative(Mode.READY, "op", since_s=node.servers.wall_s)
    return node.servers.orders.administer(WEB1, wanted)


def half(node: ServingProcess) -> Awaitable[None]:
    return node.servers.orders.weigh(WEB1, 0.5, "op")


def whole(node: ServingProcess) -> Awaitable[None]:
    return node.servers.orders.weigh(WEB1, 1.0, "op")


def facts(node: ServingProcess) -> tuple[Mode, float]:
    """Return what a node makes of the server: its mode, and its runtime weight."""
    rotations = node.servers.health.knowledge({}, {}, 0.0).rotations
    return rotations.administrative(WEB1).mode, rotations.factor(WEB1)


@pytest.mark.asyncio
async def test_order_by_any_node_comes_into_the_log() -> None:
    world, *nodes = cluster()
    for node, give, mode in zip(nodes, (ready, drain, maint), Mode, strict=True):
        assert await outcome(world, give(node)) == [None]
        world.run(0.2)
        assert {facts(node)[0] for node in nodes} == {mode}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("old", "new"), [(drain, ready), (ready, maint), (maint, drain), (half, whole), (whole, half)]
)
async def test_order_whose_connection_hung_does_not_undo_what_was_done_meanwhile(
    old: Give, new: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, leader, slow, other = cluster()
    held: list[dict[str, Any]] = []

    def hangs(source: int, target: int, message: dict[str, Any]) -> bool:
        hung = (source, target) == (slow.node_id, leader.node_id) and message["type"] == "records"
        held.extend([message] if hung else [])
        return not hung

    world.tap = hangs
    monkeypatch.setattr(order_routing, "AGAIN_S", 0.01)  # of the real clock; nodes have another
    (answer,) = await outcome(world, old(slow))
    assert isinstance(answer, NoQuorumError)
    assert held
    assert await outcome(world, new(other)) == [None]
    world.run(0.2)
    wanted = facts(leader)
    for message in held:  # it comes through after all
        world.deliver(slow.node_id, leader.node_id, message)
    world.run(1.0)
    assert [facts(node) for node in (leader, slow, other)] == [wanted] * 3, tell(world)


@pytest.mark.asyncio
async def test_order_that_comes_through_several_times_is_one_in_the_history() -> None:
    world, leader, backup, _ = cluster()
    sent: list[dict[str, Any]] = []

    def heard(source: int, _target: int, message: dict[str, Any]) -> bool:
        sent.extend([message] if (source, message["type"]) == (backup.node_id, "records") else [])
        return True

    world.tap = heard
    assert await outcome(world, drain(backup)) == [None]
    for _ in range(3):
        world.deliver(backup.node_id, leader.node_id, sent[0])
        world.run(0.3)
    told = [change for change in leader.servers.history(100, {}) if change["what"] == "mode"]
    assert len(told) == 1


@pytest.mark.asyncio
async def test_two_orders_one_after_the_other_by_two_nodes_both_count() -> None:
    """The second node does not know the first order yet, nor does the leader's log."""
    world, leader, backup, other = cluster()
    assert await outcome(world, drain(leader), ready(backup)) == [None, None]
    world.run(0.2)
    assert {facts(node)[0] for node in (leader, backup, other)} == {Mode.READY}


@pytest.mark.asyncio
async def test_order_that_somebody_else_overtakes_later_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, leader, backup, _ = cluster()
    monkeypatch.setattr(order_routing, "AGAIN_S", 0.01)
    world.tap = lambda source, _target, message: (
        source != backup.node_id or message["type"] != "records"
    )
    given = asyncio.ensure_future(drain(backup))
    began = world.now
    while world.now < began + 2.0:
        await asyncio.sleep(0.001)
        world.run(0.05)
    assert await outcome(world, maint(leader)) == [None]
    (answer,) = await outcome(world, given)
    assert isinstance(answer, RefusedError)
    assert str(answer) == (
        "web/web1: somebody else changed it at the same time; look at hanat server show web/web1 "
        "and say again what you want"
    )


@pytest.mark.asyncio
async def test_log_that_is_full_is_no_lack_of_a_majority(monkeypatch: pytest.MonkeyPatch) -> None:
    world, leader, backup, _ = cluster()
    assert await outcome(world, drain(leader)) == [None]
    monkeypatch.setattr(order_routing, "RECORDS_MAX", len(leader.replica.state.records))
    for node in (leader, backup):
        (answer,) = await outcome(world, half(node))
        assert isinstance(answer, RefusedError)
        assert "the log holds 5 records of servers" in str(answer)
        assert "remove services or servers that nobody needs" in str(answer)
        assert await outcome(world, ready(node)) == [None]  # in place of one that is there


@pytest.mark.asyncio
async def test_order_does_not_undo_what_a_leader_of_before_committed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next leader has that in its log, and does not know yet that it counts."""
    world, leader, slow, other = cluster()
    held: list[dict[str, Any]] = []

    def hangs(source: int, _target: int, message: dict[str, Any]) -> bool:
        hung = source == slow.node_id and message["type"] == "records"
        held.extend([message] if hung else [])
        return not hung

    world.tap = hangs
    monkeypatch.setattr(order_routing, "AGAIN_S", 0.01)  # of the real clock; nodes have another
    (answer,) = await outcome(world, drain(slow))
    assert isinstance(answer, NoQuorumError)
    # From here on, the other one has all the leader's log, but not that it is committed.
    for source, target in ((leader, slow), (slow, leader)):
        world.block(source.node_id, target.node_id)
    proposed = leader.replica.last_index + 1
    given = asyncio.ensure_future(maint(leader))
    await asyncio.sleep(0)
    assert world.run_until(lambda: other.replica.last_index >= proposed, within_s=1)
    world.block(leader.node_id, other.node_id)
    assert world.run_until(lambda: leader.replica.applied_index >= proposed, within_s=1)
    assert await outcome(world, given) == [None]
    assert other.replica.applied_index < proposed
    assert world.run_until(lambda: other.guard.leading, within_s=10), tell(world)
    assert other.replica.applied_index < proposed
    world.deliver(slow.node_id, other.node_id, held[0])
    assert world.run_until(lambda: other.replica.state.term == other.replica.term, within_s=5)
    world.run(1.0)
    assert [facts(node)[0] for node in (slow, other)] == [Mode.MAINT] * 2, tell(world)
