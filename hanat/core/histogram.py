"""How long something took, counted in classes: what a `HistogramStatus` shows."""

from __future__ import annotations

from bisect import bisect_left

from hanat.core.status import HistogramStatus


class Histogram:
    """Durations since the start, in seconds; `bounds_s` are the upper bounds of the classes."""

    def __init__(self, bounds_s: tuple[float, ...]) -> None:
        assert list(bounds_s) == sorted(set(bounds_s)), bounds_s
        self._bounds_s = bounds_s
        self._counts = [0] * (len(bounds_s) + 1)
        self._sum_s = self._max_s = 0.0

    def observe(self, duration_s: float) -> None:
        """Count one; less than nothing, by a clock's resolution, is nothing."""
        duration_s = max(0.0, duration_s)
        self._counts[bisect_left(self._bounds_s, duration_s)] += 1
        self._sum_s += duration_s
        self._max_s = max(self._max_s, duration_s)

    def status(self) -> HistogramStatus:
        """Return it for the status document."""
        return HistogramStatus(
            max_s=self._max_s,
            sum_s=self._sum_s,
            bounds_s=self._bounds_s,
            counts=tuple(self._counts),
        )
