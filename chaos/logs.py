"""Read the nodes' log files as text: which roles they say they had, and why."""

from __future__ import annotations

import re
import time
from datetime import datetime

from chaos.history import RoleLogged

_LINE = re.compile(
    r"^(?P<at>\S+) (?:INFO|WARNING|ERROR) +(?:"
    r"role=(?P<role>\w+) was=(?P<was>\w+) term=(?P<term>-?\d+) reason=(?P<reason>\S*)"
    r"|node=\S+ id=\d+ started)"
)
START = "START"


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
        try:
            # Local time, as the daemon writes it; both run on one machine.
            at = datetime.fromisoformat(match["at"]).astimezone()
        except ValueError:
            continue
        t_ns = int(at.timestamp() * 1000) * 1_000_000 - offset_ns
        role = match["role"] or START
        term = int(match["term"] or 0)
        found.append(RoleLogged(t_ns, node, role, match["was"] or "", term, match["reason"] or ""))
    return found
