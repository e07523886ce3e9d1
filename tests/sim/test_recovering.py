"""A node whose journal is new, or was lost, does not help to lose what is committed."""

from __future__ import annotations

import pytest

from hanat.raft.guard import Guard
from hanat.raft.messages import wrap
from hanat.raft.state import NewConfiguration, encode
from tests.sim import repairs
from tests.sim.bench import Bench, entries_of, fill, settled, tell, with_and_without
from tests.sim.process import Process
from tests.sim.run import cluster, converged, holders
from tests.sim.storage import lose_journal
from tests.sim.world import World

UID = 77


@with_and_without(repairs.WithoutRecovery)
def test_committed_entry_survives_that_its_second_copy_is_lost(guard: type[Guard]) -> None:
    world, holder = settled(guard)
    late, forgetful = (i for i in world.node_ids if i != holder)
    processes = world.processes
    world.block(holder, late)
    world.block(forgetful, late)
    processes[holder].propose(UID)
    assert world.run_until(lambda: UID in world.acknowledged, within_s=0.5), tell(world)
    processes[holder].kill()
    lose_journal(processes[forgetful])
    for source, target in ((holder, late), (forgetful, late)):
        world.link(source, target).directions[source].blocks = 0
    processes[forgetful].start()
    elected = world.run_until(lambda: holders(world) not in ([], [holder]), within_s=5)
    assert elected is (guard is not Guard), tell(world)
    processes[holder].start()
    assert world.run_until(lambda: converged(world), within_s=10), tell(world)
    everywhere = all(UID in p.applied for p in processes.values())
    assert everywhere is (guard is Guard), tell(world)
    assert bool(world.violations) is (guard is not Guard)


# ------------------------------------------------------------------- one node alone


def forgetful_bench(guard: type[Guard] = Guard) -> Bench:
    """Return a started node, quiet no more, whose disk failed before it ended."""

    def prepare(process: Process) -> None:
        fill(process, entries_of(1, 2, 3), term=1)
        process.journal.lost()

    return Bench(guard, prepare=prepare).run(0.6)


def test_node_says_why_it_does_not_take_part() -> None:
    bench = forgetful_bench()
    assert bench.node.core.hindrances[0].startswith("recovering: ")
    assert not bench.guard.can_vote


def test_node_votes_again_when_it_holds_what_the_leader_had() -> None:
    bench = forgetful_bench()
    start = bench.last
    assert not bench.ask_vote(3, term=5)
    leader_last = start + 4
    recovery = bench.guard.recovery
    for index in range(start + 1, leader_last + 1):
        before = bench.node.journal[-1]
        say_append(bench, before, index, leader_last)
    needed = [recovery.needed]  # it is not on disk
    bench.run(0.05)
    needed.append(recovery.needed)
    bench.append(2, term=6, after=(leader_last, 6))
    needed.append(recovery.needed)
    assert needed == [True, True, False]
    bench.run(0.5)
    assert bench.node.core.hindrances == ()
    assert bench.ask_vote(3, term=7)


def say_append(bench: Bench, before: tuple[bytes, int, int], index: int, last: int) -> None:
    fields = {"prevLogIdx": before[1], "prevLogTerm": before[2], "commit_index": 1}
    stamp = {"gen": 1, "last": last, "term": 6, "entries": entries_of(6, index, index)}
    bench.say(2, "append_entries", **fields, **stamp)


def test_leader_whose_newest_entry_is_old_does_not_end_it() -> None:
    # Its vote of this term may be forgotten, and a log of an older term may grow yet.
    bench = forgetful_bench()
    _, index, term = bench.node.journal[-1]
    bench.append(2, term=6, after=(index, term))
    assert bench.guard.recovery.needed


def test_leader_of_a_new_term_is_caught_up_with_anew() -> None:
    bench = forgetful_bench()
    _, index, term = bench.node.journal[-1]
    bench.append(2, term=6, after=(index, term))
    fields = {"prevLogIdx": index, "prevLogTerm": term, "commit_index": 1}
    entry = entries_of(7, index + 1, index + 1)
    stamp = {"gen": 1, "last": index + 9, "term": 7, "entries": entry}
    bench.say(3, "append_entries", **fields, **stamp)
    assert bench.guard.recovery.needed


def test_node_stands_only_with_the_help_of_all() -> None:
    bench = forgetful_bench()
    with pytest.raises(AssertionError, match="nobody was elected"):
        bench.elect(voters=(2,))
    bench.elect(voters=(2, 3))
    bench.tick()
    assert not bench.guard.recovery.needed


def test_node_votes_for_whom_all_would_elect() -> None:
    bench = forgetful_bench()
    log = {"last_log_index": bench.last, "last_log_term": 9}
    bench.sent.clear()
    bench.say(2, "pre_vote", term=9, last=(bench.last, 9), round=4)
    assert bench.take("pre_vote_ok") == []
    bench.say(2, "pre_vote", term=9, last=(bench.last, 9), round=4)
    assert bench.take("pre_vote_if_all") != []
    bench.say(2, "request_vote", term=9, transfer=True, **log)
    assert bench.take("response_vote") == []
    bench.say(2, "request_vote", term=9, transfer=False, all=True, **log)
    assert bench.take("response_vote") != []


def test_order_to_campaign_is_not_obeyed() -> None:
    bench = forgetful_bench()
    bench.heartbeat(2, term=9)
    bench.say(2, "timeout_now", term=9)
    bench.run(0.02)
    assert bench.take("request_vote") == []


# ------------------------------------------------------------------------ all of them


def power_cut(seed: int) -> World:
    """Return a cluster without power, to which much was acknowledged until then."""
    world, holder = settled(seed=seed)
    process = world.processes[holder]
    accepted: list[bool] = []
    world.on(
        process,
        process.replica.machine._applyCommand,
        wrap(encode(NewConfiguration(process.replica.state.revision, "newest"))),
        lambda _result, error: accepted.append(error == 0),
    )
    assert world.run_until(lambda: accepted == [True], within_s=0.5), tell(world)
    for uid in range(40):
        process.propose(uid)
        world.run(world.rng.uniform(0.0, 0.002))
    for process in world.processes.values():
        process.lose_power()
    assert world.acknowledged, tell(world)
    return world


@pytest.mark.parametrize("seed", range(1, 9))
def test_two_of_three_serve_after_the_site_lost_its_power(seed: int) -> None:
    world = power_cut(seed)
    nodes = list(world.node_ids)
    world.rng.shuffle(nodes)
    for node_id in nodes[:2]:
        world.processes[node_id].start()
    assert world.run_until(lambda: len(holders(world)) == 1, within_s=5), tell(world)
    world.run(0.5)
    states = [world.processes[i].replica.state for i in nodes[:2]]
    assert [(s.revision, s.text) for s in states] == [(2, "newest")] * 2
    for node_id in nodes[:2]:
        assert world.acknowledged <= set(world.processes[node_id].applied)
    world.processes[nodes[2]].start()
    assert world.run_until(lambda: converged(world), within_s=5), tell(world)
    assert world.violations == [], tell(world)


@pytest.mark.parametrize("seed", range(1, 9))
def test_one_away_for_ever_and_another_that_lost_its_power_and_is_back(seed: int) -> None:
    world, holder = settled(seed=seed)
    others = [i for i in world.node_ids if i != holder]
    world.processes[others[0]].kill()
    victim = holder if seed % 2 else others[1]
    world.run(1.0)
    world.processes[victim].lose_power()
    world.run(world.rng.uniform(0.1, 2.0))
    world.processes[victim].start()
    assert world.run_until(lambda: len(holders(world)) == 1, within_s=5), tell(world)
    assert world.violations == [], tell(world)


def test_new_cluster_starts_when_all_its_nodes_run() -> None:
    world = World(seed=1)
    for node_id in world.node_ids:
        process = Process(world, node_id, profile="default", rate=1.0)
        process.journal.lost()
    for node_id in (1, 2):
        world.processes[node_id].start()
    world.processes[3].start()
    world.processes[3].kill()
    world.run(3.0)
    assert holders(world) == []
    world.processes[3].start()
    assert world.run_until(lambda: converged(world), within_s=3), tell(world)
    assert not any(p.journal.recovering for p in world.processes.values())


def test_node_that_lost_its_journal_is_a_full_member_after_it_caught_up() -> None:
    world = cluster(seed=1)
    assert world.run_until(lambda: converged(world), within_s=10), tell(world)
    (holder,) = holders(world)
    wiped, other = (i for i in world.node_ids if i != holder)
    process = world.processes[wiped]
    lose_journal(process)
    process.start()
    assert world.run_until(lambda: not process.guard.recovery.needed, within_s=3), tell(world)
    world.processes[holder].kill()
    assert world.run_until(lambda: holders(world) in ([wiped], [other]), within_s=3), tell(world)
    assert world.violations == []
