"""Ask the kernel for how long checkers were kept from a core.

They have no priority, and in a lab nearly everything else has. A probe that waits for a core looks
like a server that is slow, so what is judged of servers has to know when that may be.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from chaos.observe.observed import Lag

CHECKER = "hanat.checker"
LAG_NS = 60_000_000  # between two looks, which are some 200 ms apart


def checkers(pids: Iterable[int]) -> list[int]:
    """Return which of these processes are checkers."""
    found = []
    for pid in pids:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:
            continue  # it has ended
        if CHECKER in command:
            found.append(pid)
    return found


class Waits:
    """Looks at checkers again and again.

    Args:
        late_ns: A shorter wait between two looks is none.
    """

    def __init__(self, late_ns: int = LAG_NS) -> None:
        self._late_ns = late_ns
        self._waited: dict[int, int] = {}
        self._looked_ns = 0

    def watch(self, pids: Iterable[int]) -> None:
        """Look at these from now on."""
        self._waited = {pid: waited for pid in pids if (waited := _waited_ns(pid)) is not None}
        self._looked_ns = time.monotonic_ns()

    def look(self) -> Lag | None:
        """Return how long the one waited that waited most since the last look, if that is long."""
        since_ns, self._looked_ns = self._looked_ns, time.monotonic_ns()
        late_ns = 0
        for pid, before in list(self._waited.items()):
            waited = _waited_ns(pid)
            if waited is None:
                del self._waited[pid]
                continue
            late_ns = max(late_ns, waited - before)
            self._waited[pid] = waited
        return Lag(since_ns, late_ns) if late_ns > self._late_ns else None


def _waited_ns(pid: int) -> int | None:
    """Return for how long a process has been ready to run and did not; None if it has ended."""
    try:
        # Documentation/scheduler/sched-stats.rst: time on the cpu, time on the queue, slices.
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1])
    except (OSError, IndexError):
        return None
