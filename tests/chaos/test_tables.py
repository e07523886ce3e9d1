"""At the end every router has each live flow of the holder, translated alike."""

from __future__ import annotations

import pytest

from chaos.judge.checkers import Valid
from chaos.judge.flow_tables import tables_agree
from chaos.observe.census import established
from chaos.observe.replicated import FlowTable
from chaos.observe.run_history import MS, Fact
from tests.chaos.runs import NODES, holds, of

TUPLES = (
    "src=203.0.113.100 dst=203.0.113.10 sport=4000 dport=7 "
    "src=10.11.12.21 dst=203.0.113.100 sport=7 dport=4000"
)
FLOW = f"tcp {TUPLES}"
ELSEWHERE = FLOW.replace("10.11.12.21", "10.11.12.22")
NEW = FLOW.replace("4000", "4001")
AT_MS = (5000, 8000)


def dumped(at_ms: int, **others: dict[str, int]) -> list[Fact]:
    """Every router has the flow, as long as it lives: all but those that are said to differ."""
    return [FlowTable(at_ms * MS, n, others.get(n, {FLOW: 432_000})) for n in NODES]


HOLDER = holds("r1", 0, 9000)
FIRST = dumped(AT_MS[0])
IDLE = {FLOW: 431_997}


@pytest.mark.parametrize(
    ("facts", "valid", "found"),
    [
        ([*HOLDER, *FIRST, *dumped(AT_MS[1])], True, "all 3 routers have the 1 live flows of r1"),
        ([*HOLDER, *FIRST, *dumped(AT_MS[1], r2={FLOW: 30})], True, "all 3 routers"),
        ([*HOLDER, *FIRST, *dumped(AT_MS[1], r2={})], False, "r2 lacks 1"),
        ([*HOLDER, *FIRST, *dumped(AT_MS[1], r3={ELSEWHERE: 432_000})], False, "r3 lacks 1"),
        (
            [*HOLDER, *FIRST, *dumped(AT_MS[1], r1={FLOW: 432_000, NEW: 432_000})],
            True,
            "the 1 live",
        ),
        ([*HOLDER, *FIRST, *dumped(AT_MS[1], r3={FLOW: 9, NEW: 9})], True, "the 1 live"),
        ([*HOLDER, *FIRST, *dumped(AT_MS[1], r1=IDLE, r2={})], "unknown", "no live flow"),
        ([*HOLDER, *FIRST], "unknown", "not dumped twice"),
        ([*FIRST, *dumped(AT_MS[1])], "unknown", "nobody held"),
        (
            [*holds("r1", 0, 6000), *holds("r2", 6100, 9000), *FIRST, *dumped(AT_MS[1])],
            True,
            "live flows of r2",
        ),
    ],
)
def test_tables_agree_about_what_lives(facts: list[Fact], valid: Valid, found: str) -> None:
    verdict = tables_agree(of(facts))
    assert verdict.valid == valid, verdict
    assert found in verdict.summary


@pytest.mark.parametrize(
    ("line", "flow"),
    [
        (f"ipv4     2 tcp      6 431999 ESTABLISHED {TUPLES} [ASSURED] mark=0 use=2", FLOW),
        (f"ipv4     2 tcp      6 119 TIME_WAIT {TUPLES} [ASSURED] mark=0 use=2", None),
        (f"ipv4     2 tcp      6 299 ESTABLISHED {TUPLES} mark=0 use=2", None),
        (f"ipv4     2 udp      17 119 {TUPLES} [ASSURED] mark=0 use=2", f"udp {TUPLES}"),
        (f"ipv4     2 udp      17 29 {TUPLES} mark=0 use=2", None),
        ("ipv4     2 icmp     1 29 src=1.1.1.1 dst=1.1.1.2 type=8 code=0 id=1 use=1", None),
    ],
)
def test_only_established_flows_are_read(line: str, flow: str | None) -> None:
    found = established(line)
    assert (found and found[0]) == flow
