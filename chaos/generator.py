"""What a chaos run does, in order: a pure function of its seed.

Every nemesis comes once, in a drawn order, before any comes again. Faults are mostly one at a
time, with an undoing and a settling between them, so that a judge can say whose fault an
outage was; now and then two meet, on different nodes. Which node a word like ``holder``
means is found out when it is time; everything else is drawn here.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from chaos.nemeses import Nemesis, pairable

PAIR_CHANCE = 0.15
APART_S = (0.0, 0.5)


@dataclass(frozen=True, slots=True)
class Step:
    """One fault, or two that meet.

    Attributes:
        target: A word of `targets`.
        hold_s: From its beginning to its undoing.
        second: What meets it, aimed at a node that it does not hit.
        apart_s: How much later that begins.
        rest_s: From the time when all is well again to the next step.
        seed: Of everything that is drawn for it later.
    """

    nemesis: Nemesis
    target: str
    hold_s: float
    second: Nemesis | None
    apart_s: float
    rest_s: float
    seed: int


def plan(seed: int, nemeses: Sequence[Nemesis]) -> Iterator[Step]:
    """Generate steps without end; none if there is no nemesis."""
    draw = random.Random(seed)
    partners = pairable(nemeses)
    while nemeses:
        for nemesis in draw.sample(list(nemeses), len(nemeses)):
            meets = draw.random() < PAIR_CHANCE
            partner = draw.choice(partners) if partners else None
            yield Step(
                nemesis=nemesis,
                target=draw.choice(nemesis.targets),
                hold_s=draw.uniform(*nemesis.hold_s),
                second=partner if meets and nemesis.pairs else None,
                apart_s=draw.uniform(*APART_S),
                rest_s=draw.uniform(1.0, 2.0),
                seed=draw.getrandbits(32),
            )
