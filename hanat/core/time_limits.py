"""When what an operator limited in time is over, by a clock that nobody sets.

An order says by the wall clock of the node that took it since when it holds and until when. The
wall clocks of two routers may differ by minutes, so no node compares its own with that: one that
runs when the order comes into its log counts the time between the two from there on, and so does
a holder that takes over later.

A node that learns of an order afterwards (it was down, or cut off) has only its wall clock to say
how much is left, and never counts more than the whole time. It takes an order for a new one if
its wall clock says that it was given within `CLOCKS_S_MAX`, and after the node started. So such a
node may end it too early or too late, by as much as the clocks differ; if it was cut off when the
order was given, too late by `CLOCKS_S_MAX` at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from hanat.core.server_facts import Administrative, Mode, ServerId

CLOCKS_S_MAX = 300.0  # wall clocks that differ more are nobody's: other things fail, too
COMMIT_S_MAX = 5.0  # until an order is in the log


class Limit(NamedTuple):
    """An order, and when it is over, seconds of this node's clock."""

    order: Administrative
    over_at: float


class TimeLimits:
    """The limited orders that the log has.

    Args:
        began: When this node started, seconds of its clock.
    """

    def __init__(self, began: float) -> None:
        self._began = began
        self._limits: dict[ServerId, Limit] = {}
        self._agenda: list[tuple[float, ServerId]] = []  # of those that were not said to be over

    def note(self, server: ServerId, order: Administrative, now: float, wall_s: float) -> None:
        """Take what the log says of a server now; what is not limited ends what was."""
        known = self._limits.pop(server, None)
        if known is not None and known.order == order:
            self._limits[server] = known
        elif order.until_s is not None:
            limit = Limit(order, now + self._left_s(order, now, wall_s))
            self._limits[server] = limit
            heappush(self._agenda, (limit.over_at, server))

    def _left_s(self, order: Administrative, now: float, wall_s: float) -> float:
        assert order.until_s is not None
        whole_s = max(0.0, order.until_s - order.since_s)
        age_s = wall_s - order.since_s
        runs_s = now - self._began + COMMIT_S_MAX
        if -CLOCKS_S_MAX <= age_s <= min(CLOCKS_S_MAX, runs_s):
            return whole_s
        return min(whole_s, max(0.0, order.until_s - wall_s))

    def again(self) -> None:
        """Say once more what is over: another tenure begins."""
        self._agenda = [(limit.over_at, server) for server, limit in self._limits.items()]
        heapify(self._agenda)

    def due(self) -> float | None:
        """Return when to call `over`."""
        return self._agenda[0][0] if self._agenda else None

    def over(self, now: float) -> Iterator[tuple[ServerId, Administrative]]:
        """Yield, once, what the log is to have of servers whose time is over."""
        while self._agenda and self._agenda[0][0] <= now:
            over_at, server = heappop(self._agenda)
            limit = self._limits.get(server)
            if limit is None or limit.over_at != over_at:
                continue  # the log has another order by now
            # Since the end by the clock that the order was given by: never before the order.
            since_s = limit.order.until_s or 0.0
            yield server, Administrative(Mode.READY, limit.order.by, "its time was over", since_s)
