"""Snapshots instead of an ever longer log, in the simulated cluster: schedules, one a fault."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from hanat.core.configuration import PROFILES
from hanat.core.inputs import SwitchoverRequested
from hanat.raft import compaction, durability, snapshot
from hanat.raft.guard import Guard
from hanat.raft.messages import Message, encode
from hanat.raft.promises import HEARTBEAT_BEACONS
from hanat.raft.state import State
from tests.sim import repairs
from tests.sim.bench import Bench, command, entries_of, settled, tell, with_and_without
from tests.sim.process import Process
from tests.sim.run import converged, holders
from tests.sim.snapshots import CountingState, MemoryStore
from tests.sim.world import World

COMMANDS = 60
PIECE_BYTES = 1 << 18
HEARTBEAT_S = (HEARTBEAT_BEACONS + 1) * PROFILES["default"].beacon_s  # by then one was heard


def propose(world: World, holder: int, first: int, count: int) -> None:
    """Propose numbered commands and let them be committed."""
    for uid in range(first, first + count):
        assert world.processes[holder].propose(uid)
    everything = set(range(first, first + count))
    assert world.run_until(lambda: everything <= world.acknowledged, within_s=2), tell(world)


def compact(world: World, *nodes: int) -> None:
    """Let nodes cut their logs."""
    world.run(HEARTBEAT_S)  # followers hear of a commit with the next message
    for node_id in nodes:
        world.processes[node_id].compact()
    cut = [world.processes[node_id].journal for node_id in nodes]
    assert world.run_until(lambda: all(j[0][1] > COMMANDS / 2 for j in cut), within_s=2)


def with_a_late_follower(guard: type[Guard] = Guard, *, padding: int = 0) -> tuple[World, int, int]:
    """Return a cluster, its holder, and a node that is down and behind the holder's log."""
    world, holder = settled(guard)
    late, other = (i for i in world.node_ids if i != holder)
    for process in world.processes.values():
        process.padding = process.state.padding = padding
    world.processes[late].kill()
    propose(world, holder, 0, COMMANDS)
    compact(world, holder, other)
    return world, holder, late


def assert_all_applied(world: World, count: int = COMMANDS) -> None:
    def everything_applied() -> bool:  # nothing is under way either
        return converged(world) and all(len(p.applied) >= count for p in world.processes.values())

    assert world.run_until(everything_applied, within_s=10), tell(world)
    assert [p.applied for p in world.processes.values()] == [list(range(count))] * 3
    assert world.violations == [], tell(world)


# ------------------------------------------------------------------- a node by itself


def test_log_is_cut_to_the_snapshot_and_a_little_more() -> None:
    world, holder = settled()
    propose(world, holder, 0, COMMANDS)
    process = world.processes[holder]
    before = process.replica.applied_index
    compact(world, holder)
    assert process.journal[0][1] == before - 1 - process.kept_entries
    propose(world, holder, COMMANDS, 1)
    assert_all_applied(world, COMMANDS + 1)


def test_large_entries_are_not_kept_for_the_sake_of_their_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, holder = settled()
    propose(world, holder, 0, COMMANDS)
    process = world.processes[holder]
    process.guard.durability.kept_entries = 2 * COMMANDS
    before = process.replica.applied_index
    monkeypatch.setattr(durability, "KEPT_BYTES", sum(len(e[0]) for e in process.journal[-12:-2]))
    compact(world, holder)
    assert process.journal[0][1] == before - 1 - 10


def test_node_restarts_from_snapshot_and_log() -> None:
    world, holder = settled()
    propose(world, holder, 0, COMMANDS)
    compact(world, *world.node_ids)
    propose(world, holder, COMMANDS, 5)
    for process in world.processes.values():
        process.kill()
    for process in world.processes.values():
        process.start()
        assert process.replica.last_index >= process.journal[0][1] + 5
    assert_all_applied(world, COMMANDS + 5)
    assert {p.replica.state.revision for p in world.processes.values()} == {1}


class ForgetfulOfTheCut(Guard):
    """The log is left as it is when it is opened beside a snapshot."""

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        self.durability.deleteEntriesTo = lambda *_, **__: None  # type: ignore[method-assign]


@with_and_without(ForgetfulOfTheCut)
def test_crash_between_snapshot_and_cut_loses_nothing(guard: type[Guard]) -> None:
    world, holder = settled(guard)
    propose(world, holder, 0, COMMANDS)
    world.run(HEARTBEAT_S)
    follower = world.processes[next(i for i in world.node_ids if i != holder)]
    log = list(follower.journal[:])
    covered = log[-20][1]
    state = State()
    state.term = log[-20][2]
    parts = [*follower.replica.state.freeze()]
    follower.kill()
    follower.store.current = follower.store.saved = b"".join(
        snapshot.encode("sim", log[-21], log[-20], parts)
    )
    follower.start()
    world.on(follower, follower._tick_now)
    assert (follower.replica.last_index == log[-1][1]) is (guard is Guard)
    assert follower.replica.applied_index >= covered


def test_log_without_its_snapshot_is_worth_nothing() -> None:
    world, holder = settled()
    propose(world, holder, 0, COMMANDS)
    compact(world, *world.node_ids)
    process = world.processes[next(i for i in world.node_ids if i != holder)]
    process.kill()
    process.store.current = process.store.saved = None  # the real store says so of a damaged one
    process.start()
    assert process.guard.recovery.needed
    assert (process.replica.last_index, process.replica.applied_index) == (1, 1)
    assert not process.guard.can_vote
    assert_all_applied(world)
    assert world.run_until(lambda: not process.guard.recovery.needed, within_s=0.5)


def test_snapshot_older_than_the_logs_beginning_makes_a_node_that_forgot() -> None:
    world, holder = settled()
    propose(world, holder, 0, COMMANDS)
    process = world.processes[next(i for i in world.node_ids if i != holder)]
    process.compact()
    world.run(HEARTBEAT_S)
    old = process.store.current
    propose(world, holder, COMMANDS, COMMANDS)
    world.run(HEARTBEAT_S)
    process.compact()
    world.run(2 * HEARTBEAT_S)  # the cut is on disk, too
    process.kill()
    process.store.current = process.store.saved = old
    process.start()
    assert process.guard.recovery.needed
    assert_all_applied(world, 2 * COMMANDS)


def test_failed_snapshot_leaves_the_log(caplog: pytest.LogCaptureFixture) -> None:
    class FullStore(MemoryStore):
        def write(self, parts: object) -> None:  # noqa: ARG002
            raise OSError("no space left on device")

    caplog.set_level(logging.WARNING)
    world, holder = settled()
    process = world.processes[holder]
    process.replica.snapshots.store = FullStore()
    propose(world, holder, 0, COMMANDS)
    first = process.journal[0][1]
    process.compact()
    world.run(0.2)
    assert process.journal[0][1] == first
    assert "no space left on device" in caplog.text
    process.replica.snapshots.store = process.store
    compact(world, holder)


def refuse(*_: object) -> None:
    raise ValueError("a snapshot without the section b'core'")


def test_snapshot_that_the_state_cannot_take_over_ends_the_process_at_its_start() -> None:
    world, holder = settled()
    propose(world, holder, 0, COMMANDS)
    compact(world, *world.node_ids)
    process = world.processes[next(i for i in world.node_ids if i != holder)]
    process.kill()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CountingState, "restore", refuse)
        with pytest.raises(ValueError, match="without the section"):
            process.start()


# ------------------------------------------------------------------- to a follower


def test_snapshot_of_the_leader_that_the_state_cannot_take_over_ends_the_process() -> None:
    world, _, late = with_a_late_follower()
    world.processes[late].start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CountingState, "restore", refuse)
        with pytest.raises(ValueError, match="without the section"):
            world.run(5.0)


def test_follower_behind_the_log_gets_a_snapshot() -> None:
    world, _, late = with_a_late_follower()
    world.processes[late].start()
    assert_all_applied(world)
    assert world.processes[late].store.adopted == 1
    assert world.processes[late].journal[0][1] > COMMANDS / 2


def test_follower_that_is_a_little_late_gets_entries() -> None:
    world, holder = settled()
    late = next(i for i in world.node_ids if i != holder)
    world.processes[holder].guard.durability.kept_entries = COMMANDS
    world.processes[late].kill()
    propose(world, holder, 0, COMMANDS)
    world.processes[holder].compact()
    world.run(HEARTBEAT_S)
    assert world.processes[holder].journal[0][1] > 1
    world.processes[late].start()
    assert_all_applied(world)
    assert world.processes[late].store.adopted == 0


def test_large_snapshot_reaches_an_empty_follower_under_load() -> None:
    world, holder, late = with_a_late_follower(padding=50)
    process = world.processes[late]
    process.journal = type(process.journal)(world.checks, late)
    process.journal.lost()
    terms, leader = len(world.leaders), world.processes[holder]
    process.start()
    uids = iter(range(COMMANDS, 100_000))

    def load() -> None:
        if process.replica.applied_index < COMMANDS:
            leader.propose(next(uids))
            world.after(0.005, load)

    load()
    assert world.run_until(lambda: process.replica.applied_index > COMMANDS, within_s=20)
    assert_all_applied(world, next(uids))
    assert len(world.leaders) == terms  # nobody was taken for dead meanwhile


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99, 1.0])
def test_transfer_goes_on_where_the_connection_broke(share: float) -> None:
    world, holder, late = with_a_late_follower(padding=8)
    pieces: list[int] = []
    size = len(world.processes[holder].store.current)

    def tap(_source: int, target: int, message: Message) -> bool:
        if message["type"] == "snapshot" and target == late and message["data"]:
            pieces.append(message["offset"])
        return True

    world.tap = tap
    world.processes[late].start()
    assert world.run_until(
        lambda: bool(pieces) and pieces[-1] >= share * (size - PIECE_BYTES), within_s=5
    )
    world.break_link(world.link(holder, late))
    assert_all_applied(world)
    again = len(pieces) - len(set(pieces))
    assert again <= 8, pieces  # what was in flight, at most
    assert world.processes[late].store.adopted == 1


def test_leader_killed_during_a_transfer_is_followed_by_another() -> None:
    world, holder, late = with_a_late_follower(padding=8)
    world.processes[late].start()
    store = world.processes[late].store
    assert world.run_until(lambda: len(store.incoming) > 1 << 20, within_s=5)
    world.processes[holder].kill()
    world.run(3.0)
    world.processes[holder].start()
    assert_all_applied(world)
    assert_logs_stay_short(world)


@pytest.mark.parametrize("fault", ["the leader dies", "the leadership moves"])
def test_transfer_that_came_to_nothing_does_not_stop_compaction(fault: str) -> None:
    # Who leads next has the whole log, and sends entries.
    world, holder = settled()
    late, other = (i for i in world.node_ids if i != holder)
    for process in world.processes.values():
        process.padding = process.state.padding = 8
    world.processes[late].kill()
    propose(world, holder, 0, COMMANDS)
    compact(world, holder)
    process, store = world.processes[late], world.processes[late].store
    process.start()
    assert world.run_until(lambda: len(store.incoming) > 1 << 20, within_s=5)
    if fault == "the leader dies":
        world.processes[holder].kill()
        world.run(3.0)
        world.processes[holder].start()
    else:
        world.on(world.processes[holder], world.processes[holder].feed, SwitchoverRequested(other))
        assert world.run_until(lambda: holders(world) == [other], within_s=5), tell(world)
    assert_all_applied(world)
    assert store.adopted == 0
    assert_logs_stay_short(world)


def assert_logs_stay_short(world: World) -> None:
    world.run(HEARTBEAT_S)
    assert not any(p.guard.transfers.active for p in world.processes.values())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction, "LOG_ENTRIES_MAX", 10)
        world.run(3 * compaction.CHECK_S)
    assert all(len(p.journal) < COMMANDS / 2 for p in world.processes.values())


def test_follower_killed_during_a_transfer_starts_anew() -> None:
    world, _, late = with_a_late_follower(padding=8)
    process = world.processes[late]
    process.start()
    assert world.run_until(lambda: len(process.store.incoming) > 1 << 20, within_s=5)
    process.kill()
    process.start()
    assert_all_applied(world)
    assert process.store.adopted == 1


def test_damaged_snapshot_of_the_leader_is_replaced() -> None:
    # With nothing new in the log, of which the library would make a snapshot.
    world, holder, late = with_a_late_follower(padding=2)
    store = world.processes[holder].store
    assert store.current is not None
    middle = len(store.current) // 2
    store.current = store.current[:middle] + b"rot" + store.current[middle + 3 :]
    world.processes[late].start()
    assert_all_applied(world)
    assert store.written == 2
    assert world.processes[late].store.adopted == 1


def test_leader_that_compacts_again_goes_on_sending_what_it_began() -> None:
    world, holder, late = with_a_late_follower(padding=8)
    process = world.processes[late]
    process.start()
    assert world.run_until(lambda: len(process.store.incoming) > 1 << 20, within_s=5)
    propose(world, holder, COMMANDS, COMMANDS)
    world.processes[holder].compact()
    world.processes[holder].guard.durability.kept_entries = 2 * COMMANDS
    assert_all_applied(world, 2 * COMMANDS)


@with_and_without(repairs.WithoutAnswerToTheLibrary)
def test_library_that_wants_to_send_a_snapshot_asks_once(guard: type[Guard]) -> None:
    # A snapshot is in the making, or on its way: it would ask in a loop for a whole beacon.
    bench = Bench(guard, entries=entries_of(1, 2, 60), term=1).elect()
    bench.acks = {3}
    bench.run(0.2)
    bench.node.compact()
    bench.run(2 * HEARTBEAT_S)
    assert bench.node.journal[0][1] > 10
    asked = 0
    real = bench.guard.send

    def counting(node: Any, message: Message) -> bool:  # noqa: ANN401
        nonlocal asked
        asked += message["type"] == "append_entries" and "prevLogIdx" not in message
        if asked > 100:
            raise AssertionError("the library asks without end")
        return bool(real(node, message))

    bench.guard.send = counting  # type: ignore[method-assign]
    reset = {"reset": True, "success": False, "fit": True, "term": bench.term, "next_node_idx": 2}
    newest = bench.take("append_entries", to=2)[-1]
    bench.node.replica.machine._SyncObj__raftNextIndex[bench.guard.nodes[2]] = 2
    if guard is Guard:
        bench.say(2, "next_node_idx", gen=newest["gen"], **reset)
        bench.run(2 * HEARTBEAT_S)
        assert asked <= 1
    else:
        with pytest.raises(AssertionError, match="asks without end"):
            bench.run(2 * HEARTBEAT_S)


def test_entries_before_the_cut_count_as_held() -> None:
    bench = Bench(Guard).run(0.6)
    entries = entries_of(1, 2, 60)
    bench.append(2, term=1, after=(1, 0), entries=entries, commit=60).tick()
    bench.node.compact()
    bench.run(2 * HEARTBEAT_S)
    first = bench.node.journal[0][1]
    assert first > 10
    bench.take("next_node_idx")
    bench.append(2, term=1, after=(1, 0), entries=entries[:5], commit=60)
    bench.append(2, term=1, after=(1, 0), entries=[*entries, (command(61), 61, 1)], commit=60)
    bench.run(0.02)
    said = [(m["success"], m["next_node_idx"]) for m in bench.take("next_node_idx", to=2)]
    assert said == [(True, 7), (True, 62)]
    assert bench.last == 61
    assert bench.world.violations == []


def test_holder_goes_on_holding_while_it_writes_a_snapshot() -> None:
    world, holder = settled()
    process = world.processes[holder]
    process.snapshot_disk.work_s = (2.0, 2.0)
    propose(world, holder, 0, COMMANDS)
    process.compact()
    world.run(1.0)
    assert writing(process)
    propose(world, holder, COMMANDS, 10)
    assert holders(world) == [holder]
    process.snapshot_disk.work_s = (0.001, 0.001)
    world.run(2.0)
    assert not writing(process)
    assert_all_applied(world, COMMANDS + 10)


def writing(process: Process) -> bool:
    return process.replica.snapshots.busy


def test_messages_of_a_transfer_fit_a_frame() -> None:
    world, _, late = with_a_late_follower(padding=2)
    sizes: list[int] = []
    world.tap = lambda _source, _target, m: not sizes.append(len(encode(m)))  # type: ignore[func-returns-value]
    world.processes[late].start()
    assert_all_applied(world)
    assert max(sizes) < 1.1 * PIECE_BYTES
