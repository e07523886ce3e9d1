"""When a node stands for election: in turn, the most suitable first.

A node may stand as soon as its promise has ended. The nodes that are alive order
themselves in the same way, by what all tell all; the first stands at once, each
other one `STAGGER_BEACONS` after the one before, so that votes are rarely split
although nobody waits without need. A round that came to nothing adds a random
time, for nodes that do not agree about the order.
"""

from __future__ import annotations

from collections.abc import Callable

from hanat.core.configuration import Profile

STAGGER_BEACONS = 1.5  # long enough for one election, on a busy machine too
UNFIT_DELAY = 10  # in leases: an unsafe node stands only when nobody else does
WORSE_DELAY = 2  # likewise, one that another could do better than; it may not be electable
JITTER_ROUNDS_MAX = 4


class Candidacy:
    """One node's turn.

    Args:
        profile: Timing.
        draw: Random numbers in [0, 1), for what is added after a round without a majority.
    """

    def __init__(self, profile: Profile, *, draw: Callable[[], float]) -> None:
        self._profile, self._draw = profile, draw
        self._not_before = 0.0
        self._rounds = 0
        self._jitter_s = 0.0

    def wait(self, until: float) -> None:
        """Do not stand before that time: somebody else is better placed, or was heard."""
        self._not_before = max(self._not_before, until)

    def failed(self, now: float) -> None:
        """Note that a round or a campaign found no majority."""
        self._rounds = min(self._rounds + 1, JITTER_ROUNDS_MAX)
        stagger_s = STAGGER_BEACONS * self._profile.beacon_s
        self._jitter_s = self._draw() * self._rounds * stagger_s
        self.wait(now)

    def settled(self) -> None:
        """Note that there is a leader: the next election starts without anybody's delay."""
        self._rounds, self._jitter_s = 0, 0.0

    def due(self, *, free_at: float, rank: int, safe: bool, worse: bool = False) -> float:
        """Return when to stand.

        Args:
            free_at: When the node's promise, and its own lease, have ended.
            rank: From `eligibility.rank`.
            safe: Whether the node may hold the addresses at all.
            worse: From `eligibility.outdone`.
        """
        wait_s = rank * STAGGER_BEACONS * self._profile.beacon_s + self._jitter_s
        if not safe:
            wait_s += UNFIT_DELAY * self._profile.lease_s
        elif worse:
            wait_s += WORSE_DELAY * self._profile.lease_s
        return max(free_at, self._not_before) + wait_s
