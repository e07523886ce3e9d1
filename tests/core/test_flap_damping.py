"""RFC 2439: penalties that decay, cutoff, reuse, and a bound for the hold-down."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanat.core.flap_damping import (
    CEILING,
    HALF_LIFE_S,
    HOLD_DOWN_S_MAX,
    PENALTY,
    REUSE,
    FlapDamping,
)


def fallen(*at: float) -> FlapDamping:
    damping = FlapDamping()
    for now in at:
        damping.fall("a", now)
    return damping


def test_penalty_decays_by_half_in_a_half_life() -> None:
    damping = fallen(10.0)
    assert damping.penalty("a", 10.0) == PENALTY
    assert damping.penalty("a", 10.0 + HALF_LIFE_S) == pytest.approx(PENALTY / 2)
    assert damping.penalty("b", 10.0) == 0.0


def test_fourth_fall_at_once_suppresses_for_two_minutes() -> None:
    assert fallen(0.0, 0.0, 0.0).reuse_at("a") <= 0.0
    damping = fallen(0.0, 0.0, 0.0, 0.0)
    until = damping.reuse_at("a")
    assert until == pytest.approx(145, abs=1)  # log2(4000 / 750) half-lives
    assert damping.penalty("a", until) == pytest.approx(REUSE)


def test_fall_each_half_minute_suppresses_and_one_each_minute_does_not() -> None:
    assert fallen(*(30.0 * i for i in range(10))).reuse_at("a") > 270.0
    assert fallen(*(60.0 * i for i in range(100))).reuse_at("a") <= 99 * 60.0


def test_target_that_is_gone_has_no_penalty() -> None:
    damping = fallen(0.0, 0.0, 0.0, 0.0)
    damping.forget({"a", "b"})
    assert damping.penalty("a", 0.0) == 0.0
    assert damping.reuse_at("a") < 0.0


def test_fall_after_fall_adds_no_more_than_the_ceiling() -> None:
    damping = fallen(*[0.0] * 50)
    assert damping.penalty("a", 0.0) == CEILING
    assert damping.reuse_at("a") == pytest.approx(HOLD_DOWN_S_MAX)


@given(st.lists(st.floats(0, 100), max_size=60))
def test_no_target_is_kept_out_longer_than_the_bound(gaps: list[float]) -> None:
    damping, now = FlapDamping(), 0.0
    for gap in gaps:
        now += gap
        damping.fall("a", now)
        assert damping.penalty("a", now) <= CEILING
        assert damping.reuse_at("a") - now <= HOLD_DOWN_S_MAX + 1e-6
