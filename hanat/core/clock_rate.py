"""Whether this node's clock runs at the right rate.

Promises and leases are lengths on two clocks; the margin of the lease allows each clock to
be wrong by 1 %. A time daemon that slews may go far beyond: chrony's default is 8.3 %, and
CLOCK_BOOTTIME and the timeouts of the kernel's gate follow it, while CLOCK_MONOTONIC_RAW
does not. So a node compares the two, again and again over `SPAN_S`, and at each use. As long
as they differ by more, and until they agreed for a lease, it neither holds nor promises nor
votes: a promise made while the clock was right is then kept until it is surely over.

A suspended machine shows the same difference, as the raw clock stops meanwhile. That costs
it a lease in which it takes no part, and is left so.

Source: clock_gettime(2), adjtimex(2).
"""

from __future__ import annotations

from collections.abc import Callable

ERROR_MAX = 0.01
# Long against the microseconds in which both clocks are read. It is seen that a clock is slewed by
# 8.3 % when an eighth of two spans has passed; the 0.6 ms that it takes from a promise until then
# are in the margin.
SPAN_S = 0.03


class ClockRate:
    """Compares a node's clock with one that nothing slews.

    Args:
        lease_s: How long the rate must have been right.
        clock: First reading, seconds of CLOCK_BOOTTIME.
        raw: And of CLOCK_MONOTONIC_RAW.

    Attributes:
        rate: Of the clock, 1.0 if it is right, over the span that was looked at last.
    """

    def __init__(self, *, lease_s: float, clock: float, raw: float) -> None:
        self._lease_s = lease_s
        self._start = self._next_start = (clock, raw)
        self.rate = 1.0
        self._wrong = ""
        # A node that starts keeps quiet for longer than a lease; until then it will have looked.
        self._right_since = raw - lease_s

    def look(self, *, clock: float, raw: float) -> bool:
        """Take another reading of both, not older than the last; say whether to trust the clock.

        Reading them is not atomic: the caller drops a reading that took long.
        """
        start_clock, start_raw = self._start
        passed = raw - start_raw
        if passed >= SPAN_S:
            self.rate = (clock - start_clock) / passed
            if abs(self.rate - 1) > ERROR_MAX:
                self._right_since = raw
                self._wrong = "fast" if self.rate > 1 else "slow"
        if raw - self._next_start[1] >= SPAN_S:
            self._start, self._next_start = self._next_start, (clock, raw)
        right = self.right(raw)
        if right:
            self._wrong = ""
        return right

    def right(self, raw: float) -> bool:
        """Say whether the rate was right for a lease, by the last look."""
        return raw - self._right_since >= self._lease_s

    @property
    def found(self) -> str:
        """What was seen to be wrong, for people; empty after a lease in which nothing was."""
        if not self._wrong:
            return ""
        return (
            f"clock: it runs too {self._wrong}, more than {ERROR_MAX:.0%} off CLOCK_MONOTONIC_RAW; "
            "limit the slew of the time daemon (chrony: maxslewrate)"
        )


class ClockWatch:
    """Looks at the rate whenever it matters.

    Args:
        lease_s: See `ClockRate`.
        read: Returns CLOCK_BOOTTIME and CLOCK_MONOTONIC_RAW, in seconds, read as good as at
            one moment; None if that did not succeed.
    """

    def __init__(self, *, lease_s: float, read: Callable[[], tuple[float, float] | None]) -> None:
        self._read, self._lease_s = read, lease_s
        self._rate: ClockRate | None = None
        self._right = False

    def right(self) -> bool:
        """Say whether to trust the clock now."""
        both = self._read()
        if both is None:
            return self._right
        clock, raw = both
        if self._rate is None:
            self._rate = ClockRate(lease_s=self._lease_s, clock=clock, raw=raw)
        self._right = self._rate.look(clock=clock, raw=raw)
        return self._right

    @property
    def found(self) -> str:
        """What is wrong with it, for people; empty if nothing was seen."""
        self.right()
        return self._rate.found if self._rate is not None else ""
