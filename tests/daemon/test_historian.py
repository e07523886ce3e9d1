"""Events on their way into the log: each is proposed once in a term, and few wait."""

from __future__ import annotations

from typing import Any

from hanat.core.history import Witness
from hanat.core.snapshot import NodeSnapshot
from hanat.daemon.historian import PROPOSED_MAX, Historian, HistorianParts
from hanat.flowsync.client import FlowClient
from tests.daemon.test_changes import SETTINGS
from tests.sim.bench import settled
from tests.sim.process import Process
from tests.sim.world import World


def _no_worker(*_: object) -> Any:  # noqa: ANN401 - it returns nothing
    raise AssertionError("no flow worker is needed")


def _historian(process: Process) -> Historian:
    """Return the historian of a simulated node."""

    def snapshot() -> NodeSnapshot:
        return process.core.snapshot()

    parts = HistorianParts(
        settings=SETTINGS,
        replica=process.replica,
        guard=process.guard,
        heard_at=lambda _peer, _path: None,
        worker=FlowClient(_no_worker, propose=lambda *_: False, completed=_no_worker),
        clock=process.clock,
        wall=lambda: 0.0,
        frames=lambda: 0,
    )
    witness = Witness(process.node_id, process.guard.profile)
    return Historian(parts, witness, snapshot=snapshot, origin=1, kick=lambda: None)


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
