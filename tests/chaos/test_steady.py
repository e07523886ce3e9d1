"""What ordinary trouble must leave alone is caught when it does not, and nothing else is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chaos.faults.bounds import limit_ms
from chaos.judge import availability, steadiness
from chaos.judge.checkers import Verdict
from chaos.judge.segments import segments
from chaos.judge.spells import damped, spells
from chaos.observe.logs import lines
from chaos.observe.observed import Flows, LogLines
from chaos.observe.run_history import MS, Injection
from tests.chaos.histories import connection, stream
from tests.chaos.runs import NODES, census, cut, fault, holds, of

MOVED = (holds("r1", 0, 2110), holds("r2", 2130, 5000))


def hindering(*nodes: str) -> Injection:
    """A fault from 1 s to 3 s, of nodes that can promise and hold if nobody can do better."""
    limits = ("silent", "rejoin")
    return fault(1000, 3000, nodes=nodes, out=(), hindered=nodes, limits=limits)


# Who holds -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "valid"),
    [(("r1",), True), (("r1", "r3"), True), (("r1", "r2"), False), (("r1", "r2", "r3"), False)],
)
def test_holder_gives_up_for_somebody_who_can_do_better_only(
    nodes: tuple[str, ...],
    valid: bool,  # noqa: FBT001
) -> None:
    assert steadiness.unchanged(of(*MOVED, hindering(*nodes))).valid is valid


def test_tie_is_excused_at_once_where_not_all_notice_together_and_where_the_holder_is_out() -> None:
    at_once = of(holds("r1", 0, 1110), holds("r2", 1130, 5000), hindering("r1", "r2", "r3"))
    assert steadiness.unchanged(at_once).valid is True
    dead = fault(1000, 3000, nodes=("r1", "r2"))
    assert steadiness.unchanged(of(*MOVED, dead)).valid is True
    broken = replace(dead, nemesis="disk-broken")
    assert steadiness.unchanged(of(*MOVED, broken)).valid is False
    asked = replace(fault(2000, 2500, nodes=("r2",), out=()), nemesis="switchover")
    assert steadiness.unchanged(of(*MOVED, hindering("r1", "r2"), asked)).valid is True


def test_fault_that_is_nobodys_moves_nothing() -> None:
    full_queue = replace(fault(1000, 3000, nodes=()), nemesis="egress-full")
    history = of(*MOVED, full_queue)
    assert availability.stayed(history, cut(history, 5000), 11).valid is False


def test_holder_that_is_to_stay_until_the_undoing_may_go_then() -> None:
    early = replace(fault(1000, 3000, out=()), nemesis="own-address", stays=True)
    late = replace(early, heal_ns=2000 * MS)
    for injection, valid in ((early, False), (late, True)):
        history = of(*MOVED, injection)
        assert availability.stayed(history, cut(history, 5000), 11).valid is valid


# Outages -------------------------------------------------------------------------------


def test_stream_of_which_nothing_is_promised_is_not_judged_until_the_undoing() -> None:
    full = replace(fault(1000, 3000, nodes=(), limits=("noise", "rejoin")), unjudged=["new-in"])
    for until_ms, valid in ((3200, True), (4000, False)):
        history = of(full, stream("new-in", 6000, (1000, until_ms)), stream("udp-in", 6000))
        verdict = availability.outages_bounded(history, cut(history, 6000), ["new-in", "udp-in"])
        assert verdict.valid is valid, verdict
    both = of(full, stream("new-in", 6000), stream("udp-in", 6000, (1000, 2000)))
    verdict = availability.outages_bounded(both, cut(both, 6000), ["new-in", "udp-in"])
    assert verdict.valid is False


def test_connection_that_a_flush_has_reset_is_excused_and_the_next_one_judged() -> None:
    flush = replace(fault(1000, 3000), nemesis="nft-flush")
    first = connection("tcp", 1500, error="ConnectionResetError(104, 'x')")
    answers = stream("tcp", 6000)

    def survive(*facts: object) -> Verdict:
        return availability.connections_survive(of(*facts), ["tcp"], 6000 * MS)  # type: ignore[arg-type]

    assert survive(flush, first, connection("tcp", 6000), answers).valid is True
    assert survive(first, connection("tcp", 6000), answers).valid is False
    for bad in (
        connection("tcp", 6000, error="TimeoutError()"),
        connection("tcp", 5500, error="ConnectionResetError(104, 'x')"),
    ):
        assert survive(flush, first, bad, answers).valid is False
    assert survive(flush, first, stream("tcp", 1500)).valid is False  # and never again


# Nodes ---------------------------------------------------------------------------------

PIDS = {"hanat.daemon": "5@1", "hanat.worker": "6@1"}
OTHER = {"hanat.daemon": "7@9", "hanat.worker": "6@1"}


def test_process_that_ends_by_itself_is_caught() -> None:
    before, same = (census(t, "r1", pids=PIDS) for t in (0, 4000))
    other = census(4000, "r1", pids=OTHER)
    assert steadiness.same_processes(of(before, same)).valid is True
    verdict = steadiness.same_processes(of(before, other))
    assert verdict.valid is False
    assert "r1: hanat.daemon ended by itself" in verdict.summary
    killed = replace(fault(1000, 3000), ends=["r1"])
    assert steadiness.same_processes(of(before, other, killed)).valid is True
    for elsewhere in (
        replace(killed, ends=["r2"]),
        replace(killed, t_ns=4500 * MS, heal_ns=5000 * MS, settled_ns=5500 * MS),
    ):
        assert steadiness.same_processes(of(before, other, elsewhere)).valid is False
    away = census(2000, "r1", pids={})  # it was not running when it was counted
    assert steadiness.same_processes(of(before, away, same)).valid is True
    assert steadiness.same_processes(of(before)).valid == "unknown"


@pytest.mark.parametrize("own", ["203.0.113.12/24", "2001:db8:113::12/64"])
def test_own_address_that_is_gone_is_caught(own: str) -> None:
    assert steadiness.own_addresses(of(census(0, "r1"))).valid is True
    lost = of(census(0, "r1"), census(4000, "r2", lacks=[own]))
    verdict = steadiness.own_addresses(lost)
    assert verdict.valid is False
    assert f"r2 lacks {own}" in verdict.summary
    assert steadiness.own_addresses(of()).valid == "unknown"


def test_memory_that_is_given_back_in_time_is_no_excuse() -> None:
    small, large = census(0, "r1", pids=PIDS), census(2000, "r1", pids=PIDS, memory_kib=644_000)
    again = census(4000, "r1", pids=PIDS)
    assert steadiness.memory_bounded(of(small, again)).valid is True
    verdict = steadiness.memory_bounded(of(small, large, again))
    assert verdict.valid is False
    assert "531 MiB more" in verdict.summary
    assert steadiness.memory_bounded(of()).valid == "unknown"


def logged(*each: int, node: str = "r1") -> list[LogLines]:
    return [LogLines(s * 1000 * MS, node, n, "refused a datagram") for s, n in enumerate(each)]


def test_log_that_a_stranger_can_fill_is_caught() -> None:
    good = of(logged(100, 0, 5, 5, 40, 5), logged(60, node="r2"))
    assert steadiness.quiet_logs(good).valid is True
    for bad in (logged(100, 5, 90, 90), logged(*[25] * 10), logged(2000)):
        verdict = steadiness.quiet_logs(of(bad))
        assert verdict.valid is False
        assert "refused a datagram" in verdict.summary
    assert steadiness.quiet_logs(of()).valid == "unknown"


def test_lines_of_a_log_are_counted_by_the_second() -> None:
    text = (
        "no time\n"
        "2026-11-29T10:00:00.100+00:00 INFO     refused datagram 17\n"
        "2026-11-29T10:00:00.900+00:00 INFO     refused datagram 4711\n"
        "Traceback (most recent call last)\n"
        "2026-11-29T10:00:02.000+00:00 WARNING  something else\n"
    )
    found = lines(text, "r1", offset_ns=0)
    assert [(seen.lines, seen.example) for seen in found] == [
        (3, "INFO     refused datagram N"),
        (1, "WARNING  something else"),
    ]
    assert found[1].t_ns - found[0].t_ns == 2000 * MS


# Flows ---------------------------------------------------------------------------------


def test_flow_that_stays_without_a_translation_is_caught() -> None:
    ms = [t * MS for t in (1000, 4000, 3990, 4400, 3000)]
    good = Flows(4500 * MS, "flows-1", ms[:1] * 2, [ms[1]] * 2, [ms[2], ms[3]])
    assert steadiness.translated(of(good)).valid is True
    for last in (None, 2000 * MS):
        bad = replace(good, answered=[ms[2], last])
        verdict = steadiness.translated(of(bad))
        assert verdict.valid is False
        assert "1 of 2 flows are not answered" in verdict.summary
    assert steadiness.translated(of()).valid == "unknown"


# What one promise takes from another ----------------------------------------------------


@pytest.mark.parametrize("other", ["r2", "r1"])  # or nobody else held meanwhile
def test_holder_that_gave_up_for_a_hindrance_need_not_do_so_again_at_once(other: str) -> None:
    def judged(again_ms: int) -> bool:
        first = hindering("r1")
        back = replace(fault(5000, 5500, nodes=("r1",), out=()), nemesis="switchover")
        second = replace(first, t_ns=again_ms * MS, heal_ns=(again_ms + 2000) * MS, settled_ns=None)
        end_ms = again_ms + 3000
        history = of(
            holds("r1", 0, 1310), holds(other, 1380, 5000), holds("r1", 5020, end_ms),
            first, back, second,
        )  # fmt: skip
        held = spells([*history.arp, *history.admissions])
        found = segments(
            history.injections, NODES, (0, end_ms * MS), lambda word: limit_ms(word, "default"),
            lambda injection: damped(history, held, injection),
        )  # fmt: skip
        return next(s for s in found if s.start_ns == second.t_ns).judged

    assert judged(8000) is False
    assert judged(12_000) is True
