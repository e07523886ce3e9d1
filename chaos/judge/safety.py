"""Judge what may never happen, whatever is done to the cluster: pure functions of the history.

Faults excuse nothing here. A router that nobody hears is judged as well: the observer listens on
its cable, before the switch drops anything.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from chaos.judge import queued_packets
from chaos.judge.checkers import Valid, Verdict
from chaos.judge.spells import Spell, acts, holder_at, spells, tenures
from chaos.lab.topology import DEVICES, floating
from chaos.observe.run_history import MS, ArpSeen, CarriedSeen, History, Injection

# Two kernel ticks at HZ=250, by which a timeout may be late, and the slice of the observer.
CARRY_TOLERANCE_MS = 25.0
SHORT_NS = 300 * MS  # a tenure so short need not have told everybody
PULLED = {"link-public": ("public",), "link-private": ("private",), "link-both": tuple(DEVICES)}
# An undoing is noted before it is done, cable by cable, and a router has to notice.
PLUGGING_NS = 20 * MS
ANSWER_MS = 60.0  # the observer asks every 8 ms
EXAMPLES_MAX = 10


def one_holder(history: History) -> Verdict:
    """Check that at no instant two routers answer ARP or ND, or admit new connections."""
    if not history.arp:
        return Verdict("one-holder", "unknown", "nobody was seen to answer")
    if not history.admissions:
        return Verdict("one-holder", "unknown", "no new connection was seen")
    overlaps = []
    open_until: list[Spell] = []
    for spell in spells(acts(history)):
        open_until = [other for other in open_until if other.end_ns >= spell.start_ns]
        overlaps += [
            (min(other.end_ns, spell.end_ns) - spell.start_ns, other.router, spell)
            for other in open_until
            if other.router != spell.router
        ]
        open_until.append(spell)
    most_ms = max((o[0] for o in overlaps), default=0) / MS
    count = len(acts(history))
    text = f"{count} claims and new connections; two routers at once: {most_ms:.1f} ms at most"
    if not overlaps:
        text = f"{count} claims and new connections, never two routers at once"
    if history.kept:
        text += f"; {len(history.kept)} more were kept by a kernel while a cable was pulled"
    examples = [
        {
            "ms": round(overlap / MS, 3),
            "routers": [other, spell.router],
            "t_ns": spell.start_ns,
            "during": during(history.injections, spell.start_ns),
        }
        for overlap, other, spell in overlaps[:EXAMPLES_MAX]
    ]
    evidence = {"overlap_ms": most_ms, "overlaps": examples}
    return _seen_all(history, Verdict("one-holder", not overlaps, text, evidence))


def _seen_all(history: History, verdict: Verdict) -> Verdict:
    """Return a verdict as it is, unless it is good and the observer missed something."""
    missed = sum(drop.frames for drop in history.dropped)
    if not missed or verdict.valid is not True:
        return verdict
    text = f"{verdict.summary}; but {missed} frames were not seen, for want of room"
    return replace(verdict, valid="unknown", summary=text)


def during(injections: Sequence[Injection], t_ns: int) -> str:
    """Return what was done last before an instant."""
    label = "no fault"
    for injection in injections:
        if injection.heal_ns is not None and injection.heal_ns <= t_ns:
            label = f"heal {injection.label}"
        elif injection.t_ns <= t_ns:
            label = injection.label
    return label


def carried_in_time(history: History, lease_ms: float, grace_ms: float) -> Verdict:
    """Check that nobody carries flows under way later than the grace after its lease.

    When a lease ended is seen twice from outside: another router has begun to act, or this one
    has not acted for the length of a lease (it would have, being asked every 8 ms; one that
    is not asked because nothing reaches it carries nothing either).
    """
    if not history.carried:
        return Verdict("carried", "unknown", "no packet of a flow was seen")
    acted: dict[str, list[int]] = {}
    for t_ns, router in sorted((act.t_ns, act.router) for act in acts(history)):
        acted.setdefault(router, []).append(t_ns)
    begun = [(t.start_ns, t.router) for t in tenures(history)]
    grace_ns = (grace_ms + CARRY_TOLERANCE_MS) * MS
    beyond: list[tuple[float, CarriedSeen]] = []
    most_ns = 0.0
    for seen in history.carried:
        since_ns = _since_other(begun, seen)
        silent_ns = _since_own(acted.get(seen.router, []), seen.last_ns) - lease_ms * MS
        beyond_ns = max(since_ns, silent_ns) - grace_ns
        if beyond_ns > 0:
            beyond.append((beyond_ns / MS, seen))
        else:
            most_ns = max(most_ns, since_ns)
    bare, _, bursts = queued_packets.split([seen for _, seen in beyond], history.injections)
    judged = set(map(id, bare))
    late = [(ms, seen) for ms, seen in beyond if id(seen) in judged]
    text = f"after another router began, flows were carried for {most_ns / MS:.0f} ms at most"
    if bursts:
        text += f"; {bursts} late bursts of what a kernel had kept"
    if late:
        worst_ms, seen = max(late, key=lambda pair: pair[0])
        text = f"{seen.router} carried flows {worst_ms:.0f} ms longer than the grace"
    examples = [
        {"router": s.router, "beyond_ms": ms, "t_ns": s.t_ns, "during": during(
            history.injections, s.t_ns)}
        for ms, s in late[:EXAMPLES_MAX]
    ]  # fmt: skip
    evidence = {"most_ms": most_ns / MS, "late": examples, "kept_bursts": bursts}
    return _seen_all(history, Verdict("carried", not late, text, evidence))


def _since_other(begun: Sequence[tuple[int, str]], seen: CarriedSeen) -> float:
    """Return for how long another router's tenure had been running, 0 in one's own."""
    index = bisect.bisect_right(begun, (seen.last_ns, "~")) - 1
    since = 0.0
    # Back to its own last tenure: the first that began after it counts.
    while index >= 0 and begun[index][1] != seen.router:
        since = float(seen.last_ns - begun[index][0])
        index -= 1
    return since


def _since_own(acted: Sequence[int], t_ns: int) -> float:
    index = bisect.bisect_right(acted, t_ns) - 1
    after = index + 1 < len(acted)
    if index < 0:
        # Of one that has just taken over the flows are carried before it is asked.
        return 0.0 if after and acted[index + 1] - t_ns < SHORT_NS else float("inf")
    if after and acted[index + 1] - t_ns < ANSWER_MS * MS:
        return 0.0
    return float(t_ns - acted[index])


def one_for_all(history: History, addresses: Sequence[str], bounds: tuple[int, int]) -> Verdict:
    """Check that whenever all is well, one router speaks for all floating addresses."""
    quiet = quiet_times(history.injections, bounds)
    found: list[str] = []
    for start_ns, until_ns in quiet:
        inside = [a for a in history.arp if start_ns <= a.t_ns < until_ns]
        speakers: dict[str, set[str]] = {address: set() for address in addresses}
        for seen in inside:
            speakers.setdefault(seen.address, set()).add(seen.router)
        if len({frozenset(names) for names in speakers.values()}) != 1 or set() in (
            speakers.values()
        ):
            told = ", ".join(f"{n}: {'+'.join(sorted(w)) or 'nobody'}" for n, w in speakers.items())
            found.append(f"after {during(history.injections, start_ns)}: {told}")
    text = f"one router spoke for all {len(addresses)} in {len(quiet)} quiet times"
    valid: Valid = not found if quiet else "unknown"
    return Verdict(
        "both-addresses", valid, "; ".join(found[:3]) or text, {"apart": found[:EXAMPLES_MAX]}
    )


def quiet_times(injections: Sequence[Injection], bounds: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the times from when all was well to the next fault; the first begins with `bounds`."""
    start_ns, end_ns = bounds
    settled = {i.settled_ns for i in injections if i.settled_ns is not None}
    found = []
    for since_ns in sorted({start_ns, *settled}):
        until_ns = min((i.t_ns for i in injections if i.t_ns > since_ns), default=end_ns)
        if since_ns < until_ns:
            found.append((since_ns, until_ns))
    return found


def announced(history: History, addresses: Sequence[str]) -> Verdict:
    """Check that every new holder announced every address, and that hosts learnt it."""
    held = tenures(history)
    missing = []
    for _, tenure in pairwise(held):
        if tenure.end_ns - tenure.start_ns <= SHORT_NS:
            continue
        told = {
            a.address
            for a in history.arp
            if a.gratuitous
            and a.router == tenure.router
            and tenure.start_ns <= a.t_ns <= tenure.end_ns
        }
        label = during(history.injections, tenure.start_ns)
        unheard = _beyond_pulled_cables(history.injections, tenure)
        missing += [f"{tenure.router} {a} ({label})" for a in addresses if a not in told | unheard]
    macs = {(a.router, a.address): a.mac for a in history.arp}
    wrong = []
    for seen in history.neighbours:
        holder = holder_at(held, seen.t_ns)
        own = macs.get((holder or "", seen.address))
        if seen.mac is not None and own is not None and seen.mac != own:
            wrong.append(f"{seen.host} sends to {seen.mac}, not to {holder}")
    problems = [f"never announced: {name}" for name in missing] + wrong
    known = sum(n.mac is not None for n in history.neighbours)
    text = f"{max(0, len(held) - 1)} takeovers announced; hosts were right {known} times of {known}"
    evidence = {"problems": problems[:EXAMPLES_MAX]}
    valid: Valid = not problems if known else "unknown"
    return Verdict("announced", valid, "; ".join(problems[:3]) or text, evidence)


def _beyond_pulled_cables(injections: Sequence[Injection], tenure: Spell) -> set[str]:
    """Return the addresses on networks to which a holder had no cable all the time it held."""
    return {
        address
        for injection in injections
        for network in PULLED.get(injection.nemesis, ())
        for address in floating(network)
        if tenure.router in injection.nodes
        and injection.t_ns <= tenure.start_ns
        and (injection.heal_ns is None or tenure.end_ns <= injection.heal_ns + PLUGGING_NS)
    }


def announced_last(history: History) -> Verdict:
    """Check that who announces an address is ready to answer for it: state first, announce last.

    A router that announces and does not answer soon draws packets that it drops. Not judged
    where a fault hits that router: it may announce and not be asked.
    """
    late: dict[str, float] = {}
    judged = 0
    held = tenures(history)
    for tenure in held[1:]:
        active = [i for i in history.injections if i.holds(tenure.start_ns)]
        hit = any(tenure.router in (*i.out, *i.hindered) for i in active)
        if hit or tenure.end_ns - tenure.start_ns < SHORT_NS:
            continue
        took = _slowest_answer(history.arp, tenure)
        if took is None:
            continue
        judged += 1
        told_ns, answered_ns = took
        took_ms = (answered_ns - told_ns) / MS
        near = (s.late_ns for s in history.stalls if abs(s.t_ns - told_ns) < SHORT_NS)
        if took_ms > ANSWER_MS + sum(near) / MS:
            label = f"{tenure.router}, {during(history.injections, tenure.start_ns)}"
            late[label] = round(took_ms, 1)
    text = f"{judged} takeovers: the first answer came at once after the announcement"
    if late:
        text = "announced before it answered: " + ", ".join(
            f"{label} ({ms:.0f} ms)" for label, ms in late.items()
        )
    valid: Valid = not late
    if len(held) > 1 and not judged:
        valid, text = "unknown", f"none of {len(held) - 1} takeovers could be judged"
    return Verdict("announced-last", valid, text, {"late_ms": late})


def _slowest_answer(claims: Sequence[ArpSeen], tenure: Spell) -> tuple[int, int] | None:
    """Return when an address was announced first, and answered for; of that which took longest.

    None if none was announced; one that was never answered for counts to the end of the tenure.
    """
    told: dict[str, int] = {}
    answered: dict[str, int] = {}
    for claim in claims:
        if claim.router == tenure.router and tenure.start_ns <= claim.t_ns <= tenure.end_ns:
            first = told if claim.gratuitous else answered
            first.setdefault(claim.address, claim.t_ns)
    both = [(t_ns, answered.get(address, tenure.end_ns)) for address, t_ns in told.items()]
    return max(both, key=lambda pair: pair[1] - pair[0], default=None)
