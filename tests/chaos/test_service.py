"""Outages are judged where something is promised, by what is promised; nothing else excuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chaos.judge import aftermath, availability
from chaos.observe.logs import roles
from chaos.observe.run_history import MS
from tests.chaos.histories import connection, request, stream
from tests.chaos.runs import BOTH, census, cut, fault, holds, of, role, stall


def test_segments_know_what_is_promised_in_them() -> None:
    history = of(
        fault(1000, 3000),
        fault(5000, 7000, nodes=("r1", "r2"), limits=("lease", "restart")),
        fault(9000, 11000, nodes=("r1", "r2", "r3"), out=(), hindered=("r1", "r2", "r3")),
        fault(13000, 14000, out=(), limits=("unbounded", "rejoin")),
    )
    found = [(s.label, s.judged, s.limit_ms) for s in cut(history, 20_000)]
    assert found == [
        ("warm-up", True, 270),
        ("cut r1", True, 390),
        ("heal cut r1", True, 270),
        ("cut r1+r2", False, 390),
        ("heal cut r1+r2", True, 7200),
        ("cut r1+r2+r3", False, 390),
        ("heal cut r1+r2+r3", True, 3700),
        ("cut r1", False, float("inf")),
        ("heal cut r1", True, 3700),
    ]


def test_second_fault_of_another_node_takes_the_majority_away() -> None:
    history = of(fault(1000, 3000), fault(1500, 2500, nodes=("r2",)))
    assert [s.serviceable for s in cut(history, 5000)] == [True, True, False, True, True]
    assert cut(history, 5000)[3].limit_ms == 3700
    # The majority is back since 2500; its time goes on when the other one returns.
    assert cut(history, 5000)[4].limit_ms == 3200


@pytest.mark.parametrize(("until", "valid"), [(1350, True), (1500, False)])
def test_outage_is_held_against_its_bound(until: int, valid: bool) -> None:  # noqa: FBT001
    history = of(fault(1000, 3000), stream("udp-in", 6000, (1000, until)))
    verdict = availability.outages_bounded(history, cut(history, 6000), ["udp-in"])
    assert verdict.valid is valid, verdict


def test_outage_without_a_majority_is_not_judged_and_recovery_is() -> None:
    both = fault(1000, 3000, nodes=("r1", "r2"))
    back = of(both, stream("udp-in", 9000, (1000, 4000)))
    assert availability.outages_bounded(back, cut(back, 9000), ["udp-in"]).valid is True
    never = of(both, stream("udp-in", 9000, (1000, 8000)))
    assert availability.outages_bounded(never, cut(never, 9000), ["udp-in"]).valid is False


def test_stall_of_the_machine_excuses_as_much_as_it_lasted() -> None:
    late = stream("udp-in", 6000, (1000, 1500))
    excused = of(fault(1000, 3000), late, stall(1100, 200))
    verdict = availability.outages_bounded(excused, cut(excused, 6000), ["udp-in"])
    assert verdict.valid is True
    assert "1 excused" in verdict.summary
    many = of(fault(1000, 3000), late, *(stall(t, 50) for t in (1100, 1200, 1300)))
    assert availability.outages_bounded(many, cut(many, 6000), ["udp-in"]).valid is True
    for other in (stall(1100, 50), stall(2000, 500)):
        little = of(fault(1000, 3000), late, other)
        assert availability.outages_bounded(little, cut(little, 6000), ["udp-in"]).valid is False


def test_silent_or_missing_stream_is_no_pass() -> None:
    history = of(fault(1000, 3000), stream("udp-in", 6000, (0, 6000)))
    assert availability.outages_bounded(history, cut(history, 6000), ["udp-in"]).valid is False
    assert availability.outages_bounded(of(), cut(of(), 6000), ["udp-in"]).valid == "unknown"


def test_flows_applied_before_their_commit_are_caught_by_the_connection_they_lose() -> None:
    end_ns = 6000 * MS
    alive = of(stream("tcp", 6000, (1000, 1400)), connection("tcp", 6000))
    assert availability.connections_survive(alive, ["tcp"], end_ns).valid is True
    reset = of(fault(1000, 3000), stream("tcp", 1200), connection("tcp", 1200, error="reset"))
    verdict = availability.connections_survive(reset, ["tcp"], end_ns)
    assert verdict.valid is False
    assert "reset after cut r1" in verdict.summary
    hangs = of(stream("tcp", 6000, (1000, 6000)), connection("tcp", 6000))
    assert availability.connections_survive(hangs, ["tcp"], end_ns).valid is False
    assert availability.connections_survive(of(), ["tcp"], end_ns).valid is False


def test_wrong_payload_is_caught() -> None:
    good = of(stream("udp-in", 1000), connection("tcp", 1000))
    assert availability.nothing_corrupt(good).valid is True
    for bad in (stream("udp-in", 1000, corrupt=1), connection("tcp", 1000, payload_errors=1)):
        assert availability.nothing_corrupt(of(bad, connection("t", 1000))).valid is False
    assert availability.nothing_corrupt(of()).valid == "unknown"


def test_requests_may_fail_in_a_fault_and_not_in_quiet_times() -> None:
    bounds = (0, 6000 * MS)
    during = of(
        fault(1000, 3000),
        [request(t, "fail" if t == 2000 else "ok") for t in range(500, 5900, 500)],
    )
    assert availability.requests_succeed(during, bounds).valid is True
    after = of(fault(1000, 3000), [request(4000, "fail")])
    assert availability.requests_succeed(after, bounds).valid is False
    # Nobody knows what became of one that timed out, unless all did.
    timed_out = [request(t, "info") for t in range(500, 5900, 500)]
    assert availability.requests_succeed(of(timed_out), bounds).valid is False
    assert availability.requests_succeed(of(timed_out, [request(10)]), bounds).valid == "unknown"
    in_fault = of(fault(1000, 3000), [request(500), request(2000, "info"), request(4000)])
    assert availability.requests_succeed(in_fault, bounds).valid is True
    assert availability.requests_succeed(of(), bounds).valid == "unknown"


def test_addresses_move_from_a_router_that_was_hit_or_on_demand() -> None:
    moved = [holds("r1", 0, 1110), holds("r2", 1130, 5000)]
    asked = replace(fault(1100, 2000, nodes=("r2",), out=()), nemesis="switchover")
    for reason in (fault(1000, 3000), asked):
        history = of(*moved, reason)
        assert availability.stayed(history, cut(history, 5000), 11).valid is True
    for other in ([], [fault(1000, 3000, nodes=("r3",))]):
        history = of(*moved, other)
        assert availability.stayed(history, cut(history, 5000), 11).valid is False
    stalled = of(*moved, stall(1000, 40))
    verdict = availability.stayed(stalled, cut(stalled, 5000), 11)
    assert verdict.valid is True
    assert "stood still" in verdict.summary


def test_whoever_an_operator_asked_for_holds_next() -> None:
    asked = replace(fault(1100, 2000, nodes=("r2",), out=()), nemesis="switchover")
    others = holds("r3", 1130, 5000)
    assert availability.handed_over(of(asked, holds("r1", 0, 1110), holds("r2", 1130, 5000))).valid
    for held in (others, [*holds("r2", 4000, 5000), *holds("r1", 1130, 3900)]):
        wrong = of(asked, holds("r1", 0, 1110), held)
        assert availability.handed_over(wrong).valid is False
    # Nor does the wish explain that somebody else took over, or took it from r2.
    third = of(asked, holds("r1", 0, 1110), others)
    assert availability.stayed(third, cut(third, 5000), 11).valid is False
    back = of(asked, holds("r1", 0, 1110), holds("r2", 1130, 1500), holds("r1", 1520, 5000))
    assert availability.stayed(back, cut(back, 5000), 11).valid is False
    assert availability.handed_over(of(replace(asked, settled_ns=None), others)).valid == "unknown"


@pytest.mark.parametrize(
    ("nodes", "judged"), [(("r3",), True), (("r2",), False), (("r1", "r3"), False), ((), False)]
)
def test_switchover_beside_a_fault_is_judged_if_that_hits_neither_of_the_two(
    nodes: tuple[str, ...],
    judged: bool,  # noqa: FBT001 - a parameter
) -> None:
    asked = replace(fault(1100, 1200, nodes=("r2",), out=()), nemesis="switchover")
    asked = replace(asked, settled_ns=None)
    around, next_one = fault(1000, 3000, nodes=nodes), fault(2000, 2500, nodes=("r2",))
    well = [holds("r1", 0, 1110), holds("r2", 1130, 2010), holds("r1", 2100, 5000)]
    ill = [holds("r1", 0, 1110), holds("r3", 1130, 2010), holds("r2", 2100, 5000)]
    assert availability.handed_over(of(asked, around, next_one, *well)).valid == (
        judged or "unknown"
    )
    assert availability.handed_over(of(asked, around, next_one, *ill)).valid == (
        False if judged else "unknown"
    )


def test_fault_of_unbounded_outage_does_not_excuse_a_healthy_holder_that_moves() -> None:
    moved = [holds("r1", 0, 1510), holds("r2", 1530, 5000)]
    stranger = fault(1000, 3000, nodes=(), limits=("unbounded", "rejoin"))
    backup = fault(
        1000, 3000, nodes=("r3",), out=(), hindered=("r3",), limits=("unbounded", "rejoin")
    )
    for other in (stranger, backup):
        history = of(*moved, other)
        assert availability.stayed(history, cut(history, 5000), 11).valid is False


def test_holder_may_change_after_a_time_when_nobody_could_hold() -> None:
    # r3 could not hold alone; which of the two holds afterwards is up to them.
    others = fault(1000, 3000, nodes=("r1", "r2"), limits=("lease", "restart"))
    for back_ms in (3500, 7000):
        history = of(holds("r3", 0, 1110), holds("r1", back_ms, 9000), others)
        assert availability.stayed(history, cut(history, 9000), 11).valid is True
    later = of(holds("r3", 0, 1110), holds("r3", 3500, 7000), holds("r1", 7020, 9000), others)
    assert availability.stayed(later, cut(later, 9000), 11).valid is False


# Upkeep --------------------------------------------------------------------------------


def test_cluster_that_is_never_well_again_is_caught() -> None:
    counted = [census(t, n) for n in ("r1", "r2") for t in (0, 5000)]
    assert aftermath.converged(of(fault(1000, 3000), counted), BOTH).valid is True
    assert aftermath.converged(of(fault(1000, None), counted), BOTH).valid is False
    cut_short = aftermath.converged(of(fault(1000, None), counted), BOTH, interrupted=True)
    assert cut_short.valid == "unknown"
    assert cut_short.summary.startswith("nobody waited for the end")
    twice = [*counted, census(6000, "r2", addresses=BOTH)]
    assert aftermath.converged(of(twice), BOTH).valid is False
    assert aftermath.converged(of(fault(1000, 3000)), BOTH).valid == "unknown"


@pytest.mark.parametrize(
    "change",
    [
        {"descriptors": 80},
        {"memory_kib": 200_000},
        {"commands": ["hanat.daemon"]},
        {"commands": ["hanat.daemon", "hanat.daemon", "hanat.supervisor"]},
    ],
)
def test_whatever_leaks_is_caught(change: dict[str, object]) -> None:
    before = census(0, "r1")
    assert aftermath.no_leak(of(before, census(9000, "r1")), []).valid is True
    assert aftermath.no_leak(of(before, census(9000, "r1", **change)), []).valid is False


def test_checks_that_are_open_at_the_moment_of_one_count_are_no_leak() -> None:
    # seed 802: all three were paused, and all checks of the holder began at once
    one, other = census(9000, "r1", descriptors=60), census(9300, "r1", descriptors=44)
    assert aftermath.no_leak(of(census(0, "r1"), one, other), []).valid is True
    assert aftermath.no_leak(of(census(0, "r1"), other, one), []).valid is True
    assert aftermath.no_leak(of(census(0, "r1"), one), []).valid is False
    assert aftermath.no_leak(of(census(0, "r1"), census(1000, "r1"), one), []).valid is False


def test_what_is_left_on_the_machine_is_caught() -> None:
    counted = of(census(0, "r1"), census(9000, "r1"))
    assert aftermath.no_leak(counted, ["network namespace x-r1 is left"]).valid is False
    assert aftermath.no_leak(of(census(0, "r1")), []).valid == "unknown"


LOG = """\
2026-11-28T01:00:00.500 INFO  node=r1 id=1 started
2026-11-28T01:00:01.000 INFO  role=TAKEOVER was=BACKUP term=1 reason=elected after_ms=900
2026-11-28T01:00:01.004 INFO  role=ACTIVE was=TAKEOVER term=1 reason=lease_obtained after_ms=4
2026-11-28T01:00:02.000 WARNING hindered=True why='x'
"""


def test_roles_are_read_from_a_log() -> None:
    found = roles(LOG, "r1", offset_ns=0)
    assert [(r.role, r.was, r.reason) for r in found] == [
        ("START", "", ""),
        ("TAKEOVER", "BACKUP", "elected"),
        ("ACTIVE", "TAKEOVER", "lease_obtained"),
    ]
    assert found[2].t_ns - found[0].t_ns == 504 * MS


def test_role_that_was_logged_twice_or_never_or_without_reason_is_caught() -> None:
    took = [role(0, "r1", "BACKUP→TAKEOVER"), role(4, "r1", "TAKEOVER→ACTIVE")]
    held = holds("r1", 10, 500)
    assert aftermath.roles_logged(of(held, took)).valid is True
    again = role(5, "r1", "TAKEOVER→ACTIVE")
    skipped = role(600, "r1", "RELEASING→BACKUP")
    dumb = role(600, "r1", "ACTIVE→FENCED", reason="")
    for bad in ([*took, again], [*took, skipped], [*took, dumb], took[:1]):
        assert aftermath.roles_logged(of(held, bad)).valid is False
    assert aftermath.roles_logged(of(held)).valid == "unknown"
