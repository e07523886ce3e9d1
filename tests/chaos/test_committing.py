"""What nodes applied is judged by what leaders counted as committed, and when."""

from __future__ import annotations

import pytest

from chaos.judge.checkers import Valid
from chaos.judge.committed import applied_as_committed
from chaos.observe.replicated import Applied, Committed
from chaos.observe.run_history import MS, Fact, History

NODES = ("r1", "r2", "r3")


def committed(at_ms: int, index: int, digest: str, node: str = "r1") -> Committed:
    return Committed(at_ms * MS, node, index, 1, digest)


def applied(at_ms: int, node: str, index: int, digest: str) -> Applied:
    return Applied(at_ms * MS, node, index, 1, digest)


def everywhere(at_ms: int, index: int, digest: str) -> list[Fact]:
    """The leader counts an entry and applies it at once, the others a little later."""
    told: list[Fact] = [committed(at_ms, index, digest), applied(at_ms, "r1", index, digest)]
    return [*told, *(applied(at_ms + 2, node, index, digest) for node in NODES[1:])]


GOOD = [*everywhere(10, 1, "a"), *everywhere(20, 2, "b")]
RESTARTED = [applied(500 + i, "r2", i, digest) for i, digest in ((1, "a"), (2, "b"))]
COUNTED_AGAIN = [committed(600, i, digest, "r3") for i, digest in ((1, "a"), (2, "b"))]


@pytest.mark.parametrize(
    ("facts", "valid", "found"),
    [
        (GOOD, True, "3 nodes applied 6 entries"),
        ([*GOOD, *RESTARTED], True, "3 nodes applied 8 entries"),
        ([*GOOD, *COUNTED_AGAIN], True, "3 nodes applied 6 entries"),
        ([*GOOD, applied(25, "r2", 3, "c")], False, "r2, index 3 of term 1: never committed"),
        (
            [*GOOD, applied(25, "r2", 3, "c"), committed(26, 3, "c")],
            False,
            "committed 1.0 ms later",
        ),
        ([*GOOD, applied(25, "r2", 2, "x")], False, "index 2: r1+r2+r3 | r2"),
        (
            [*GOOD, applied(25, "r2", 3, "x"), *everywhere(30, 3, "c")],
            False,
            "another was committed there",
        ),
        ([*GOOD, committed(30, 2, "x", "r3")], False, "index 2: committed by r1 and, another, by"),
        ([applied(1, "r1", 1, "a")], "unknown", "no applied entry was recorded, or no committed"),
        ([committed(1, 1, "a")], "unknown", "no applied entry was recorded, or no committed"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_entries_are_applied_as_they_were_committed(
    facts: list[Fact], valid: Valid, found: str
) -> None:
    verdict = applied_as_committed(History.of(facts))
    assert verdict.valid == valid, verdict
    assert found in verdict.summary
