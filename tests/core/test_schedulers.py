"""Each scheduler has its table, and the same one on every node."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanat.core.configuration import Protocol, Scheduler
from hanat.core.schedulers import (
    InRotation,
    Key,
    SlowStart,
    best_tier,
    key_of,
    level,
    slots,
    slow_start,
    wanted,
    weights_of,
)
from hanat.core.shares import SLOTS_MAX, moved

NAMES = st.text("abcxyz019-", min_size=1, max_size=6)
SERVERS = st.lists(
    st.builds(
        InRotation,
        NAMES,
        st.one_of(st.integers(0, 9), st.integers(0, 65_535)),
        st.integers(1, 100),
        st.integers(0, 2),
    ),
    unique_by=lambda server: server.name,
    max_size=8,
)
BY_COUNTS = [Scheduler.LC, Scheduler.WLC, Scheduler.SED, Scheduler.NQ]


def pool(*weights: int) -> list[InRotation]:
    return [InRotation(f"web{i}", weight) for i, weight in enumerate(weights, 1)]


@pytest.mark.parametrize("scheduling", Scheduler)
@settings(max_examples=25)
@given(servers=SERVERS, data=st.data())
def test_slots_are_bounded_the_same_in_any_order_and_nobody_s_without_weight(
    scheduling: Scheduler, servers: list[InRotation], data: st.DataObject
) -> None:
    table = slots(scheduling, servers)
    assert table == slots(scheduling, data.draw(st.permutations(servers)))
    assert len(table) <= SLOTS_MAX
    assert bool(table) is any(server.weight for server in servers)
    assert set(table) <= {server.name for server in servers if server.weight}


def test_rr_ignores_weights_and_wrr_interleaves_them() -> None:
    assert slots(Scheduler.RR, pool(5, 1, 0, 9)) == ("web1", "web2", "web4")
    one, two, three = "web1", "web2", "web3"
    assert slots(Scheduler.WRR, pool(50, 10, 10)) == (one, one, two, one, three, one, one)


def test_random_has_a_range_of_slots_for_each_server() -> None:
    assert slots(Scheduler.RANDOM, pool(30, 10, 20)) == (
        *("web1",) * 3, "web2", *("web3",) * 2,
    )  # fmt: skip


def test_large_weights_without_anything_in_common_are_scaled_down() -> None:
    for scheduling in (Scheduler.WRR, Scheduler.RANDOM):
        table = slots(scheduling, pool(65_535, 65_534, 1))
        assert len(table) == SLOTS_MAX == 4_093
        assert Counter(table) == {"web1": 2_046, "web2": 2_046, "web3": 1}


def test_slow_start_counts_where_weights_do_not() -> None:
    servers = [InRotation("new", percent=10), InRotation("old", weight=7)]
    for scheduling in (Scheduler.RR, Scheduler.LC):
        assert weights_of(scheduling, servers) == {"new": 10, "old": 100}
    assert Counter(slots(Scheduler.RR, servers)) == {"new": 1, "old": 10}


def test_slow_start_brings_clients_of_sh_back_bit_by_bit_and_moves_no_others() -> None:
    rest = pool(10, 10, 10)
    full = slots(Scheduler.SH, [*rest, InRotation("late", 10)])
    without = slots(Scheduler.SH, rest)
    had = 0
    for percent in (10, 55, 100):
        table = slots(Scheduler.SH, [*rest, InRotation("late", 10, percent)])
        assert set(moved(without, table).values()) == {"late"}
        assert {s for s, n in enumerate(table) if n == "late"} <= set(moved(without, full))
        assert table.count("late") > had
        had = table.count("late")


def test_two_servers_of_one_name_are_refused() -> None:
    with pytest.raises(AssertionError, match="one name"):
        slots(Scheduler.RR, [InRotation("a"), InRotation("a", 2)])


# ------------------------------------------------------------------------ fo


def test_only_the_best_tier_with_a_server_in_rotation_gets_clients() -> None:
    first = [InRotation("a", 2, tier=0), InRotation("b", 1, tier=0)]
    second = [InRotation("c", 1, tier=1), InRotation("d", 1, tier=1)]
    third = [InRotation("e", 1, tier=5)]
    assert Counter(slots(Scheduler.FO, [*third, *second, *first])) == {"a": 2, "b": 1}
    assert slots(Scheduler.FO, [*third, *second]) == ("c", "d")
    assert slots(Scheduler.FO, third) == ("e",)


def test_a_tier_of_servers_without_weight_is_passed_over() -> None:
    servers = [InRotation("a", 0, tier=0), InRotation("b", 1, tier=1)]
    assert best_tier(servers) == (servers[1],)
    assert best_tier(servers[:1]) == ()


def test_tiers_are_of_fo_only() -> None:
    servers = [InRotation("a", tier=0), InRotation("b", tier=1)]
    assert slots(Scheduler.RR, servers) == ("a", "b")


# ------------------------------------------------------------------------ by counts


def test_each_rule_looks_at_what_ipvsadm_says() -> None:
    weights = weights_of(Scheduler.WLC, [InRotation("fast", 3), InRotation("slow", 1)])
    alike = weights_of(Scheduler.LC, [InRotation("fast", 3), InRotation("slow", 1)])
    counts = {"fast": 3, "slow": 1}
    assert wanted(Scheduler.LC, alike, counts, arriving=2) == {"fast": 96, "slow": 160}
    assert wanted(Scheduler.WLC, weights, counts, arriving=2) == {"fast": 192, "slow": 64}
    assert wanted(Scheduler.SED, weights, counts, arriving=2) == {"fast": 208, "slow": 48}
    idle = {"fast": 30, "slow": 0}
    few = {"fast": 10_000, "slow": 100}
    assert "slow" in wanted(Scheduler.NQ, few, idle, arriving=2)
    assert "slow" not in wanted(Scheduler.SED, few, idle, arriving=2)


@pytest.mark.parametrize("scheduling", BY_COUNTS)
def test_levelled_slots_prefer_the_server_that_has_fewer(scheduling: Scheduler) -> None:
    before = slots(scheduling, pool(1, 1, 1))
    after = level(
        scheduling, pool(1, 1, 1), {"web1": 50, "web2": 100, "web3": 100}, before, arriving=100
    )
    got = Counter(after)
    assert got["web1"] > got["web2"]
    assert abs(got["web2"] - got["web3"]) <= 1
    assert len(moved(before, after)) == got["web1"] - before.count("web1")


def test_a_server_that_left_rotation_has_no_slots_and_all_slots_are_of_somebody() -> None:
    before = slots(Scheduler.WLC, pool(1, 1, 1))
    after = level(Scheduler.WLC, pool(1, 0, 1), {"web2": 5}, before, arriving=10)
    assert Counter(after) == {"web1": 128, "web3": 128}
    assert level(Scheduler.WLC, pool(0, 0), {}, before, arriving=10) == ()


def test_a_scheduler_that_does_not_look_at_counts_is_refused() -> None:
    assert [s for s in Scheduler if s.by_counts] == BY_COUNTS
    with pytest.raises(AssertionError):
        wanted(Scheduler.WRR, {"a": 1}, {}, arriving=0)


# ------------------------------------------------------------------------ key


@pytest.mark.parametrize("scheduling", Scheduler)
def test_udp_goes_by_the_flow_unless_told_otherwise(scheduling: Scheduler) -> None:
    if scheduling in {Scheduler.SH, Scheduler.MH}:
        for protocol in Protocol:
            assert key_of(scheduling, protocol) is Key.SOURCE
            assert key_of(scheduling, protocol, source_port=True) is Key.SOURCE_PORT
            assert key_of(scheduling, protocol, in_turn=True) is Key.SOURCE
    else:
        assert key_of(scheduling, Protocol.TCP) is Key.NONE
        assert key_of(scheduling, Protocol.UDP) is Key.FLOW
        assert key_of(scheduling, Protocol.UDP, in_turn=True) is Key.NONE


# ------------------------------------------------------------------------ slow start


def test_weight_grows_from_10_percent_in_steps_of_5() -> None:
    seen, now = [], 1_000.0
    while True:
        state = slow_start(since=1_000.0, duration_s=36.0, now=now)
        seen.append((now - 1_000.0, state.percent))
        if state.changes_at is None:
            break
        now = state.changes_at
    assert seen == [(2.0 * i, 10 + 5 * i) for i in range(19)]


def test_a_short_slow_start_has_steps_of_a_second() -> None:
    at = [slow_start(since=0.0, duration_s=4.0, now=now) for now in (0.0, 1.0, 2.5, 3.9, 4.0)]
    assert at == [(10, 1.0), (30, 2.0), (55, 3.0), (75, 4.0), (100, None)]


def test_no_slow_start_is_the_whole_weight_at_once() -> None:
    assert slow_start(since=5.0, duration_s=0.0, now=5.0) == SlowStart(100, None)
    assert slow_start(since=5.0, duration_s=0.0, now=4.0) == SlowStart(100, None)


def test_before_it_came_into_rotation_a_server_has_its_first_part() -> None:
    assert slow_start(since=50.0, duration_s=36.0, now=10.0) == SlowStart(10, 52.0)


@given(
    st.floats(0, 1e7),
    st.floats(0.001, 3_600),
    st.floats(-10, 4_000),
)
def test_the_next_change_is_later_and_a_change(
    since: float, duration_s: float, past_s: float
) -> None:
    now, last, changes = since + past_s, 0, 0
    while True:
        state = slow_start(since=since, duration_s=duration_s, now=now)
        assert last < state.percent <= 100
        if state.changes_at is None:
            break
        assert now < state.changes_at < since + duration_s + 0.001
        now, last, changes = state.changes_at, state.percent, changes + 1
    assert last < 100 or changes == 0
    assert changes <= 18
