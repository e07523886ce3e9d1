"""Decide which complaints about what comes from outside are written to the log.

A stranger chooses how often hanat complains, and under which names. So there is one
token bucket for all complaints of a process: at most `BURST` and one more in any second,
one a second over time. The line that follows says how many were left out; counters in
the metrics have them all. The same text is said once a minute.
"""

from __future__ import annotations

BURST = 4
PER_S = 1.0
REPEAT_S = 60.0
TEXTS_MAX = 1000


class Complaints:
    """The complaints of one process."""

    def __init__(self) -> None:
        self._tokens, self._filled_at = float(BURST), float("-inf")
        self._said_at: dict[str, float] = {}
        self._left_out = 0

    def admit(self, text: str, now: float) -> int | None:
        """Return how many were left out since the last line; None: leave this one out, too.

        Args:
            text: What would be said.
            now: Seconds of any clock that does not jump.
        """
        self._tokens = min(BURST, self._tokens + PER_S * (now - self._filled_at))
        self._filled_at = now
        if self._tokens < 1 or now - self._said_at.get(text, float("-inf")) < REPEAT_S:
            self._left_out += 1
            return None
        self._tokens -= 1
        if len(self._said_at) >= TEXTS_MAX:
            self._said_at.clear()
        self._said_at[text] = now
        left_out, self._left_out = self._left_out, 0
        return left_out
