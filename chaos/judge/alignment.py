"""Which tenure that was told is which tenure that packets show: two sequences, side by side.

Told tenures come in the order of their terms, seen ones by their first packet. Most pair off.
Some need not: one of a few milliseconds leaves no packet, one that its node died of at once is
never told. What fits best is found by dynamic programming, as for edit distances: leaving
something out that may be missing costs little, anything else much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chaos.judge.spells import Spell
from chaos.observe.run_history import MS, EventTold

TOOK_OVER = "took over"
GAVE_UP = "gave up"

MISSED = 100.0
EXCUSED = 1.0
AGAIN = 0.2  # told anew, not seen anew: the same node resumed
FAR_NS = 10_000 * MS
FAR = 0.5


@dataclass(frozen=True, slots=True)
class Told:
    """A tenure as the nodes tell it; `ended` is None if nobody told its end."""

    begun: EventTold
    ended: EventTold | None


@dataclass(frozen=True, slots=True)
class Pair:
    """What belongs together; one of them is None where the other stands alone.

    Attributes:
        again: The packets belong to the pair before as well.
    """

    told: Told | None
    seen: Spell | None
    again: bool = False


def tenures_told(events: Sequence[EventTold]) -> tuple[list[Told], list[EventTold]]:
    """Return the tenures by their terms, and ends that belong to none.

    Args:
        events: In the order that was told.
    """
    begun = [event for event in events if event.what == TOOK_OVER]
    ends: dict[tuple[str, int], list[EventTold]] = {}
    for event in events:
        if event.what == GAVE_UP:
            ends.setdefault((event.node, event.term), []).append(event)
    found = []
    for event in sorted(begun, key=lambda event: event.term):
        left = ends.get((event.node, event.term), [])
        found.append(Told(event, left.pop(0) if left else None))
    return found, [event for left in ends.values() for event in left]


def aligned(
    told: Sequence[Told],
    seen: Sequence[Spell],
    unseen: Callable[[int], bool],
    untold: Callable[[int], bool],
) -> list[Pair]:
    """Pair what was told with what was seen.

    Args:
        told: In order.
        seen: In order.
        unseen: Whether packets need not show the told one of an index.
        untold: Whether nobody need tell the seen one of an index.
    """
    width = len(seen) + 1
    cost = [[0.0] * width for _ in range(len(told) + 1)]
    step: list[list[str]] = [[""] * width for _ in range(len(told) + 1)]
    alone_told = [EXCUSED if unseen(i) else MISSED for i in range(len(told))]
    alone_seen = [EXCUSED if untold(j) else MISSED for j in range(len(seen))]
    for i in range(len(told) + 1):
        for j in range(width):
            ways: list[tuple[float, str]] = []
            if i and j and told[i - 1].begun.node == seen[j - 1].router:
                far = _far(told[i - 1].begun, seen[j - 1])
                ways.append((cost[i - 1][j - 1] + far, "both"))
                if _open(step, i - 1, j):
                    ways.append((cost[i - 1][j] + AGAIN + far, "again"))
            if i:
                ways.append((cost[i - 1][j] + alone_told[i - 1], "told"))
            if j:
                ways.append((cost[i][j - 1] + alone_seen[j - 1], "seen"))
            if ways:
                cost[i][j], step[i][j] = min(ways)
    return _traced(told, seen, step)


def _open(step: Sequence[Sequence[str]], i: int, j: int) -> bool:
    """Whether the last that was seen belongs to something told, what left no packet aside."""
    while step[i][j] == "told":
        i -= 1
    return step[i][j] in ("both", "again")


def _traced(told: Sequence[Told], seen: Sequence[Spell], step: list[list[str]]) -> list[Pair]:
    pairs = []
    i, j = len(told), len(seen)
    while i or j:
        kind = step[i][j]
        pairs.append(
            Pair(
                told[i - 1] if kind != "seen" else None,
                seen[j - 1] if kind != "told" else None,
                kind == "again",
            )
        )
        i -= kind != "seen"
        j -= kind in ("both", "seen")
    return pairs[::-1]


def _far(event: EventTold, seen: Spell) -> float:
    """Return how badly the time fits: 0 to `FAR`."""
    if event.clock_wrong:
        return 0.0
    early_ns, late_ns = seen.start_ns - event.t_ns, event.t_ns - seen.end_ns
    return FAR * min(max(early_ns, late_ns, 0), FAR_NS) / FAR_NS
