"""Verdicts: the holder decides, by its own probes, unless it is blind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from hanat.core.flap_damping import FlapDamping
from hanat.core.probing import Operational, Sighting
from hanat.core.verdicts import (
    HAND_OVER_AGAIN_S,
    HAND_OVER_GAP_S,
    PROPOSE_AGAIN_S,
    SLICE_TARGETS,
    Event,
    Froze,
    HandOver,
    Thawed,
    Verdict,
    VerdictChanged,
    Verdicts,
)
from hanat.core.views import View

UP, DOWN, UNKNOWN = Operational.UP, Operational.DOWN, Operational.UNKNOWN
ME, OTHER, THIRD = 1, 2, 3
SURE, SHAKY, OUT = View(UP, ok=True), View(UP, ok=False), View(DOWN, ok=False)
TENURE = 5


def sighting(
    target: str,
    state: Operational,
    *,
    ok: bool | None = None,
    decided: Operational = UNKNOWN,
    tenure: int | None = TENURE,
) -> Sighting:
    ok = state is UP if ok is None else ok
    return Sighting(target, state, 0.0, ok, 3, "answer", 0.1, 0.0, tenure, decided, news=True)


def decides(target: str, state: Operational, tenure: int = TENURE) -> Sighting:
    return sighting(target, state, decided=state, tenure=tenure)


def holder(*targets: str, state: Operational = UP) -> Verdicts:
    """Return the verdicts of a holder that took over from others."""
    verdicts = Verdicts(ME)
    verdicts.configure(targets, 0.0)
    for target in targets:
        verdicts.adopt(target, Verdict(state))
    verdicts.hold(ME, TENURE, 0.0)
    return verdicts


def proposals(events: Iterable[Event]) -> list[tuple[str, Operational]]:
    return [(e.target, e.state) for e in events if isinstance(e, VerdictChanged)]


def commit(verdicts: Verdicts, events: Iterable[Event], now: float = 0.0) -> None:
    for event in events:
        if isinstance(event, VerdictChanged):
            assert verdicts.commit(event, now)


# --------------------------------------------------------------------- who decides


def test_holder_proposes_what_it_decided_and_every_node_applies_it() -> None:
    verdicts = holder("a")
    (change,) = verdicts.sight(decides("a", DOWN), 1.0)
    assert change == VerdictChanged("a", DOWN, "answer", 3, 0.1, ME, TENURE)
    assert verdicts.verdict("a").state is UP  # nothing is done before it is in the log
    assert isinstance(change, VerdictChanged)
    assert verdicts.commit(change, 2.0)
    assert verdicts.verdict("a") == Verdict(DOWN, 2.0, "answer", 3, 0.1, ME)
    assert not verdicts.commit(change, 3.0)
    assert verdicts.verdict("a").since == 2.0


def test_node_knows_nothing_at_first() -> None:
    verdicts = Verdicts(ME)
    assert verdicts.verdict("a") == Verdict(UNKNOWN, 0.0, "", 0, 0.0, None)
    assert verdicts.frozen is False
    assert verdicts.due() is None
    assert verdicts.tick(1.0) == ()


def test_target_that_answers_the_same_is_decided_upon_once() -> None:
    verdicts = holder("a")
    assert proposals(verdicts.sight(decides("a", DOWN), 1.0)) == [("a", DOWN)]
    for _ in range(100):
        assert verdicts.sight(decides("a", DOWN), 1.1) == ()
    assert len(verdicts._agenda) == 1


def test_proposal_under_way_is_not_made_again_by_a_change_of_mind_and_back() -> None:
    verdicts = holder("a")
    assert proposals(verdicts.sight(decides("a", DOWN), 1.0)) == [("a", DOWN)]
    assert verdicts.sight(decides("a", UP), 1.1) == ()
    assert verdicts.sight(decides("a", DOWN), 1.2) == ()
    assert proposals(verdicts.tick(1.0 + PROPOSE_AGAIN_S)) == [("a", DOWN)]


def test_backup_proposes_nothing() -> None:
    verdicts = holder("a")
    verdicts.hold(OTHER, 6, 0.0)
    assert verdicts.sight(decides("a", DOWN, tenure=6), 0.0) == ()
    verdicts.hold(None, 7, 0.0)
    assert verdicts.sight(decides("a", DOWN, tenure=7), 0.0) == ()


@pytest.mark.parametrize("tenure", [None, 4, 6])
def test_what_was_decided_in_another_tenure_counts_not(tenure: int | None) -> None:
    verdicts = holder("a")
    assert verdicts.sight(sighting("a", DOWN, decided=DOWN, tenure=tenure), 0.0) == ()


def test_new_holder_starts_from_the_committed_verdicts() -> None:
    verdicts = holder("a", "b", "c")
    for target in "ab":
        assert verdicts.sight(sighting(target, DOWN, tenure=None), 0.0) == ()
    assert [verdicts.verdict(t).state for t in "abc"] == [UP, UP, UP]
    assert verdicts.sight(decides("c", UP), 1.0) == ()  # it agrees
    assert proposals(verdicts.sight(decides("a", DOWN), 1.0)) == [("a", DOWN)]


def test_late_proposal_of_an_earlier_holder_counts_nowhere() -> None:
    verdicts = holder("a")
    (change,) = verdicts.sight(decides("a", DOWN), 1.0)
    assert isinstance(change, VerdictChanged)
    verdicts.hold(OTHER, 6, 1.0)
    assert not verdicts.commit(change, 2.0)
    assert not verdicts.commit(replace(change, node_id=OTHER), 2.0)
    assert verdicts.verdict("a").state is UP
    assert verdicts.commit(replace(change, node_id=OTHER, tenure=6), 2.0)


def test_lost_proposal_is_made_again_and_one_in_the_log_is_not() -> None:
    verdicts = holder("a")
    first = verdicts.sight(decides("a", DOWN), 1.0)
    assert verdicts.due() == 1.0 + PROPOSE_AGAIN_S
    assert verdicts.tick(1.5) == ()
    again = verdicts.tick(1.0 + PROPOSE_AGAIN_S)
    assert again == first
    commit(verdicts, again, 2.1)
    assert verdicts.tick(100.0) == ()
    assert verdicts.due() is None


def test_holder_that_changed_its_mind_before_the_commit_says_so_after_it() -> None:
    verdicts = holder("a")
    first = verdicts.sight(decides("a", DOWN), 1.0)
    assert verdicts.sight(decides("a", UP), 1.1) == ()
    commit(verdicts, first, 1.2)
    assert verdicts.due() == 1.2
    assert proposals(verdicts.tick(1.2)) == [("a", UP)]


def test_target_that_is_gone_has_no_verdict_and_gets_none() -> None:
    verdicts = holder("a", "b")
    (change,) = verdicts.sight(decides("a", DOWN), 1.0)
    assert isinstance(change, VerdictChanged)
    verdicts.configure({"b"}, 1.0)
    assert not verdicts.commit(change, 1.0)
    assert verdicts.sight(decides("a", DOWN), 1.0) == ()
    assert verdicts.tick(10.0) == ()
    verdicts.configure({"a", "b"}, 11.0)
    assert dict(verdicts.committed) == {"b": Verdict(UP)}


# --------------------------------------------------------------------- blind nodes


def blind_holder(
    *, seen: View = SURE, count: int = 4, down: int = 3
) -> tuple[Verdicts, list[Event]]:
    """Return a holder that decided that some targets are down which a backup sees somehow."""
    targets = [f"t{i}" for i in range(count)]
    verdicts = holder(*targets)
    verdicts.eligible({OTHER}, 0.0)
    events: list[Event] = []
    for target in targets:
        events += verdicts.hear(OTHER, target, seen, 0.0)
    for target in targets[:down]:
        events += verdicts.sight(sighting(target, UP, ok=False), 1.0)
    for target in targets[:down]:
        events += verdicts.sight(decides(target, DOWN), 2.0)
    return verdicts, events


def test_blind_holder_freezes_and_says_that_a_backup_should_hold() -> None:
    verdicts, events = blind_holder()
    assert events == [Froze(OTHER, 3, 4), HandOver(OTHER, 3, 4)]
    assert str(events[-1]) == "3 of 4 targets are down for it and up for node 2"
    assert verdicts.frozen
    assert "frozen" in verdicts.show("t0", 2.0).note
    assert verdicts.show("t3", 2.0).note == ""


@pytest.mark.parametrize(
    ("count", "down", "blind"),
    [(1, 1, False), (2, 1, False), (2, 2, True), (4, 2, False), (5, 3, True)],
)
def test_more_than_half_and_at_least_two_are_needed(count: int, down: int, blind: bool) -> None:  # noqa: FBT001
    verdicts, events = blind_holder(count=count, down=down)
    assert verdicts.frozen is blind
    assert len(proposals(events)) == (0 if blind else down)
    assert any(isinstance(e, HandOver) for e in events) is blind


@pytest.mark.parametrize("seen", [SHAKY, OUT, View(UNKNOWN, ok=True), View(DOWN, ok=True)])
def test_servers_that_no_backup_is_sure_of_are_down(seen: View) -> None:
    verdicts, events = blind_holder(seen=seen)
    assert proposals(events) == [("t0", DOWN), ("t1", DOWN), ("t2", DOWN)]
    assert not verdicts.frozen


def test_backup_that_is_not_eligible_is_no_witness() -> None:
    verdicts, _ = blind_holder()
    events = verdicts.eligible({THIRD}, 3.0)
    assert events[0] == Thawed()
    assert proposals(events) == [("t0", DOWN), ("t1", DOWN), ("t2", DOWN)]
    assert Froze(OTHER, 3, 4) in verdicts.eligible({OTHER}, 3.1)


def test_two_backups_that_see_half_each_are_no_witness() -> None:
    verdicts = holder("a", "b", "c")
    verdicts.eligible({OTHER, THIRD}, 0.0)
    verdicts.hear(OTHER, "a", SURE, 0.0)
    verdicts.hear(THIRD, "b", SURE, 0.0)
    assert proposals(
        [*verdicts.sight(decides("a", DOWN), 1.0), *verdicts.sight(decides("b", DOWN), 1.0)]
    )
    assert not verdicts.frozen
    assert isinstance(verdicts.hear(OTHER, "b", SURE, 1.0)[-1], HandOver)


def test_backup_that_sees_most_is_the_witness() -> None:
    verdicts, _ = blind_holder(count=3, down=3)
    verdicts.eligible({OTHER, THIRD}, 2.0)
    for target in ("t0", "t1", "t2"):
        verdicts.hear(THIRD, target, SURE, 2.0)
    verdicts.hear(OTHER, "t0", OUT, 2.0)
    assert verdicts.tick(2.0 + HAND_OVER_GAP_S) == (HandOver(THIRD, 3, 3),)


def test_holder_is_in_doubt_before_it_is_blind() -> None:
    verdicts = holder("a", "b", "c")
    verdicts.eligible({OTHER}, 0.0)
    for target in "abc":
        verdicts.hear(OTHER, target, SURE, 0.0)
    assert verdicts.sight(sighting("a", UP, ok=False), 1.0) == ()
    assert [verdicts.frozen] == [False]
    assert verdicts.sight(sighting("b", UP, ok=False), 1.0) == ()
    assert [verdicts.frozen] == [True]
    assert verdicts.sight(decides("a", DOWN), 1.1) == ()  # else it would be out of rotation
    assert verdicts.show("a", 1.1).note == (
        "this node sees it down, but verdicts are frozen: it fails to reach more than half of all "
        "targets, which a backup reaches"
    )
    assert verdicts.show("c", 1.1).note == ""
    events = verdicts.sight(sighting("b", UP), 1.2)
    assert events[0] == VerdictChanged("a", DOWN, "answer", 3, 0.1, ME, TENURE)


def test_frozen_holder_thaws_when_the_servers_are_down_for_the_backup_too() -> None:
    verdicts, _ = blind_holder()
    assert verdicts.hear(OTHER, "t3", SHAKY, 2.5) == ()
    events = verdicts.hear(OTHER, "t0", SHAKY, 3.0)
    assert events[0] == Thawed()
    assert proposals(events) == [("t0", DOWN), ("t1", DOWN), ("t2", DOWN)]


def recovering_holder() -> tuple[Verdicts, list[Event]]:
    """Return a holder that was blind and has seen one of three targets come back, at 3.0."""
    verdicts, _ = blind_holder()
    verdicts.configure({f"t{i}" for i in range(4)}, 2.0, recovery_s=lambda _target: 1.0)
    return verdicts, [*verdicts.sight(decides("t0", UP), 3.0)]


def test_holder_whose_sight_comes_back_waits_for_the_other_servers_to_answer_too() -> None:
    verdicts, events = recovering_holder()
    assert events == [Thawed()]
    assert verdicts.due() == 4.0
    assert verdicts.sight(decides("t1", UP), 3.5) == ()
    assert proposals(verdicts.tick(4.0)) == [("t2", DOWN)]


def test_holder_whose_sight_comes_back_waits_no_longer_than_a_backup_is_sure() -> None:
    verdicts, _ = recovering_holder()
    assert proposals(verdicts.hear(OTHER, "t1", SHAKY, 3.2)) == [("t1", DOWN)]
    assert proposals(verdicts.eligible({OTHER, THIRD}, 3.3)) == []


def test_views_of_a_node_that_is_gone_keep_nobody_frozen() -> None:
    verdicts, _ = blind_holder()
    assert len(proposals(verdicts.forget(OTHER, 3.0))) == 3


def test_node_whose_prober_died_is_not_blind_and_begins_anew() -> None:
    verdicts, _ = blind_holder()
    assert verdicts.forget(ME, 3.0) == (Thawed(),)
    assert verdicts.show("t0", 3.0).own is None
    assert proposals(verdicts.sight(decides("t0", DOWN), 4.0)) == [("t0", DOWN)]


def test_hand_over_is_said_once_a_minute() -> None:
    verdicts, _ = blind_holder()
    assert verdicts.due() == 2.0 + HAND_OVER_GAP_S
    assert verdicts.tick(2.0 + HAND_OVER_GAP_S - 0.1) == ()
    verdicts.hear(OTHER, "t0", OUT, 3.0)
    assert verdicts.hear(OTHER, "t0", SURE, 4.0) == (Froze(OTHER, 3, 4),)
    assert verdicts.tick(2.0 + HAND_OVER_GAP_S) == (HandOver(OTHER, 3, 4),)
    assert verdicts.tick(2.1 + HAND_OVER_GAP_S) == ()


def test_hand_over_that_could_not_begin_is_said_again_soon() -> None:
    verdicts, _ = blind_holder()
    verdicts.not_handed_over(2.0)
    assert verdicts.due() == 2.0 + HAND_OVER_AGAIN_S
    assert verdicts.tick(2.0 + HAND_OVER_AGAIN_S) == (HandOver(OTHER, 3, 4),)
    assert verdicts.due() == 2.0 + HAND_OVER_AGAIN_S + HAND_OVER_GAP_S


def test_node_that_gave_up_is_not_blind_any_more() -> None:
    verdicts, _ = blind_holder()
    assert verdicts.hold(OTHER, 6, 3.0) == (Thawed(),)
    assert not verdicts.frozen
    assert verdicts.due() is None


def test_views_are_kept_and_shown() -> None:
    verdicts = holder("a", "b")
    verdicts.hear(THIRD, "a", SHAKY, 0.0)
    verdicts.hear(OTHER, "a", SURE, 0.0)
    verdicts.hear(OTHER, "b", OUT, 0.0)
    seen = decides("a", UP)
    verdicts.sight(seen, 0.0)
    shown = verdicts.show("a", 0.0)
    assert (shown.own, list(shown.views.items())) == (seen, [(OTHER, SURE), (THIRD, SHAKY)])
    verdicts.forget(OTHER, 0.0)
    assert verdicts.show("b", 0.0).views == {}


def test_view_that_comes_before_its_configuration_is_kept() -> None:
    verdicts = holder("a")
    verdicts.hear(OTHER, "b", SURE, 0.0)
    verdicts.configure({"a", "b"}, 0.0)
    assert verdicts.show("b", 0.0).views == {OTHER: SURE}
    verdicts.configure({"a"}, 0.0)
    verdicts.configure({"a", "b"}, 0.0)
    assert verdicts.show("b", 0.0).views == {}


# ------------------------------------------------------------------------- flapping


def flapping(times: int) -> Verdicts:
    """Return a holder whose target fell so often, at once."""
    verdicts = holder("a")
    for _ in range(times - 1):
        commit(verdicts, verdicts.sight(decides("a", DOWN), 0.0))
        commit(verdicts, verdicts.sight(decides("a", UP), 0.0))
    commit(verdicts, verdicts.sight(decides("a", DOWN), 0.0))
    return verdicts


def test_target_that_fell_three_times_comes_back_at_once() -> None:
    assert proposals(flapping(3).sight(decides("a", UP), 0.0)) == [("a", UP)]


def test_flapping_target_stays_down_for_a_while_and_comes_back() -> None:
    verdicts = flapping(4)
    damping = FlapDamping()
    for _ in range(4):
        damping.fall("a", 0.0)
    until = damping.reuse_at("a")
    assert verdicts.sight(decides("a", UP), 1.0) == ()
    shown = verdicts.show("a", 1.0)
    assert (shown.note.split(" and ")[0], round(shown.penalty)) == ("it fell too often", 3954)
    assert verdicts.show("a", until - 0.4).note == (
        "it fell too often and stays down for another 0 s, whatever it answers"
    )
    assert verdicts.tick(until - 0.1) == ()
    assert verdicts.due() == until
    assert proposals(verdicts.tick(until)) == [("a", UP)]
    assert verdicts.show("a", until).note == ""


def test_new_holder_damps_what_flapped_before() -> None:
    verdicts = flapping(4)
    verdicts.hold(OTHER, 6, 1.0)
    verdicts.hold(ME, 7, 2.0)
    assert verdicts.sight(decides("a", UP, tenure=7), 3.0) == ()


def test_flapping_target_that_fails_again_while_it_waits_stays_down() -> None:
    verdicts = flapping(4)
    assert verdicts.sight(decides("a", UP), 1.0) == ()
    assert verdicts.sight(decides("a", DOWN), 2.0) == ()
    assert verdicts.tick(1000.0) == ()


# ----------------------------------------------------------------------------- size


def test_ten_thousand_targets_need_no_look_at_the_others() -> None:
    """Ten thousand sightings; a look at all for each would be a hundred million."""
    targets = [f"t{i}" for i in range(10_000)]
    verdicts = holder(*targets)
    verdicts.eligible({OTHER}, 0.0)
    for target in targets:
        verdicts.hear(OTHER, target, SURE, 0.0)
    events = [event for target in targets for event in verdicts.sight(decides(target, DOWN), 1.0)]
    assert len(proposals(events)) == 5000
    assert Froze(OTHER, 5001, 10_000) in events


def frozen_holder_of_many(count: int = 10_000) -> tuple[Verdicts, list[str]]:
    """Return a holder that decided in doubt that all its targets are down."""
    targets = [f"t{i}" for i in range(count)]
    verdicts = holder(*targets)
    verdicts.configure(targets, 0.0, recovery_s=lambda _target: 1.0)
    verdicts.eligible({OTHER}, 0.0)
    for target in targets:
        verdicts.hear(OTHER, target, SURE, 0.0)
        verdicts.sight(sighting(target, UP, ok=False), 1.0)
    for target in targets:
        assert proposals(verdicts.sight(decides(target, DOWN), 1.0)) == []
    return verdicts, targets


def ticks(verdicts: Verdicts, now: float) -> list[list[tuple[str, Operational]]]:
    """Return what is proposed by each call that is due by now."""
    calls = []
    while (due := verdicts.due()) is not None and due <= now:
        calls.append(proposals(verdicts.tick(now)))
    return calls


def test_of_ten_thousand_that_thaw_some_are_looked_at_in_one_call() -> None:
    verdicts, targets = frozen_holder_of_many()
    calls = [proposals(verdicts.eligible(set(), 2.0))]
    assert verdicts.due() == 0.0  # at once
    calls += ticks(verdicts, 2.0)
    assert max(map(len, calls)) == SLICE_TARGETS
    assert [target for call in calls for target, _ in call] == targets
    again = ticks(verdicts, 3.0)  # none of them came into the log
    assert max(map(len, again)) == SLICE_TARGETS
    assert sum(map(len, again)) == len(targets)


def test_of_ten_thousand_that_may_recover_some_are_looked_at_in_one_call() -> None:
    verdicts, targets = frozen_holder_of_many()
    thawed = [proposals(verdicts.sight(decides(t, UP), 2.0)) for t in targets[:5000]]
    assert not verdicts.frozen
    assert (
        sum(map(len, [*thawed, *ticks(verdicts, 2.0), *ticks(verdicts, 2.9)])) == 0
    )  # they may yet answer
    late = ticks(verdicts, 3.0)
    assert max(map(len, late)) <= SLICE_TARGETS
    assert [target for call in late for target, _ in call] == targets[5000:]


def test_freeze_that_comes_back_before_all_were_looked_at_stops_the_others() -> None:
    verdicts, _ = frozen_holder_of_many()
    assert len(proposals(verdicts.eligible(set(), 2.0))) == SLICE_TARGETS
    verdicts.eligible({OTHER}, 2.1)
    assert verdicts.frozen
    assert sum(map(len, ticks(verdicts, 10.0))) == 0
