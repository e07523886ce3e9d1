"""Judge how servers that ail, and a holder that sees none, are felt: pure functions of the history.

Where a new connection goes is what packets say: the first packet of each, as it comes out of a
router's private cable, names the server. Nothing here asks hanat what it thinks of a server.

From when on a dead server must be known follows from the lab's checks, counted from the outage's
beginning. A new holder starts from the verdicts that are committed and counts anew what is not:
so a takeover before that time begins it anew, one after it excuses nothing. The same holds while
a fault hits the holder itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from chaos.faults.bounds import BACK_MS, BLIND_MS, DETECT_MS, MAY_FALL_MS
from chaos.judge.checkers import Valid, Verdict
from chaos.judge.safety import EXAMPLES_MAX, during
from chaos.judge.spells import SAME_NS, Spell, holder_at, tenures
from chaos.lab.node_files import CHECK_TIMEOUT_MS
from chaos.lab.topology import SERVERS, server_addresses
from chaos.observe.observed import ServerOutage
from chaos.observe.run_history import MS, AdmissionSeen, Connection, History, Injection, Request
from chaos.workloads.tcp import ANSWER_S, CLOSED, SILENT

BLIND = "blind-holder"
DETECT_NS, BACK_NS, BLIND_NS = (round(ms * MS) for ms in (DETECT_MS, BACK_MS, BLIND_MS))
MAY_FALL_NS = round(MAY_FALL_MS * MS)
WAIT_NS = 1_000 * MS
LAG_NS = 3 * CHECK_TIMEOUT_MS * MS // 10  # in some 200 ms: a probe may take its timeout
LAGGED_NS = 5_000 * MS  # fell, was reset, and came back
RESET_NS = 3_000 * MS  # a client notices at its next packet; retransmissions double
SENT_NS = 100 * MS  # how much earlier it may have begun to wait
AGAIN_NS = 60_000 * MS  # so often a holder hands over because it is blind
POOL_NS = 250 * MS
POOL_MIN = 12  # new connections in a slice that say who is in rotation

# As routers damp routes that flap, RFC 2439: 1000 for a fall, 3000 is too much, 750 good again.
PENALTY, CUTOFF, REUSE, HALF_LIFE_NS = 1000.0, 3000.0, 750.0, 60_000 * MS


def host_of(target: str) -> str | None:
    """Return which server an end of a connection is of, None if of none."""
    address = target.rpartition(":")[0].strip("[]")
    return next((host for host in SERVERS if address in server_addresses(host)), None)


@dataclass(frozen=True, slots=True)
class Opened:
    """A new connection of a client, when its first packet left for a server."""

    t_ns: int
    source: str
    host: str
    version: int


def opened(admissions: Sequence[AdmissionSeen]) -> list[Opened]:
    """Return the new connections to servers, in order; packets that are sent again are none."""
    last: dict[tuple[str, str], int] = {}
    found = []
    for seen in admissions:
        host = host_of(seen.target) if seen.network == "private" else None
        if host is None:
            continue
        ends = seen.source, seen.target
        if seen.t_ns - last.get(ends, -SAME_NS) >= SAME_NS:
            found.append(Opened(seen.t_ns, seen.source, host, seen.version))
        last[ends] = seen.t_ns
    return found


@dataclass(frozen=True, slots=True)
class Trouble:
    """A time in which the holder, or who is to hold, need not notice anything."""

    start_ns: int
    end_ns: float


def troubles_of(history: History, held: Sequence[Spell]) -> list[Trouble]:
    """Return takeovers, and the times in which faults hit who holds, by their beginning."""
    found = [Trouble(before.end_ns, after.start_ns) for before, after in pairwise(held)]
    ends: list[float] = [*(after.start_ns for after in held[1:]), math.inf]
    for injection in history.injections:
        if injection.servers:
            continue
        heal_ns = math.inf if injection.heal_ns is None else injection.heal_ns
        found += [
            Trouble(max(injection.t_ns, tenure.start_ns), min(heal_ns, end_ns))
            for tenure, end_ns in zip(held, ends, strict=True)
            if (tenure.router in injection.nodes or injection.severs)
            and injection.t_ns < end_ns
            and tenure.start_ns < heal_ns
        ]
    return sorted(found, key=lambda t: t.start_ns)


def lagged(history: History, t_ns: int) -> bool:
    """Whether a living server may have been taken for dead just before, for want of a core."""
    return any(
        lag.late_ns >= LAG_NS and 0 <= t_ns - lag.t_ns <= lag.late_ns + LAGGED_NS
        for lag in history.lags
    )


def later(history: History, since_ns: float, ns: int) -> float:
    """Return when so much time is over, without what checkers waited for a core meanwhile."""
    waits = [(lag.t_ns, lag.late_ns) for lag in history.lags]
    waits += [(stall.t_ns, stall.late_ns) for stall in history.stalls]
    until_ns, before_ns = since_ns + ns, since_ns
    while before_ns < until_ns < math.inf:
        before_ns = until_ns
        until_ns = since_ns + ns + sum(late for t, late in waits if since_ns <= t < before_ns)
    return until_ns


def known_from(history: History, outage: ServerOutage, troubles: Sequence[Trouble]) -> float:
    """Return from when on an outage must be known, ns; it may be over by then."""
    return known_after(history, outage.t_ns, DETECT_NS, troubles)


def known_after(history: History, t_ns: int, ns: int, troubles: Sequence[Trouble]) -> float:
    """Return from when on what happened must be known, which takes so long, ns."""
    since: float = t_ns
    for trouble in troubles:
        if since <= trouble.end_ns and trouble.start_ns < later(history, since, ns):
            since = trouble.end_ns
    return later(history, since, ns)


def judged(history: History) -> list[tuple[ServerOutage, float]]:
    """Return the outages that last longer than it takes to notice them, and from when on."""
    troubles = troubles_of(history, tenures(history))
    found = [(outage, known_from(history, outage, troubles)) for outage in history.outages]
    return [(outage, from_ns) for outage, from_ns in found if from_ns < outage.end_ns]


def checkers(history: History) -> list[tuple[str, Callable[[History], Verdict]]]:
    """Return the checkers for which something happened, by name."""
    found: list[tuple[str, Callable[[History], Verdict]]] = []
    if judged(history):
        found.append(("dead-server", dead_server))
    if history.outages:
        found += [("undisturbed", undisturbed), ("rotation", rotation)]
    if blind_faults(history):
        found.append((BLIND, blind_holder))
    return found


def dead_server(history: History) -> Verdict:
    """Check that no new connection opens on a server that is known to be down."""
    name = "dead-server"
    outages, made = judged(history), opened(history.admissions)
    if not outages or not made:
        return Verdict(name, "unknown", "no server was down for long enough, or nobody connected")
    wrong, worst_ns = [], 0.0
    for outage, from_ns in outages:
        late = [o for o in made if o.host == outage.server and from_ns <= o.t_ns < outage.end_ns]
        if late:
            worst_ns = max(worst_ns, late[-1].t_ns - outage.t_ns)
            label = during(history.injections, late[0].t_ns)
            wrong.append(f"{len(late)} on {outage.server}, {outage.how} ({label})")
    last_ns = max((_last_ns(made, outage) for outage, _ in outages), default=0)
    text = (
        f"{len(outages)} outages of servers; the last new connection on one came "
        f"{last_ns / MS:.0f} ms after its beginning"
    )
    if wrong:
        text = (
            f"new connections on a dead server up to {worst_ns / MS:.0f} ms after it went down: "
            f"{'; '.join(wrong[:3])}"
        )
    return Verdict(name, not wrong, text, {"wrong": wrong[:EXAMPLES_MAX]})


def _last_ns(made: Sequence[Opened], outage: ServerOutage) -> int:
    inside = (
        o.t_ns for o in made if o.host == outage.server and outage.t_ns <= o.t_ns < outage.end_ns
    )
    return max((t_ns - outage.t_ns for t_ns in inside), default=0)


def undisturbed(history: History) -> Verdict:
    """Check that while a server is down, requests to the living ones succeed as ever.

    A request that went to the dead server before that was known may fail, or wait for its client's
    own timeout: of a connection without a packet nobody can be told.
    """
    made_to = {(o.source, o.host) for o in opened(history.admissions)}
    hosts = dict(made_to)
    troubles = troubles_of(history, tenures(history))
    wrong: list[str] = []
    met = made = busy = 0
    for outage in history.outages:
        from_ns = known_from(history, outage, troubles)
        for request in _between(history.requests, outage.t_ns, outage.end_ns):
            if _disturbed(history, request.t_ns, request.end_ns):
                continue
            made += 1
            took_ns = request.end_ns - request.t_ns
            if request.outcome == "ok" and took_ns <= WAIT_NS:
                continue
            host = request.server or hosts.get(request.source)
            # Led elsewhere later, it has waited for the next packet of its client.
            if (request.source, outage.server) in made_to and request.t_ns < from_ns:
                met += 1
                continue
            if lagged(history, request.end_ns):
                busy += 1
                continue
            what = request.error or f"waited {took_ns / MS:.0f} ms"
            wrong.append(f"{what} at {host or 'nobody'}, {outage.server} {outage.how}")
    text = f"{made} requests while a server was down; {met} met it before that was known"
    text += f"; {busy} excused, checkers had no core" if busy else ""
    if wrong:
        text = f"{len(wrong)} of {made} requests were disturbed: {'; '.join(wrong[:3])}"
    valid: Valid = not wrong if made else "unknown"
    evidence = {"wrong": wrong[:EXAMPLES_MAX], "met": met, "judged": made}
    return Verdict("undisturbed", valid, text, evidence)


def _between(requests: Sequence[Request], start_ns: int, end_ns: int) -> Iterator[Request]:
    return (r for r in requests if start_ns <= r.t_ns < end_ns)


def _disturbed(history: History, start_ns: int, end_ns: int) -> bool:
    """Whether another fault than one of servers was in force, or what it did not yet over."""
    return any(
        not i.servers
        and i.t_ns - WAIT_NS <= end_ns
        and (i.settled_ns is None or start_ns <= i.settled_ns)
        for i in history.injections
    )


def rotation(history: History) -> Verdict:
    """Check that a server that serves again has clients again, in time."""
    troubles = troubles_of(history, tenures(history))
    made = opened(history.admissions)
    late, slowest_ns, judged_count, damped = [], 0, 0, 0
    last_ns = made[-1].t_ns if made else 0
    for outage in history.outages:
        until_ns = later(history, outage.back_ns, BACK_NS)
        again = any(o is not outage and o.server == outage.server
                    and outage.end_ns <= o.t_ns < until_ns for o in history.outages)  # fmt: skip
        met = any(
            t.end_ns >= outage.back_ns - DETECT_NS and t.start_ns < until_ns for t in troubles
        )
        if again or met or last_ns < until_ns:
            continue
        if _may_be_damped(history, outage):
            damped += 1
            continue
        judged_count += 1
        back = (o.t_ns for o in made if o.host == outage.server and o.t_ns >= outage.back_ns)
        after_ns = next(back, last_ns) - outage.back_ns
        slowest_ns = max(slowest_ns, after_ns)
        if after_ns > until_ns - outage.back_ns:
            late.append(f"{outage.server} after {outage.how}: {after_ns / MS:.0f} ms")
    text = f"{judged_count} times a server came back, within {slowest_ns / MS:.0f} ms"
    text += f"; {damped} times it may have flapped too often" if damped else ""
    if late:
        text = f"without new clients for more than {BACK_MS:.0f} ms: {', '.join(late[:3])}"
    valid: Valid = not late if judged_count else "unknown"
    evidence = {"late": late[:EXAMPLES_MAX], "judged": judged_count}
    return Verdict("rotation", valid, text, evidence)


def _may_be_damped(history: History, outage: ServerOutage) -> bool:
    """Whether a server may have fallen so often that it is kept out although it serves."""
    falls = [
        (o.t_ns, o.end_ns)
        for o in history.outages
        if o.server == outage.server and o.t_ns <= outage.t_ns
    ]
    falls += [
        (i.t_ns, i.heal_ns)
        for i in history.injections
        if i.severs and i.heal_ns is not None and i.t_ns <= outage.t_ns
    ]
    penalty, at_ns = 0.0, 0
    for t_ns, end_ns in sorted(falls):
        if end_ns - t_ns < MAY_FALL_NS:
            continue
        penalty = PENALTY + penalty * math.exp2((at_ns - t_ns) / HALF_LIFE_NS)
        at_ns = t_ns
        if penalty > CUTOFF:  # until it has decayed, which takes two minutes
            return True
    return False


def blind_faults(history: History) -> list[Injection]:
    """Return the times a holder was blind, with no other fault about it, and for long enough."""
    held = tenures(history)
    found: list[Injection] = []
    for fault in (i for i in history.injections if i.nemesis == BLIND and i.nodes):
        heal_ns = math.inf if fault.heal_ns is None else fault.heal_ns
        alone = all(
            i is fault
            or i.t_ns >= heal_ns
            or (i.settled_ns is not None and i.settled_ns <= fault.t_ns)
            for i in history.injections
        )
        lately = any(
            i.nemesis == BLIND and i.nodes == fault.nodes and 0 < fault.t_ns - i.t_ns < AGAIN_NS
            for i in history.injections
        )
        holds = holder_at(held, fault.t_ns) in fault.nodes
        if alone and holds and not lately and heal_ns - fault.t_ns > BLIND_NS:
            found.append(fault)
    return found


def blind_holder(history: History) -> Verdict:
    """Check that a holder that alone reaches no server hands over, and empties no pool."""
    held = tenures(history)
    wrong, slowest_ns = [], 0
    faults = blind_faults(history)
    for fault in faults:
        (router,) = fault.nodes
        ends = (t.end_ns for t in held if t.router == router and t.end_ns >= fault.t_ns)
        after_ns = next(ends, fault.t_ns) - fault.t_ns
        slowest_ns = max(slowest_ns, after_ns)
        stalled_ns = sum(s.late_ns for s in history.stalls if fault.holds(s.t_ns))
        if after_ns > BLIND_NS + stalled_ns:
            wrong.append(f"{router} held for {after_ns / MS:.0f} ms more, {BLIND_MS:.0f} allowed")
    wrong += _emptied(history)
    text = f"{len(faults)} blind holders handed over within {slowest_ns / MS:.0f} ms"
    text += ", most servers in rotation all the time"
    valid: Valid = not wrong if faults else "unknown"
    return Verdict(BLIND, valid, "; ".join(wrong[:3]) or text, {"wrong": wrong[:EXAMPLES_MAX]})


def _emptied(history: History) -> Iterator[str]:
    """Return where servers had no new clients while a router was blind, but half of those before.

    One that was out when the router became blind is not missed.
    """
    made = opened(history.admissions)
    for fault in (i for i in history.injections if i.nemesis == BLIND):
        if any(o.end_ns > fault.t_ns - BACK_NS for o in history.outages if o.t_ns < fault.t_ns):
            continue
        until_ns = math.inf if fault.settled_ns is None else fault.settled_ns
        before: dict[int, set[str]] = {}
        slices: dict[tuple[int, int], list[str]] = {}
        for new in made:
            number = (new.t_ns - fault.t_ns) // POOL_NS
            if number == -1:
                before.setdefault(new.version, set()).add(new.host)
            elif number >= 0 and new.t_ns < until_ns:
                slices.setdefault((number, new.version), []).append(new.host)
        for (number, version), hosts in sorted(slices.items()):
            at_ns = fault.t_ns + number * POOL_NS
            few = 2 * len(set(hosts)) < len(before.get(version, ()))
            if few and len(hosts) >= POOL_MIN and not lagged(history, at_ns):
                yield (
                    f"{number * POOL_NS / MS:.0f} ms after {fault.label} all new connections of "
                    f"IPv{version} went to {', '.join(sorted(set(hosts)))}"
                )
                return


def excused(history: History) -> Mapping[int, str]:
    """Return which connections ended with their server, or with all of them: by identity, why.

    A reset tells a client that its server is down. It is excused for a connection to a server that
    was, from the outage's beginning on, and for any while living servers could be taken for dead.
    So is one that waits for an answer which its server had no time to give, and one that the kernel
    of a server closes whose process was killed.
    """
    hosts = {o.source: o.host for o in opened(history.admissions)}
    found = {}
    for connection in history.connections:
        why = _excuse(history, connection, hosts.get(connection.source))
        if why is not None:
            found[id(connection)] = why
    return found


def _excuse(history: History, connection: Connection, host: str | None) -> str | None:
    ended_ns, error = connection.ended_ns, connection.error or ""
    if CLOSED in error:
        killed = (o for o in history.outages if o.server == host and o.how == "killed")
        near = any(o.t_ns - SENT_NS <= ended_ns <= o.t_ns + RESET_NS for o in killed)
        return f"{host} was killed" if near else None
    if SILENT in error:
        # All it had sent was acknowledged before its server fell silent: it sends no packet that a
        # router could answer, and waits.
        ended_ns -= round(ANSWER_S * 1e9)
    elif "ConnectionReset" not in error:
        return None
    for outage in history.outages:
        near = outage.t_ns - SENT_NS <= ended_ns <= outage.back_ns + RESET_NS
        if near and outage.server == host and _may_end(outage):
            return f"{outage.server} was down"
    for injection in history.injections:
        until_ns = math.inf if injection.settled_ns is None else injection.settled_ns + RESET_NS
        if injection.severs and injection.t_ns <= ended_ns <= until_ns:
            return injection.label
    return "the machine was busy" if lagged(history, ended_ns) else None


def _may_end(outage: ServerOutage) -> bool:
    return outage.how == "killed" or outage.end_ns - outage.t_ns >= MAY_FALL_NS
