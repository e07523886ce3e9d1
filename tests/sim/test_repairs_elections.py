"""Each repair of votes and leaders, and what happens without it; see `test_repairs`."""

from __future__ import annotations

import pytest

from hanat.core.configuration import PROFILES
from hanat.raft.guard import Guard
from hanat.raft.messages import Message
from tests.sim import repairs
from tests.sim.bench import STEP_S, Bench, settled, tell, with_and_without
from tests.sim.run import converged, holders
from tests.sim.world import World

LEASE_S = PROFILES["default"].lease_s
QUIET_S = 0.5  # the longest lease of all profiles
FALLBACK_S = 10 * LEASE_S
LIBRARY_TIMER_S = 6 * LEASE_S  # it is not renewed while the node leads
FOLLOWER_TERM = 5


def follower(guard: type[Guard]) -> Bench:
    """Return a node that has promised itself to node 2, leader of term 5, just now."""
    bench = Bench(guard).run(QUIET_S + STEP_S)
    return bench.heartbeat(2, term=FOLLOWER_TERM)


def leader(guard: type[Guard], *, acks: tuple[int, ...] = (2,)) -> Bench:
    """Return a node that leads and has a lease."""
    bench = Bench(guard).elect()
    bench.acks = set(acks)
    bench.run(LEASE_S)
    assert bench.guard.lease.until > bench.node.clock()
    return bench


def isolate(world: World, node_id: int, *, duration_s: float) -> None:
    """Cut a node off from all others for a while."""
    others = [i for i in world.node_ids if i != node_id]
    ends = [world.block(*pair) for o in others for pair in ((o, node_id), (node_id, o))]
    world.run(duration_s)
    for end in ends:
        end()


# ------------------------------------------------------------------ who may campaign


@with_and_without(repairs.WithoutPreVote)
def test_node_that_was_cut_off_moves_nothing_when_it_is_back(guard: type[Guard]) -> None:
    world, holder = settled(guard)
    node = world.processes[holder % 3 + 1]
    term = node.replica.term
    isolate(world, node.node_id, duration_s=1.0)
    alone = node.replica.term
    world.run(2.0)
    calm = (alone, node.replica.term, holders(world)) == (term, term, [holder])
    assert calm is (guard is Guard), tell(world)


def test_leader_that_nobody_could_replace_leads_on() -> None:
    # The others may be recovering, and need a leader to be of use again.
    bench = leader(Guard)
    bench.acks.clear()
    term = bench.term
    bench.run(2 * FALLBACK_S)
    assert bench.guard.leading
    assert bench.term == term


@with_and_without(repairs.WithoutHiding)
def test_leader_deposed_by_a_higher_term_does_not_campaign_in_the_next_tick(
    guard: type[Guard],
) -> None:
    bench = leader(guard)
    bench.run(LIBRARY_TIMER_S)
    higher = bench.term + 5
    bench.say(3, "stale_term", term=higher).tick()
    assert (bench.term == higher) is (guard is Guard)


@with_and_without(repairs.WithoutHiding)
def test_leader_that_steps_down_does_not_campaign_in_the_next_tick(guard: type[Guard]) -> None:
    bench = leader(guard)
    bench.run(LIBRARY_TIMER_S)
    given_up = bench.term
    bench.world.on(bench.node, bench.node.replica.step_down)
    bench.tick()
    assert (bench.term == given_up + 1) is (guard is Guard)


@with_and_without(repairs.WithoutStaleTerm)
def test_node_with_a_higher_term_is_not_locked_out(guard: type[Guard]) -> None:
    # It had voted in a term that came to nothing; it can neither follow nor be elected,
    # because the others still hear their leader.
    world, holder = settled(guard)
    node = world.processes[holder % 3 + 1]
    node.kill()
    node.journal.setCurrentTerm(node.journal.getCurrentTerm() + 3, None)
    node.start()
    for end in world.link(holder, node.node_id).directions.values():
        end.loss = 1.0  # beacons would tell as well
    assert world.run_until(lambda: converged(world), within_s=4) is (guard is Guard), tell(world)


@pytest.mark.parametrize("kind", ["append_entries", "request_vote", "pre_vote"])
def test_who_speaks_for_an_older_term_is_told(kind: str) -> None:
    bench = follower(Guard).run(LEASE_S + STEP_S)  # the promise is over
    if kind == "append_entries":
        bench.heartbeat(3, term=FOLLOWER_TERM - 1)
    elif kind == "request_vote":
        log = {"last_log_index": 9, "last_log_term": 1}
        bench.say(3, kind, term=FOLLOWER_TERM - 1, transfer=False, **log)
    else:
        bench.say(3, kind, term=FOLLOWER_TERM - 1, last=(9, 1), round=1)
    assert bench.take("stale_term", to=3) == [{"type": "stale_term", "term": FOLLOWER_TERM}]


@with_and_without(repairs.WithoutVoterDedup)
def test_voter_counts_once(guard: type[Guard]) -> None:
    bench = Bench(guard, nodes=5).run(QUIET_S)
    bench.world.run_until(lambda: bool(bench.take("pre_vote", to=2)), within_s=1)
    for voter in (2, 3):
        bench.say(voter, "pre_vote_ok", round=bench.guard._round)
    bench.tick()
    term = bench.term
    assert bench.take("request_vote", to=2)
    for _ in range(2):
        bench.say(2, "response_vote", term=term)
    assert bench.guard.leading is (guard is not Guard)
    bench.say(3, "response_vote", term=term)
    assert bench.guard.leading


# ------------------------------------------------------------------ who gets a vote


@with_and_without(repairs.WithoutPromises)
def test_node_that_lost_the_holder_alone_takes_nothing(guard: type[Guard]) -> None:
    world, holder = settled(guard)
    node = holder % 3 + 1
    other = 6 - holder - node

    def tap(_source: int, _target: int, message: Message) -> bool:
        if message["type"] == "request_vote":
            world.block(other, holder)  # so that nobody tells the holder of the new term
        return True

    world.tap = tap
    world.block(holder, node)
    world.block(node, holder)
    world.run(0.8)
    assert (holders(world) == [holder]) is (guard is Guard), tell(world)
    answered = any("two answer" in text for text in world.violations)
    assert answered is (guard is not Guard), tell(world)


@with_and_without(repairs.WithoutPromises)
def test_pre_vote_is_refused_while_a_leader_is_heard(guard: type[Guard]) -> None:
    bench = follower(guard).run(LEASE_S - STEP_S)
    assert bench.ask_pre_vote(3, term=FOLLOWER_TERM + 1) is (guard is not Guard)
    bench.run(2 * STEP_S)
    assert bench.ask_pre_vote(3, term=FOLLOWER_TERM + 1)


@with_and_without(repairs.WithoutStickyVotes)
def test_vote_is_refused_while_a_leader_is_heard(guard: type[Guard]) -> None:
    bench = follower(guard).run(LEASE_S - STEP_S)
    assert bench.ask_vote(3, term=FOLLOWER_TERM + 1) is (guard is not Guard)
    assert (bench.term == FOLLOWER_TERM) is (guard is Guard)
    bench.run(2 * STEP_S)
    assert bench.ask_vote(3, term=FOLLOWER_TERM + 2)


@with_and_without(repairs.WithoutQuiet)
def test_node_that_restarts_keeps_the_promise_that_it_forgot(guard: type[Guard]) -> None:
    bench = follower(guard)
    bench.node.kill()
    bench.node.start()
    bench.run(0.02).sent.clear()
    bench.heartbeat(2, term=FOLLOWER_TERM)
    answer = bench.newest(2)
    assert (answer.promised is None) is (guard is Guard)
    assert answer.fit is (guard is not Guard)
    bench.node.kill()
    bench.node.start()
    bench.run(0.02)
    assert bench.ask_vote(3, term=FOLLOWER_TERM + 1) is (guard is not Guard)
    bench.run(QUIET_S)
    assert bench.ask_vote(3, term=FOLLOWER_TERM + 2)


@with_and_without(repairs.WithoutHolding)
def test_deposed_leader_helps_nobody_before_its_lease_is_over(guard: type[Guard]) -> None:
    bench = leader(guard)
    left_s = bench.guard.lease.until - bench.node.clock()
    higher = bench.term + 3
    bench.say(3, "stale_term", term=higher)
    assert not bench.guard.leading
    assert bench.ask_vote(3, term=higher + 1) is (guard is not Guard)
    bench.run(left_s + STEP_S)
    assert bench.ask_vote(3, term=higher + 2)


# ------------------------------------------------------------------ transfer


@with_and_without(repairs.WithoutGivingUp)
def test_lease_ends_with_the_order_to_campaign_and_is_not_renewed(guard: type[Guard]) -> None:
    bench = leader(guard, acks=(2, 3))
    assert bench.world.on(bench.node, bench.node.replica.transfer, (2,))
    assert len(bench.take("timeout_now", to=2)) == 1
    bench.run(0.05)
    assert bench.guard.leading
    assert (bench.guard.lease.until == 0.0) is (guard is Guard)


@with_and_without(repairs.WithoutLastEntry)
def test_leader_takes_no_entry_behind_the_order_to_campaign(guard: type[Guard]) -> None:
    # The peer stands without that entry, and all who have it refuse their votes.
    bench = leader(guard, acks=(2, 3))
    assert bench.world.on(bench.node, bench.node.replica.transfer, (2,))
    bench.run(0.1)  # the peer has not stood yet
    assert bench.node.propose(1) is (guard is not Guard)


def test_leader_waits_with_the_order_until_its_peer_has_what_was_proposed_just_before() -> None:
    bench = leader(Guard, acks=(2, 3))
    assert bench.node.propose(1)
    assert not bench.world.on(bench.node, bench.node.replica.transfer, (2,))
    assert not bench.node.propose(2)  # or no peer would ever have all
    bench.run(0.05)
    assert bench.world.on(bench.node, bench.node.replica.transfer, (2,))


def test_leader_that_hands_on_to_nobody_takes_entries_again() -> None:
    bench = leader(Guard, acks=(3,))
    assert bench.node.propose(1)
    assert not bench.world.on(bench.node, bench.node.replica.transfer, (2,))
    bench.run(0.1)
    assert bench.node.propose(2)


@with_and_without(repairs.WithoutNextTermOnly)
def test_candidate_sent_by_the_leader_may_stand_in_the_next_term_only(guard: type[Guard]) -> None:
    bench = follower(guard)
    wandered = bench.ask_vote(3, term=FOLLOWER_TERM + 2, transfer=True)
    assert wandered is (guard is not Guard)
    assert follower(guard).ask_vote(3, term=FOLLOWER_TERM + 1, transfer=True)


@with_and_without(repairs.WithoutOrderCheck)
@pytest.mark.parametrize(("peer", "term"), [(2, FOLLOWER_TERM - 1), (3, FOLLOWER_TERM)])
def test_order_to_campaign_counts_only_from_the_leader_of_this_term(
    guard: type[Guard], peer: int, term: int
) -> None:
    bench = follower(guard)
    bench.say(peer, "timeout_now", term=term)
    bench.run(0.9 * LEASE_S)  # the library's own timer is over, the promise is not
    assert (bench.take("request_vote") == []) is (guard is Guard)


def test_order_of_the_leader_is_obeyed_at_once() -> None:
    bench = follower(Guard)
    bench.say(2, "timeout_now", term=FOLLOWER_TERM).tick()
    assert [m["transfer"] for m in bench.take("request_vote", to=3)] == [True]


def test_leader_elected_by_order_and_deposed_soon_does_not_campaign() -> None:
    bench = follower(Guard)
    bench.say(2, "timeout_now", term=FOLLOWER_TERM).tick()
    bench.say(3, "response_vote", term=FOLLOWER_TERM + 1)
    bench.acks = {2, 3}
    bench.run(1.2 * LEASE_S)
    assert bench.guard.leading
    bench.say(3, "stale_term", term=FOLLOWER_TERM + 7).tick()
    assert bench.term == FOLLOWER_TERM + 7
