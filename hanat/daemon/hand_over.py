"""Hand leadership on as soon as a peer has the whole log."""

from __future__ import annotations

from collections.abc import Callable

from hanat.core.actions import TransferLeadership
from hanat.core.inputs import ActionFailed, Input
from hanat.core.outcomes import Cause, Failed
from hanat.raft.replica import Replica

TRANSFER_BEACONS = 15  # three leases or more: by then a live peer has the whole log


class HandOver:
    """One hand-over at a time, in the term in which it was asked for.

    Args:
        replica: Orders a peer to stand.
        beacon_s: Of the profile in force.
        clock: Seconds of CLOCK_BOOTTIME.
        feed: Tells the core that it came to nothing.
    """

    def __init__(
        self,
        replica: Replica,
        *,
        beacon_s: float,
        clock: Callable[[], float],
        feed: Callable[[Input], None],
    ) -> None:
        self._replica, self._beacon_s, self._clock, self._feed = replica, beacon_s, clock, feed
        self._wanted: tuple[tuple[int, ...], int, float] | None = None  # to whom, term, until

    def begin(self, to: tuple[int, ...]) -> None:
        """Hand leadership to one of these; none: to the best."""
        until = self._clock() + TRANSFER_BEACONS * self._beacon_s
        self._wanted = (to, self._replica.term, until)
        self.look()

    def look(self) -> None:
        """Try again, now that perhaps more is acknowledged."""
        if self._wanted is None:
            return
        to, term, until = self._wanted
        over = not self._replica.leading or self._replica.term != term
        if over or self._replica.transfer(to):
            self._wanted = None
        elif self._clock() >= until:
            self._wanted = None
            failure = Failed(Cause.NO_PEER, "no connected peer has the whole log")
            self._feed(ActionFailed(TransferLeadership(to), failure))
