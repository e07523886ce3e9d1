"""Events on their way into the log: each is proposed once in a term, and few wait."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hanat.core import inputs as told
from hanat.core.beacon import Heard
from hanat.core.configuration import PROFILES
from hanat.core.history import Witness
from hanat.core.node_snapshot import NodeSnapshot
from hanat.core.status import Role
from hanat.daemon.history_recorder import PROPOSED_MAX, HistoryRecorder, HistoryRecorderParts
from hanat.daemon.worker_link import WorkerLink
from tests.daemon.test_config_changes import SETTINGS
from tests.sim.bench import settled, tell
from tests.sim.process import Process
from tests.sim.world import World

BEACON_S = PROFILES["default"].beacon_s


def _no_worker(*_: object) -> Any:  # noqa: ANN401 - it returns nothing
    raise AssertionError("no flow worker is needed")


def _historian(process: Process) -> HistoryRecorder:
    """Return the historian of a simulated node."""

    def snapshot() -> NodeSnapshot:
        return process.core.snapshot()

    parts = HistoryRecorderParts(
        settings=replace(SETTINGS, node_id=process.node_id),
        replica=process.replica,
        guard=process.guard,
        heard_at=lambda _peer, _path: None,
        worker=WorkerLink(_no_worker, propose=lambda *_: False, completed=_no_worker),
        clock=process.clock,
        wall=lambda: 0.0,
        frames=lambda: 0,
    )
    witness = Witness(process.node_id, process.guard.profile)
    return HistoryRecorder(
        parts, witness, snapshot=snapshot, origin=process.node_id, kick=lambda: None
    )


def _leader() -> tuple[World, Process]:
    """Return the leader of a cluster that does not run: nothing is committed."""
    world, holder = settled()
    process = world.processes[holder]
    _historian(process)
    return world, process


def _told(world: World, process: Process, *, origins: range) -> int:
    """Let a peer tell events; return how many entries they became."""
    before = process.replica.last_index
    for origin in origins:
        message = {"type": "event", "origin": origin, "serial": 1, "event": b"{}"}
        process.guard.on_event(message)
        world.on(process, process.replica.tick)
    return process.replica.last_index - before


def test_event_that_waits_is_proposed_once_in_a_term() -> None:
    world, process = _leader()
    assert sum(_told(world, process, origins=range(2, 3)) for _ in range(100)) == 1


def test_only_so_many_events_wait_for_a_commit() -> None:
    world, process = _leader()
    assert _told(world, process, origins=range(2, 2 + 2 * PROPOSED_MAX)) == PROPOSED_MAX


def test_event_is_proposed_anew_in_another_term() -> None:
    world, process = _leader()
    assert _told(world, process, origins=range(2, 3)) == 1
    process.replica._machine._SyncObj__raftCurrentTerm += 1
    assert _told(world, process, origins=range(2, 3)) >= 1  # and the barrier of the term


def _watched(process: Process) -> HistoryRecorder:
    """Return the historian of a node, told of its roles and of what it hears as in the daemon."""
    historian = _historian(process)
    hear, step = process.guard.hear, process._step

    def told_all(heard: Heard) -> None:
        historian.hear(heard)
        hear(heard)

    def stepped(item: told.Input) -> None:
        was = process.core.snapshot().role
        step(item)
        if process.core.snapshot().role is not was:
            historian.entered(was)

    process.guard.hear = told_all  # type: ignore[method-assign]
    process._step = stepped  # type: ignore[method-assign]
    return historian


def test_gap_after_a_holder_that_was_fenced_counts_from_when_it_was() -> None:
    # One node is dead, the holder does not hear the other; when it does, the holder leaves it
    # the addresses at once, with a lease again that it did not answer by.
    world, holder = settled()
    dead, other = (node_id for node_id in world.node_ids if node_id != holder)
    before, after = world.processes[holder], world.processes[other]
    first, second = _watched(before), _watched(after)
    first.entered(Role.TAKEOVER)
    world.on(before, first.look)
    world.run(0.5)
    world.processes[dead].kill()
    arrives_again, hears_again = world.stick(other, holder), world.block(other, holder)
    assert world.run_until(lambda: before.role is Role.FENCED, within_s=1.0), tell(world)
    fenced_at = after.clock()
    world.on(before, before.feed, told.CarrierObserved("public", carrier=False))
    world.run(0.99)  # at another phase it holds once more for a moment
    hears_again()
    world.after(0.2, arrives_again)  # TCP repeats later than beacons come
    assert world.run_until(lambda: after.role is Role.ACTIVE, within_s=5.0), tell(world)
    gap_s = after.clock() - fenced_at
    world.on(after, second.look)
    assert world.run_until(lambda: len(second.show(10)) == 2, within_s=5.0), tell(world)
    found = second.show(10)[-1]
    assert found["why"] == "deposed", found
    assert gap_s - BEACON_S <= found["without_s"] <= gap_s, (found["text"], tell(world))
