"""Whom a fault hits: words to nodes, purely."""

from __future__ import annotations

import random
from collections.abc import Sequence

TARGETS = ("holder", "backup", "one", "minority", "majority", "all")


def choose(
    target: str, *, nodes: Sequence[str], holder: str | None, draw: random.Random
) -> tuple[str, ...]:
    """Return the nodes that a word means now, at least one, in the order of `nodes`.

    Args:
        target: One of `TARGETS`; without a holder, ``holder`` and ``backup`` mean any one.
        nodes: All of them.
        holder: Who holds the addresses, if somebody does.
        draw: Decides where the word leaves a choice.
    """
    assert target in TARGETS, target
    # Drawn whether it is used or not: what follows in the plan must not depend on who holds.
    shuffled = draw.sample(list(nodes), len(nodes))
    half = len(nodes) // 2
    if target == "holder":
        return (holder or shuffled[0],)
    if target == "backup":
        return (next(node for node in shuffled if node != holder),)
    count = {"one": 1, "minority": max(1, half), "majority": half + 1, "all": len(nodes)}[target]
    return tuple(node for node in nodes if node in shuffled[:count])
