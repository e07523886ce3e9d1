"""Servers that die and come back while nodes do: what the holder's rules say, in virtual time."""

from __future__ import annotations

from random import Random

import pytest

from hanat.core import service_health
from hanat.core.probing import Operational
from hanat.core.status import Role
from hanat.core.views import Views
from hanat.daemon.servers import QUEUED_BYTES_MAX
from tests.sim.bench import tell
from tests.sim.run import converged, holders
from tests.sim.serving import (
    BACK_S,
    GONE_S,
    Network,
    ServingProcess,
    server_of,
    serving_cluster,
)
from tests.sim.world import World

# Until a full server is out of rotation: the holder looks four times a second, at what it asked for
# one look before.
FULL_S = 0.6
ALL = {"web1", "web2", "web3", "web4"}


def nodes(world: World) -> list[ServingProcess]:
    return [p for p in world.processes.values() if isinstance(p, ServingProcess)]


def holder_of(world: World) -> ServingProcess:
    (holder,) = holders(world)
    process = world.processes[holder]
    assert isinstance(process, ServingProcess)
    return process


def agree(world: World, names: set[str]) -> bool:
    """Say whether every node that runs would send new clients to these."""
    return all(node.clients == names for node in nodes(world) if node.alive)


def ready(seed: int = 1, *, max_conn: int = 0) -> tuple[World, Network, ServingProcess]:
    world, network = serving_cluster(seed=seed, max_conn=max_conn)
    assert world.run_until(lambda: converged(world), within_s=10), tell(world)
    assert world.run_until(lambda: agree(world, ALL), within_s=5), tell(world)
    return world, network, holder_of(world)


@pytest.mark.parametrize("seed", range(1, 6))
def test_takeover_amid_an_outage_changes_no_verdict(seed: int) -> None:
    world, network, holder = ready(seed)
    network.down |= {"web1", "web3"}
    assert world.run_until(lambda: agree(world, {"web2", "web4"}), within_s=GONE_S), tell(world)
    holder.kill()
    assert world.run_until(lambda: len(holders(world)) == 1, within_s=5), tell(world)
    end = world.now + 3
    while world.now < end:
        world.run(0.01)
        assert agree(world, {"web2", "web4"}), tell(world)


def test_server_that_is_full_leaves_the_holders_rotation_in_time_and_comes_back() -> None:
    world, network, holder = ready(max_conn=50)
    network.connections |= {"web1": 50, "web2": 49}
    rest = ALL - {"web1"}
    assert world.run_until(lambda: holder.clients == rest, within_s=FULL_S), tell(world)
    assert all(node is holder or node.clients == ALL for node in nodes(world)), tell(world)
    network.connections["web1"] = 45
    assert world.run_until(lambda: holder.clients == ALL, within_s=1 + FULL_S), tell(world)


@pytest.mark.parametrize("seed", range(1, 4))
def test_new_holder_knows_the_full_servers_in_time_and_the_one_before_forgets_them(
    seed: int,
) -> None:
    world, network, holder = ready(seed, max_conn=50)
    network.connections["web1"] = 60
    rest = ALL - {"web1"}
    assert world.run_until(lambda: holder.clients == rest, within_s=FULL_S), tell(world)
    holder.pause(3.0)
    assert world.run_until(lambda: bool(others(holder, world)), within_s=2), tell(world)
    (new,) = others(holder, world)
    assert world.run_until(lambda: new.clients == rest, within_s=FULL_S), tell(world)
    assert world.run_until(lambda: holder.clients == ALL, within_s=5), tell(world)


def others(former: ServingProcess, world: World) -> list[ServingProcess]:
    """Return who holds in place of another node."""
    return [n for n in nodes(world) if n is not former and n.role is Role.ACTIVE]


def test_holder_that_reaches_no_server_hands_over_and_no_pool_is_emptied() -> None:
    world, network, holder = ready()
    network.blind.add(holder.node_id)
    end = world.now + GONE_S + 2
    while world.now < end:
        world.run(0.01)
        # Of those that fail one after the other, not half may be gone before the rule strikes.
        assert all(len(node.clients) >= 3 for node in nodes(world)), tell(world)
    assert holders(world) != [holder.node_id], tell(world)
    network.blind.clear()
    assert world.run_until(lambda: agree(world, ALL), within_s=BACK_S + 1), tell(world)


def test_holder_that_is_blind_before_its_gate_opens_hands_over_when_it_has() -> None:
    world, network, holder = ready()
    network.blind.add(holder.node_id)
    holder.opens_at = world.now + GONE_S + 1.0
    world.run(GONE_S + 0.9)
    assert holders(world) == [holder.node_id], tell(world)
    assert world.run_until(lambda: holders(world) not in ([], [holder.node_id]), within_s=3), tell(
        world
    )


def test_pools_are_emptied_where_a_blind_holder_is_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the rule the test above is red."""
    monkeypatch.setattr(Views, "is_in_doubt", lambda _: False)
    monkeypatch.setattr(Views, "witness", lambda _: None)
    world, network, holder = ready()
    network.blind.add(holder.node_id)
    assert world.run_until(lambda: agree(world, set()), within_s=GONE_S), tell(world)


def test_servers_that_are_all_dead_move_nothing() -> None:
    world, network, holder = ready()
    network.down |= ALL
    assert world.run_until(lambda: agree(world, set()), within_s=GONE_S), tell(world)
    world.run(3.0)
    assert holders(world) == [holder.node_id], tell(world)


@pytest.mark.parametrize("profile", ["default", "fast"])
@pytest.mark.parametrize("seed", range(100, 112))
def test_whatever_dies_the_rules_follow_the_servers(seed: int, profile: str) -> None:
    """`web4` answers all the time: it is never out of rotation. Of the others nobody knows."""
    rng = Random(seed)
    world, network = serving_cluster(seed=seed, profile=profile)
    assert world.run_until(lambda: converged(world), within_s=10), tell(world)
    assert world.run_until(lambda: agree(world, ALL), within_s=5), tell(world)
    for _ in range(12):
        fault(world, network, rng)
        end = world.now + rng.uniform(0.1, 1.5)
        while world.now < end:
            world.run(0.02)
            for node in nodes(world):
                if node.role is Role.ACTIVE:
                    assert "web4" in node.clients, tell(world)
    for node in nodes(world):
        if not node.alive:
            node.start()
    assert world.run_until(lambda: agree(world, ALL - network.down), within_s=10), tell(world)
    assert world.violations == [], tell(world)


def fault(world: World, network: Network, rng: Random) -> None:
    """Let something happen; a majority stays."""
    alive = [node for node in nodes(world) if node.alive]
    match rng.choice(["down", "up", "kill", "start", "pause", "cut"]):
        case "down":
            network.down.add(rng.choice(["web1", "web2", "web3"]))
        case "up":
            network.down.discard(rng.choice(["web1", "web2", "web3"]))
        case "kill" if len(alive) == len(world.node_ids):
            rng.choice(alive).kill()
        case "start":
            for node in nodes(world):
                if not node.alive:
                    node.start()
        case "pause":
            rng.choice(alive).pause(rng.uniform(0.05, 1.0))
        case "cut":
            world.break_link(world.link(*rng.sample(world.node_ids, 2)))
        case _:
            return
    world.tell(f"down: {sorted(network.down)}")


def test_servers_of_a_large_configuration_are_watched_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_health, "SLICE_SERVERS", 1)
    ready()


def test_views_wait_for_room_and_each_target_waits_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log needs the same connection."""
    world, network, holder = ready()
    backup = next(node for node in nodes(world) if node is not holder)
    with monkeypatch.context() as patch:
        patch.setattr(World, "queued", lambda *_: QUEUED_BYTES_MAX + 1)
        network.blind.add(backup.node_id)
        world.run(GONE_S)
        network.blind.clear()
        network.down.add("web1")
        world.run(GONE_S)
        assert seen_by(backup, holder) == dict.fromkeys(ALL, Operational.UP), tell(world)
        assert agree(world, ALL - {"web1"}), tell(world)  # the log had room
    world.run(0.2)
    assert seen_by(backup, holder)["web1"] is Operational.DOWN, tell(world)


def seen_by(node: ServingProcess, other: ServingProcess) -> dict[str, Operational]:
    """Return how a node sees the servers, as another one has it."""
    health = other.servers.health
    verdicts = health.knowledge({}, {}, 0.0).verdicts
    return {
        server_of(target): verdicts.show(name, 0.0).views[node.node_id].state
        for name, target in health.targets.items()
    }
