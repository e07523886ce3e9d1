"""Keep the instruments from being delayed by whatever else the machine does.

In the field client, routers and servers are different machines. Here they share a few
cores, and a probe that waits for a core looks like an outage. The daemons under test
run with real-time priority, so the instruments have to as well: the same priority, not a
higher one, and each takes the core for some ten microseconds a millisecond.
"""

from __future__ import annotations

import contextlib
import gc
import os

PRIORITY = 1
NICE = -15  # where real-time is refused


def prefer(*, collect: bool = False) -> None:
    """Run before others and without pauses for garbage, if allowed; else as it is.

    Args:
        collect: Keep the garbage collector, for a process without an end.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
    except OSError:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, NICE)
    if not collect:
        gc.disable()
