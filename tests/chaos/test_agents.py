"""The checker of agents finds connections that go as no agent said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import cycle

import pytest

from chaos.judge.agents import AGENT_NS, NAME, said
from chaos.judge.checkers import Verdict
from chaos.observe.observed import AgentSaid, Lag
from chaos.observe.run_history import MS, AdmissionSeen, Fact
from tests.chaos.runs import fault, holds, of
from tests.chaos.test_serving import opens

AT, END, LAST = 2000, 5000, 8000
KNOWN = AT + AGENT_NS // MS
WELL = END + AGENT_NS // MS
USUAL = {"s1": 2, "s2": 1, "s3": 1}


def says(words: str, server: str = "s1") -> AgentSaid:
    return AgentSaid(AT * MS, END * MS, server, words)


def goes(start_ms: int, end_ms: int, weights: Mapping[str, int]) -> list[AdmissionSeen]:
    """New connections, one each 10 ms of each version of IP, in turn by weight."""
    turns = cycle([host for host, weight in weights.items() for _ in range(weight)])
    return [
        opens(t, host, version=version)
        for t, host in zip(range(start_ms, end_ms, 10), turns, strict=False)
        for version in (4, 6)
    ]


def judged(
    words: AgentSaid, meanwhile: Mapping[str, int], after: Mapping[str, int] = USUAL, *more: Fact
) -> Verdict:
    history = of(
        words,
        *holds("r1", 0, LAST),
        *goes(0, KNOWN - 300, USUAL),
        *goes(KNOWN - 300, WELL - 300, meanwhile),
        *goes(WELL - 300, LAST, after),
        *more,
    )
    return said(history)


@pytest.mark.parametrize(
    ("words", "meanwhile"),
    [
        ("50%", {"s1": 1, "s2": 1, "s3": 1}),
        ("drain", {"s2": 1, "s3": 1}),
        ("maint", {"s2": 1, "s3": 1}),
        ("up", USUAL),
        ("hello", USUAL),
    ],
)
def test_connections_that_go_as_an_agent_says(words: str, meanwhile: dict[str, int]) -> None:
    found = judged(says(words), meanwhile)
    assert found.valid is True, found


@pytest.mark.parametrize(
    ("words", "meanwhile", "after"),
    [
        ("50%", USUAL, USUAL),
        ("50%", {"s1": 1, "s2": 1, "s3": 1}, {"s1": 1, "s2": 1, "s3": 1}),
        ("drain", {"s1": 1, "s2": 60, "s3": 60}, USUAL),
        ("drain", {"s2": 1, "s3": 1}, {"s2": 1, "s3": 1}),
        ("maint", USUAL, USUAL),
        ("hello", {"s2": 1, "s3": 1}, {"s2": 1, "s3": 1}),
    ],
)
def test_connections_that_go_as_no_agent_said(
    words: str, meanwhile: dict[str, int], after: dict[str, int]
) -> None:
    found = judged(says(words), meanwhile, after)
    assert found.valid is False, found


def test_what_meets_another_fault_or_a_busy_machine_is_not_judged() -> None:
    elsewhere = replace(fault(1000, 4000, nodes=("r2",)), settled_ns=4500 * MS)
    cases: list[list[Fact]] = [
        [elsewhere],
        [Lag(4500 * MS, 500 * MS)],
        [replace(says("50%", "s2"), t_ns=3000 * MS, end_ns=4000 * MS)],
    ]
    for more in cases:
        found = judged(says("hello"), {"s2": 1, "s3": 1}, {"s2": 1, "s3": 1}, *more)
        assert found.valid == "unknown", found
    lag = Lag(4500 * MS, 500 * MS)
    assert judged(says("drain"), USUAL, USUAL, lag).valid is False
    mine = replace(fault(1990, 5000, nodes=()), nemesis=NAME)
    found = judged(says("drain"), {"s2": 1, "s3": 1}, USUAL, mine)
    assert found.valid is True, found


def test_server_that_was_out_before_has_no_part() -> None:
    half = {"s1": 1, "s2": 1}
    history = of(
        says("50%"),
        *holds("r1", 0, LAST),
        *goes(0, AT, {"s1": 2, "s2": 1}),
        *goes(AT, WELL - 300, half),
        *goes(WELL - 300, LAST, {"s1": 2, "s2": 1}),
    )
    assert said(history).valid is True


def test_new_holder_has_the_time_to_ask_and_no_more() -> None:
    gone, here = AT + 500, AT + 600
    for since, valid in ((KNOWN + 400, True), (KNOWN + 1200, False)):
        went = [*goes(here, since, USUAL), *goes(since, WELL - 300, {"s2": 1, "s3": 1})]
        went += goes(WELL - 300, LAST, USUAL)
        history = of(
            says("drain"),
            *holds("r1", 0, gone),
            *holds("r2", here, LAST),
            *goes(0, gone, USUAL),
            *(replace(new, router="r2") for new in went),
        )
        assert said(history).valid is valid, since
