"""What is committed takes effect in slices; what waits for a commit is bounded."""

from __future__ import annotations

import pytest

from hanat.raft import replica
from hanat.raft.replica import UNCOMMITTED_MAX
from hanat.raft.state import Barrier, Flows, Happened
from tests.sim.bench import settled, tell
from tests.sim.run import converged
from tests.sim.world import World

COMMANDS = 900


def _late_node(monkeypatch: pytest.MonkeyPatch, *, slice_max: int) -> World:
    """Return a cluster whose node that was down found many entries in the log."""
    monkeypatch.setattr(replica, "APPLIED_MAX", slice_max)
    world, holder = settled()
    late = next(i for i in world.node_ids if i != holder)
    world.processes[late].kill()
    for uid in range(COMMANDS):
        assert world.processes[holder].propose(uid)
        if uid % 50 == 0:
            world.run(0.02)
    world.processes[late].start()

    def everything() -> bool:
        return converged(world) and len(world.processes[late].applied) == COMMANDS

    assert world.run_until(everything, within_s=10), tell(world)
    return world


def test_node_that_was_behind_applies_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    world = _late_node(monkeypatch, slice_max=replica.APPLIED_MAX)
    assert not world.violations, tell(world)


def test_without_slices_it_holds_its_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    world = _late_node(monkeypatch, slice_max=10**9)
    assert "holds its loop" in world.violations[0], tell(world)


def test_cut_off_leader_takes_only_so_much() -> None:
    world, holder = settled()
    node = world.processes[holder]
    taken = 0
    for uid in range(UNCOMMITTED_MAX + 500):  # the world does not run: nothing is committed
        taken += node.replica.propose(Flows(node.replica.term, 0, uid.to_bytes(8, "big")))
        world.on(node, node.replica.tick)
    assert taken <= UNCOMMITTED_MAX
    event = Happened(1, 1, b"")
    assert not node.replica.propose(event)
    assert node.replica.propose(Barrier(node.replica.term, holder))  # ends the waiting
    everything = set(range(taken))
    assert world.run_until(lambda: everything <= set(node.applied), within_s=5), tell(world)
    assert node.replica.propose(event)
    assert not world.violations, tell(world)
