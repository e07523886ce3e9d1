"""Who holds when nodes are hindered: schedules, each with what it is for left out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from hanat.core import eligibility, tenure
from hanat.core import inputs as told
from hanat.core.actions import Action
from hanat.core.beacon import Beacon
from hanat.core.configuration import PROFILES
from hanat.core.eligibility import DAMPED_S, SETTLED_S, Fitness, Kind, Seen
from hanat.core.inputs import CarrierObserved
from hanat.core.node import Node
from hanat.core.paths import FRAMES_S
from hanat.core.status import Role
from hanat.core.tenure import Tenure
from hanat.raft import promises
from hanat.raft.guard import Guard
from hanat.raft.messages import Message
from hanat.raft.state import NewConfiguration
from tests.sim.bench import Bench, settled, tell
from tests.sim.process import Process
from tests.sim.run import cluster, converged, holders
from tests.sim.two_paths import OnTwoPaths, PublicNetwork
from tests.sim.world import World

Patch = pytest.MonkeyPatch
LEASE_S = PROFILES["default"].lease_s
BEACON_S = PROFILES["default"].beacon_s
LOST = CarrierObserved("public", carrier=False)
BACK = CarrierObserved("public", carrier=True)


def feed(world: World, item: told.Input, *nodes: int) -> None:
    """Tell nodes something."""
    for node_id in nodes:
        process = world.processes[node_id]
        world.on(process, process.feed, item)


def handovers(world: World) -> int:
    """Return how often a holder gave up for another."""
    return sum("reason=hindered" in line for line in world.story)


# --------------------------------------------------------------- a shared trouble


@pytest.mark.parametrize("apart_s", [0.001, 0.003, SETTLED_S / 3])
def test_nobody_moves_when_its_ports_come_back_one_after_the_other(apart_s: float) -> None:
    world, holder = settled()
    terms = len(world.leaders)
    feed(world, LOST, *world.node_ids)
    world.run(5.0)
    for node_id in sorted(world.node_ids, key=lambda node_id: node_id == holder):  # it is the last
        feed(world, BACK, node_id)
        world.run(apart_s)
    world.run(5.0)
    assert holders(world) == [holder], tell(world)
    assert len(world.leaders) == terms
    assert world.violations == []


@pytest.mark.parametrize("answers", [True, False])
def test_holder_that_notices_first_waits_for_what_the_others_answer(
    answers: bool,  # noqa: FBT001 - a parameter
    monkeypatch: Patch,
) -> None:
    if not answers:  # an older word counts as well

        def set_fitness(self: promises.Promises, fitness: Fitness) -> None:
            self.fitness = fitness
            self.tell_all()

        tells = Tenure._tell

        def hasty(self: Tenure, now: float) -> tuple[Action, ...]:
            seen = self._seen
            actions = tells(self, now)
            self._seen = seen
            return actions

        monkeypatch.setattr(promises.Promises, "set_fitness", set_fitness)
        monkeypatch.setattr(Tenure, "_tell", hasty)
    world, holder = settled()
    feed(world, LOST, holder)
    feed(world, LOST, *(i for i in world.node_ids if i != holder))
    world.run(5.0)
    assert (handovers(world) == 0) is answers, tell(world)
    assert len(holders(world)) == 1


@pytest.mark.parametrize("tenth", range(10))
def test_holder_that_lost_its_carrier_gives_up_when_it_has_an_answer_not_at_its_next_tick(
    tenth: int,
) -> None:
    world, holder = settled()
    world.run(tenth / 10 * BEACON_S)
    feed(world, LOST, holder)
    assert world.run_until(lambda: handovers(world) == 1, within_s=BEACON_S / 4), tell(world)


def test_holder_that_dies_is_replaced_without_delay_by_a_node_hindered_as_all() -> None:
    world, holder = settled()
    feed(world, LOST, *world.node_ids)
    world.run(1.0)
    world.processes[holder].kill()
    took = world.run_until(
        lambda: bool([i for i in holders(world) if i != holder]), within_s=3 * LEASE_S
    )
    assert took, tell(world)


def test_revision_that_every_kernel_refuses_costs_no_holder() -> None:
    world, holder = settled()
    terms = len(world.leaders)
    configure(world, holder, refusers=world.node_ids)
    world.run(20.0)
    assert holders(world) == [holder], tell(world)
    assert len(world.leaders) == terms
    assert all(p.core.settled == 2 and p.core.refuses for p in world.processes.values())


def test_holder_whose_kernel_refuses_a_revision_gives_up_for_one_that_has_it() -> None:
    world, holder = settled()
    configure(world, holder, refusers=(holder,))
    world.run(2.0)
    assert holders(world) != [holder], tell(world)
    assert len(holders(world)) == 1
    assert handovers(world) == 1


def configure(world: World, leader: int, *, refusers: tuple[int, ...]) -> None:
    """Commit a revision that some kernels refuse."""
    for refuser in refusers:
        world.processes[refuser].refusing.rulesets.add("bad")
    process = world.processes[leader]
    command = NewConfiguration(process.replica.state.revision, "bad")
    world.on(process, process.replica.propose, command)


# ------------------------------------------------------------ conditions left out


def never_strict(patch: Patch) -> None:
    """A tie is a reason."""

    def better(mine: int, seen: tuple[Seen, ...]) -> tuple[Seen, ...]:
        return tuple(s for s in seen if s.fit and s.handicap is not None and s.handicap <= mine)

    patch.setattr(tenure, "better", lambda mine, seen: better(mine, seen) if mine else ())
    patch.setattr(tenure, "gravest", lambda *_: Kind.PATH)
    patch.setattr(eligibility, "DAMPED_S", 0.0)


@pytest.mark.parametrize("complete", [True, False])
def test_tie_moves_nothing(complete: bool, monkeypatch: Patch) -> None:  # noqa: FBT001 - a parameter
    if not complete:
        never_strict(monkeypatch)
    world, _ = settled()
    feed(world, LOST, *world.node_ids)
    world.run(5.0)
    assert (len(world.leaders) <= 3) is complete, tell(world)


@pytest.mark.parametrize("complete", [True, False])
def test_carriers_that_come_and_go_move_the_addresses_once_in_ten_seconds(
    complete: bool,  # noqa: FBT001 - a parameter
    monkeypatch: Patch,
) -> None:
    if not complete:
        monkeypatch.setattr(eligibility, "DAMPED_S", 0.0)
    world, _ = settled()
    for _ in range(20):
        holder = holders(world)
        feed(world, LOST, *holder)
        world.run(0.2)
        feed(world, BACK, *holder)
        world.run(0.2)
    assert (handovers(world) <= len(world.node_ids)) is complete, tell(world)


@pytest.mark.parametrize("complete", [True, False])
def test_holder_does_not_give_up_for_a_node_that_cannot_store(
    complete: bool,  # noqa: FBT001 - a parameter
    monkeypatch: Patch,
) -> None:
    if not complete:  # a node is fit if it is safe
        monkeypatch.setattr(promises.Promises, "fit", property(lambda p: p.fitness.safe))
    world, holder = settled()
    for node_id in world.node_ids:
        if node_id != holder:
            world.processes[node_id].journal.forget()  # both recover
    for process in world.processes.values():
        process.journal.recovered = lambda: None
    world.run(0.5)
    feed(world, LOST, holder)
    world.run(3 * LEASE_S)
    assert (holders(world) == [holder]) is complete, tell(world)


@pytest.mark.parametrize("complete", [True, False])
def test_handover_that_nobody_obeys_is_taken_back_in_a_new_term(
    complete: bool,  # noqa: FBT001 - a parameter
    monkeypatch: Patch,
) -> None:
    if not complete:

        def waits(self: Tenure, now: float) -> tuple[Action, ...]:
            self._release_due = now + LEASE_S
            return ()

        monkeypatch.setattr(Node, "_take_back", waits)
    world, holder = settled()
    term = world.processes[holder].replica.term
    lose_orders(world, holder)
    feed(world, LOST, holder)
    world.run(tenure.TRANSFER_LEASES * LEASE_S + 6 * LEASE_S)
    world.run(0.5)
    assert (len(holders(world)) == 1) is complete, tell(world)
    if complete:
        assert world.processes[holders(world)[0]].replica.term > term
    assert world.violations == []


def lose_orders(world: World, leader: int) -> None:
    """Lose each order to stand, and what the others ask for by themselves."""

    def lost(source: int, message: Message | None) -> bool:
        kind = "" if message is None else message["type"]
        return kind == "timeout_now" or (kind == "pre_vote" and source != leader)

    world.tap = lambda source, _target, message: not lost(source, message)
    for process in world.processes.values():
        process.beacon = partial(less, process, process.beacon, lost)  # type: ignore[method-assign]


def less(
    process: Process,
    send: Callable[[int, Beacon, Message | None], None],
    lost: Callable[[int, Message | None], bool],
    peer: int,
    beacon: Beacon,
    message: Message | None,
) -> None:
    """Send a beacon, without its message if that is to be lost."""
    send(peer, beacon, None if lost(process.node_id, message) else message)


@pytest.mark.parametrize("complete", [True, False])
def test_leader_that_lost_its_lease_leads_on_for_one_that_recovers(
    complete: bool,  # noqa: FBT001 - a parameter
    monkeypatch: Patch,
) -> None:
    # One node is dead for days; of the two left the follower loses its power and is back.
    if not complete:
        monkeypatch.setattr(promises.Promises, "electable", property(lambda _: True))
    world, holder = settled()
    dead, other = (i for i in world.node_ids if i != holder)
    world.processes[dead].kill()
    world.run(1.0)
    world.processes[other].kill()
    world.processes[other].journal = world.processes[other].journal.lost()
    world.run(2.0)
    assert holders(world) == []
    world.processes[other].start()
    took = world.run_until(lambda: bool(holders(world)), within_s=10 * LEASE_S + 1.0)
    assert took is complete, tell(world)


@pytest.mark.parametrize("complete", [True, False])
def test_unsafe_node_stops_though_nobody_else_can_hold(
    complete: bool,  # noqa: FBT001 - a parameter
    monkeypatch: Patch,
) -> None:
    if not complete:
        monkeypatch.setattr(Node, "unsafe", property(lambda _: ()))
    world, holder = settled()
    for node_id in world.node_ids:
        world.processes[node_id].refusing.unsafe = True
        feed(world, told.SafetyObserved("clock", "too fast"), node_id)
    world.run(3.0)
    assert (holders(world) == []) is complete, tell(world)
    assert (world.violations == []) is complete
    world.processes[holder].refusing.unsafe = False
    feed(world, told.SafetyObserved("clock", ""), holder)
    if complete:
        assert world.run_until(lambda: holders(world) == [holder], within_s=3.0), tell(world)


def test_old_word_is_no_reason_to_give_up() -> None:
    bench = Bench(Guard)
    bench.acks = {2, 3}
    bench.elect()
    bench.run(3 * BEACON_S)
    assert bench.node.role is Role.ACTIVE
    bench.acks = {3}
    bench.unfit = {3}
    bench.run(4 * BEACON_S)
    bench.world.on(bench.node, bench.node.feed, LOST)
    assert holds(bench)
    bench.hear(2, Beacon(term=bench.term, fit=True), bench.node.clock()).tick()
    assert not holds(bench)


@pytest.mark.parametrize(
    ("beacon", "again"),
    [(Beacon(term=0, leads=True), True), (Beacon(term=0), False)],
    ids=["former holder", "follower"],
)
def test_holder_announces_again_when_it_hears_one_that_led_before(
    beacon: Beacon,
    again: bool,  # noqa: FBT001 - a parameter
) -> None:
    bench = Bench(Guard)
    bench.acks = {2, 3}
    bench.elect()
    bench.run(6.0)  # all rounds of the takeover are over
    told_at = announced(bench)
    bench.hear(3, beacon, bench.node.clock())
    bench.run(0.1)
    assert (announced(bench) > told_at) is again


def test_holder_announces_again_when_a_peer_is_back() -> None:
    bench = Bench(Guard)
    bench.acks = {2}
    bench.elect()
    bench.run(6.0)
    told_at = announced(bench)
    bench.hear(3, Beacon(term=bench.term), bench.node.clock())
    bench.run(0.1)
    assert announced(bench) > told_at


def announced(bench: Bench) -> float:
    """Return when the holder announced last."""
    return bench.node.refusing.announced_at


def holds(bench: Bench) -> bool:
    """Say whether the node is the holder."""
    return bench.node.role is Role.ACTIVE


# ------------------------------------------------------------------------ paths


def on_two_paths(*, deaf: str) -> tuple[World, int]:
    """Return a settled cluster in which some of holder, other and third hear nothing any more."""
    OnTwoPaths.network_of_paths = PublicNetwork()
    world = cluster(seed=1, process=OnTwoPaths)
    assert world.run_until(lambda: converged(world), within_s=10), tell(world)
    world.run(1.0)
    (holder,) = holders(world)
    other, third = (i for i in world.node_ids if i != holder)
    names = {"holder": holder, "other": other, "third": third}
    OnTwoPaths.network_of_paths.deaf = {names[word] for word in deaf.split()}
    return world, holder


def two_left_deaf_on_a_path() -> tuple[World, int, int]:
    """Return a cluster that lost a node, the holder and the other; these are deaf on a path."""
    world, holder = on_two_paths(deaf="")
    other, third = (i for i in world.node_ids if i != holder)
    world.processes[third].kill()
    OnTwoPaths.network_of_paths.deaf = {holder, other}
    return world, holder, other


@pytest.mark.parametrize(
    ("frames", "moves"), [("other", True), ("holder", False), ("holder other", False), ("", False)]
)
def test_of_two_left_the_one_whose_device_received_nothing_gives_up(
    frames: str,
    moves: bool,  # noqa: FBT001 - a parameter
) -> None:
    world, holder, other = two_left_deaf_on_a_path()
    names = {"holder": holder, "other": other}
    OnTwoPaths.network_of_paths.frames = {names[word] for word in frames.split()}
    world.run(2 * FRAMES_S)
    assert (holders(world) == [other]) is moves, tell(world)
    assert len(holders(world)) == 1
    assert DAMPED_S > 2 * FRAMES_S  # so it was once


@pytest.mark.parametrize(
    ("answers", "moves"), [("other", True), ("holder", False), ("holder other", False), ("", False)]
)
def test_of_two_left_the_one_whom_no_host_answers_gives_up_though_its_device_receives_frames(
    answers: str,
    moves: bool,  # noqa: FBT001 - a parameter
) -> None:
    world, holder, other = two_left_deaf_on_a_path()
    names = {"holder": holder, "other": other}
    OnTwoPaths.network_of_paths.frames = {holder, other}
    OnTwoPaths.network_of_paths.answers = {names[word] for word in answers.split()}
    world.run(2 * FRAMES_S)
    assert (holders(world) == [other]) is moves, tell(world)
    assert len(holders(world)) == 1
