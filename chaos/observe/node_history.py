"""Fetch the history that the nodes keep of themselves, over their API."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from chaos.lab import node_api
from chaos.lab.lab import Lab
from chaos.observe.run_history import MS, EventTold, Fact, HistoryAsked, Injection

AGREE_S = 5.0  # an event that a node could not commit is sent again each second
POLL_S = 0.2
TIMEOUT_S = 2.0
CLOCK = "clock"  # the nemesis that steps wall clocks
NEAR_NS = 2_000 * MS  # a step counts a little longer than it was in force
NEVER_NS = 1 << 62
OK = 200


def fetch(lab: Lab, injections: Iterable[Injection], offset_ns: int) -> list[Fact]:
    """Ask all nodes until they tell the same, or `AGREE_S` have passed; return what they told.

    Args:
        lab: That runs.
        injections: All that was done; of interest is whose clock was stepped, and when.
        offset_ns: See `logs.wall_minus_monotonic_ns`.

    Returns:
        A `HistoryAsked` for every node, and the events of the first that told any.
    """
    deadline = time.monotonic() + AGREE_S
    while True:
        answers = {name: _ask(lab, name) for name in lab.nodes}
        if len({asked.digest for asked, _ in answers.values()}) == 1 or (
            time.monotonic() > deadline
        ):
            break
        time.sleep(POLL_S)
    told = next((told for asked, told in answers.values() if told), [])
    steps = stepped(injections)
    return [
        *(asked for asked, _ in answers.values()),
        *(event(document, number, offset_ns, steps) for number, document in enumerate(told)),
    ]


def _ask(lab: Lab, name: str) -> tuple[HistoryAsked, list[Mapping[str, Any]]]:
    t_ns = time.monotonic_ns()
    try:
        code, answer = node_api.request(
            lab.nodes[name].socket, "GET", "/v1/history", timeout_s=TIMEOUT_S
        )
    except OSError as error:
        return HistoryAsked(t_ns, name, None, 0, "", str(error)), []
    told = answer.get("events") if isinstance(answer, dict) else None
    if code != OK or not isinstance(told, list):
        return HistoryAsked(t_ns, name, code, 0, "", f"HTTP {code}: {answer!r:.200}"), []
    for number, document in enumerate(told):
        try:
            event(document, number, 0, [])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problem = f"event {number} is none: {error!r}"
            return HistoryAsked(t_ns, name, code, 0, "", problem), []
    text = json.dumps(told, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return HistoryAsked(t_ns, name, code, len(told), digest), told


Step = tuple[str, int, int, int]
"""A stepped clock: node, from, to (monotonic ns), by how many ns."""


def event(
    document: Mapping[str, Any], number: int, offset_ns: int, steps: Sequence[Step]
) -> EventTold:
    """Return an event of ``/v1/history`` as a fact.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: It lacks something.
    """
    node, t_ns = str(document["node"]), round(document["at_s"] * 1e9) - offset_ns
    previous = document.get("previous")
    return EventTold(
        t_ns=t_ns,
        clock_wrong=any(
            node == name and start_ns <= t_ns - by_ns <= end_ns
            for name, start_ns, end_ns, by_ns in steps
        ),
        number=number,
        node=node,
        what=str(document["what"]),
        term=int(document["term"]),
        why=str(document["why"]),
        found=str(document.get("found") or ""),
        previous=None if previous is None else str(previous),
        without_ns=_ns(document.get("without_s")),
        held_ns=_ns(document.get("held_s")),
        text=str(document.get("text") or ""),
    )


def _ns(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e9)


def stepped(injections: Iterable[Injection]) -> list[Step]:
    """Return which clocks were stepped: the detail of such a fault is ``r1+r2 -3600 s``."""
    found = []
    for injection in injections:
        if injection.nemesis != CLOCK:
            continue
        names, offset_s, _ = injection.detail.split()
        start_ns = injection.t_ns - NEAR_NS
        end_ns = NEVER_NS if injection.heal_ns is None else injection.heal_ns + NEAR_NS
        # What happened just before or after is told by the right clock: it may be either.
        for by_ns in (0, int(offset_s) * 1_000_000_000):
            found += [(name, start_ns, end_ns, by_ns) for name in names.split("+")]
    return found
