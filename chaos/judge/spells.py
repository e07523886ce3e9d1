"""Who acted as the holder when, read from packets alone.

A router acts when it speaks for a floating address (an ARP frame with that sender, a neighbour
advertisement for it) or lets a client's new connection through. Frames of one router that follow
each other closely make a *spell*: it held all that time. A *tenure* is a series of spells with
no other router's between.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chaos.observe.run_history import MS, AdmissionSeen, ArpSeen, History, Injection

# The observer asks every 8 ms for each address: six questions in a row went unanswered.
SPELL_NS = 50 * MS
SAME_NS = 30_000 * MS  # later the same ends are another connection
DAMPED_NS = 10_000 * MS  # for so long hanat gives up for the same reason once


@dataclass(frozen=True, slots=True)
class Spell:
    """A time during which a router acted as the holder, from first to last frame."""

    router: str
    start_ns: int
    end_ns: int


def sent_first(admissions: Iterable[AdmissionSeen]) -> list[AdmissionSeen]:
    """Return those of which a router let the first packet through, in order.

    A client that hears no answer sends its first packet again, after a second (RFC 6298, section
    2); the router that has its flow carries that as any other packet, also in its time of grace.
    """
    last: dict[tuple[str, str, str], int] = {}
    found = []
    for seen in admissions:
        ends = seen.router, seen.source, seen.target
        if not seen.source or seen.t_ns - last.get(ends, -SAME_NS) >= SAME_NS:
            found.append(seen)
        last[ends] = seen.t_ns
    return found


def acts(history: History) -> list[ArpSeen | AdmissionSeen]:
    """Return what routers did as holders."""
    return [*history.arp, *sent_first(history.admissions)]


def spells(seen: Iterable[ArpSeen | AdmissionSeen]) -> list[Spell]:
    """Return the spells of all routers, by their beginning."""
    last: dict[str, Spell] = {}
    found: list[Spell] = []
    for act in sorted(seen, key=lambda act: act.t_ns):
        spell = last.get(act.router)
        if spell is not None and act.t_ns - spell.end_ns <= SPELL_NS:
            last[act.router] = Spell(act.router, spell.start_ns, act.t_ns)
            continue
        if spell is not None:
            found.append(spell)
        last[act.router] = Spell(act.router, act.t_ns, act.t_ns)
    return sorted([*found, *last.values()], key=lambda s: (s.start_ns, s.end_ns))


def tenures(history: History) -> list[Spell]:
    """Return who held after whom: spells of one router in a row are one tenure."""
    found: list[Spell] = []
    for spell in spells(acts(history)):
        if found and found[-1].router == spell.router:
            end_ns = max(found[-1].end_ns, spell.end_ns)
            found[-1] = Spell(spell.router, found[-1].start_ns, end_ns)
        else:
            found.append(spell)
    return found


def holder_at(held: Sequence[Spell], t_ns: int) -> str | None:
    """Return whose tenure had begun last at an instant."""
    name = None
    for tenure in held:
        if tenure.start_ns > t_ns:
            break
        name = tenure.router
    return name


def damped(history: History, held: Sequence[Spell], injection: Injection) -> bool:
    """Whether a hindrance of the holder comes too soon after one for which it gave up before.

    So that addresses do not go to and fro, a node gives up only once in `DAMPED_NS` for the same
    reason; which of hanat's reasons are the same is not asked here, nor whether another held:
    `held` are spells, not tenures.
    """
    holder = injection.holder
    if holder is None or holder not in injection.hindered:
        return False
    ends = [spell.end_ns for spell in held if spell.router == holder]
    return any(
        i.holds(end_ns) and holder in i.hindered
        for end_ns in ends
        for i in history.injections
        if i is not injection and injection.t_ns - DAMPED_NS <= end_ns <= injection.t_ns
    )
