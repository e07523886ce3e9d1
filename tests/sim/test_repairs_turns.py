"""Each repair of who stands when, and whose vote counts; see `test_repairs`."""

from __future__ import annotations

from pathlib import Path

import pytest

from hanat.core.beacon import Beacon, Promised
from hanat.core.configuration import PROFILES
from hanat.core.election import WORSE_DELAY
from hanat.core.eligibility import Fitness, Kind, Rival
from hanat.raft.elections import FALLBACK_LEASES
from hanat.raft.guard import Guard
from hanat.raft.journal_opening import open_journal
from hanat.raft.promises import ALIVE_BEACONS, HEARTBEAT_BEACONS
from tests.raft.disks import Quick
from tests.sim import repairs
from tests.sim.bench import STEP_S, Bench, entries_of, settled, tell, with_and_without
from tests.sim.process import Process
from tests.sim.run import cluster, converged, holders

PROFILE = PROFILES["default"]
LEASE_S, BEACON_S = PROFILE.lease_s, PROFILE.beacon_s
HEARTBEAT_S = HEARTBEAT_BEACONS * BEACON_S
QUIET_S = 0.5  # the longest lease of all profiles
TERM = 5


def follower(guard: type[Guard], *, me: int = 1, leader: int = 2) -> Bench:
    """Return a node that has promised itself to the leader of term 5, just now."""
    bench = Bench(guard, me=me).run(QUIET_S + STEP_S)
    return bench.hear(leader, Beacon(term=TERM)).heartbeat(leader, term=TERM)


def stands(bench: Bench, *, within_s: float) -> bool:
    """Say whether the node asks for pre-votes within a while."""
    bench.sent.clear()

    def asks() -> bool:
        return any(message["type"] == "pre_vote" for _, message in bench.sent)

    return bench.world.run_until(asks, within_s=within_s)


# ------------------------------------------------------------------ whose vote counts


@with_and_without(repairs.WithoutVoteTerms)
def test_late_vote_of_an_older_term_lets_no_voter_count_twice(guard: type[Guard]) -> None:
    # Of five nodes this one and node 2; the other three may elect another in this term.
    bench = Bench(guard, nodes=5).run(QUIET_S)
    assert stands(bench, within_s=1)
    for voter in (2, 3):
        bench.say(voter, "pre_vote_ok", round=bench.guard._round)
    bench.tick()
    term = bench.term
    bench.say(2, "response_vote", term=term)
    bench.say(4, "response_vote", term=term - 1)
    bench.say(2, "response_vote", term=term)  # the same, as a datagram
    assert bench.guard.leading is (guard is not Guard)


def test_peers_hear_at_once_that_a_node_may_hold_no_more() -> None:
    bench = follower(Guard)
    bench.told.clear()
    bench.world.on(bench.node, lambda: bench.node.replica.set_fitness(Fitness(safe=False)))
    assert [(peer, beacon.fit) for peer, beacon, _ in bench.told] == [(2, False), (3, False)]
    bench.world.on(bench.node, lambda: bench.node.replica.set_fitness(Fitness(safe=False)))
    assert len(bench.told) == 2


def test_promise_that_comes_with_the_votes_is_not_waited_for_again() -> None:
    bench = Bench(Guard).run(QUIET_S)
    assert stands(bench, within_s=1)
    bench.say(2, "pre_vote_ok", round=bench.guard._round).tick()
    bench.say(2, "response_vote", term=bench.term)
    sent_at = bench.node.clock()
    promise = Beacon(term=bench.term, promised=Promised(bench.term, 1))
    bench.hear(2, promise, sent_at).tick()
    assert bench.node.core.snapshot().lease_until == sent_at + LEASE_S - PROFILE.margin_s


@with_and_without(repairs.WithoutYielding)
def test_node_that_votes_for_another_ends_its_own_round(guard: type[Guard]) -> None:
    bench = Bench(guard).run(QUIET_S)
    assert stands(bench, within_s=1)
    assert bench.ask_vote(3, term=TERM)
    bench.say(2, "pre_vote_ok", round=bench.guard._round).tick()
    assert (bench.take("request_vote") == []) is (guard is Guard)
    assert (bench.term == TERM) is (guard is Guard)


@with_and_without(repairs.WithoutTakenVotes)
def test_pre_vote_is_not_given_for_a_term_whose_vote_is_taken(guard: type[Guard]) -> None:
    bench = Bench(guard).run(QUIET_S + STEP_S)
    assert bench.ask_vote(2, term=TERM)
    assert bench.ask_pre_vote(3, term=TERM) is (guard is not Guard)
    assert bench.ask_pre_vote(2, term=TERM)
    assert bench.ask_pre_vote(3, term=TERM + 1)


@with_and_without(repairs.WithoutLateTerms)
def test_vote_for_a_new_term_waits_for_one_sync(guard: type[Guard], tmp_path: Path) -> None:
    disk = Counting()
    bench = on_disk(disk, tmp_path, guard)
    bench.run(QUIET_S)
    disk.syncs = 0
    assert bench.ask_vote(2, term=TERM)
    assert disk.syncs == (1 if guard is Guard else 2)


def test_candidacy_waits_for_one_sync(tmp_path: Path) -> None:
    disk = Counting()
    bench = on_disk(disk, tmp_path, Guard)
    assert stands(bench, within_s=2)
    disk.syncs = 0
    bench.say(2, "pre_vote_ok", round=bench.guard._round).tick()
    assert bench.take("request_vote", to=2)
    assert disk.syncs == 1


class Counting(Quick):
    """A disk that counts how often somebody waits for it."""

    syncs = 0

    def sync(self, fd: int) -> None:  # noqa: ARG002
        self.syncs += 1


def on_disk(disk: Counting, data_dir: Path, guard: type[Guard]) -> Bench:
    """Return a node on a real journal."""

    def prepare(process: Process) -> None:
        process.journal = open_journal(data_dir, node_id=process.node_id, files=disk)
        process.journal.recovered()

    return Bench(guard, prepare=prepare)


# ------------------------------------------------------------------ who stands when


@with_and_without(repairs.WithoutPatience)
def test_leader_without_beacons_is_not_stood_against_between_its_heartbeats(
    guard: type[Guard],
) -> None:
    bench = Bench(guard).run(QUIET_S)
    bench.append(2, term=TERM, after=(1, 0))
    assert stands(bench, within_s=HEARTBEAT_S + BEACON_S) is (guard is not Guard)
    bench.append(2, term=TERM, after=(1, 0))
    assert stands(bench, within_s=LEASE_S + HEARTBEAT_S + BEACON_S)  # nor waited for for ever


@with_and_without(repairs.WithoutDead)
def test_late_append_of_a_dead_daemon_does_not_delay_the_election(guard: type[Guard]) -> None:
    bench = follower(guard).run(BEACON_S)
    bench.guard.died(2)
    bench.append(2, term=TERM, after=(1, 0))
    assert stands(bench, within_s=BEACON_S) is (guard is Guard)


def test_daemon_that_is_back_is_waited_for_also_when_its_beacons_are_lost() -> None:
    bench = follower(Guard).run(BEACON_S)
    bench.guard.died(2)
    bench.hear(2, Beacon(term=TERM)).run((ALIVE_BEACONS + 1) * BEACON_S)
    bench.append(2, term=TERM, after=(1, 0))
    assert not stands(bench, within_s=LEASE_S + HEARTBEAT_S - STEP_S)


@with_and_without(repairs.WithoutLostLeaders)
def test_nobody_waits_for_a_leader_that_is_deaf(guard: type[Guard]) -> None:
    # Node 1 still leads, and would be the first to stand, but it hears nothing.
    bench = follower(guard, me=2, leader=1)
    until = bench.guard.promise.until
    while bench.node.clock() < until - STEP_S:
        bench.hear(1, Beacon(term=TERM, leads=True, fit=True)).run(STEP_S)
    assert stands(bench, within_s=2 * STEP_S) is (guard is Guard)


@with_and_without(repairs.WithoutDeafness)
@pytest.mark.parametrize("path", ["beacon", "connection"])
def test_leader_that_is_deaf_is_heard_and_deposed_nevertheless(
    guard: type[Guard], path: str
) -> None:
    bench = follower(guard)
    bench.run(LEASE_S - STEP_S).hear(2, Beacon(term=TERM, leads=True))
    assert stands(bench, within_s=2 * BEACON_S)
    if path == "beacon":
        bench.hear(2, Beacon(term=TERM, leads=True))
    else:
        bench.append(2, term=TERM, after=(1, 0))
    bench.say(3, "pre_vote_ok", round=bench.guard._round).tick()
    assert bool(bench.take("request_vote", to=3)) is (guard is Guard)


def test_leader_that_stays_deaf_takes_its_turn_again() -> None:
    # Else those who never followed it would rank the others in another order, for ever.
    bench = follower(Guard, me=2, leader=1).run(2 * LEASE_S + STEP_S)
    bench.hear(1, Beacon(term=TERM, leads=True, fit=True))
    assert bench.guard.rivals() == [Rival(1)]


@with_and_without(repairs.WithoutAhead)
def test_node_stands_at_once_before_one_whose_log_is_behind(guard: type[Guard]) -> None:
    bench = Bench(guard, me=3, entries=entries_of(1, 2, 4), term=1).run(QUIET_S - STEP_S)
    for peer in (1, 2):
        bench.hear(peer, Beacon(term=1, fit=True))
    bench.run(2 * STEP_S)
    bench.say(1, "pre_vote", term=2, last=(3, 1), round=1)
    assert stands(bench, within_s=STEP_S) is (guard is Guard)


@pytest.mark.parametrize("other", [True, False])
def test_node_that_lacks_flows_waits_for_who_has_them(other: bool) -> None:  # noqa: FBT001 - a parameter
    bench = follower(Guard, me=1, leader=2).run(LEASE_S / 2)
    bench.guard.complete = False
    end = bench.node.clock() + 2 * LEASE_S
    while bench.node.clock() < end:
        bench.hear(
            3,
            Beacon(term=TERM, fit=True, handicap=0 if other else Kind.FLOWS.value, complete=other),
        ).run(BEACON_S)
    asked = any(message["type"] == "pre_vote" for _, message in bench.sent)
    assert asked is not other


def test_node_that_lacks_flows_stands_when_nobody_else_does() -> None:
    bench = follower(Guard, me=1, leader=2).run(LEASE_S / 2)
    bench.guard.complete = False
    bench.hear(3, Beacon(term=TERM, fit=True))
    assert stands(bench, within_s=(WORSE_DELAY + 2) * LEASE_S)


def test_leader_whose_beacons_are_lost_makes_room_for_another() -> None:
    # Elected over the connections alone, it never gets a lease, and whom it heard there
    # waits for it: to step down is not enough, it must be slower than they are.
    world = cluster(seed=1)
    for peer in (2, 3):
        for end in world.link(1, peer).directions.values():
            end.loss = 1.0
    took = world.run_until(lambda: holders(world) in ([2], [3]), within_s=QUIET_S + 20 * LEASE_S)
    assert took, tell(world)
    world.run(2.0)
    assert converged(world), tell(world)


@pytest.mark.parametrize("seed", range(1, 7))
def test_leader_whose_connections_are_dead_makes_room_for_another(seed: int) -> None:
    # Its beacons pass, so its lease goes on until the library gives up. What it appended
    # meanwhile is nobody else's, and makes its log the longest.
    world, holder = settled(seed=seed)
    world.tap = lambda source, target, _message: holder not in (source, target)
    world.processes[holder].propose(1)

    def another_holds() -> bool:
        return len(holders(world)) == 1 and holders(world) != [holder]

    assert world.run_until(another_holds, within_s=FALLBACK_LEASES * LEASE_S + 5 * LEASE_S), tell(
        world
    )


# ------------------------------------------------------------------ handing on


def holder(*, unfit: set[int]) -> Bench:
    """Return a leader whose one follower has the whole log, the other not its end."""
    bench = Bench(Guard).elect()
    bench.acks, bench.unfit = {2, 3}, unfit
    bench.run(LEASE_S)
    bench.world.tap = lambda _source, target, message: target != 3 and bench._tap(1, 2, message)
    assert bench.node.propose(7)
    return bench.tick().run(STEP_S)


def test_leadership_goes_to_nobody_who_may_not_hold_while_another_may() -> None:
    bench = holder(unfit={2})
    assert not bench.world.on(bench.node, bench.node.replica.transfer, ())
    assert bench.take("timeout_now") == []


def test_leadership_goes_to_one_who_may_not_hold_if_nobody_may() -> None:
    bench = holder(unfit={2, 3})
    assert bench.world.on(bench.node, bench.node.replica.transfer, ())
    assert bench.take("timeout_now", to=2)


# ------------------------------------------------------------------ no time is lost


def test_barrier_is_sent_in_the_tick_that_finds_the_node_elected() -> None:
    bench = Bench(Guard).elect()
    bench.sent.clear()
    bench.tick()
    entries = [e for m in bench.take("append_entries", to=2) for e in m["entries"]]
    assert [index for _, index, _ in entries] == [3]  # the library's no-op went before
