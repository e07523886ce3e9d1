"""What verdicts keep, whatever happens in whatever order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanat.core import verdicts as module
from hanat.core.probing import Check, Operational, Probes, Reply
from hanat.core.verdicts import HAND_OVER_GAP_S, Event, HandOver, VerdictChanged, Verdicts
from hanat.core.views import View

UP, DOWN = Operational.UP, Operational.DOWN
ME, OTHER, THIRD = 1, 2, 3
SURE = View(UP, ok=True)
TARGETS = ("a", "b", "c", "d", "e")
VIEWS = st.builds(View, st.sampled_from(Operational), st.booleans())
STEPS = st.one_of(
    st.tuples(st.just("probe"), st.sampled_from(TARGETS), st.sampled_from("+-")),
    st.tuples(st.just("probe"), st.sampled_from(TARGETS), st.sampled_from("+-")),
    st.tuples(st.just("fail_all")),
    st.tuples(st.just("hear"), st.sampled_from((OTHER, THIRD)), st.sampled_from(TARGETS), VIEWS),
    st.tuples(st.just("hear_all"), st.sampled_from((OTHER, THIRD)), VIEWS),
    st.tuples(st.just("forget"), st.sampled_from((ME, OTHER))),
    st.tuples(st.just("enable"), st.sets(st.sampled_from((OTHER, THIRD)))),
    st.tuples(st.just("hold"), st.sampled_from((ME, ME, OTHER, None))),
    st.tuples(st.just("configure"), st.sets(st.sampled_from(TARGETS), min_size=1)),
    st.tuples(st.just("wait"), st.floats(0, 100)),
    st.tuples(st.just("commit")),
)


@pytest.fixture(scope="module", autouse=True)
def _slices() -> Iterator[None]:
    """Let five targets be so many that they are looked at in slices."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SLICE_TARGETS", 2)
        yield


class Cluster:
    """A node, its prober, and beside them what they should be, by looking at everything."""

    def __init__(self) -> None:
        self.now, self.tenure = 0.0, 1
        self.check = Check(1.0, 1.0, fall=2, rise=2)
        self.probes = Probes(draw=lambda: 0.5)
        self.verdicts = Verdicts(ME)
        self.targets: set[str] = set()
        self.own: dict[str, View] = {}
        self.views: dict[int, dict[str, View]] = {}
        self.able: set[int] = set()
        self.results: dict[str, list[bool]] = {}  # of this tenure
        self.waiting: list[VerdictChanged] = []
        self.handed_over: list[float] = []
        self.configure(set(TARGETS))
        self.hold(ME)
        self.enable({OTHER})
        self.hear_all(OTHER, SURE)

    def take(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, VerdictChanged):
                assert not self.verdicts.frozen
                run = self.results[event.target]
                wanted = event.state is UP
                # Its own two in a row, and none of the contrary since.
                pairs = [(a, b) for a, b in pairwise(run) if a is b]
                assert pairs[-1] == (wanted, wanted)
                self.waiting.append(event)
            if isinstance(event, HandOver):
                self.handed_over.append(self.now)

    def configure(self, targets: set[str]) -> None:
        self.targets = targets
        self.own = {t: view for t, view in self.own.items() if t in targets}
        self.results = {t: run for t, run in self.results.items() if t in targets}
        for node_id, views in self.views.items():
            self.views[node_id] = {t: view for t, view in views.items() if t in targets}
        self.probes.configure(dict.fromkeys(sorted(targets), self.check), self.now)
        self.take(self.verdicts.configure(targets, self.now))

    def hold(self, node_id: int | None) -> None:
        self.tenure += 1
        self.results.clear()
        self.probes.hold(self.tenure if node_id == ME else None)
        self.take(self.verdicts.hold(node_id, self.tenure, self.now))
        self.holder = node_id

    def probe(self, target: str, sign: str) -> None:
        ok = sign == "+"
        if target not in self.targets:
            return
        while True:
            due = self.probes.due()
            assert due is not None
            self.now = max(self.now, due)
            for probe in self.probes.start(due):
                if probe.target == target:
                    seen = self.probes.finish(probe, Reply(ok), due)
                    assert seen is not None
                    self.own[target] = View(seen.state, seen.ok)
                    self.results.setdefault(target, []).append(ok)
                    self.take(self.verdicts.sight(seen, self.now))
                    return

    def hear(self, node_id: int, target: str, view: View) -> None:
        if target in self.targets:
            self.views.setdefault(node_id, {})[target] = view
            self.take(self.verdicts.hear(node_id, target, view, self.now))

    def fail_all(self) -> None:
        for target in sorted(self.targets) * 2:
            self.probe(target, "-")

    def hear_all(self, node_id: int, view: View) -> None:
        for target in sorted(self.targets):
            self.hear(node_id, target, view)

    def enable(self, nodes: set[int]) -> None:
        self.able = nodes
        self.take(self.verdicts.eligible(nodes, self.now))

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.take(self.verdicts.tick(self.now))

    def forget(self, node_id: int) -> None:
        if node_id == ME:
            self.own.clear()
        self.views.pop(node_id, None)
        self.take(self.verdicts.forget(node_id, self.now))

    def commit(self) -> None:
        for change in self.waiting:
            before = self.verdicts.verdict(change.target).state
            changed = self.verdicts.commit(change, self.now)
            assert not changed or (change.tenure == self.tenure and before is not change.state)
        self.waiting.clear()
        self.take(self.verdicts.tick(self.now))

    def step(self, step: tuple[Any, ...]) -> None:
        name, *given = step
        getattr(self, name)(*given)

    def recount(self) -> tuple[bool, bool]:
        """Say whether the holder is in doubt and whether it is blind, by looking at all."""
        doubt = blind = False
        for node_id in self.able:
            sure = {t for t, v in self.views.get(node_id, {}).items() if v == SURE}
            failing = sum(not v.ok or v.state is DOWN for t, v in self.own.items() if t in sure)
            down = sum(v.state is DOWN for t, v in self.own.items() if t in sure)
            doubt |= failing >= 2 and failing > len(self.targets) / 2
            blind |= down >= 2 and down > len(self.targets) / 2
        return doubt and self.holder == ME, blind and self.holder == ME


@given(st.lists(STEPS, max_size=40))
def test_verdicts_keep_their_promises_whatever_happens(steps: list[tuple[Any, ...]]) -> None:
    cluster = Cluster()
    for step in steps:
        before = {t: v.state for t, v in cluster.verdicts.committed.items()}
        cluster.step(step)
        assert (cluster.verdicts.frozen, cluster.verdicts._blind) == cluster.recount()
        after = {t: v.state for t, v in cluster.verdicts.committed.items()}
        if step[0] not in {"commit", "configure"}:
            assert after == before
        assert all(b - a >= HAND_OVER_GAP_S for a, b in pairwise(cluster.handed_over))


@given(st.lists(STEPS, max_size=40))
def test_frozen_verdicts_do_not_change(steps: list[tuple[Any, ...]]) -> None:
    """What was proposed before the freeze is let out of the log first."""
    cluster = Cluster()
    for step in steps:
        cluster.step(step)
        if not cluster.verdicts.frozen:
            cluster.commit()
            continue
        cluster.commit()
        before = dict(cluster.verdicts.committed)
        cluster.probe("a", "-")
        cluster.probe("a", "-")
        if cluster.verdicts.frozen:
            cluster.commit()
            assert dict(cluster.verdicts.committed) == before


@given(st.lists(STEPS, max_size=40))
def test_holder_that_is_in_no_doubt_gets_into_the_log_what_it_decided(
    steps: list[tuple[Any, ...]],
) -> None:
    cluster = Cluster()
    for step in steps:
        cluster.step(step)
    cluster.hold(ME)
    cluster.fail_all()
    cluster.enable(set())
    assert not cluster.verdicts.frozen
    calls = 0
    while (due := cluster.verdicts.due()) is not None:
        calls += 1
        assert calls < 50
        cluster.now = max(cluster.now, due)
        cluster.take(cluster.verdicts.tick(cluster.now))
        cluster.commit()
    assert {cluster.verdicts.verdict(target).state for target in cluster.targets} == {DOWN}
