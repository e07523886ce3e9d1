"""Keep a flapping server out until it has been calm for a while.

Each fall adds a penalty, which decays by half in a half-life. Above the cutoff threshold the
target is suppressed: it stays down, however well it answers, until the penalty has decayed to
the reuse threshold. A ceiling bounds how long that can take. The penalty counts what was
committed, so every node has the same; a node that starts begins without any.

Source: RFC 2439 (BGP Route Flap Damping), section 4.2, with the constants that routers use:
1000 a flap, cutoff 3000, reuse 750, at most four half-lives (Junos: 15 and 60 minutes). The
half-life is shorter here, because checks see a flap within seconds, and a server that is kept
out costs capacity: one that falls each 35 s or more often is suppressed, one that falls four
times at once stays out for two minutes.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import exp2, log2
from typing import NamedTuple

PENALTY = 1000.0
CUTOFF = 3000.0
REUSE = 750.0
HALF_LIFE_S = 60.0
HOLD_DOWN_S_MAX = 4 * HALF_LIFE_S
CEILING = REUSE * exp2(HOLD_DOWN_S_MAX / HALF_LIFE_S)


class _Merit(NamedTuple):
    """RFC 2439 calls it the figure of merit: a penalty at a moment, and what follows."""

    penalty: float
    at: float
    reuse_at: float


class FlapDamping:
    """The penalties of all targets; times are seconds of this node's clock."""

    def __init__(self) -> None:
        self._merits: dict[str, _Merit] = {}

    def penalty(self, target: str, now: float) -> float:
        """Return what is left of a target's penalty."""
        merit = self._merits.get(target)
        if merit is None:
            return 0.0
        return merit.penalty * exp2((merit.at - now) / HALF_LIFE_S)

    def fall(self, target: str, now: float) -> None:
        """Note that the verdict of a target went from up to down."""
        penalty = min(CEILING, self.penalty(target, now) + PENALTY)
        reuse_at = now
        if penalty > CUTOFF or self.reuse_at(target) > now:
            reuse_at = now + HALF_LIFE_S * max(0.0, log2(penalty / REUSE))
        self._merits[target] = _Merit(penalty, now, reuse_at)

    def reuse_at(self, target: str) -> float:
        """Return from when on a target may be up again."""
        merit = self._merits.get(target)
        return float("-inf") if merit is None else merit.reuse_at

    def forget(self, targets: Iterable[str]) -> None:
        """Drop the penalties of targets that are gone."""
        for target in targets:
            self._merits.pop(target, None)
