"""Judge what users see: outages within bounds, connections that live, answers that are right."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise

from chaos.judge.checkers import Outage, Valid, Verdict, outage
from chaos.judge.safety import EXAMPLES_MAX, during, quiet_times
from chaos.judge.segments import Segment
from chaos.judge.server_outages import excused, lagged
from chaos.judge.spells import Spell, holder_at, tenures
from chaos.observe.observed import Lag, Stall
from chaos.observe.run_history import MS, Connection, History, Injection

ALIVE_NS = 2_500 * MS  # a connection has exchanged something in the last so many ms
SWITCHOVER = "switchover"
FLUSH = "nft-flush"
RESET_NS = 3_000 * MS
BLAME_NS = 2_000 * MS  # how long after its end a fault may still move the holder


def worst_by_nemesis(history: History, cut: Sequence[Segment], names: Sequence[str]) -> dict[
    str, dict[str, float]
]:  # fmt: skip
    """Return the longest outage in ms, by nemesis and stream, of what is judged."""
    found: dict[str, dict[str, float]] = {}
    for segment in cut:
        if not segment.judged:
            continue
        for probes in history.probes:
            if probes.workload in names and probes.workload not in segment.unjudged:
                row = found.setdefault(segment.nemesis, {})
                ms = round(outage(probes, segment.window).outage_ms, 1)
                row[probes.workload] = max(ms, row.get(probes.workload, 0.0))
    return found


def times_by_nemesis(history: History, cut: Sequence[Segment]) -> dict[str, dict[str, int]]:
    """Return how often each nemesis was done, judged and held against a bound for outages.

    Judged is one that was undone and after which all was well: every check had it before it.
    """
    bounded = {segment.start_ns for segment in cut if segment.judged}
    found: dict[str, dict[str, int]] = {}
    for i in history.injections:
        row = found.setdefault(i.nemesis, {"done": 0, "judged": 0, "bounded": 0})
        row["done"] += 1
        row["judged"] += i.settled_ns is not None
        row["bounded"] += i.t_ns in bounded or i.heal_ns in bounded
    return found


def outages_bounded(history: History, cut: Sequence[Segment], names: Sequence[str]) -> Verdict:
    """Check every outage of every stream against what the segment's opening allows.

    While the observer itself was kept from a core, so were clients and routers: that much longer
    an outage may be. What stalls allowed is in the evidence.
    """
    streams = {p.workload: p for p in history.probes}
    silent = [name for name in names if name not in streams or not any(streams[name].answered)]
    if silent:
        valid: Valid = False if history.probes else "unknown"
        return Verdict("outage", valid, f"no probe was ever answered: {', '.join(silent)}")
    judged = [segment for segment in cut if segment.judged]
    too_long, excused = [], 0
    worst: tuple[float, Outage, Segment] | None = None
    for segment in judged:
        for name in (n for n in names if n not in segment.unjudged):
            found = outage(streams[name], segment.window)
            share = found.outage_ms / segment.limit_ms
            if worst is None or share > worst[0]:
                worst = (share, found, segment)
            if found.outage_ms <= segment.limit_ms:
                continue
            stalls: tuple[Stall | Lag, ...]
            stalls = (*history.stalls, *history.lags) if segment.of_servers else history.stalls
            if found.outage_ms <= segment.limit_ms + _stalled_ms(stalls, found):
                excused += 1
            else:
                too_long.append(_told(found, segment))
    if worst is None:
        return Verdict("outage", "unknown", "nothing was promised at any time")
    text = f"{len(judged)} times judged, nearest to its bound: {_told(worst[1], worst[2])}"
    if too_long:
        text = f"{len(too_long)} too long: {'; '.join(too_long[:3])}"
    if excused:
        text += f"; {excused} excused by stalls of the machine"
    evidence = {"too_long": too_long[:EXAMPLES_MAX], "excused": excused}
    return Verdict("outage", not too_long, text, evidence)


def _stalled_ms(stalls: Sequence[Stall | Lag], found: Outage) -> float:
    """Return for how long the machine stood still in an outage, all stalls together."""
    return sum(
        max(0, min(s.t_ns + s.late_ns, found.end_ns) - max(s.t_ns, found.start_ns))
        for s in stalls
    ) / MS  # fmt: skip


def _told(found: Outage, segment: Segment) -> str:
    return (
        f"{found.workload} {found.outage_ms:.0f} ms of {segment.limit_ms:.0f} after {segment.label}"
    )


def nothing_corrupt(history: History) -> Verdict:
    """Check that every answer is the one that was asked for: no corruption, loss or repetition."""
    exchanges = sum(c.exchanges for c in history.connections)
    bad = {p.workload: p.corrupt for p in history.probes if p.corrupt}
    bad |= {c.workload: c.payload_errors for c in history.connections if c.payload_errors}
    text = f"{exchanges} payloads over TCP and all UDP answers came back as they were sent"
    if bad:
        text = "wrong answers: " + ", ".join(f"{n} of {name}" for name, n in bad.items())
    valid: Valid = not bad if exchanges else "unknown"
    return Verdict("payload", valid, text, {"corrupt": bad})


def connections_survive(history: History, expected: Collection[str], end_ns: int) -> Verdict:
    """Check that connections opened before the first fault live to the end.

    One that a flush of the rules has reset is excused, and one whose server was down, and the next
    of its client judged.
    """
    ended = excused(history)
    with_server = 0
    streams = {p.workload: p for p in history.probes}
    dead: dict[str, str] = {}
    resets = 0
    for name in expected:
        mine = [c for c in history.connections if c.workload == name]
        if not mine or mine[0].opened_ns is None:
            dead[name] = f"never opened: {mine[0].error if mine else 'no such client'}"
            continue
        bad = [c for c in mine if c.error and not _flushed(history, c) and id(c) not in ended]
        with_server += sum(id(c) in ended for c in mine)
        resets += sum(c.error is not None and id(c) not in ended for c in mine) - len(bad)
        answers = [t for t in streams[name].answered if t is not None] if name in streams else []
        last_ns = max(answers, default=0)
        if bad:
            dead[name] = f"{bad[0].error} after {during(history.injections, bad[0].ended_ns)}"
        elif last_ns < end_ns - ALIVE_NS:
            dead[name] = f"silent since {during(history.injections, last_ns)}"
    text = f"{len(expected) - len(dead)}/{len(expected)} established connections survived"
    text += f"; {resets} were reset by a flush of the rules" if resets else ""
    text += f"; {with_server} ended with their server" if with_server else ""
    text += "".join(f"; {name}: {why}" for name, why in dead.items())
    return Verdict("connections", not dead, text, {"dead": dead, "resets": resets})


def _flushed(history: History, connection: Connection) -> bool:
    """Whether a connection was reset because somebody flushed a router's rules.

    Without any table of type ``nat`` a kernel stops to translate, and answers for itself.
    """
    if "ConnectionResetError" not in (connection.error or ""):
        return False
    return any(
        i.nemesis == FLUSH and 0 <= connection.ended_ns - i.t_ns <= RESET_NS
        for i in history.injections
    )


def requests_succeed(history: History, bounds: tuple[int, int]) -> Verdict:
    """Check that every request that was made while all was well succeeded.

    One that timed out is no failure by itself: it is not known what became of it, so it is not
    known either whether all succeeded. If none did, that is known well enough.
    """
    bad, made, good, unknown, busy = [], 0, 0, 0, 0
    for start_ns, until_ns in quiet_times(history.injections, bounds):
        for request in history.requests:
            if start_ns <= request.t_ns and request.end_ns < until_ns:
                made += 1
                good += request.outcome == "ok"
                unknown += request.outcome == "info"
                if request.outcome == "fail" and lagged(history, request.end_ns):
                    busy += 1
                elif request.outcome == "fail":
                    label = during(history.injections, request.t_ns)
                    bad.append(f"{request.error} after {label}")
    counts = {o: sum(r.outcome == o for r in history.requests) for o in ("ok", "fail", "info")}
    text = (
        f"{made} requests in quiet times, {len(bad)} failed, {unknown} unknown; "
        f"of all {counts['ok']} ok, {counts['fail']} failed, {counts['info']} timed out"
    )
    text += f"; {busy} excused, checkers had no core" if busy else ""
    text += "".join(f"; {problem}" for problem in bad[:3])
    valid: Valid = "unknown" if unknown or not made else True
    if bad or (made and not good):
        valid = False
    return Verdict("http", valid, text, {"counts": counts, "bad": bad[:EXAMPLES_MAX]})


def stayed(history: History, cut: Sequence[Segment], spare_ms: float) -> Verdict:
    """Check that the addresses moved only from a router that a fault had hit, or on demand.

    A takeover after the machine stood still for longer than a beacon may be late is counted, not
    judged.
    """
    needless: list[str] = []
    excused: list[str] = []
    moves = 0
    held = tenures(history)
    for before, after in pairwise(held):
        moves += 1
        t_ns = after.start_ns
        if any(_explains(injection, before, after) for injection in history.injections):
            continue
        if any(_nobody_could_hold(segment, before, t_ns) for segment in cut):
            continue
        label = f"{before.router}→{after.router} after {during(history.injections, t_ns)}"
        stalled_ns = max(
            (s.late_ns for s in history.stalls if t_ns - BLAME_NS <= s.t_ns <= t_ns), default=0
        )
        (excused if stalled_ns >= spare_ms * MS else needless).append(label)
    text = f"{moves} moves, each from a router that was hit, or on demand"
    if excused:
        text = f"{moves} moves, {len(excused)} of them while the machine stood still"
    if needless:
        text = f"{len(needless)} needless moves: {', '.join(needless[:3])}"
    evidence = {"needless": needless, "excused": excused}
    return Verdict("stayed", not needless, text, evidence)


def handed_over(history: History) -> Verdict:
    """Check that whoever an operator asked to hold was the next to hold.

    Only those that `bare_switchovers` returns are judged.
    """
    held = tenures(history)
    wrong = []
    judged = bare_switchovers(history)
    for asked, end_ns in judged:
        target = asked.nodes[0]
        following = (t.router for t in held if asked.t_ns < t.start_ns < end_ns)
        name = next(following, holder_at(held, asked.t_ns))
        if name != target:
            wrong.append(f"{target} was asked for, then {name or 'nobody'} held")
    valid: Valid = not wrong if judged else "unknown"
    text = f"{len(judged)} switchovers, the one that was asked for held next"
    return Verdict(SWITCHOVER, valid, "; ".join(wrong[:3]) or text, {"wrong": wrong[:EXAMPLES_MAX]})


def bare_switchovers(history: History) -> list[tuple[Injection, int]]:
    """Return each switchover that no other fault disturbs, and until when none does.

    Disturbed is one beside a fault that was in force and hit one of the two, and one after which
    the run ended before all was well again and before the next fault.
    """
    held = tenures(history)
    found = []
    for asked in (i for i in history.injections if i.nemesis == SWITCHOVER):
        target = asked.nodes[0]
        concerned = {target, holder_at(held, asked.t_ns)}
        before = [i for i in history.injections if i is not asked and i.t_ns <= asked.t_ns]
        hit = (i for i in before if i.settled_ns is None or i.settled_ns > asked.t_ns)
        if any(not i.nodes or concerned & {*i.nodes} for i in hit):
            continue
        later = [i.t_ns for i in history.injections if i is not asked and i.t_ns > asked.t_ns]
        if asked.settled_ns is not None:
            later.append(asked.settled_ns)
        if later:
            found.append((asked, min(later)))
    return found


def _explains(injection: Injection, before: Spell, after: Spell) -> bool:
    """Whether a fault, or an operator's wish, may be why one router took over from another."""
    t_ns = after.start_ns
    if injection.stays and (injection.heal_ns is None or t_ns < injection.heal_ns):
        return False
    until_ns = t_ns if injection.heal_ns is None else injection.heal_ns + BLAME_NS
    moved = after if injection.nemesis == SWITCHOVER else before
    hit = moved.router in injection.nodes or injection.severs
    return hit and injection.t_ns <= t_ns <= until_ns


def _nobody_could_hold(segment: Segment, before: Spell, t_ns: int) -> bool:
    """Whether between two tenures there was a time when nobody could hold, or just before.

    That no bound is promised for outages excuses nothing here: a holder that no fault hits has
    to stay while a stranger claims its address or a backup's cable carries nothing.
    """
    begun = segment.start_ns <= t_ns
    return not segment.serviceable and begun and before.end_ns < segment.end_ns + BLAME_NS
