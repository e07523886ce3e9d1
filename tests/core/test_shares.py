"""Slots follow weights exactly while they fit, and counts level while connections come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanat.core.shares import (
    HORIZON_PERIODS,
    LEVEL_SLOTS,
    OFF_MIN,
    SLOTS_MAX,
    RewriteBudget,
    Slots,
    apportion,
    fit,
    in_a_row,
    interleaved,
    level_size,
    levelling,
    moved,
    off_by,
    rewritten,
    share_error,
)

NAMES = st.text("abcxyz019-", min_size=1, max_size=6)
WEIGHTS = st.dictionaries(NAMES, st.integers(1, 65_535), min_size=1, max_size=12)
SMALL = st.dictionaries(NAMES, st.integers(1, 9), min_size=1, max_size=8)
COUNTS = st.dictionaries(NAMES, st.integers(0, 3_000), max_size=12)

# ------------------------------------------------------------------------ by weight


def nginx(weights: Mapping[str, int]) -> Slots:
    """Return the turns that nginx gives; the plain algorithm."""
    names, slots = sorted(weights), []
    credit = dict.fromkeys(names, 0)
    for _ in range(sum(weights.values())):
        for name in names:
            credit[name] += weights[name]
        best = max(names, key=credit.__getitem__)
        credit[best] -= sum(weights.values())
        slots.append(best)
    return tuple(slots)


def test_turns_of_five_one_one_are_those_that_nginx_documents() -> None:
    # nginx 1.3.1, the change that introduced it: { a, a, b, a, c, a, a }
    assert interleaved({"a": 5, "b": 1, "c": 1}) == tuple("aabacaa")


@given(SMALL)
def test_turns_are_interleaved_as_nginx_does(weights: dict[str, int]) -> None:
    assert interleaved(weights) == nginx(weights)


@given(SMALL, st.integers(1, 100))
def test_what_weights_have_in_common_makes_no_table_larger(
    weights: dict[str, int], factor: int
) -> None:
    more = {name: weight * factor for name, weight in weights.items()}
    assert fit(more) == fit(weights)
    assert share_error(more, interleaved(fit(more))) == 0


@given(WEIGHTS)
def test_scaled_weights_fit_and_are_off_by_less_than_a_slot_for_each_server_of_less_than_one(
    weights: dict[str, int],
) -> None:
    counts = fit(weights)
    assert counts.keys() == weights.keys()
    assert sum(counts.values()) <= SLOTS_MAX
    poor = sum(w * SLOTS_MAX < sum(weights.values()) for w in weights.values())
    assert share_error(weights, in_a_row(counts)) < (1 + poor) / SLOTS_MAX


def test_error_of_what_does_not_fit_is_told() -> None:
    weights = {"a": 65_535, "b": 65_534, "c": 1}
    counts = fit(weights)
    assert counts == {"a": 2046, "b": 2046, "c": 1}
    assert share_error(weights, in_a_row(counts)) == pytest.approx(1 / 4_093 - 1 / 131_070)


@given(WEIGHTS, st.integers(12, SLOTS_MAX), st.integers(0, 1))
def test_apportioned_slots_are_all_given_and_differ_from_the_quota_by_less_than_one(
    weights: dict[str, int], size: int, least: int
) -> None:
    given_ = apportion(weights, size, least=least)
    assert sum(given_.values()) == size
    if least:
        assert given_.keys() == weights.keys()
    else:
        total = sum(weights.values())
        for name, weight in weights.items():
            assert abs(given_.get(name, 0) - Fraction(weight * size, total)) < 1


def test_of_equal_remainders_the_first_name_is_rounded_up() -> None:
    assert apportion({"b": 1, "a": 1, "c": 1}, 4) == {"a": 2, "b": 1, "c": 1}


def test_4093_slots_of_many_different_weights_are_interleaved_like_few() -> None:
    counts = fit({f"s{i:02}": 1 + i for i in range(90)})
    assert sum(counts.values()) == 4_095 - 2  # 90 of them are 4,095: scaled
    assert Counter(interleaved(counts)) == counts


# ------------------------------------------------------------------------ by counts


def ipvs(
    weights: Mapping[str, int], counts: Mapping[str, int], coming: int, *, ahead: int, idle: bool
) -> dict[str, int]:
    """Return how many of the next connections each server gets, one after the other.

    Source: ipvsadm(8): wlc is the least (count / weight), sed the least ((count + 1) / weight).
    """
    have = {name: counts.get(name, 0) for name in weights}
    got = dict.fromkeys(weights, 0)
    for _ in range(coming):
        idlers = [name for name in sorted(have) if idle and not have[name]]
        chosen = min(idlers or sorted(have), key=lambda n: Fraction(have[n] + ahead, weights[n]))
        have[chosen] += 1
        got[chosen] += 1
    return got


@pytest.mark.parametrize(("ahead", "idle"), [(0, False), (1, False), (1, True)])
@given(weights=SMALL, data=st.data())
def test_shares_are_what_ipvs_would_give_of_the_next_connections(
    weights: dict[str, int],
    data: st.DataObject,
    ahead: int,
    idle: bool,  # noqa: FBT001
) -> None:
    counts = data.draw(st.fixed_dictionaries({n: st.integers(0, 120) for n in weights}))
    arriving = data.draw(st.integers(len(weights), 40))
    coming = HORIZON_PERIODS * arriving
    expected = ipvs(weights, counts, coming, ahead=ahead, idle=idle)
    shares = levelling(weights, counts, arriving=arriving, ahead=ahead, idle_first=idle)
    assert sum(shares.values()) == level_size(len(weights))
    for name in weights:
        part = shares.get(name, 0) / level_size(len(weights)) * coming
        # IPVS's steps of one connection; and of a table, rounding to slots.
        slack = 1 + len(weights) / 2 + coming * len(weights) / LEVEL_SLOTS
        assert abs(part - expected[name]) <= slack


def test_without_connections_wlc_shares_by_weight_and_sed_prefers_the_fast() -> None:
    weights = {"fast": 300, "slow": 100}
    assert levelling(weights, {}, arriving=0) == {"fast": 192, "slow": 64}
    # 8 connections: (c+1)/3 and (c+1)/1 level at 2.5; 6.5 and 1.5.
    assert levelling(weights, {}, arriving=2, ahead=1) == {"fast": 208, "slow": 48}


def test_nq_gives_an_idle_slow_server_one_that_sed_does_not() -> None:
    weights, counts = {"fast": 1_000, "slow": 1}, {"fast": 3, "slow": 0}
    assert levelling(weights, counts, arriving=4, ahead=1) == {"fast": 256}
    found = levelling(weights, counts, arriving=4, ahead=1, idle_first=True)
    assert found == {"fast": 240, "slow": 16}  # 1 of 16


def test_a_server_above_the_level_gets_nothing() -> None:
    assert levelling({"a": 1, "b": 1}, {"a": 1_000}, arriving=100) == {"b": LEVEL_SLOTS}


def run(
    weights: Mapping[str, int],
    counts: Mapping[str, int],
    *,
    lasts: Mapping[str, int],
    periods: int,
    arriving: int = 200,
) -> dict[str, float]:
    """Return the connections after so many periods; each server ends one of `lasts` a period."""
    have = {name: float(counts.get(name, 0)) for name in weights}
    slots, at = interleaved(levelling(weights, {}, arriving=0)), 0
    for _ in range(periods):
        whole = {name: int(count) for name, count in have.items()}
        slots = rewritten(slots, levelling(weights, whole, arriving=arriving))
        for _ in range(arriving):
            have[slots[at % len(slots)]] += 1
            at += 1
        have = {name: count * (1 - 1 / lasts[name]) for name, count in have.items()}
    return have


def test_new_connections_level_the_counts_within_seconds_and_do_not_overshoot() -> None:
    weights = dict.fromkeys("abcd", 1)
    start = {"a": 0, "b": 4_000, "c": 4_000, "d": 4_000}
    lasts = dict.fromkeys("abcd", 60)
    for periods in range(1, 60):
        on_the_way = run(weights, start, lasts=lasts, periods=periods)
        assert on_the_way["a"] <= max(on_the_way.values()) * 1.01
    have = run(weights, start, lasts=lasts, periods=60)
    assert max(have.values()) - min(have.values()) < 0.02 * max(have.values())


def test_counts_level_by_weight_where_connections_last_unequally_long() -> None:
    weights, lasts = {"a": 1, "b": 2, "c": 1}, {"a": 50, "b": 50, "c": 100}
    have = run(weights, {}, lasts=lasts, periods=600)
    levels = {name: have[name] / weights[name] for name in weights}
    mean = sum(levels.values()) / 3
    # By weight alone c would have twice the connections of a.
    assert all(abs(level - mean) < 0.06 * mean for level in levels.values())


@given(SMALL, st.data(), st.integers(0, 100))
def test_one_connection_more_moves_few_slots(
    weights: dict[str, int], data: st.DataObject, arriving: int
) -> None:
    counts = data.draw(st.fixed_dictionaries({n: st.integers(0, 300) for n in weights}))
    chosen = data.draw(st.sampled_from(sorted(weights)))
    size = level_size(len(weights))
    slots = interleaved(levelling(weights, counts, arriving=arriving))
    counts[chosen] += 1
    after = levelling(weights, counts, arriving=arriving)
    horizon = HORIZON_PERIODS * max(arriving, len(weights))
    assert off_by(slots, after) * size <= size / horizon + len(weights)
    assert len(moved(slots, rewritten(slots, after))) == round(off_by(slots, after) * size)


@given(WEIGHTS, COUNTS, st.integers(0, 500))
def test_rewritten_slots_have_the_counts_and_nothing_moves_needlessly(
    weights: dict[str, int], counts: dict[str, int], arriving: int
) -> None:
    before = interleaved(levelling(weights, {}, arriving=0))
    shares = levelling(weights, counts, arriving=arriving)
    after = rewritten(before, shares)
    assert Counter(after) == shares
    assert len(moved(before, after)) == sum((Counter(before) - Counter(shares)).values())
    assert rewritten(after, shares) == after


@given(WEIGHTS, COUNTS, st.integers(0, 500))
def test_shares_do_not_depend_on_the_order_of_what_they_follow_from(
    weights: dict[str, int], counts: dict[str, int], arriving: int
) -> None:
    shuffled = dict(reversed(weights.items()))
    others = dict(reversed(counts.items()))
    assert interleaved(fit(shuffled)) == interleaved(fit(weights))
    backwards = dict(reversed(fit(weights).items()))
    assert in_a_row(backwards) == in_a_row(fit(weights))
    assert levelling(shuffled, others, arriving=arriving) == levelling(
        weights, counts, arriving=arriving
    )
    shares = levelling(weights, counts, arriving=arriving)
    before = interleaved(levelling(weights, {}, arriving=0))
    assert rewritten(before, dict(reversed(shares.items()))) == rewritten(before, shares)


def test_slots_that_a_server_gives_up_are_spread_over_its_own() -> None:
    before = interleaved({"a": 128, "b": 128})
    after = rewritten(before, {"a": 160, "b": 96})
    changed = sorted(moved(before, after))
    gaps = {later - earlier for earlier, later in pairwise(changed)}
    assert len(changed) == 32
    assert gaps == {8}


def test_a_table_of_another_size_is_made_anew() -> None:
    assert rewritten(("a", "b"), {"a": 2, "b": 1}) == ("a", "b", "a")
    assert off_by(("a", "b"), {"a": 2, "b": 1}) == 1
    assert moved(("a", "b"), ("a", "c", "a")) == {1: "c", 2: "a"}


def test_many_servers_have_a_table_of_four_slots_each() -> None:
    assert level_size(64) == 256
    assert level_size(256) == 1_024


# ------------------------------------------------------------------------ which, and when


def test_at_most_50_services_are_rewritten_in_any_second() -> None:
    budget, off = RewriteBudget(), {f"s{i}": 0.5 for i in range(1_000)}
    rewrites: list[float] = []
    for step in range(400):
        now = 100 + step * 0.025
        rewrites += [now] * len(budget.choose(off, now))
    for start in rewrites:
        assert sum(start <= at <= start + 1 for at in rewrites) <= 50
    assert len(rewrites) >= 40 * 10


def test_after_a_pause_no_more_than_a_burst_is_rewritten() -> None:
    budget, off = RewriteBudget(), {f"s{i}": 0.5 for i in range(100)}
    assert len(budget.choose(off, 0.0)) == 10
    assert len(budget.choose(off, 1_000.0)) == 10
    assert budget.choose(off, 1_000.0) == ()


def test_services_that_are_furthest_off_go_first() -> None:
    off = {f"s{i:02}": i / 100 for i in range(60)}
    assert RewriteBudget().choose(off, 0.0) == tuple(f"s{i}" for i in range(59, 49, -1))


def test_a_service_that_is_hardly_off_is_left_alone() -> None:
    off = {"little": OFF_MIN - 0.001, "enough": OFF_MIN}
    assert RewriteBudget().choose(off, 0.0) == ("enough",)


def test_no_service_waits_for_ever_behind_those_that_are_further_off() -> None:
    budget = RewriteBudget()
    off = {**{f"s{i}": 1.0 for i in range(200)}, "quiet": 0.1}
    when = next(step for step in range(1_000) if "quiet" in budget.choose(off, step * 0.25))
    assert 4 < when * 0.25 < 60


def test_a_service_that_was_not_off_for_a_while_has_not_waited() -> None:
    budget = RewriteBudget()
    busy = {f"s{i}": 0.9 for i in range(10)}
    assert "late" not in budget.choose({**busy, "late": 0.5}, 0.0)
    budget.choose({}, 10.0)
    assert "late" not in budget.choose({**busy, "late": 0.5}, 20.0)
    assert budget.choose({**busy, "late": 0.5}, 21.0)[0] == "late"


@given(st.dictionaries(NAMES, st.floats(0, 1), max_size=30))
def test_choice_does_not_depend_on_the_order_of_services(off: dict[str, float]) -> None:
    chosen = RewriteBudget().choose(off, 5.0)
    assert RewriteBudget().choose(dict(reversed(off.items())), 5.0) == chosen
