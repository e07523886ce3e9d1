"""Read the nodes' log files as text: which roles they say they had, and why."""

from __future__ import annotations

import re
import time
from collections import Counter
from datetime import datetime

from chaos.observe.observed import LogLines, RoleLogged

_LINE = re.compile(
    r"^(?P<at>\S+) (?:INFO|WARNING|ERROR) +(?:"
    r"role=(?P<role>\w+) was=(?P<was>\w+) term=(?P<term>-?\d+) reason=(?P<reason>\S*)"
    r"|node=\S+ id=\d+ started)"
)
_TIMED = re.compile(r"^(?P<at>\d{4}-\S+) (?P<rest>.*)")
START = "START"
EXAMPLE_CHARACTERS_MAX = 200


def wall_minus_monotonic_ns() -> int:
    """Return what turns an instant of the wall clock into one of ours, now."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME) - time.monotonic_ns()


def roles(text: str, node: str, *, offset_ns: int) -> list[RoleLogged]:
    """Return what a log says about roles and starts, in its order.

    Args:
        text: Of the log file.
        node: Whose.
        offset_ns: See `wall_minus_monotonic_ns`.
    """
    found = []
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        t_ns = _instant(match["at"], offset_ns)
        if t_ns is None:
            continue
        role = match["role"] or START
        term = int(match["term"] or 0)
        found.append(RoleLogged(t_ns, node, role, match["was"] or "", term, match["reason"] or ""))
    return found


def lines(text: str, node: str, *, offset_ns: int) -> list[LogLines]:
    """Return how many lines a log has of each second, in the log's order.

    Args:
        text: Of the log file. A line without a time belongs to the one before it.
        node: Whose.
        offset_ns: See `wall_minus_monotonic_ns`.
    """
    seconds: list[tuple[int, Counter[str]]] = []
    for line in text.splitlines():
        match = _TIMED.match(line)
        t_ns = None if match is None else _instant(match["at"], offset_ns)
        if t_ns is not None:
            second_ns = t_ns - t_ns % 1_000_000_000
            if not seconds or seconds[-1][0] != second_ns:
                seconds.append((second_ns, Counter()))
        if seconds:
            rest = line if match is None else match["rest"]
            seconds[-1][1][re.sub(r"\d+", "N", rest)[:EXAMPLE_CHARACTERS_MAX]] += 1
    return [
        LogLines(t_ns, node, found.total(), found.most_common(1)[0][0]) for t_ns, found in seconds
    ]


def _instant(text: str, offset_ns: int) -> int | None:
    try:
        # Local time, as the daemon writes it; both run on one machine.
        at = datetime.fromisoformat(text).astimezone()
    except ValueError:
        return None
    return int(at.timestamp() * 1000) * 1_000_000 - offset_ns
