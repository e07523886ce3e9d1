"""Trials to a Markdown table: medians and maxima, and what was not measured by name."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.figures import ENDLESS, Figures

HEAD = (
    "fault on the holder",
    "trials",
    "UDP probes lost",
    "UDP longest gap, ms",
    "no new connections, ms",
    "two answer ARP, ms",
    "two answer or admit, ms",
    "TCP survived",
    "changes of holder",
    "announcements",
)


@dataclass(frozen=True, slots=True)
class Row:
    """All trials of one fault with one system.

    Attributes:
        label: What was done, for people.
        figures: One entry per trial that could be measured.
        failed: Why each of the others could not.
    """

    label: str
    figures: Sequence[Figures]
    failed: Sequence[str] = ()


def spread(values: Sequence[float]) -> str:
    """Return median and maximum; what did not end is told, not averaged away."""
    if not values:
        return "-"
    endless = sum(v == ENDLESS for v in values)
    if endless == len(values):
        return number(ENDLESS)
    median = statistics.median(values)
    last = number(max(values)) + (f" ({endless} of {len(values)})" if endless else "")
    return f"{number(median)} / {last}"


def number(value: float) -> str:
    """Return a figure without digits that nobody measured."""
    if math.isinf(value):
        return "no end"
    return f"{value:.0f}" if value >= 10 or value == round(value) else f"{value:.1f}"


def row(data: Row) -> tuple[str, ...]:
    """Return the cells of a line; of two directions the worse one counts."""
    found = data.figures
    trials = str(len(found)) + (f" (+{len(data.failed)} failed)" if data.failed else "")
    survived = sum(not f.tcp_dead for f in found)
    return (
        data.label,
        trials,
        spread([max(f.lost.values()) for f in found]),
        spread([max(f.gap_ms.values()) for f in found]),
        spread([max(f.new_ms.values()) for f in found]),
        spread([f.arp_ms for f in found]),
        spread([f.two_ms for f in found]),
        f"{survived}/{len(found)}",
        spread([f.changes for f in found]),
        spread([f.announcements for f in found]),
    )


def markdown(title: str, rows: Sequence[Row]) -> str:
    """Return a table with its title, and below it why trials failed."""
    lines = [_line((f"**{title}** - {HEAD[0]}", *HEAD[1:])), _line(["---"] * len(HEAD))]
    lines += [_line(row(data)) for data in rows]
    reasons = [f"- {data.label}: {why}" for data in rows for why in data.failed]
    if reasons:
        lines += ["", "Not measured:", "", *reasons]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
