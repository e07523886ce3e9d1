"""Statistics and Markdown, literally."""

from __future__ import annotations

import pytest

from benchmarks.figures import ENDLESS, Figures
from benchmarks.table import HEAD, Row, markdown, spread


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], "-"),
        ([3], "3 / 3"),
        ([1.26, 3, 12.6], "3 / 13"),
        ([0.34, 1.26, 2.5], "1.3 / 2.5"),
        ([1, 2, 3, 4], "2.5 / 4"),
        ([1, 2, ENDLESS], "2 / no end (1 of 3)"),
        ([1, 2, ENDLESS, ENDLESS], "no end / no end (2 of 4)"),
        ([ENDLESS, ENDLESS], "no end"),
    ],
)
def test_median_and_maximum(values: list[float], expected: str) -> None:
    assert spread(values) == expected


def figures(
    *, lost: float, gap: float, new: float, two: float = 0, dead: bool = False, changes: int = 1
) -> Figures:
    return Figures(
        lost={"udp-in": lost, "udp-out": 0},
        gap_ms={"udp-in": 1, "udp-out": gap},
        new_ms={"new-in": new, "new-out": 0},
        again_ms={"new-in": new, "new-out": 0},
        arp_ms=0,
        two_ms=two,
        tcp_dead={"tcp-in": "reset"} if dead else {},
        changes=changes,
        announcements=10,
    )


def test_a_table_of_the_worse_directions() -> None:
    rows = [
        Row("cut", [figures(lost=40, gap=41, new=50), figures(lost=44, gap=45.5, new=60)]),
        Row("deaf", [figures(lost=ENDLESS, gap=ENDLESS, new=ENDLESS, dead=True, changes=0)]),
        Row("kill", [figures(lost=0, gap=2, new=3, two=ENDLESS)], ["no holder"]),
    ]
    assert markdown("fast", rows).splitlines() == [
        "| **fast** - " + " | ".join(HEAD) + " |",
        "|" + " --- |" * 10,
        "| cut | 2 | 42 / 44 | 43 / 46 | 55 / 60 | 0 / 0 | 0 / 0 | 2/2 | 1 / 1 | 10 / 10 |",
        "| deaf | 1 | no end | no end | no end | 0 / 0 | 0 / 0 | 0/1 | 0 / 0 | 10 / 10 |",
        "| kill | 1 (+1 failed) | 0 / 0 | 2 / 2 | 3 / 3 | 0 / 0 | no end | 1/1 | 1 / 1 | 10 / 10 |",
        "",
        "Not measured:",
        "",
        "- kill: no holder",
    ]
