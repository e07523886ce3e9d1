"""What a chaos run does, in order: a pure function of its seed.

Every nemesis comes once, in a drawn order, before any comes again: as a fault by itself, as the
second of two that meet, or inside one that takes a node away for longer. Two seeds in a row,
an even one and the next, begin with two halves of all nemeses: so twenty runs that have time for
one half try each ten times. Which node a word like ``holder`` means is found out when it is
time; everything else is drawn here.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from chaos.faults.attack import Nemesis

PAIR_CHANCE = 0.85
REST_S = (0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Step:
    """One fault, or two that meet, or one with others inside.

    Attributes:
        target: A word of `targets`.
        hold_s: From its beginning, or the end of the last one inside, to its undoing.
        second: What meets it, aimed at a node that it does not hit.
        second_target: A word of `targets` for that.
        apart_s: How much later that begins.
        rest_s: From the time when all is well again to the next step.
        seed: Of everything that is drawn for it later.
        inner: Steps that hit the other nodes, one after the other, while it is in force.
        lasting: Whether it is not undone before the end of the run.
    """

    nemesis: Nemesis
    target: str
    hold_s: float
    second: Nemesis | None
    apart_s: float
    rest_s: float
    seed: int
    second_target: str = "one"
    inner: tuple[Step, ...] = ()
    lasting: bool = False

    @property
    def nemeses(self) -> tuple[Nemesis, ...]:
        """All that it does, in order."""
        second = (self.second,) if self.second else ()
        return (self.nemesis, *second, *(n for step in self.inner for n in step.nemeses))

    @property
    def length_s(self) -> float:
        """How long it takes at least."""
        own_s = self.hold_s + self.apart_s + self.rest_s
        return own_s + sum(step.length_s for step in self.inner)


def plan(seed: int, nemeses: Sequence[Nemesis], *, lasting: bool = False) -> Iterator[Step]:
    """Generate steps without end; none if there is no nemesis.

    Args:
        seed: Everything follows from it.
        nemeses: What may come.
        lasting: Whether what takes a node away does so once, for the whole run.
    """
    draw = random.Random(seed)
    away = [nemesis for nemesis in nemeses if nemesis.inner] if lasting else []
    for nemesis in away:
        yield replace(_step(nemesis, draw), lasting=True)
    usual = [nemesis for nemesis in nemeses if nemesis not in away and not (away and nemesis.three)]
    while usual:
        for half in _halves(seed, usual):
            left = draw.sample(half, len(half))
            while left:
                yield _next(left, draw, alone=bool(away))


def _halves(seed: int, nemeses: Sequence[Nemesis]) -> tuple[list[Nemesis], list[Nemesis]]:
    """Return both halves of what may come, the one first with which this seed begins."""
    shared = random.Random(seed // 2).sample(list(nemeses), len(nemeses))
    middle = (len(shared) + 1) // 2
    first, second = shared[:middle], shared[middle:]
    return (second, first) if seed % 2 else (first, second)


def _next(left: list[Nemesis], draw: random.Random, *, alone: bool) -> Step:
    """Take what comes next out of what is left, with what meets it or is inside."""
    nemesis = left.pop(0)
    step = _step(nemesis, draw, alone=alone)
    if nemesis.inner:
        able = [other for other in left if not other.three][: nemesis.inner]
        for other in able:
            left.remove(other)
        inner = tuple(_step(other, draw, alone=True) for other in able)
        return replace(step, inner=inner)
    partner = next((other for other in left if other.pairs), None)
    if nemesis.pairs and partner is not None and draw.random() < PAIR_CHANCE:
        left.remove(partner)
        # Drawn only where there is a choice: plans of other nemeses are what they were.
        words = nemesis.second
        target = draw.choice(words) if len(words) > 1 else words[0]
        return replace(step, second=partner, second_target=target)
    return step


def _step(nemesis: Nemesis, draw: random.Random, *, alone: bool = False) -> Step:
    hold_s = draw.uniform(*nemesis.hold_s)
    return Step(
        nemesis=nemesis,
        target=draw.choice(nemesis.targets),
        hold_s=max(hold_s, nemesis.alone_s) if alone else hold_s,
        second=None,
        apart_s=draw.uniform(*nemesis.apart_s),
        rest_s=draw.uniform(*REST_S),
        seed=draw.getrandbits(32),
    )
