"""Judge a history: pure functions, each returning a verdict with its evidence.

A verdict is valid, not valid, or unknown. Unknown is never a pass: no evidence, or a
checker that crashed, proves nothing. Several verdicts are worth as much as the worst.

Holding an address is what the wire says: a router *speaks* for a floating address when it
sends an ARP frame with that sender address, or a neighbour advertisement for it. The time
between two disturbances is a *window*; within one the addresses may move once, so the router
that spoke before must never be heard again after the new one began.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import Any, Literal

from chaos.observe.run_history import MS, ArpSeen, Connection, History, Probes

Valid = bool | Literal["unknown"]

SETTLED_NS = 1000 * MS  # the end of a window, by which everything must work again


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a checker found.

    Attributes:
        name: Of the checker, a word.
        summary: One line for people.
        evidence: Figures and examples, JSON-ready.
    """

    name: str
    valid: Valid
    summary: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Window:
    """The time from one disturbance to the next; the first begins with the traffic.

    Attributes:
        label: ``before``, ``kill r1``, ``restart r1``, ``switchover to r1``.
        moves_holder: Whether the disturbance that opens it should move the addresses.
    """

    label: str
    start_ns: int
    end_ns: int
    moves_holder: bool

    def holds(self, t_ns: int) -> bool:
        """Whether an instant lies in it."""
        return self.start_ns <= t_ns < self.end_ns


@dataclass(frozen=True, slots=True)
class Outage:
    """The longest time without an answer in a window, beyond the period of the probes.

    Attributes:
        lost: Probes sent in that time that were never answered.
    """

    workload: str
    window: str
    outage_ms: float
    start_ns: int
    end_ns: int
    lost: int


def worst(verdicts: Iterable[Verdict]) -> Valid:
    """Return False if any is not valid, else unknown if any is, else True."""
    values = [v.valid for v in verdicts]
    if False in values:
        return False
    return "unknown" if "unknown" in values or not values else True


def checked(name: str, checker: Callable[..., Verdict], *arguments: object) -> Verdict:
    """Run a checker; one that crashes has found out nothing."""
    try:
        return checker(*arguments)
    except Exception as error:  # noqa: BLE001
        trace = traceback.format_exc()
        return Verdict(name, "unknown", f"the checker crashed: {error!r}", {"trace": trace})


def windows(history: History, start_ns: int, end_ns: int) -> tuple[Window, ...]:
    """Cut the time of the traffic at every fault."""
    bounds = [f.t_ns for f in history.faults] + [end_ns]
    cut = [Window("before", start_ns, bounds[0], moves_holder=False)]
    for fault, until in zip(history.faults, bounds[1:], strict=True):
        label = f"{fault.f}{' to' if fault.f == 'switchover' else ''} {fault.node}"
        cut.append(Window(label, fault.t_ns, until, fault.moves_holder))
    return tuple(cut)


# Who holds -----------------------------------------------------------------------------


def one_speaker(history: History, cut: Sequence[Window]) -> Verdict:
    """Check that two routers never speak for floating addresses at the same time.

    The times between a router's first and last frame of a window must not meet those of
    another. All floating addresses count together: the old holder may not even answer for the
    private one when the new one speaks for the public one.
    """
    if not history.arp:
        return Verdict("one-holder", "unknown", "nobody was seen to answer")
    overlaps: dict[str, float] = {}
    for window in cut:
        spoken = _spoken(history.arp, window)
        for a, b in combinations(spoken, 2):
            overlap_ns = min(spoken[a][1], spoken[b][1]) - max(spoken[a][0], spoken[b][0])
            if overlap_ns >= 0:
                overlaps[f"{window.label}: {a} and {b}"] = overlap_ns / MS
    most = max(overlaps.values(), default=0.0)
    text = f"{len(history.arp)} claims of floating addresses by ARP and ND, overlap {most:.1f} ms"
    return Verdict("one-holder", not overlaps, text, {"overlap_ms": most, "overlaps": overlaps})


def _spoken(frames: Iterable[ArpSeen], window: Window) -> dict[str, tuple[int, int]]:
    """Return when each router spoke first and last in a window."""
    spoken: dict[str, tuple[int, int]] = {}
    for frame in frames:
        if window.holds(frame.t_ns):
            first, last = spoken.get(frame.router, (frame.t_ns, frame.t_ns))
            spoken[frame.router] = (min(first, frame.t_ns), max(last, frame.t_ns))
    return spoken


def speaker_at_end(frames: Sequence[ArpSeen], window: Window, network: str) -> str | None:
    """Return who spoke last for a network's floating address in a window."""
    inside = [f.router for f in frames if f.network == network and window.holds(f.t_ns)]
    return inside[-1] if inside else None


def addresses_together(
    history: History, cut: Sequence[Window], addresses: Sequence[str]
) -> Verdict:
    """Check that at the end of every window one router speaks for all floating addresses."""
    found: dict[str, dict[str, str | None]] = {}
    for window in cut:
        last = {f.address: f.router for f in history.arp if window.holds(f.t_ns)}
        found[window.label] = {address: last.get(address) for address in addresses}
    apart = {label: who for label, who in found.items() if len(set(who.values())) > 1}
    silent = [label for label, who in found.items() if None in who.values()]
    text = f"all {len(addresses)} floating addresses moved together in every window"
    if silent:
        text = f"nobody spoke for a floating address: {', '.join(silent)}"
    elif apart:
        text = f"apart in {', '.join(apart)}"
    return Verdict("addresses-together", not apart and not silent, text, {"speakers": found})


def holders(history: History, cut: Sequence[Window], network: str) -> list[str]:
    """Return the holders in order, as heard at the end of every window, repeats left out."""
    names: list[str] = []
    for window in cut:
        name = speaker_at_end(history.arp, window, network)
        if name is not None and names[-1:] != [name]:
            names.append(name)
    return names


def holder_moved(history: History, cut: Sequence[Window], network: str) -> Verdict:
    """Check that the addresses moved where they should have, and only then."""
    problems = []
    previous: str | None = None
    for window in cut:
        holder = speaker_at_end(history.arp, window, network)
        if holder is None:
            problems.append(f"{window.label}: no holder")
        elif previous is not None and (holder != previous) != window.moves_holder:
            should = "should have moved" if window.moves_holder else "should have stayed"
            problems.append(f"{window.label}: {previous} before, {holder} after, {should}")
        elif window.label.startswith("switchover to ") and not window.label.endswith(f" {holder}"):
            problems.append(f"{window.label}: {holder} holds")
        previous = holder
    order = "→".join(holders(history, cut, network))
    text = "; ".join(problems) or f"holders as intended: {order}"
    return Verdict("holder-moved", not problems, text, {"order": order, "problems": problems})


def announced(history: History, cut: Sequence[Window], addresses: Sequence[str]) -> Verdict:
    """Check that each new holder announced each floating address."""
    counts: dict[str, dict[str, int]] = {}
    for window in (w for w in cut if w.moves_holder):
        inside = [f for f in history.arp if window.holds(f.t_ns)]
        last = {f.address: f.router for f in inside}
        told = [f.address for f in inside if f.gratuitous and f.router == last[f.address]]
        counts[window.label] = {address: told.count(address) for address in addresses}
    missing = [f"{w} {n}" for w, count in counts.items() for n, c in count.items() if c == 0]
    text = f"never announced: {', '.join(missing)}"
    if not missing:
        fewest = (f"{label}: {min(count.values())}" for label, count in counts.items())
        text = f"announcements per address: {', '.join(fewest)}"
    return Verdict("announced", not missing, text, {"announcements": counts})


def addresses_at_end(present: Mapping[str, Iterable[str]], floating: Iterable[str]) -> Verdict:
    """Check that one node has all floating addresses on its devices and no other has any.

    Args:
        present: By node, the floating addresses that ip-address(8) lists.
        floating: All of them.
    """
    everywhere = {node: sorted(addresses) for node, addresses in present.items()}
    having = [node for node, addresses in everywhere.items() if addresses]
    good = len(having) == 1 and everywhere[having[0]] == sorted(floating)
    listed = ", ".join(f"{n}: {' '.join(everywhere[n])}" for n in having) or "on no node"
    text = f"on the devices at the end: {listed}"
    return Verdict("addresses-at-end", good, text, {"present": everywhere})


def silence(frames: Sequence[ArpSeen], window: Window) -> float | None:
    """Return for how long, in ms, nobody spoke while the addresses moved.

    From the last frame of the old holder, before or after the disturbance, to the first of
    the new one; None if they did not move.
    """
    new = next((f.router for f in reversed(frames) if window.holds(f.t_ns)), None)
    of_new = [f.t_ns for f in frames if f.router == new and window.holds(f.t_ns)]
    of_old = [f.t_ns for f in frames if f.router != new and f.t_ns < window.end_ns]
    if not of_new or not of_old or of_new[0] < of_old[-1]:
        return None
    before = [f.router for f in frames if f.t_ns < window.start_ns]
    return (of_new[0] - of_old[-1]) / MS if before and before[-1] != new else None


# What users see ------------------------------------------------------------------------


def outage(probes: Probes, window: Window) -> Outage:
    """Return the longest gap between answers in a window.

    Counted by when answers arrive, so probes that were held up count as well as lost ones.
    The window's own bounds count as answers: silence up to the end is silence.
    """
    arrived = sorted(t for t in probes.answered if t is not None and window.holds(t))
    instants = [window.start_ns, *arrived, window.end_ns]
    start_ns, end_ns = max(pairwise(instants), key=lambda pair: pair[1] - pair[0])
    lost = sum(
        answer is None and start_ns - probes.period_ns <= sent < end_ns
        for sent, answer in zip(probes.sent, probes.answered, strict=True)
    )
    gap_ms = max(0, end_ns - start_ns - probes.period_ns) / MS
    return Outage(probes.workload, window.label, gap_ms, start_ns, end_ns, lost)


def as_probes(history: History, workload: str, period_ns: int) -> Probes:
    """Return a workload's requests as a stream of probes; only a good answer is one."""
    requests = [r for r in history.requests if r.workload == workload]
    return Probes(
        workload=workload,
        period_ns=period_ns,
        sent=[r.t_ns for r in requests],
        answered=[r.end_ns if r.outcome == "ok" else None for r in requests],
    )


def outages(history: History, cut: Sequence[Window]) -> list[Outage]:
    """Return the outage of every stream of probes in every window."""
    return [outage(probes, window) for window in cut for probes in history.probes]


def outage_bounded(
    history: History, cut: Sequence[Window], workloads: Sequence[str], limit_ms: float
) -> Verdict:
    """Check that every outage stays below a limit, and that no answer was corrupt."""
    streams = {p.workload: p for p in history.probes}
    missing = [w for w in workloads if w not in streams or not any(streams[w].answered)]
    if missing:
        text = f"no probe was ever answered: {', '.join(missing)}"
        return Verdict("outage", False if history.probes else "unknown", text)
    found = [outage(streams[name], window) for window in cut for name in workloads]
    most = max(found, key=lambda o: o.outage_ms)
    corrupt = sum(streams[name].corrupt for name in workloads)
    good = most.outage_ms <= limit_ms and corrupt == 0
    text = f"at most {most.outage_ms:.0f} ms ({most.workload}, {most.window}), limit {limit_ms:.0f}"
    if corrupt:
        text += f", {corrupt} corrupt answers"
    return Verdict("outage", good, text, {"worst_ms": most.outage_ms, "corrupt": corrupt})


def connection_problem(
    connection: Connection, probes: Probes | None, cut: Sequence[Window]
) -> str | None:
    """Return why a connection did not survive, None if it did."""
    if connection.opened_ns is None:
        return f"never opened: {connection.error}"
    if connection.error:
        return connection.error
    if connection.payload_errors:
        return f"{connection.payload_errors} payloads came back wrong"
    answers = [t for t in probes.answered if t is not None] if probes else []
    for window in cut:
        settled_ns = max(window.start_ns, window.end_ns - SETTLED_NS)
        if not any(settled_ns <= t < window.end_ns for t in answers):
            return f"silent at the end of window {window.label}"
    return None


def connections_survived(history: History, cut: Sequence[Window], expected: int) -> Verdict:
    """Check that established connections lived through every window, payload intact."""
    streams = {p.workload: p for p in history.probes}
    problems = {
        c.workload: connection_problem(c, streams.get(c.workload), cut) for c in history.connections
    }
    dead = {name: problem for name, problem in problems.items() if problem}
    survived = len(problems) - len(dead)
    text = f"{survived}/{expected} established connections survived every fault"
    text += "".join(f"; {name}: {problem}" for name, problem in dead.items())
    evidence = {"survived": survived, "expected": expected, "problems": dead}
    return Verdict("connections", survived == expected and not dead, text, evidence)


def requests_recovered(history: History, cut: Sequence[Window]) -> Verdict:
    """Check that new connections all succeed again at the end of every window.

    Requests begun in an outage may fail or time out; they are counted, not judged.
    """
    if not history.requests:
        return Verdict("http", "unknown", "no request was made")
    problems = []
    for window in cut:
        settled_ns = max(window.start_ns, window.end_ns - SETTLED_NS)
        # A request begun just before the next fault belongs to that fault.
        late = [r for r in history.requests if settled_ns <= r.t_ns and r.end_ns < window.end_ns]
        bad = [r for r in late if r.outcome != "ok"]
        if bad:
            problems.append(f"{window.label}: {len(bad)} of the last {len(late)}: {bad[0].error}")
        elif not late:
            problems.append(f"{window.label}: none ended in the last second")
    counts = {o: sum(r.outcome == o for r in history.requests) for o in ("ok", "fail", "info")}
    text = f"{counts['ok']} ok, {counts['fail']} failed, {counts['info']} timed out"
    text += "".join(f"; not recovered after {problem}" for problem in problems)
    return Verdict("http", not problems, text, {"counts": counts, "problems": problems})
