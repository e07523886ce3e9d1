"""What the holder does for its addresses, and when: announce them, put them back.

Other programs take addresses off a device: a network manager that reads its files
again, ``ip address flush``, ``hanat fence --force``. The kernel tells of every removal;
what the node did not want it puts back one beacon later, because a flush removes
addresses one by one, and a carrier lost at the same moment must be heard first. Then at
most once a second: whoever removes them again and again would else keep the node busy
and fill its log. Handing over to another node was considered; it would meet the same.
"""

from __future__ import annotations

from hanat.core.configuration import FloatingAddress

# A burst for neighbours that lose one, again after 1 s and 5 s for ports that were
# still learning (spanning tree, bonding), then a refresh for hosts that missed all.
ANNOUNCE_OFFSETS_S = (0.0, 0.02, 0.04, 0.06, 0.08, 1.0, 5.0)
ANNOUNCE_REFRESH_S = 60.0
RESTORE_GAP_S = 1.0
AGAIN_GAP_S = 1.0  # claims of others are answered once in that time, however many come
# What the kernel refused: a full queue drains in milliseconds, a carrier may be away for long.
REFUSED_S, REFUSED_S_MAX = 0.1, 1.0


class AddressSchedule:
    """The timers of a holder.

    Args:
        beacon_s: How long to wait before addresses are put back.

    Attributes:
        restored: How many floating addresses were put back since the start.
    """

    def __init__(self, beacon_s: float) -> None:
        self._beacon_s = beacon_s
        self._announce_due: list[float] = []
        self._missing: dict[FloatingAddress, None] = {}
        self._restore_due: float | None = None
        self._restore_free_at = 0.0
        self.restored = 0
        self._again_free_at = 0.0
        self._refused: tuple[FloatingAddress, ...] = ()
        self._refused_due: float | None = None
        self._refused_s = REFUSED_S
        self._refused_at = 0.0

    def begin(self, now: float) -> None:
        """The node is the holder and has announced once."""
        self._announce_due = [now + offset for offset in ANNOUNCE_OFFSETS_S[1:]]

    def end(self) -> None:
        """It is not, or not yet."""
        self._announce_due = []
        self._missing, self._restore_due = {}, None
        self._refused, self._refused_due = (), None

    @property
    def due(self) -> float | None:
        """When there is something to do."""
        others = [due for due in (self._restore_due, self._refused_due) if due is not None]
        return min([*self._announce_due, *others], default=None)

    def announces(self, now: float) -> bool:
        """Say whether to announce at this moment."""
        if not self._announce_due or self._announce_due[0] > now:
            return False
        self._announce_due.pop(0)
        if not self._announce_due:
            self._announce_due.append(now + ANNOUNCE_REFRESH_S)
        return True

    def again(self, now: float) -> None:
        """Neighbours may have been told something else: announce as soon as that is allowed."""
        if not self._announce_due or now < self._again_free_at - AGAIN_GAP_S:
            return
        at = max(now, self._again_free_at)
        self._again_free_at = at + AGAIN_GAP_S
        self._announce_due = sorted([at, *self._announce_due])

    def refuse(self, vips: tuple[FloatingAddress, ...], now: float) -> None:
        """The kernel did not take the announcements of these: try them again soon."""
        if not self._announce_due:
            return
        if now - self._refused_at > 2 * REFUSED_S_MAX:
            self._refused_s = REFUSED_S
        self._refused = tuple(dict.fromkeys((*self._refused, *vips)))
        if self._refused_due is None:
            self._refused_due = now + self._refused_s
            self._refused_s = min(2 * self._refused_s, REFUSED_S_MAX)
        self._refused_at = now

    def refused(self, now: float) -> tuple[FloatingAddress, ...]:
        """Return what to announce once more at this moment."""
        if self._refused_due is None or self._refused_due > now:
            return ()
        refused, self._refused, self._refused_due = self._refused, (), None
        return refused

    def miss(self, vips: tuple[FloatingAddress, ...], now: float) -> None:
        """Somebody took these off their devices."""
        self._missing.update(dict.fromkeys(vips))
        if self._missing and self._restore_due is None:
            self._restore_due = max(now + self._beacon_s, self._restore_free_at)

    def restores(self, now: float) -> tuple[FloatingAddress, ...]:
        """Return what to put back at this moment."""
        if self._restore_due is None or self._restore_due > now:
            return ()
        missing = tuple(self._missing)
        self._missing, self._restore_due = {}, None
        self._restore_free_at = now + RESTORE_GAP_S
        return missing
