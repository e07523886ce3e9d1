"""How busy others keep the machine: what they take delays probes and daemons alike."""

from __future__ import annotations

import time
from pathlib import Path

QUIET = 0.1  # of all cores together
SAMPLE_S = 0.5
AGAIN_S = 2.0


def busy_share(before: str, after: str) -> float:
    """Return the share of all cores' time that was not idle between two looks at /proc/stat."""
    first, second = (_times(text) for text in (before, after))
    spent = [b - a for a, b in zip(first, second, strict=True)]
    idle = spent[3] + spent[4]  # proc(5): user, nice, system, idle, iowait, ...
    return 1 - idle / sum(spent) if sum(spent) > 0 else 0.0


def wait_for_quiet(patience_s: float) -> float:
    """Wait until the machine is quiet, or for `patience_s`; return the share in use at the end."""
    deadline = time.monotonic() + patience_s
    while True:
        before = Path("/proc/stat").read_text()
        time.sleep(SAMPLE_S)
        busy = busy_share(before, Path("/proc/stat").read_text())
        if busy < QUIET or time.monotonic() >= deadline:
            return busy
        time.sleep(min(AGAIN_S, max(0.0, deadline - time.monotonic())))


def _times(stat: str) -> list[int]:
    # The guest columns are counted in user and nice already.
    return [int(word) for word in stat.splitlines()[0].split()[1:9]]
