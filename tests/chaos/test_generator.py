"""The plan of a run follows from its seed; words mean what they say."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest

from chaos.faults.attack import Aim, Site
from chaos.faults.bounds import DETECT_MS
from chaos.faults.hardships import AddressReplaced
from chaos.faults.nemeses import NEMESES, select
from chaos.faults.plan import plan
from chaos.faults.targets import TARGETS, choose
from chaos.lab.lab import Lab
from chaos.lab.lab_error import UsageError
from chaos.lab.switch import bridge_grudge, one_way_grudge

NODES = ("r1", "r2", "r3")


def test_same_seed_same_plan_and_another_seed_another() -> None:
    every = select("all")
    first, again, other = (list(islice(plan(seed, every), 50)) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_every_nemesis_comes_once_before_any_comes_again() -> None:
    every = select("all")
    faults = list(islice((n.name for step in plan(3, every) for n in step.nemeses), 90))
    for turn in (faults[: len(every)], faults[len(every) : 2 * len(every)]):
        assert sorted(turn) == sorted(NEMESES)


def test_twenty_seeds_from_an_even_one_on_begin_with_every_nemesis_ten_times() -> None:
    every = select("all")
    half = (len(every) + 1) // 2
    for first in (0, 2, 4710):
        came = Counter(
            name
            for seed in range(first, first + 20)
            for name in islice((n.name for step in plan(seed, every) for n in step.nemeses), half)
        )
        assert min(came[name] for name in NEMESES) >= 10


def test_without_a_nemesis_nothing_is_planned() -> None:
    assert list(plan(1, select("none"))) == []


def test_faults_hold_as_long_as_their_nemesis_says_and_only_some_meet() -> None:
    steps = list(islice(plan(5, select("all")), 300))
    assert all(s.nemesis.hold_s[0] <= s.hold_s <= s.nemesis.hold_s[1] for s in steps)
    assert all(s.nemesis.pairs and s.second.pairs for s in steps if s.second)
    assert 0 < sum(s.second is not None for s in steps) < 250


def test_while_a_node_is_away_two_faults_hit_the_others_for_long_enough() -> None:
    steps = [s for s in islice(plan(5, select("all")), 300) if s.nemesis.inner]
    assert steps
    for step in steps:
        assert len(step.inner) <= 2
        for inner in step.inner:
            assert not inner.nemesis.three
            assert inner.hold_s >= inner.nemesis.alone_s
            assert not inner.inner


def test_node_that_is_away_for_the_whole_run_goes_once() -> None:
    chosen = select("two-of-three,kill-worker,partition,silent-network")
    first, *others = islice(plan(5, chosen, lasting=True), 20)
    assert (first.nemesis.name, first.lasting, first.inner) == ("two-of-three", True, ())
    assert {s.nemesis.name for s in others} == {
        "kill-worker", "partition", "partition-oneway", "silent-network",
    }  # fmt: skip
    assert all(s.hold_s >= s.nemesis.alone_s for s in others)
    assert any(s.nemesis.alone_s for s in others)
    assert list(islice(plan(5, select("two-of-three"), lasting=True), 9)) == [
        replace(first, nemesis=first.nemesis)
    ]


def test_what_meets_a_dead_server_finds_it_known_and_is_mostly_of_the_holder() -> None:
    pairs = [s for s in islice(plan(3, select("server-dead,pause,kill")), 400) if s.second]
    dead = [s for s in pairs if s.nemesis.name == "server-dead"]
    assert {s.second_target for s in dead} == {"holder", "one"}
    assert min(s.apart_s for s in dead) > DETECT_MS / 1000
    assert {s.second_target for s in pairs if s.nemesis.name == "pause"} == {"one"}
    assert max(s.apart_s for s in pairs if s.nemesis.name == "pause") < DETECT_MS / 1000


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("holder", [None, "r2"])
def test_targets_mean_what_they_say(target: str, holder: str | None) -> None:
    wanted = {"holder": 1, "backup": 1, "one": 1, "minority": 1, "majority": 2, "all": 3}
    for seed in range(20):
        found = choose(target, nodes=NODES, holder=holder, draw=random.Random(seed))
        assert len(found) == wanted[target]
        assert list(found) == sorted(set(found))
        if holder and target in ("holder", "backup"):
            assert (found == (holder,)) == (target == "holder")


def test_own_address_goes_in_either_version_of_ip_and_in_both() -> None:
    site = Site(Lab("none"))
    came: Counter[tuple[str, tuple[int, ...]]] = Counter()
    for seed in range(40):
        fault = NEMESES["own-address"].attack(Aim(site, ("r2",), random.Random(seed))).fault
        assert isinstance(fault, AddressReplaced)
        came[fault.network, tuple(fault.versions)] += 1
    assert len(came) == 2 * 3, came


def test_grudges_are_borne_by_those_who_do_not_hear() -> None:
    assert bridge_grudge("r2", ["r1"], ["r3"]) == {"r1": ["r3"], "r3": ["r1"]}
    assert one_way_grudge(["r1"], ["r2", "r3"]) == {"r1": ["r2", "r3"]}
    assert one_way_grudge(["r1", "r2"], ["r2"]) == {"r1": ["r2"], "r2": []}


def test_a_family_means_all_of_it() -> None:
    assert [n.name for n in select("link,pause")] == [
        "pause", "link-public", "link-private", "link-both",
    ]  # fmt: skip
    assert [n.name for n in select("kill-daemon")] == ["kill-daemon"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("kil", 'did you mean "kill"?'),
        ("partitions", 'did you mean "partition"?'),
        ("xyzzy", "There are kill, kill-daemon"),
        ("none,kill", '"none" and kill contradict'),
        (" , ", "no nemesis is named"),
    ],
)
def test_words_that_mean_no_nemesis_are_refused(words: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        select(words)
    assert message in str(error.value)
