"""When the connection-tracking table gets too small, or a masquerade's ports run out.

With the table full the kernel drops every packet that would need an entry: new clients, and
nobody says why. Strangers choose how many entries there are. The alarm begins at 90 % of the
limit and ends at 85 %, so that it does not come and go with each flow.

An entry that cannot be inserted had no free translated tuple: the ports of a masquerade's
address towards one destination are used up (or two packets of one flow raced, which happens
now and then and means nothing). Both are counted by the kernel since its start; what counts
here is what came within the last minute.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

ALARM_BEGINS, ALARM_ENDS = 0.90, 0.85
WINDOW_S = 60.0
# Below that many a minute it may be races; UDP of one socket to a new service has one now and then.
UNINSERTED_MIN = 10


@dataclass(frozen=True, slots=True)
class TableStatistics:
    """What the kernel says of its table.

    Attributes:
        entries: Of any kind, now.
        limit: The most there may be; 0: no limit is known.
        uninserted: Entries that could not be inserted, since the start of the kernel (or of its
            network namespace).
        dropped: Packets that got no entry and were dropped, since then: the table was full, or
            (they are among `uninserted`, too) no tuple was free.
    """

    entries: int = 0
    limit: int = 0
    uninserted: int = 0
    dropped: int = 0


class TableAlarm:
    """Turns statistics into alarms."""

    def __init__(self) -> None:
        self._full = False
        self._samples: deque[tuple[float, int, int]] = deque()

    def look(self, found: TableStatistics, now: float) -> tuple[str, ...]:
        """Return what is alarming now, a clause each; empty if nothing is."""
        self._samples.append((now, found.uninserted, found.dropped))
        while self._samples[0][0] < now - WINDOW_S:
            self._samples.popleft()
        _, uninserted, dropped = self._samples[0]
        alarms = []
        # The kernel counts a packet without a free tuple as dropped, too.
        if (lost := found.dropped - dropped - (found.uninserted - uninserted)) > 0:
            alarms.append(f"connection table was full: {lost} packets dropped in the last minute")
        if self._nearly_full(found):
            share = 100 * found.entries // found.limit
            alarms.append(f"connection table {share} % full ({found.entries} of {found.limit})")
        if (lost := found.uninserted - uninserted) >= UNINSERTED_MIN:
            alarms.append(
                f"{lost} flows found no free port of a floating address in the last minute"
            )
        return tuple(alarms)

    def _nearly_full(self, found: TableStatistics) -> bool:
        threshold = ALARM_ENDS if self._full else ALARM_BEGINS
        self._full = bool(found.limit) and found.entries >= threshold * found.limit
        return self._full
