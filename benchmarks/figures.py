"""What one trial shows: pure functions from its history to a few numbers.

A *window* begins with the fault and ends when the trial has waited long enough. Every stream of
probes is judged by when answers arrive: the outage is the longest time without one,
beyond the period of the probes, so what was held up counts like what was lost.

Who acts as the holder is read from packets: ARP frames that claim a floating address,
and new connections that were let through. A router's frames that follow each other closely make
a *spell* during which it holds; what two spells have in common is time with two holders.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from chaos.judge.checkers import Window, connection_problem, outage
from chaos.lab.lab_error import LabError
from chaos.observe.run_history import MS, History, Probes

ENDLESS = math.inf
BACK_MS = 200  # a stream without an answer in the last so many ms has not come back
# A UDP flow is assured after 2 s (nf_conntrack_proto_udp.c); then the backups have to hear it.
ESTABLISHED_NS = 2_500 * MS
# The observer asks every 8 ms for two addresses: six questions in a row went unanswered.
SPELL_NS = 50 * MS


@dataclass(frozen=True, slots=True)
class Figures:
    """One trial; times in milliseconds, `ENDLESS` for what went on at the end of the window.

    Attributes:
        lost: By UDP stream, probes sent in the window that were never answered.
        gap_ms: By UDP stream, the longest time without an answer.
        new_ms: By stream of new connections, the longest time in which none was made.
        again_ms: By the same, when after the fault that time was over. A router whose processes
            are dead may admit connections until its lease ends, so this can be the later.
            Means nothing where `new_ms` is no more than noise.
        arp_ms: For how long two routers spoke for floating addresses.
        two_ms: For how long two routers acted as the holder, by ARP or by admitting connections.
        tcp_dead: The established connections that did not survive, with the reason.
        changes: How often another router became the holder.
        announcements: Gratuitous ARP frames in the window.
    """

    lost: Mapping[str, float]
    gap_ms: Mapping[str, float]
    new_ms: Mapping[str, float]
    again_ms: Mapping[str, float]
    arp_ms: float
    two_ms: float
    tcp_dead: Mapping[str, str]
    changes: int
    announcements: int


@dataclass(frozen=True, slots=True)
class Spell:
    """A time during which a router acted as the holder, from first to last frame."""

    router: str
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class Streams:
    """The names of the streams of a trial, by what they measure."""

    udp: Sequence[str]
    new: Sequence[str]
    tcp: Sequence[str]


def measure(
    history: History, window: Window, streams: Streams, *, unheard: Mapping[str, int]
) -> Figures:
    """Judge a trial.

    Args:
        history: Everything that was seen.
        window: From the fault to the end.
        streams: What to look for.
        unheard: Routers whose frames got nowhere, with the instant from which that was
            certain (monotonic ns). The observer, on the router's cable, sees them all the same.

    Raises:
        LabError: A stream is missing, or a flow was not established when the window began:
            this trial measured nothing.
    """
    probes = {p.workload: p for p in history.probes}
    for name in (*streams.udp, *streams.new, *streams.tcp):
        if name not in probes or not any(probes[name].answered):
            raise LabError(f"the trial says nothing: {name} was never answered")
    for name in streams.udp:
        _require_established(probes[name], window)
    spoke = [(frame.t_ns, frame.router) for frame in history.arp]
    admitted = [(admission.t_ns, admission.router) for admission in history.admissions]
    spoken, held = (
        spells((t, router) for t, router in acts if t < unheard.get(router, window.end_ns))
        for acts in (spoke, spoke + admitted)
    )
    gaps = {name: gap_ms(probes[name], window) for name in streams.udp}
    return Figures(
        lost={
            name: ENDLESS if gaps[name] == ENDLESS else lost(probes[name], window)
            for name in streams.udp
        },
        gap_ms=gaps,
        new_ms={name: gap_ms(probes[name], window) for name in streams.new},
        again_ms={name: again_ms(probes[name], window) for name in streams.new},
        arp_ms=two_ms(spoken, window),
        two_ms=two_ms(held, window),
        tcp_dead=_dead(history, window, streams.tcp),
        changes=changes(spoken, window),
        announcements=sum(f.gratuitous and window.holds(f.t_ns) for f in history.arp),
    )


def lost(probes: Probes, window: Window) -> int:
    """Return how many probes sent in a window were never answered."""
    return sum(
        answer is None and window.holds(sent)
        for sent, answer in zip(probes.sent, probes.answered, strict=True)
    )


def gap_ms(probes: Probes, window: Window) -> float:
    """Return the longest time without an answer in a window, `ENDLESS` if still."""
    if not any(t and window.end_ns - BACK_MS * MS <= t < window.end_ns for t in probes.answered):
        return ENDLESS
    return outage(probes, window).outage_ms


def again_ms(probes: Probes, window: Window) -> float:
    """Return when the longest gap ended, since the window began, `ENDLESS` if it did not."""
    if gap_ms(probes, window) == ENDLESS:
        return ENDLESS
    return (outage(probes, window).end_ns - window.start_ns) / MS


def spells(acted: Iterable[tuple[int, str]]) -> list[Spell]:
    """Return who acted as the holder when, ordered by the beginning."""
    found: dict[str, list[Spell]] = {}
    for t_ns, router in sorted(acted):
        own = found.setdefault(router, [])
        if own and t_ns - own[-1].end_ns <= SPELL_NS:
            own[-1] = Spell(router, own[-1].start_ns, t_ns)
        else:
            own.append(Spell(router, t_ns, t_ns))
    return sorted((s for own in found.values() for s in own), key=lambda s: s.start_ns)


def two_ms(held: Sequence[Spell], window: Window) -> float:
    """Return for how long two routers acted as the holder in a window, `ENDLESS` if still.

    A single frame inside another's spell lasts no time and is wrong nevertheless: whatever
    overlaps counts for a millisecond at least.
    """
    total_ms = 0.0
    for a, b in combinations(held, 2):
        start_ns = max(a.start_ns, b.start_ns, window.start_ns)
        end_ns = min(a.end_ns, b.end_ns, window.end_ns)
        if a.router == b.router or start_ns > end_ns:
            continue
        if end_ns >= window.end_ns - SPELL_NS:
            return ENDLESS
        total_ms += max(1.0, (end_ns - start_ns) / MS)
    return total_ms


def changes(held: Sequence[Spell], window: Window) -> int:
    """Return how often, in a window, a spell began of another router than the one before."""
    count = 0
    for before, spell in pairwise(held):
        count += spell.router != before.router and window.holds(spell.start_ns)
    return count


def _dead(history: History, window: Window, names: Sequence[str]) -> dict[str, str]:
    probes = {p.workload: p for p in history.probes}
    ends = {c.workload: c for c in history.connections}
    dead = {}
    for name in names:
        problem = "no end was recorded"
        if name in ends:
            problem = connection_problem(ends[name], probes.get(name), [window]) or ""
        if problem:
            dead[name] = problem
    return dead


def _require_established(probes: Probes, window: Window) -> None:
    first_ns = next(t for t in probes.answered if t is not None)
    if window.start_ns - first_ns < ESTABLISHED_NS:
        age_ms = (window.start_ns - first_ns) / MS
        raise LabError(f"the trial says nothing: {probes.workload} was only {age_ms:.0f} ms old")
