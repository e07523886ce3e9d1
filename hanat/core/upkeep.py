"""When the holder announces its addresses again."""

from __future__ import annotations

# A burst for neighbours that lose one, again after 1 s and 5 s for ports that were
# still learning (spanning tree, bonding), then a refresh for hosts that missed all.
ANNOUNCE_OFFSETS_S = (0.0, 0.02, 0.04, 0.06, 0.08, 1.0, 5.0)
ANNOUNCE_REFRESH_S = 60.0


class Upkeep:
    """What a holder is to do for its addresses, and when."""

    def __init__(self) -> None:
        self._announce_due: list[float] = []

    def begin(self, now: float) -> None:
        """The node is the holder and has announced once."""
        self._announce_due = [now + offset for offset in ANNOUNCE_OFFSETS_S[1:]]

    def end(self) -> None:
        """It is not, or not yet."""
        self._announce_due = []

    @property
    def due(self) -> float | None:
        """When there is something to do."""
        return min(self._announce_due, default=None)

    def announces(self, now: float) -> bool:
        """Say whether to announce at this moment."""
        if not self._announce_due or self._announce_due[0] > now:
            return False
        self._announce_due.pop(0)
        if not self._announce_due:
            self._announce_due.append(now + ANNOUNCE_REFRESH_S)
        return True
