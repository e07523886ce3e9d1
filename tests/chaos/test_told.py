"""A told history that is not what crossed the wires is caught, and nothing else is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from chaos.faults.bounds import LEASE_MS
from chaos.judge import told_history
from chaos.judge.checkers import Verdict
from chaos.observe.observed import Stall
from chaos.observe.run_history import MS, EventTold, Fact, HistoryAsked, Injection
from tests.chaos.runs import NODES, fault, holds, of


def told_by(node: str, what: str, term: int, at_ms: float, why: str) -> EventTold:
    return EventTold(
        t_ns=round(at_ms * MS),
        clock_wrong=False,
        number=0,
        node=node,
        what=what,
        term=term,
        why=why,
        found="",
        previous=None,
        without_ns=None,
        held_ns=None,
        text=f"{what}: {why}",
    )


def took(
    node: str,
    term: int,
    at_ms: float,
    why: str,
    previous: str | None,
    without_ms: int | None = None,
) -> EventTold:
    without_ns = None if without_ms is None else without_ms * MS
    event = told_by(node, "took over", term, at_ms, why)
    return replace(event, previous=previous, without_ns=without_ns)


def gave(node: str, term: int, at_ms: float, why: str, held_ms: float = 1000) -> EventTold:
    return replace(told_by(node, "gave up", term, at_ms, why), held_ns=round(held_ms * MS))


def asked(**digests: str) -> list[Fact]:
    told_by = dict.fromkeys(NODES, "same") | digests
    return [HistoryAsked(9000 * MS, n, 200, 3, digest) for n, digest in told_by.items()]


def judge(
    facts: Sequence[Fact], events: Sequence[EventTold], answers: Sequence[Fact] | None = None
) -> Verdict:
    numbered = [replace(event, number=n) for n, event in enumerate(events)]
    history = of(facts, numbered, asked() if answers is None else answers)
    return told_history.agrees(history, LEASE_MS["default"])


def hit(nemesis: str, node: str = "r1", detail: str | None = None) -> Injection:
    return replace(fault(1000, 3000, nodes=(node,)), nemesis=nemesis, detail=detail or node)


# r1 is cut off at 1 s, its lease ends 110 ms later, r2 follows; undone at 3 s.
WIRES = [*holds("r1", 0, 1110), *holds("r2", 1130, 8000)]
CUT = [hit("cut"), *WIRES]
FIRST = took("r1", 1, -400, "first", None)
SECOND = took("r2", 2, 1128, "silence", "r1", 22)
LATER = gave("r1", 1, 1110, "lease_expired", 1510)
GOOD = [FIRST, SECOND, LATER]


def test_history_that_is_what_was_seen_passes() -> None:
    verdict = judge(CUT, GOOD)
    assert verdict.valid is True, verdict.summary
    assert (verdict.evidence["reasons"], verdict.evidence["gaps"]) == (1, 1)
    assert verdict.evidence["times"] == 2


@pytest.mark.parametrize("clock_wrong", [False, True])
def test_holder_that_is_as_new_as_the_question_may_have_told_it_already(
    clock_wrong: bool,  # noqa: FBT001
) -> None:
    wires = [*holds("r1", 0, 1110), *holds("r2", 1130, 7480), *holds("r3", 7500, 9000)]
    third = took("r3", 3, 7510, "silence", "r2", 20)
    if clock_wrong:
        third = replace(third, t_ns=5000 * MS, clock_wrong=True)
    events = [*GOOD, third, gave("r2", 2, 7480, "lease_expired", 6352)]
    verdict = judge([hit("cut"), *wires], events)
    assert verdict.valid is True, verdict.summary

    elsewhere = [*GOOD, replace(third, node="r1"), events[-1]]
    assert judge([hit("cut"), *wires], elsewhere).valid is False


@pytest.mark.parametrize(
    ("events", "text"),
    [
        ([FIRST], "r2 held from 1.13 s on, and nobody tells it"),
        ([FIRST, replace(SECOND, node="r3"), LATER], "no packet shows that r3 held in term 2"),
        ([*GOOD, took("r3", 3, 5000, "handed_over", "r2")], "no packet shows that r3 held"),
        ([SECOND, FIRST, LATER], "is the first that was told and says silence"),
        ([FIRST, replace(SECOND, term=1), LATER], "r2 took over in term 1 after r1 in 1"),
        ([replace(FIRST, term=3), SECOND, replace(LATER, term=3)], "nobody tells it"),
        ([FIRST, replace(SECOND, why=""), LATER], "r2 took over term 2 for ''"),
        ([FIRST, replace(SECOND, why="whim"), LATER], "r2 took over term 2 for 'whim'"),
        ([FIRST, replace(SECOND, what="slept"), LATER], "r2: 'slept' is no event"),
        ([FIRST, replace(SECOND, why="handed_over"), LATER], "took over for handed_over, not sil"),
        (
            [FIRST, replace(SECOND, why="handed_over"), replace(LATER, why="leadership_lost")],
            "handed over to r2 and gave up for",
        ),
        ([FIRST, replace(SECOND, why="daemon_died"), LATER], "daemon of r1 died and tells that"),
        ([FIRST, replace(SECOND, why="resumed"), LATER], "took over from r1 and says resumed"),
        ([FIRST, replace(SECOND, why="first"), LATER], "r2 says it was the first, after r1"),
        ([FIRST, replace(SECOND, previous="r3"), LATER], "r2 names r3 as the holder before"),
        ([FIRST, replace(SECOND, previous=None), LATER], "r2 names None as the holder before"),
        ([FIRST, replace(SECOND, without_ns=250 * MS), LATER], "tells of 250 ms without a holder"),
        ([FIRST, replace(SECOND, t_ns=1500 * MS), LATER], "r2 took over at 1.13 s and tells 1.50"),
        ([FIRST, SECOND], "r1 never told that it gave up term 1"),
        ([*GOOD, LATER], "r1 gave up term 1 and never took over"),
        ([FIRST, SECOND, replace(LATER, why="switchover")], "r1 gave up for switchover, not"),
        ([FIRST, SECOND, replace(LATER, why="hindered")], "was hindered in term 1, for noth"),
        ([FIRST, SECOND, replace(LATER, t_ns=3010 * MS)], "r1 gave up at 1.10 s and tells 3.01"),
    ],
)  # fmt: skip
def test_history_that_contradicts_packets_or_itself_is_caught(
    events: list[EventTold], text: str
) -> None:
    verdict = judge(CUT, events)
    assert verdict.valid is False
    assert any(text in problem for problem in verdict.evidence["wrong"]), verdict.evidence


@pytest.mark.parametrize(
    ("done", "taken", "given"),
    [
        (hit("pause"), "silence", LATER),
        (hit("partition"), "silence", LATER),
        (hit("kill"), "silence", None),
        (hit("kill-daemon"), "daemon_died", None),
        (hit("restart"), "handed_over", replace(LATER, why="shutdown")),
        (hit("switchover", "r2"), "handed_over", replace(LATER, why="switchover")),
        (hit("link-public"), "handed_over",
         replace(LATER, why="hindered", found="public: no carrier")),
        (hit("partition-oneway", detail="r1 hears nobody"), "deposed", LATER),
        (hit("partition-oneway", detail="nobody hears r1"), "silence", LATER),
    ],
    ids=lambda value: getattr(value, "label", None),
)  # fmt: skip
def test_reason_has_to_fit_the_fault(done: Injection, taken: str, given: EventTold | None) -> None:
    def verdict(why: str, end: EventTold | None) -> Verdict:
        ends = [] if end is None else [end]
        return judge([done, *WIRES], [FIRST, replace(SECOND, why=why), *ends])

    assert verdict(taken, given).valid is True, verdict(taken, given).summary
    others = {"silence", "daemon_died", "handed_over", "deposed"} - {taken}
    if done.nemesis == "kill":
        others.remove("daemon_died")  # its supervisor may have had the time
    for why in others:
        assert verdict(why, given).valid is False, why
    if given is None:
        assert "r1 is dead and tells that it gave up" in verdict(taken, LATER).summary
    wrong = replace(LATER, why="shutdown" if done.nemesis != "restart" else "switchover")
    assert verdict(taken, wrong).valid is False


def test_leader_whose_lease_was_over_may_hand_on_without_holding_again() -> None:
    # seed 1002: many lost packets, and a lack of flows when it had a lease again
    assert LATER.why == "lease_expired"
    verdict = judge([hit("loss"), *WIRES], [FIRST, replace(SECOND, why="handed_over"), LATER])
    assert "gave up for" not in verdict.summary


def test_carrier_that_was_lost_is_named() -> None:
    given = replace(LATER, why="hindered", found="journal: no space")
    events = [FIRST, replace(SECOND, why="handed_over"), given]
    verdict = judge([hit("link-public"), *WIRES], events)
    assert "gave up for 'journal: no space', not for 'no carrier'" in verdict.summary


def test_holder_that_was_killed_was_not_heard_though_it_came_back_before_another_held() -> None:
    # With one backup dead as well nobody can hold until both are back, at 3 s.
    killed = replace(fault(1000, 2800, nodes=("r1", "r2")), nemesis="kill", settled_ns=3500 * MS)
    wires = [killed, *holds("r1", 0, 1110), *holds("r3", 3000, 8000)]
    assert judge(wires, [FIRST, took("r3", 2, 3000, "silence", "r1")]).valid is True
    verdict = judge(wires, [FIRST, took("r3", 2, 3000, "deposed", "r1")])
    assert "r1 was killed; r3 tells deposed" in verdict.summary
    # Who was killed as well has seen nothing but new processes.
    other = replace(killed, t_ns=1300 * MS, nodes=["r3"], out=["r3"])
    for every in ([replace(killed, nodes=list(NODES))], [killed, other]):
        told_so = [FIRST, took("r3", 2, 3000, "deposed", "r1")]
        assert judge([*every, *wires[1:]], told_so).valid is True


def test_what_one_cannot_know_is_no_fault_of_the_history() -> None:
    # Two faults at once, or one before all is well again: any reason may be right.
    second = replace(hit("link-public"), t_ns=1050 * MS)
    lost = replace(LATER, why="hindered", found="public: no carrier")
    events = [FIRST, replace(SECOND, why="stepped_down"), lost]
    assert judge([*CUT, second], events).valid is True
    earlier = replace(hit("link-public"), t_ns=100 * MS, heal_ns=400 * MS, settled_ns=1200 * MS)
    assert judge([*CUT, earlier], events).valid is True
    assert judge([*CUT, replace(earlier, settled_ns=900 * MS)], events).valid is False
    # The estimate is missing, or the clock was stepped.
    assert judge(CUT, [FIRST, replace(SECOND, without_ns=None), LATER]).valid is True
    stepped = replace(SECOND, t_ns=86_400_000 * MS, clock_wrong=True)
    verdict = judge(CUT, [FIRST, stepped, LATER])
    assert (verdict.valid, verdict.evidence["times"]) == (True, 1)
    # Before anybody looked there was another holder.
    before = took("r3", 1, -900, "first", None)
    ended = gave("r3", 1, -700, "switchover", 200)
    here = replace(FIRST, term=2, why="handed_over", previous="r3")
    terms = [replace(SECOND, term=3), replace(LATER, term=2)]
    assert judge(CUT, [before, ended, here, *terms]).valid is True


def test_stalled_machine_may_be_that_much_late() -> None:
    events = [FIRST, replace(SECOND, without_ns=200 * MS), LATER]
    assert judge(CUT, events).valid is False
    assert judge([*CUT, Stall(1120 * MS, 90 * MS)], events).valid is True
    # A machine that stands still ends leases by itself: who was heard did not hold.
    wires = [*holds("r1", 0, 1110), *holds("r2", 1530, 8000)]
    events = [FIRST, replace(SECOND, t_ns=1528 * MS), LATER]
    assert judge(wires, events).valid is False
    assert judge([*wires, Stall(1120 * MS, 90 * MS)], events).valid is True


def test_holder_that_resumes_tells_two_tenures_of_one_that_is_seen() -> None:
    wires = [hit("partition"), *holds("r1", 0, 1110), *holds("r1", 3200, 8000)]
    again = took("r1", 3, 3200, "resumed", "r1", 2090)
    assert judge(wires, [FIRST, LATER, again]).valid is True
    assert judge(wires, [FIRST, LATER, replace(again, why="silence")]).valid is False


def test_tenure_of_a_moment_need_not_be_seen_and_one_of_a_second_must() -> None:
    def verdict(held_ms: float) -> Verdict:
        ended = gave("r3", 2, 1115 + held_ms, "lease_expired", held_ms)
        short = took("r3", 2, 1115, "silence", "r1")
        last = replace(SECOND, term=3, previous="r3", why="deposed", without_ns=None)
        return judge(CUT, [FIRST, LATER, short, ended, last])

    assert verdict(5).valid is True
    assert "no packet shows that r3 held in term 2" in verdict(1000).summary


def test_term_that_falls_is_excused_by_a_time_without_a_majority_alone() -> None:
    # r1 hands over to r2, which soon can reach nobody, and r3 holds when r2 may tell of it.
    wires = [*holds("r1", 0, 2000), *holds("r2", 2020, 3000), *holds("r3", 3150, 9000)]
    ends = [gave("r1", 1, 2000, "switchover", 2400), gave("r2", 2, 3000, "lease_expired", 980)]
    begun = [FIRST, took("r3", 3, 3150, "silence", "r1"), took("r2", 2, 2020, "handed_over", "r1")]
    told_late = [*begun, *ends]
    moved = replace(fault(2000, 2050, nodes=("r2",), out=()), nemesis="switchover")
    lone = replace(fault(2900, 3900, nodes=("r1", "r3")), nemesis="link-both")
    elsewhere = replace(lone, t_ns=7000 * MS, heal_ns=7500 * MS, settled_ns=7600 * MS)
    falls = "r2 took over in term 2 after r3 in 3"
    assert falls not in judge([moved, lone, *wires], told_late).summary
    assert falls in judge([moved, elsewhere, *wires], told_late).summary


def test_resumed_twice_with_another_between_that_nobody_saw() -> None:
    # Packets show r1 all the time; r2 held for 20 ms that left none.
    hurt = [hit("cut"), *holds("r1", 0, 1110), *holds("r1", 3200, 8000)]
    between = [took("r2", 2, 1200, "silence", "r1"), gave("r2", 2, 1220, "lease_expired", 20)]
    again = [took("r1", 3, 3200, "silence", "r2")]
    verdict = judge(hurt, [FIRST, LATER, *between, *again])
    assert "no packet shows" not in verdict.summary, verdict.summary


def test_killed_holder_that_holds_again_told_no_end() -> None:
    # Nobody between its tenures: packets show one.
    killed = replace(fault(5000, 6000), nemesis="kill-daemon")
    wires = [*holds("r1", 0, 5110), *holds("r1", 6100, 8000)]
    again = took("r1", 2, 6100, "resumed", "r1")
    assert judge([killed, *wires], [FIRST, again]).valid is True
    verdict = judge([hit("cut"), *wires], [FIRST, again])
    assert "r1 never told that it gave up term 1" in verdict.summary


def test_node_that_was_killed_at_once_need_not_have_told_that_it_took_over() -> None:
    # r2 takes over and is killed 300 ms later; r3 follows.
    wires = [
        hit("cut"), *holds("r1", 0, 1110), *holds("r2", 1130, 1500), *holds("r3", 1520, 8000),
        replace(fault(1400, 3000, nodes=("r2",)), nemesis="kill"),
    ]  # fmt: skip
    third = took("r3", 3, 1520, "silence", "r1")
    assert judge(wires, [FIRST, LATER, third]).valid is True
    assert judge(wires[:-1], [FIRST, LATER, third]).valid is False


def test_term_that_falls_is_only_of_a_node_that_could_not_tell_before() -> None:
    wires = [*CUT, *holds("r3", 0, 0)]
    late = took("r1", 1, -400, "silence", "r3")
    early = took("r3", 0, -800, "first", None)
    ended = gave("r3", 0, -600, "leadership_lost", 200)
    second = replace(SECOND, previous="r3")  # it cannot know better
    good = judge(wires, [early, ended, second, late, LATER])
    assert (good.valid, good.evidence["late"]) == (True, 1), good.summary
    other = [hit("cut", "r3"), *wires[1:]]
    verdict = judge(other, [early, ended, second, late, LATER])
    assert any("r1 took over in term 1 after r2 in 2" in w for w in verdict.evidence["wrong"])
    stood_still = Stall(100 * MS, 90 * MS)
    assert judge([*other, stood_still], [early, ended, second, late, LATER]).valid is True


def test_nodes_that_tell_different_histories_are_caught() -> None:
    verdict = judge(CUT, GOOD, asked(r3="other"))
    assert verdict.valid is False
    assert "nodes tell different histories: r1: 3 events (same)" in verdict.summary


def test_without_a_history_nothing_is_known() -> None:
    silent = [*asked()[:2], HistoryAsked(9000 * MS, "r3", None, 0, "", "refused")]
    broken = [*asked()[:2], HistoryAsked(9000 * MS, "r3", 503, 0, "", "HTTP 503")]
    for answers in ([], silent, broken):
        assert judge(CUT, GOOD, answers).valid == "unknown"
    unheard = [fact for fact in asked() if isinstance(fact, HistoryAsked)]
    assert judge([], GOOD).valid == "unknown"
    assert not told_history.absent(of(unheard))


def test_only_nodes_that_all_keep_no_history_leave_it_out() -> None:
    gone = [HistoryAsked(9000 * MS, n, 404, 0, "", "HTTP 404") for n in NODES]
    assert told_history.absent(of(gone))
    assert not told_history.absent(of(gone[:2], asked()[2]))
    assert not told_history.absent(of())
