"""Each repair of the log, and what happens without it.

A test gets the guard, for which the property holds, and a broken one, for which the
same schedule must show the fault: a schedule that no longer can is no test.
"""

from __future__ import annotations

import pytest

from hanat.core.feature_level import OLDEST
from hanat.errors import WireError
from hanat.raft.guard import SLICE_BYTES_MAX, WINDOW_SLICES, Guard
from hanat.raft.messages import NO_OP, REGULAR, Entry, Message, decode, encode, wrap
from hanat.raft.state import Command
from hanat.raft.state import decode as decode_command
from tests.sim import repairs
from tests.sim.bench import (
    ME,
    Bench,
    command,
    entries_of,
    fill,
    settled,
    tell,
    with_and_without,
)
from tests.sim.checks import CheckedJournal
from tests.sim.process import Process
from tests.sim.run import converged, holders
from tests.sim.snapshots import CountingState
from tests.sim.world import World

SEEDS = range(1, 7)  # with one alone it depends on when the ticks come
WIRE_BYTES_MAX = 1.1  # for each useful byte


@with_and_without(repairs.WithoutClamp)
def test_commit_index_stays_within_what_the_message_verified(guard: type[Guard]) -> None:
    # The tail of term 1 is nobody else's; the leader of term 2 speaks of index 1 only.
    # The library would have cut the tail: as long as no snapshots are sent, it is keeping
    # the prefix that makes this repair necessary.
    bench = Bench(guard, entries=entries_of(1, 2, 5), term=1)
    bench.append(2, term=2, after=(1, 0), commit=5).tick()
    assert (bench.node.replica.applied_index == 1) is (guard is Guard)


@with_and_without(repairs.WithoutPrefix)
def test_repeated_shorter_append_removes_nothing(guard: type[Guard]) -> None:
    bench = Bench(guard)
    entries = entries_of(1, 2, 6)
    bench.append(2, term=1, after=(1, 0), entries=entries, commit=6).tick()
    bench.append(2, term=1, after=(1, 0), entries=entries[:2], commit=6)
    assert (bench.last == 6) is (guard is Guard)
    assert bool(bench.world.violations) is (guard is not Guard)


@pytest.mark.parametrize("after", [(1, 0), (3, 1)])
def test_entries_in_conflict_are_replaced(after: tuple[int, int]) -> None:
    bench = Bench(Guard, entries=entries_of(1, 2, 6), term=1)
    new = entries_of(1, after[0] + 1, 3) + entries_of(2, 4, 5)
    bench.append(2, term=2, after=after, entries=new)
    assert [e[2] for e in bench.node.journal[1:]] == [1, 1, 2, 2]


@with_and_without(repairs.WithoutLeaps)
def test_follower_leaps_over_a_term_that_is_not_its_leaders(guard: type[Guard]) -> None:
    # It led term 2 while it was cut off; the leader of term 3 asks whether 100 is its own.
    bench = Bench(guard, entries=entries_of(1, 2, 5) + entries_of(2, 6, 150), term=2)
    bench.append(2, term=3, after=(100, 3)).run(0.1)  # the new term is saved first
    bench.append(2, term=3, after=(100, 3))
    answer = bench.take("next_node_idx", to=2)[-1]
    assert (answer["reset"], answer["next_node_idx"]) == (True, 6 if guard is Guard else 100)


@with_and_without(repairs.WithoutPacing)
def test_nothing_in_flight_is_sent_again(guard: type[Guard]) -> None:
    useful, wire, _ = busy_cluster(guard)
    assert (wire < WIRE_BYTES_MAX * useful) is (guard is Guard), (wire, useful)


# Either of the two repairs suffices: what is not sent again removes nothing.
@with_and_without(repairs.WithoutPacingAndPrefix)
def test_library_never_truncates_what_it_applied(
    guard: type[Guard], caplog: pytest.LogCaptureFixture
) -> None:
    worlds = [busy_cluster(guard, seed=seed)[-1] for seed in SEEDS]
    assert ("truncating already-applied" not in caplog.text) is (guard is Guard)
    assert all(world.violations == [] for world in worlds) is (guard is Guard)


def busy_cluster(guard: type[Guard], *, seed: int = 1) -> tuple[int, int, World]:
    """Keep 64 commands in flight for a while; return bytes proposed, bytes sent, the world."""
    size, in_flight, total = 1000, 64, 1500
    world, leader = settled(guard, seed=seed)
    process, wire, done = world.processes[leader], 0, 0

    def tap(_source: int, _target: int, message: Message) -> bool:
        nonlocal wire
        wire += len(encode(message))
        return True

    def more(committed: bool = True) -> None:  # noqa: FBT001, FBT002 - called by the log
        nonlocal done
        assert committed
        done += 1
        if done + in_flight <= total + 1:
            propose()

    def propose() -> None:
        process.replica.machine._applyCommand(
            command(done, size=size), lambda _result, error: more(error == 0)
        )

    world.tap = tap
    for _ in range(in_flight):
        propose()
    assert world.run_until(lambda: done >= total, within_s=20), done
    return size * total * 2, wire, world


@with_and_without(repairs.WithoutTermStamp)
def test_acknowledgement_of_an_earlier_term_commits_nothing(guard: type[Guard]) -> None:
    bench = Bench(guard, entries=entries_of(1, 2, 2), term=1).elect()
    acknowledged: list[bool] = []
    bench.node.replica.machine._applyCommand(
        command(7), lambda _result, error: acknowledged.append(error == 0)
    )
    bench.tick()
    # Of another entry at that index, which the follower lost since.
    stale = {"prevLogIdx": bench.last, "entries": [], "term": 1, "gen": 1}
    bench.acknowledge(2, stale)
    bench.run(0.02)  # its own disk has the entry
    assert (acknowledged == []) is (guard is Guard)


@with_and_without(repairs.WithoutGenerations)
def test_resets_on_their_way_together_rewind_once(guard: type[Guard]) -> None:
    bench = Bench(guard, entries=entries_of(1, 2, 40), term=1).elect()
    bench.run(0.5)
    heartbeats = bench.take("append_entries", to=2)
    assert len(heartbeats) >= 4
    for heartbeat in heartbeats:
        reset = {"reset": True, "success": False, "fit": True, "next_node_idx": 2}
        stamp = {key: heartbeat[key] for key in ("term", "gen")}
        bench.say(2, "next_node_idx", **reset, **stamp)
    sent = sum(len(m["entries"]) for m in bench.take("append_entries", to=2))
    assert (sent == bench.last - 1) is (guard is Guard), sent


class RememberingJournal(CheckedJournal):
    """A journal that lost its tail with the power, but not the commit index."""

    def getRaftCommitIndex(self) -> int:  # noqa: N802 - the library's name
        return 20


@pytest.mark.parametrize("journal", [CheckedJournal, RememberingJournal])
def test_commit_index_of_before_a_restart_commits_nothing(journal: type[CheckedJournal]) -> None:
    def prepare(process: Process) -> None:
        process.journal = journal(process.world.checks, process.node_id)
        fill(process, entries_of(1, 2, 3), term=1)

    bench = Bench(Guard, prepare=prepare).elect()
    acknowledged: list[bool] = []
    bench.node.replica.machine._applyCommand(
        command(7), lambda _result, error: acknowledged.append(error == 0)
    )
    bench.tick().tick()
    assert (acknowledged == []) is (journal is CheckedJournal)


# ------------------------------------------------------------------ what is accepted

CHANGE_MEMBERS = b"\x02" + command(1)[1:]


@with_and_without(repairs.WithoutKinds)
def test_command_of_a_peer_is_refused(guard: type[Guard]) -> None:
    # The library would append it to the log, whatever it does there.
    bench = Bench(guard).elect().tick()
    before = bench.last
    message = {"type": "apply_command", "command": CHANGE_MEMBERS}
    if guard is Guard:
        with pytest.raises(WireError, match="is not for a node"):
            bench.guard.receive(2, message)
    else:
        bench.guard.receive(2, message)
    bench.tick()
    assert (bench.last == before) is (guard is Guard)


@pytest.mark.parametrize("codec", [True, False])
def test_entry_that_changes_members_cannot_be_sent(codec: bool) -> None:  # noqa: FBT001
    # Without our codec, frames being pickles as the library has them, it is taken.
    bench = Bench(Guard)
    append: Message = {"type": "append_entries", "term": 1, "commit_index": 2, "prevLogIdx": 1}
    append |= {"prevLogTerm": 0, "gen": 1, "last": 2}
    append["entries"] = [(CHANGE_MEMBERS, 2, 1)]
    if codec:
        with pytest.raises(AssertionError, match="log entry of unknown type"):
            bench.world.deliver(2, ME, append)
    else:
        bench.world.on(bench.node, bench.guard.receive, 2, append)
    assert (bench.last == 1) is codec


def test_entry_from_the_wire_is_data_or_nothing_whatever_its_kind_byte_says() -> None:
    append: Message = {"type": "append_entries", "term": 1, "commit_index": 1, "prevLogIdx": 1}
    append |= {"prevLogTerm": 0, "gen": 1, "last": 2}
    empty = len(encode(append | {"entries": []}))
    content = bytearray(encode(append | {"entries": [(command(1), 2, 1)]}))
    for kind in range(256):
        content[empty + 8] = kind  # behind the entry's term
        try:
            ((entry, _, _),) = decode(bytes(content))["entries"]
        except WireError:
            continue
        assert entry[:1] in (REGULAR, NO_OP)


class RaisingState(CountingState):
    """A state machine that raises where ours skips."""

    def apply(self, data: bytes) -> Command | None:
        decode_command(data)
        return super().apply(data)


@pytest.mark.parametrize("state", [CountingState, RaisingState])
def test_entry_that_may_be_skipped_is_skipped_by_all_alike(
    state: type[CountingState],
) -> None:
    world, holder = settled()
    for process in world.processes.values():
        new, old = state(), process.replica.state
        new.term, process.replica.state, process.applied = old.term, new, new.uids
    process = world.processes[holder]
    index = process.replica.last_index + 1
    process.replica.machine._applyCommand(wrap(bytes((OLDEST,)) + b"\xffjunk"), None)
    process.propose(5)
    if state is CountingState:
        world.run(0.5)
        assert [p.applied[-1] for p in world.processes.values()] == [5, 5, 5]
        assert [p.replica.state.unreadable for p in world.processes.values()] == [0, 0, 0]
        return
    for _ in range(3):  # the library tries the same entry at each tick
        with pytest.raises(ValueError, match="unknown kind"):
            world.run(0.5)
    assert process.replica.applied_index == index - 1


def test_node_that_does_not_know_an_entry_stops_applying_and_does_not_hold() -> None:
    # As an older version does behind newer ones: its state would differ for good.
    world, holder = settled()
    process = world.processes[holder]
    index = process.replica.last_index + 1
    process.replica.machine._applyCommand(wrap(bytes((OLDEST, 99)) + b"of a later version"), None)
    process.propose(5)
    world.run(1.0)
    for each in world.processes.values():
        assert each.replica.applied_index == index - 1
        assert each.replica.commit_index > index
        assert "of feature level 5 and kind 99, which hanat" in each.core.snapshot().unsafe[0]
        assert not each.replica.behind  # it would be looked at again in every turn
    assert holders(world) == []
    process.kill()
    process.start()  # with what is in its journal it stops at the same entry
    world.run(1.0)
    assert process.replica.applied_index == index - 1
    assert world.violations == [], tell(world)


def test_old_holder_behind_an_entry_of_newer_nodes_hands_over_and_helps() -> None:
    world, old = settled()
    newer = [i for i in world.node_ids if i != old]
    for node_id in newer:
        machine = world.processes[node_id].replica.machine
        machine._applicable_to = lambda last: last
    process = world.processes[old]
    process.replica.machine._applyCommand(wrap(bytes((OLDEST, 99)) + b"of a later version"), None)
    assert world.run_until(lambda: holders(world) != [old], within_s=2), tell(world)
    assert world.run_until(lambda: len(holders(world)) == 1, within_s=2), tell(world)
    (holder,) = holders(world)
    assert holder in newer
    world.processes[next(i for i in newer if i != holder)].kill()
    world.run(2.0)  # its promises and acknowledgements are the majority now
    assert holders(world) == [holder], tell(world)
    assert world.processes[holder].propose(6)
    world.run(0.5)
    assert 6 in world.acknowledged
    assert world.violations == [], tell(world)


# ------------------------------------------------------------------ slices and window


@with_and_without(repairs.WithoutSlices)
def test_empty_follower_catches_up_many_small_entries_in_slices(guard: type[Guard]) -> None:
    world, sizes = catching_up(guard, count=20_000, size=100)
    assert behind(world, within_s=5) is (guard is not Guard)
    assert all(s < 1.2 * SLICE_BYTES_MAX for s in sizes) is (guard is Guard), max(sizes)


class WholeSlices(Guard):
    """An entry that is larger than a slice is never sent."""

    def _slice(self, first: int) -> list[Entry]:
        return [e for e in super()._slice(first) if len(e[0]) <= SLICE_BYTES_MAX]


@with_and_without(WholeSlices)
def test_empty_follower_catches_up_entries_larger_than_a_slice(guard: type[Guard]) -> None:
    world, sizes = catching_up(guard, count=40, size=300_000)
    assert behind(world, within_s=2) is (guard is not Guard)
    assert max(sizes, default=0) < 1.1 * 300_000


@with_and_without(repairs.WithoutWindow)
def test_deaf_leader_sends_no_more_than_the_window(guard: type[Guard]) -> None:
    world, sizes = catching_up(guard, count=10_000, size=100)
    leader = next(i for i in (1, 2) if world.processes[i].replica.leading)
    world.run_until(lambda: max(sizes, default=0) > 1000, within_s=5)
    world.block(3, leader)
    world.run(0.2)
    slices = [s for s in sizes if s > 1000]
    assert (len(slices) == WINDOW_SLICES) is (guard is Guard), len(slices)


def catching_up(guard: type[Guard], *, count: int, size: int) -> tuple[World, list[int]]:
    """Return a cluster whose third node, empty, just came up; and what sizes it is sent."""
    world = World(seed=1)
    sizes: list[int] = []

    def tap(_source: int, target: int, message: Message) -> bool:
        if target == 3:
            sizes.append(len(encode(message)))
        return True

    log = [(command(i, size=size), i, 1) for i in range(2, 2 + count)]
    for node_id in world.node_ids:
        process = Process(world, node_id, profile="default", rate=1.0, guard=guard)
        if node_id != 3:
            fill(process, log, term=1)
            process.start()
    assert world.run_until(lambda: len(holders(world)) == 1, within_s=5), tell(world)
    world.tap = tap
    world.processes[3].start()
    return world, sizes


def behind(world: World, *, within_s: float) -> bool:
    """Say whether the third node still lacks entries after a while."""
    try:
        return not world.run_until(lambda: converged(world), within_s=within_s)
    except WireError:  # a message that its receiver refuses
        return True
