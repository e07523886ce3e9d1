"""Short schedules, one for each thing that went wrong or must not."""

from __future__ import annotations

import pytest

from hanat.core import inputs as told
from hanat.core.lease import Lease
from hanat.net.freshness import Exchange
from hanat.raft import promises
from tests.sim.ablations import Gullible, ReceiptLease
from tests.sim.bench import settled, tell
from tests.sim.process import Process
from tests.sim.run import holders

SEEDS = range(1, 13)
SEEDS_BURST = range(50, 80)  # 52 is the first that showed the switchover called off


@pytest.mark.parametrize("seed", SEEDS_BURST)
def test_switchover_reaches_its_target_within_two_leases(seed: int) -> None:
    # A heartbeat right behind the order to campaign used to call it off.
    world, holder = settled(seed=seed)
    target = next(i for i in world.node_ids if i != holder)
    world.on(
        world.processes[holder], world.processes[holder].feed, told.SwitchoverRequested(target)
    )
    lease_s = world.processes[holder].configuration.profile.lease_s
    assert world.run_until(lambda: holders(world) == [target], within_s=2 * lease_s), tell(world)
    assert world.violations == []


@pytest.mark.parametrize("seed", SEEDS_BURST)
def test_switchover_reaches_its_target_although_entries_never_stop(seed: int) -> None:
    # One more behind the order to campaign, and the target's log is not long enough for a vote.
    world, holder = settled(seed=seed)
    process = world.processes[holder]
    target = next(i for i in world.node_ids if i != holder)
    world.on(process, process.feed, told.SwitchoverRequested(target))
    for each in world.processes.values():
        each.disk.work_s = (0.004, 0.004)  # so one is always on its way to the peers
    for uid in range(2000):
        world.after(uid * 0.0002, process.propose, uid)
    lease_s = process.configuration.profile.lease_s
    assert world.run_until(lambda: holders(world) == [target], within_s=2 * lease_s), tell(world)
    assert world.violations == []


@pytest.mark.parametrize("seed", SEEDS)
def test_late_order_to_campaign_does_not_break_a_promise(seed: int) -> None:
    # The order of term 1 reaches its target in term 2, whose holder is alive.
    world, first = settled(seed=seed)
    target, other = (i for i in world.node_ids if i != first)
    processes = world.processes
    late = [world.block(first, target)]
    world.on(processes[first], processes[first].feed, told.SwitchoverRequested(target))
    world.run(0.02)
    late.append(world.block(target, first))
    apart = world.block(target, other)
    world.run_until(lambda: holders(world) == [other], within_s=5)
    world.run(0.2)
    apart()
    world.run(0.3)
    for pair in ((other, target), (target, other), (first, other)):
        world.block(*pair)
    world.run(0.03)
    for end in late:
        end()
    world.run(0.3)
    assert world.violations == [], tell(world)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_storm_of_elections_when_no_node_may_hold(seed: int) -> None:
    world, _ = settled(seed=seed)
    for process in world.processes.values():
        world.on(process, process.feed, told.CarrierObserved("public", carrier=False))
    terms = len(world.leaders)
    world.run(10.0)
    # Ten leases before leadership is handed on: some eight times in ten seconds.
    assert len(world.leaders) - terms <= 15, tell(world)
    world.on(
        world.processes[1], world.processes[1].feed, told.CarrierObserved("public", carrier=True)
    )
    assert world.run_until(lambda: holders(world) == [1], within_s=10), tell(world)


@pytest.mark.parametrize("withdraw_s", [None, 0.02, 0.3], ids=["refused", "late", "very late"])
@pytest.mark.parametrize("why", ["carrier", "switchover", "crash", "connections"])
def test_holder_whose_gate_does_not_shut_is_followed_when_its_right_has_ended(
    why: str, withdraw_s: float | None
) -> None:
    world, holder = settled()
    process = world.processes[holder]
    process.withdraw_s = withdraw_s
    match why:
        case "carrier":
            world.on(process, process.feed, told.CarrierObserved("public", carrier=False))
        case "switchover":
            world.on(process, process.feed, told.SwitchoverRequested(None))
        case "connections":  # beacons pass, so the lease goes on
            for peer in set(world.node_ids) - {holder}:
                world.stick(peer, holder)
                world.stick(holder, peer)
        case _:
            process.crash(noticed_s=0.001)
    world.run(3.0)
    # A switchover is called off: nobody is served by an outage.
    stays = why == "switchover" and withdraw_s is None
    assert (holders(world) == [holder]) is stays, tell(world)
    assert len(holders(world)) == 1, tell(world)
    assert world.violations == [], tell(world)


@pytest.mark.parametrize(
    ("exchange", "lease"), [(Exchange, Lease), (Gullible, ReceiptLease)], ids=["", "ablated"]
)
def test_promises_that_are_sent_again_do_not_keep_the_lease(
    exchange: type[Exchange], lease: type[Lease], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Process, "exchange_class", exchange)
    monkeypatch.setattr(promises, "Lease", lease)
    world, holder = settled()
    recorded = [data for target, data in world.recorded[-100:] if target == holder]
    for peer in world.node_ids:
        if peer != holder:
            world.block(peer, holder)
    for _ in range(40):
        for data in recorded:
            world.after(0.0, world._arrive, holder, data)
        world.run(0.005)
    holds = world.processes[holder].answers_until > world.now
    assert holds is (exchange is Gullible), tell(world)
