"""How busy others keep the machine: what they take delays probes and daemons alike.

Use of the cores does not tell everything: after a lab with 100,000 flows was removed, real-time
programs woke up 70 to 300 ms late for half a minute, on a machine that showed no load. So a
trial also waits until a real-time sleeper is on time.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

QUIET = 0.1  # of all cores together
SAMPLE_S = 0.5
AGAIN_S = 2.0
SLEEP_S = 0.001
ON_TIME_S = 0.005
LATE_S_MAX = 120.0  # how long a machine is waited for whose sleepers are late


def busy_share(before: str, after: str) -> float:
    """Return the share of all cores' time that was not idle between two looks at /proc/stat."""
    first, second = (_times(text) for text in (before, after))
    spent = [b - a for a, b in zip(first, second, strict=True)]
    idle = spent[3] + spent[4]  # proc(5): user, nice, system, idle, iowait, ...
    return 1 - idle / sum(spent) if sum(spent) > 0 else 0.0


def wait_for_quiet(patience_s: float) -> float:
    """Wait until the machine is quiet, or for `patience_s`; return the share in use at the end.

    A machine on which a real-time sleeper is late is waited for in any case, for `LATE_S_MAX`.
    """
    begun = time.monotonic()
    while True:
        before = Path("/proc/stat").read_text()
        late = lateness_s(SAMPLE_S) > ON_TIME_S
        busy = busy_share(before, Path("/proc/stat").read_text())
        left_s = begun + max(patience_s, LATE_S_MAX if late else 0.0) - time.monotonic()
        if (busy < QUIET and not late) or left_s <= 0:
            return busy
        time.sleep(min(AGAIN_S, left_s))


def lateness_s(duration_s: float) -> float:
    """Return by how much a real-time sleeper was late at most, looked at for `duration_s`."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    try:
        worst_s, end = 0.0, time.monotonic() + duration_s
        while (now := time.monotonic()) < end:
            time.sleep(SLEEP_S)
            worst_s = max(worst_s, time.monotonic() - now - SLEEP_S)
        return worst_s
    finally:
        os.sched_setscheduler(0, policy, parameters)


def _times(stat: str) -> list[int]:
    # The guest columns are counted in user and nice already.
    return [int(word) for word in stat.splitlines()[0].split()[1:9]]
