"""Probes: when they are due, which results count, and what follows in a row."""

from __future__ import annotations

from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanat.core.probing import (
    JITTER,
    RESULT_S_MAX,
    Check,
    Operational,
    Probe,
    Probes,
    Reply,
    Sighting,
    first_line,
)

UP, DOWN, UNKNOWN = Operational.UP, Operational.DOWN, Operational.UNKNOWN
CHECK = Check(interval_s=2.0, timeout_s=1.0, fall=3, rise=2, fast_interval_s=0.5)
OK, FAILED = Reply(ok=True, answer="200 OK"), Reply(ok=False, answer="connection refused\nat once")


def probes_of(*targets: str, check: Check = CHECK, draw: float = 0.5) -> Probes:
    """Return a table in which each target is due in the middle of its interval."""
    probes = Probes(draw=lambda: draw)
    probes.configure(dict.fromkeys(targets, check), 0.0)
    return probes


def answer(probes: Probes, reply: Reply) -> Sighting:
    """Let the next probe end at once, and return what is seen."""
    now = probes.due()
    assert now is not None
    (probe,) = probes.start(now)
    sighting = probes.finish(probe, reply, now)
    assert sighting is not None
    return sighting


def answers(probes: Probes, word: str) -> Sighting:
    """Let the next probes succeed (+) or fail (-)."""
    return [answer(probes, OK if sign == "+" else FAILED) for sign in word][-1]


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("+", UNKNOWN), ("--", UNKNOWN), ("++", UP), ("---", DOWN), ("--+-", UNKNOWN),
        ("++--+", UP), ("++--+--", UP), ("++---", DOWN), ("---+-+", DOWN), ("---++", UP),
    ],
)  # fmt: skip
def test_state_changes_after_fall_or_rise_in_a_row(word: str, state: Operational) -> None:
    assert answers(probes_of("a"), word).state is state


def test_sighting_says_since_when_and_what_was_answered_last() -> None:
    probes = probes_of("a")
    assert probes.sighting("a") is None
    up = answers(probes, "++")
    last = answers(probes, "+--")
    assert (last.state, last.since, last.ok, last.in_a_row) == (UP, up.at, False, 2)
    assert (last.answer, last.at > up.at) == ("connection refused", True)
    assert probes.sighting("a") is last


def test_first_line_is_printable_and_short() -> None:
    assert first_line("\n  ") == ""
    assert first_line("a\x1b[2Jb\nc") == "a?[2Jb"
    assert first_line("x" * 500) == "x" * 200


def test_only_what_changed_is_news() -> None:
    probes = probes_of("a")
    assert [answers(probes, sign).news for sign in "+++-----"] == [
        True, True, False, True, False, True, False, False,
    ]  # fmt: skip


def test_result_counts_once() -> None:
    probes = probes_of("a")
    (probe,) = probes.start(1.0)
    assert probes.finish(probe, OK, 1.1) is not None
    assert probes.finish(probe, OK, 1.2) is None
    assert probes.finish(probe, FAILED, 1.2) is None
    seen = probes.sighting("a")
    assert seen is not None
    assert seen.in_a_row == 1


def test_late_result_does_not_count_and_the_next_probe_is_made() -> None:
    probes = probes_of("a")
    (probe,) = probes.start(1.0)
    deadline = 1.0 + CHECK.timeout_s + RESULT_S_MAX
    assert probes.start(deadline - 0.01) == ()
    assert probes.due() == deadline
    assert probes.finish(probe, FAILED, deadline + 0.01) is None
    (later,) = probes.start(deadline + 0.02)
    assert (later.number > probe.number, probes.lost) == (True, 1)
    assert probes.finish(probe, FAILED, deadline + 0.03) is None  # out of order
    seen = probes.finish(later, OK, deadline + 0.03)
    assert seen is not None
    assert (seen.ok, seen.in_a_row) == (True, 1)


def test_success_that_took_longer_than_the_timeout_is_a_failure() -> None:
    seen = answer(probes_of("a"), Reply(ok=True, latency_s=1.5))
    assert (seen.ok, seen.answer) == (False, "answered after 1.5 s, the timeout is 1 s")


def test_result_of_a_target_that_went_and_came_back_does_not_count() -> None:
    probes = probes_of("a")
    (probe,) = probes.start(1.0)
    probes.configure({}, 1.0)
    assert probes.finish(probe, OK, 1.1) is None
    probes.configure({"a": CHECK}, 1.0)
    assert probes.finish(probe, OK, 1.1) is None
    assert probes.finish(Probe("b", 1, 1.0), OK, 1.1) is None


def test_target_that_stays_configured_keeps_its_count() -> None:
    probes = probes_of("a")
    answers(probes, "+")
    probes.configure({"a": CHECK, "b": CHECK}, 1.5)
    seen = probes.sighting("a")
    assert seen is not None
    assert probes.sighting("b") is None
    probes.configure({"a": Check(3.0, 1.0)}, 1.5)
    assert probes.sighting("a") is None


def intervals(probes: Probes, word: str) -> list[float]:
    """Return what lies between the probes of a target."""
    return [b - a for a, b in pairwise([answers(probes, sign).at for sign in word])]


def test_fast_interval_lasts_until_a_change_is_confirmed_or_refuted() -> None:
    fast, slow = 0.5, 2.0
    assert intervals(probes_of("a"), "+++-+---+-+++") == pytest.approx(
        #  +     +     +     -     +     -     -     -     +     -     +     +
        [fast, slow, slow, fast, slow, fast, fast, slow, fast, slow, fast, slow]
    )
    one_interval = Check(2.0, 1.0)
    assert intervals(probes_of("a", check=one_interval), "++--") == pytest.approx([slow] * 3)


def test_holder_looks_fast_at_what_contradicts_the_committed_verdict() -> None:
    probes = probes_of("a")
    answers(probes, "-----")
    probes.commit("a", UP)
    probes.hold(7)
    assert intervals(probes, "----") == pytest.approx([0.5, 0.5, 2.0])
    probes.commit("a", DOWN)
    assert intervals(probes, "--") == pytest.approx([2.0])


def test_jitter_and_first_probe_are_drawn() -> None:
    assert probes_of("a", draw=0.0).due() == 0.0
    assert probes_of("a", draw=0.75).due() == 1.5
    slow = Check(2.0, 1.0)
    assert intervals(probes_of("a", check=slow, draw=0.0), "++") == pytest.approx(
        [2.0 * (1 - JITTER)]
    )
    assert intervals(probes_of("a", check=slow, draw=1.0), "++") == pytest.approx(
        [2.0 * (1 + JITTER)]
    )


def test_slow_probe_delays_the_next_one_but_does_not_overlap_it() -> None:
    check = Check(0.2, 1.0)
    probes = probes_of("a", check=check)
    (probe,) = probes.start(0.1)
    assert probes.finish(probe, OK, 0.9) is not None
    assert probes.due() == 0.9


def test_run_within_a_tenure_begins_anew() -> None:
    probes = probes_of("a")
    before = answers(probes, "++--")
    assert (before.decided, before.tenure) == (UNKNOWN, None)
    probes.hold(3)
    assert [answers(probes, sign).decided for sign in "---"] == [UNKNOWN, UNKNOWN, DOWN]
    probes.hold(4)
    assert answers(probes, "-").decided is UNKNOWN
    assert answers(probes, "--").decided is DOWN
    probes.hold(None)
    assert answers(probes, "-").decided is UNKNOWN


def test_probe_that_was_started_before_the_takeover_decides_nothing() -> None:
    probes = probes_of("a", check=Check(2.0, 1.0, fall=1, rise=1))
    (probe,) = probes.start(1.0)
    probes.hold(3)
    seen = probes.finish(probe, FAILED, 1.5)
    assert seen is not None
    assert (seen.state, seen.decided) == (DOWN, UNKNOWN)
    assert answers(probes, "-").decided is DOWN


def naive(word: list[bool], check: Check) -> Operational:
    """Say what a sequence of results means, by looking at all of it."""
    for end in range(len(word), 0, -1):
        for ok, needed, state in ((True, check.rise, UP), (False, check.fall, DOWN)):
            if word[max(0, end - needed) : end] == [ok] * needed:
                return state
    return UNKNOWN


RESULTS = st.lists(st.booleans(), max_size=40)


@given(RESULTS, RESULTS, st.integers(1, 5), st.integers(1, 5))
def test_states_are_those_of_a_look_at_all_results(
    before: list[bool], after: list[bool], fall: int, rise: int
) -> None:
    check = Check(1.0, 1.0, fall=fall, rise=rise)
    probes = probes_of("a", check=check)
    for done, ok in enumerate(before, 1):
        assert answer(probes, Reply(ok)).state is naive(before[:done], check)
    probes.hold(1)
    for done, ok in enumerate(after, 1):
        seen = answer(probes, Reply(ok))
        assert seen.state is naive([*before, *after[:done]], check)
        assert seen.decided is naive(after[:done], check)


@given(st.data())
def test_of_results_in_any_order_only_the_newest_probe_s_counts_once(data: st.DataObject) -> None:
    draws = data.draw(st.randoms(use_true_random=False))
    probes = Probes(draw=draws.random)
    probes.configure({"a": CHECK, "b": CHECK}, 0.0)
    now, made = 0.0, list[Probe]()
    newest: dict[str, Probe] = {}
    open_until: dict[int, float] = {}
    for _ in range(data.draw(st.integers(1, 30))):
        now += data.draw(st.floats(0, 3))
        for probe in probes.start(now):
            made.append(probe)
            newest[probe.target] = probe
            open_until[probe.number] = now + CHECK.timeout_s + RESULT_S_MAX
        answered = data.draw(st.booleans())
        if made and answered:
            probe = made[data.draw(st.integers(0, len(made) - 1))]
            counts = newest[probe.target] is probe and now <= open_until[probe.number]
            assert (probes.finish(probe, OK, now) is not None) is counts
            open_until[probe.number] = -1.0
    assert len({probe.number for probe in made}) == len(made)


def test_ten_thousand_targets_are_spread_over_an_interval_and_each_is_probed_once() -> None:
    numbers = count()
    probes = Probes(draw=lambda: next(numbers) % 10_000 / 10_000)
    probes.configure({f"t{i}": CHECK for i in range(10_000)}, 0.0)
    batches = [probes.start(tenth / 10) for tenth in range(1, 21)]
    assert {len(batch) for batch in batches[1:-1]} == {500}
    assert len({probe.target for batch in batches for probe in batch}) == 10_000


def test_weight_and_mode_stay_until_another_is_said() -> None:
    probes = probes_of("a")
    seen = [
        answer(probes, reply)
        for reply in (
            Reply(ok=True, percent=50, mode="drain"),
            Reply(ok=True),
            Reply(ok=True, percent=50, mode="drain"),
            Reply(ok=True, percent=0),
            Reply(ok=True, mode="ready"),
        )
    ]
    assert [(s.percent, s.mode) for s in seen] == [
        (50, "drain"),
        (50, "drain"),
        (50, "drain"),
        (0, "drain"),
        (0, "ready"),
    ]
    # The second success makes it up; the third one is no news.
    assert [s.news for s in seen] == [True, True, False, True, True]


def test_what_is_over_the_limit_stays_due_and_comes_first() -> None:
    probes = probes_of("a", "b", "c")
    assert [probe.target for probe in probes.start(1.0, limit=2)] == ["a", "b"]
    assert probes.due() == 1.0
    assert probes.start(1.5, limit=0) == ()
    (late,) = probes.start(5.0, limit=1)
    assert late.target == "c"  # although the others are due again
    assert probes.finish(late, OK, 5.0 + CHECK.timeout_s) is not None
    assert probes.lost == 0


def test_reply_that_says_nothing_of_the_server_is_shown_and_changes_nothing() -> None:
    garbage = Reply(ok=False, answer="hello", counts=False)
    for word, state in (("++", UP), ("---", DOWN)):
        probes = probes_of("a")
        probes.hold(7)
        before = answers(probes, word)
        seen = [answer(probes, garbage) for _ in range(5)][-1]
        assert (seen.state, seen.decided, seen.ok) == (state, state, before.ok)
        assert (seen.answer, seen.news) == ("hello", False)


def test_who_only_ever_says_nothing_of_the_server_is_not_up() -> None:
    probes = probes_of("a")
    seen = [answer(probes, Reply(ok=False, counts=False)) for _ in range(5)][-1]
    assert (seen.state, seen.ok) == (UNKNOWN, False)
