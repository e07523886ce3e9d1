"""Which of hanat's reasons fits what was done to the holder.

Strict where one fault of one node was in force when the addresses moved and all had been well
before it; otherwise nothing is known well enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chaos.judge.spells import Spell
from chaos.observe.run_history import MS, EventTold, Injection

LOOK_BACK_NS = 500 * MS

FIRST, RESUMED, HANDED_OVER = "first", "resumed", "handed_over"
DAEMON_DIED, STEPPED_DOWN, SILENCE, DEPOSED = "daemon_died", "stepped_down", "silence", "deposed"
SWITCHOVER, SHUTDOWN, UNSAFE, HINDERED = "switchover", "shutdown", "unsafe", "hindered"
LEASE_EXPIRED, LEADERSHIP_LOST = "lease_expired", "leadership_lost"
BLIND = "blind"

TAKEN = {FIRST, RESUMED, HANDED_OVER, DAEMON_DIED, STEPPED_DOWN, SILENCE, DEPOSED}
GIVEN = {SWITCHOVER, BLIND, SHUTDOWN, UNSAFE, HINDERED, LEASE_EXPIRED, LEADERSHIP_LOST}
GIVEN_FOR_SOMEBODY = {SWITCHOVER, BLIND, SHUTDOWN, UNSAFE, HINDERED}
LOST = {LEASE_EXPIRED, LEADERSHIP_LOST}
RELEASED = {HANDED_OVER, STEPPED_DOWN}
# Whoever is hit by one of these forgets what it has not told.
DISK = "disk-broken"  # its node is killed to be given another disk
KILLS = ("kill", "kill-daemon", "restart", "silent-network-two", "two-of-three", DISK)


@dataclass(frozen=True, slots=True)
class Fitting:
    """Words that fit a fault.

    Attributes:
        taken: Of who takes over.
        given: Of the holder before; empty: it is dead and tells nothing.
    """

    taken: frozenset[str]
    given: frozenset[str]


def _fitting(taken: set[str], given: set[str]) -> Fitting:
    return Fitting(frozenset(taken), frozenset(given))


FITTING = {
    "kill": _fitting({SILENCE, DAEMON_DIED}, set()),  # its supervisor may have a last word
    "kill-daemon": _fitting({DAEMON_DIED}, set()),
    "pause": _fitting({SILENCE}, LOST),
    "partition": _fitting({SILENCE}, LOST),
    "cut": _fitting({SILENCE}, LOST),
    "link-public": _fitting(RELEASED, {HINDERED}),
    "link-private": _fitting(RELEASED, {HINDERED}),
    "link-both": _fitting({*RELEASED, SILENCE}, {HINDERED, *LOST}),
    "silent-network": _fitting(RELEASED, {HINDERED, BLIND}),
    "blind-holder": _fitting(RELEASED, {BLIND}),
    "forward-drop": _fitting(RELEASED, {HINDERED}),
    "switchover": _fitting({HANDED_OVER}, {SWITCHOVER}),
    "restart": _fitting(RELEASED, {SHUTDOWN}),
}
"""By nemesis; of others, what they lead to is not known beforehand."""
WORDS = {"link": "no carrier", "silent": "silent", "forward": "forward"}
"""By family: what the holder before has to have found, if it was hindered."""
DEAF = _fitting({DEPOSED, STEPPED_DOWN}, LOST)
MUTE = _fitting({SILENCE}, LOST)


def blamed(injections: Sequence[Injection], before: Spell, after: Spell) -> Injection | None:
    """Return the only fault that can have moved the addresses; None if that is not so sure."""
    t_ns = after.start_ns
    near = [
        i for i in injections if i.t_ns <= t_ns and (i.settled_ns is None or t_ns <= i.settled_ns)
    ]
    if len(near) != 1 or not near[0].holds(t_ns) or len(near[0].nodes) != 1:
        return None
    (fault,) = near
    moved = after if fault.nemesis == SWITCHOVER else before
    if fault.nodes != [moved.router] or before.end_ns < fault.t_ns - LOOK_BACK_NS:
        return None
    return fault


def killed_ns(injection: Injection, node: str) -> int | None:
    """Return when a fault has ended a node's daemon; None if it has not."""
    if injection.nemesis not in KILLS or node not in injection.nodes:
        return None
    return injection.heal_ns if injection.nemesis == DISK else injection.t_ns


def died(injections: Sequence[Injection], before: Spell, after: Spell) -> bool:
    """Whether the holder before was killed as such, with nothing else done to it before.

    If who took over was killed as well, it has seen nothing but new processes: one of these may
    have led, and not held, in between.
    """
    near = [
        i
        for i in injections
        if i.t_ns <= after.start_ns and (i.settled_ns is None or i.settled_ns > before.end_ns)
    ]
    hits = [i for i in near if before.router in (*i.nodes, *i.out)]
    if len(hits) != 1 or any(i.nemesis in KILLS and after.router in i.nodes for i in near):
        return False
    return hits[0].nemesis == "kill" and hits[0].holder == before.router


def fitting(fault: Injection) -> Fitting | None:
    """Return which reasons fit a fault of the holder; None if any may."""
    if fault.nemesis != "partition-oneway":
        return FITTING.get(fault.nemesis)
    if fault.detail.startswith("nobody hears"):
        return MUTE
    return DEAF if fault.detail.endswith(("hears nobody", "hears no peer")) else None


def problems(fault: Injection, taken: EventTold, given: EventTold | None) -> list[str]:
    """Return where the reasons that were told do not fit the fault of the holder."""
    fits = fitting(fault)
    if fits is None:
        return []
    found = []
    if taken.why not in fits.taken:
        found.append(
            f"{fault.label}: {taken.node} took over for {taken.why}, not {_or(fits.taken)}"
        )
    if given is None:
        return found
    if not fits.given:
        found.append(f"{fault.label}: {given.node} is dead and tells that it gave up")
    elif given.why not in fits.given:
        found.append(f"{fault.label}: {given.node} gave up for {given.why}, not {_or(fits.given)}")
    elif given.why == HINDERED and (word := WORDS.get(fault.nemesis.split("-")[0], "")) not in (
        given.found
    ):
        found.append(f"{fault.label}: {given.node} gave up for {given.found!r}, not for {word!r}")
    return found


def _or(words: frozenset[str]) -> str:
    return " or ".join(sorted(words))


def contradictions(taken: EventTold, before: EventTold, given: EventTold | None) -> list[str]:
    """Return where a takeover contradicts what the history tells of the holder before.

    Args:
        taken: The takeover.
        before: That of the holder before.
        given: Its end, if it was told.
    """
    found = []
    if taken.previous != before.node:
        found.append(f"{taken.node} names {taken.previous} as the holder before, not {before.node}")
    if (taken.why == RESUMED) != (taken.node == before.node):
        found.append(f"{taken.node} took over from {before.node} and says {taken.why}")
    if taken.why == FIRST:
        found.append(f"{taken.node} says it was the first, after {before.node}")
    if given is None:
        return found
    # A leader whose lease was over may get another one in its term, and hand on before it holds.
    if taken.why == HANDED_OVER and given.why not in GIVEN_FOR_SOMEBODY | {LEASE_EXPIRED}:
        found.append(f"{before.node} handed over to {taken.node} and gave up for {given.why}")
    if taken.why == DAEMON_DIED:
        found.append(f"the daemon of {before.node} died and tells that it gave up: {given.why}")
    return found
