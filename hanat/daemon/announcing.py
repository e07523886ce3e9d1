"""Announce many floating addresses at the pace that a network can take.

The frames of a thousand addresses in one burst overrun the queue of the device, the switches that
look at each ARP packet, and the loop meanwhile. So a round goes out in slices, one a millisecond.
A round that is due while another is under way comes behind it, once. No rule of the kernel stops
an announcement: the clock is read before each slice, and what withdraws the right to answer ends
the round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hanat.core.placements import Placement
from hanat.errors import KernelError

SLICE_S = 0.001
FRAMES_EACH = 2  # at most, of an address


class Announcing:
    """The rounds of a holder.

    Args:
        send: Announces some addresses, now.
        failed: Hears why the rest of a round was not sent.
        later: Calls something after so many seconds.
        clock: Seconds of CLOCK_BOOTTIME.
        frames_per_ms: The pace.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Placement]], None],
        *,
        failed: Callable[[KernelError], None],
        later: Callable[[float, Callable[[], None]], object],
        clock: Callable[[], float],
        frames_per_ms: int,
    ) -> None:
        self._send, self._failed = send, failed
        self._later, self._clock = later, clock
        self._size = max(1, frames_per_ms // FRAMES_EACH)
        self._round: Sequence[Placement] = ()
        self._next: Sequence[Placement] = ()
        self._until = 0.0
        self._waiting = False

    def begin(self, placed: Sequence[Placement], until: float) -> None:
        """Announce these, as long as the lease lasts [s of CLOCK_BOOTTIME].

        Raises:
            KernelError: The kernel refused some that were sent at once.
        """
        self._until = max(self._until, until)
        if self._round:
            # Whatever the waiting round was about, this one is about it, too, or newer.
            self._next = tuple(dict.fromkeys((*placed, *self._next)))
            return
        self._round = placed
        if not self._waiting:  # else the slice that waits keeps the pace
            self._slice()

    def extend(self, until: float) -> None:
        """The lease was renewed."""
        self._until = max(self._until, until)

    def stop(self) -> None:
        """The right to answer is withdrawn: announce nothing any more."""
        self._round = self._next = ()
        self._until = 0.0

    def _due(self) -> None:
        self._waiting = False
        try:
            self._slice()
        except KernelError as error:
            self._round = self._next = ()
            self._failed(error)

    def _slice(self) -> None:
        if self._clock() >= self._until:
            self.stop()
            return
        part, self._round = self._round[: self._size], self._round[self._size :]
        if not self._round:
            self._round, self._next = self._next, ()
        if part:
            self._waiting = True
            self._later(SLICE_S, self._due)
            self._send(part)
