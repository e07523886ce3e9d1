"""Judge the history that the nodes keep of themselves: is it what crossed the wires?

The order of the holders, their terms, and the time without one are compared with packets; the
reasons with what was done. Wall clocks are compared only where nobody stepped them, durations
always: nodes measure those by another clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from chaos.judge.alignment import GAVE_UP, TOOK_OVER, Pair, Told, aligned, tenures_told
from chaos.judge.checkers import Valid, Verdict
from chaos.judge.reasons import (
    DAEMON_DIED,
    FIRST,
    GIVEN,
    HINDERED,
    SILENCE,
    SWITCHOVER,
    TAKEN,
    UNSAFE,
    blamed,
    contradictions,
    died,
    killed_ns,
    problems,
)
from chaos.judge.safety import EXAMPLES_MAX
from chaos.judge.spells import tenures
from chaos.observe.run_history import MS, EventTold, History

NAME = "history"
NOT_FOUND = 404
EVENTS_MAX = 500  # hanat keeps no more
SHORT_NS = 100 * MS  # so short a tenure need not leave a packet
TELL_NS = 2_000 * MS  # who lives so long after an event has told it
# A busy machine: a process waits for a core between what it does and what it notes.
TOLERANCE_NS = 100 * MS
# The observer asks every 8 ms; whom nothing reaches is not asked until its lease ends.
UNASKED = ("cut", "partition", "loss", "link", "silent", "egress")


@dataclass(slots=True)
class _Case:
    """A history on trial.

    Attributes:
        pairs: What was told beside what was seen, in order.
        wrong: What contradicts, for people.
        reasons, gaps, times: How many could be compared.
    """

    history: History
    lease_ns: float
    told: list[Told] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    reasons: int = 0
    gaps: int = 0
    times: int = 0
    late: int = 0

    def since(self, t_ns: int) -> str:
        """Return an instant for people."""
        first_ns = self.history.arp[0].t_ns if self.history.arp else 0
        return f"{(t_ns - first_ns) / 1e9:.2f} s"


def absent(history: History) -> bool:
    """Whether every node was asked and says that it keeps no history."""
    return bool(history.asked) and all(asked.code == NOT_FOUND for asked in history.asked)


def agrees(history: History, lease_ms: float) -> Verdict:
    """Check the history that was told after the last fault, by all nodes, against packets.

    Args:
        history: Of the run.
        lease_ms: Of its profile.
    """
    unknown = _nothing_to_judge(history)
    if unknown is not None:
        return Verdict(NAME, "unknown", unknown)
    case = _Case(history, lease_ms * MS)
    case.wrong += _apart(history)
    case.told, stray = tenures_told(history.told)
    if len(history.told) < EVENTS_MAX:
        case.wrong += [f"{e.node} gave up term {e.term} and never took over" for e in stray]
    _words(case)
    _terms(case)
    _order(case)
    _predecessors(case)
    _ends(case)
    for before, after in pairwise(case.pairs):
        _moved(case, before, after)
    _clocks(case)
    return _verdict(case)


def _nothing_to_judge(history: History) -> str | None:
    silent = [asked for asked in history.asked if asked.code is None or asked.problem]
    if not history.asked:
        return "nobody was asked for the history"
    if silent:
        return f"{silent[0].node} was asked for the history: {silent[0].problem or 'no answer'}"
    if not history.arp:
        return "no ARP frame was seen to compare the history with"
    return None


def _verdict(case: _Case) -> Verdict:
    valid: Valid = not case.wrong
    told = sum(pair.told is not None for pair in case.pairs)
    text = (
        f"{len(case.history.asked)} nodes tell the same {told} tenures as packets; "
        f"{case.reasons} reasons, {case.gaps} gaps and {case.times} times compared"
    )
    if case.late:
        text += f"; {case.late} told late"
    if case.wrong:
        text = f"{len(case.wrong)} contradictions: {'; '.join(case.wrong[:3])}"
    evidence = {
        "wrong": case.wrong[:EXAMPLES_MAX],
        "reasons": case.reasons,
        "gaps": case.gaps,
        "times": case.times,
        "late": case.late,
    }
    return Verdict(NAME, valid, text, evidence)


# ------------------------------------------------------------------------ by itself


def _apart(history: History) -> list[str]:
    """All was well when they were asked: whoever tells something else has lost something."""
    digests = {asked.digest for asked in history.asked}
    if len(digests) == 1:
        return []
    told = ", ".join(f"{a.node}: {a.events} events ({a.digest[:6]})" for a in history.asked)
    return [f"nodes tell different histories: {told}"]


def _words(case: _Case) -> None:
    """Everything has a reason, and one that there is."""
    for event in case.history.told:
        if event.what not in (TOOK_OVER, GAVE_UP):
            case.wrong.append(f"{event.node}: {event.what!r} is no event")
        elif event.why not in (TAKEN if event.what == TOOK_OVER else GIVEN):
            case.wrong.append(f"{event.node} {event.what} term {event.term} for {event.why!r}")
        elif event.why in (UNSAFE, HINDERED) and not event.found:
            case.wrong.append(f"{event.node} was {event.why} in term {event.term}, for nothing")


def _terms(case: _Case) -> None:
    """Terms rise from holder to holder, but for what could only be told later."""
    begun = [event for event in case.history.told if event.what == TOOK_OVER]
    for before, after in pairwise(begun):
        told = f"{after.node} took over in term {after.term} after {before.node} in {before.term}"
        if after.term == before.term and after.node != before.node:
            case.wrong.append(told)
        elif after.term < before.term:
            if _had_no_majority(case, after, before):
                case.late += 1  # it had no majority to tell it to
            else:
                case.wrong.append(told)


def _had_no_majority(case: _Case, late: EventTold, later: EventTold) -> bool:
    """Whether who tells late may have had none meanwhile, for a fault or a busy machine."""
    since_ns, until_ns = late.t_ns - TELL_NS, later.t_ns + TELL_NS
    any_time = late.clock_wrong or later.clock_wrong
    near = [
        i
        for i in case.history.injections
        if i.nemesis != SWITCHOVER
        and (any_time or (i.t_ns <= until_ns and (i.settled_ns or until_ns) >= since_ns))
    ]
    alone = len({node for i in near for node in i.out}) > 1
    return (
        alone
        or any(late.node in (*i.nodes, *i.out) for i in near)
        or any(
            s.late_ns > case.lease_ns / 2 and (any_time or since_ns <= s.t_ns <= until_ns)
            for s in case.history.stalls
        )
    )


def _predecessors(case: _Case) -> None:
    """Who takes over names whoever the history names before, and a reason that agrees."""
    begun = [event for event in case.history.told if event.what == TOOK_OVER]
    ends = {(t.begun.node, t.begun.term): t.ended for t in case.told}
    if begun and len(case.history.told) < EVENTS_MAX and (begun[0].why != FIRST):
        case.wrong.append(f"{begun[0].node} is the first that was told and says {begun[0].why}")
    for before, after in pairwise(told.begun for told in case.told):
        if before.number < after.number:  # what is told later need not be known
            given = ends.get((before.node, before.term))
            case.wrong += contradictions(after, before, given)


def _ends(case: _Case) -> None:
    """Whoever lives to tell it tells that it gave up, once."""
    for told, following in pairwise(case.told):
        begun = told.begun
        if told.ended is None and not _died(case, told, following):
            case.wrong.append(f"{begun.node} never told that it gave up term {begun.term}")


def _died(case: _Case, told: Told, following: Told) -> bool:
    """Whether the process that held may have ended before it could tell that it gave up."""
    seen = {id(p.told): p.seen for p in case.pairs if p.told is not None}
    here, then = seen.get(id(told)), seen.get(id(following))
    for i in case.history.injections:
        at_ns = killed_ns(i, told.begun.node)
        if at_ns is not None:
            if here is None or then is None:
                return True
            settled = [x.settled_ns or i.t_ns for x in case.history.injections if x is not i
                       and x.t_ns <= then.start_ns and told.begun.node in x.nodes]  # fmt: skip
            # Spells of one router in a row are one tenure, also of a process that was killed.
            end_ns = here.end_ns if then is here else then.start_ns
            until_ns = max([end_ns, *settled]) + TELL_NS
            if here.start_ns <= at_ns <= until_ns:
                return True
    return False


# ------------------------------------------------------------------------ by packets


def _order(case: _Case) -> None:
    """Holders follow each other in what was told as on the wire."""
    asked_ns = min(asked.t_ns for asked in case.history.asked)
    every = tenures(case.history)
    held = [t for t in every if t.start_ns < asked_ns - TELL_NS]
    late = {t.router for t in every if t.start_ns >= asked_ns - TELL_NS}
    told = case.told

    def unseen(i: int) -> bool:
        begun = told[i].begun
        # Younger than what has to be told, and told all the same.
        new = begun.clock_wrong or begun.t_ns >= asked_ns - TELL_NS - TOLERANCE_NS
        if new and begun.node in late:
            return True
        following = told[i + 1].begun if i + 1 < len(told) else None
        ended = told[i].ended
        held_ns = None if ended is None else ended.held_ns
        short = held_ns is not None and held_ns <= SHORT_NS
        if short or following is None or not held:
            return short
        # The observer began to look when there was a holder.
        return not following.clock_wrong and following.t_ns < held[0].start_ns + TOLERANCE_NS

    def untold(j: int) -> bool:
        if len(case.history.told) >= EVENTS_MAX and told:
            return held[j].start_ns < told[0].begun.t_ns
        spell = held[j]
        killed = (killed_ns(i, spell.router) for i in case.history.injections)
        return any(at_ns is not None and abs(at_ns - spell.start_ns) <= TELL_NS for at_ns in killed)

    case.pairs = aligned(told, held, unseen, untold)
    index = {id(t): i for i, t in enumerate(told)}
    place = {id(s): j for j, s in enumerate(held)}
    for pair in case.pairs:
        if pair.seen is None and pair.told is not None and not unseen(index[id(pair.told)]):
            begun = pair.told.begun
            case.wrong.append(f"no packet shows that {begun.node} held in term {begun.term}")
        if pair.told is None and pair.seen is not None and not untold(place[id(pair.seen)]):
            at = case.since(pair.seen.start_ns)
            case.wrong.append(f"{pair.seen.router} held from {at} on, and nobody tells it")


def _moved(case: _Case, before: Pair, after: Pair) -> None:
    """Compare reasons and the time without a holder, of one move from node to node."""
    if before.told is None or before.seen is None or after.told is None or after.seen is None:
        return
    if after.again or before.seen is after.seen:
        return
    taken, given = after.told.begun, before.told.ended
    fault = blamed(case.history.injections, before.seen, after.seen)
    if fault is not None:
        case.reasons += 1
        case.wrong += problems(fault, taken, given)
    elif died(case.history.injections, before.seen, after.seen):
        case.reasons += 1
        if taken.why not in (SILENCE, DAEMON_DIED):
            case.wrong.append(f"{before.seen.router} was killed; {taken.node} tells {taken.why}")
    if taken.without_ns is None:
        return
    case.gaps += 1
    seen_ns = after.seen.start_ns - before.seen.end_ns
    stalled_ns = _stalled_ns(case.history, before.seen.end_ns, after.seen.start_ns)
    slack_ns = TOLERANCE_NS + stalled_ns
    unasked = _unasked(case, before.seen.router, after.seen.start_ns)
    least_ns = seen_ns - slack_ns - (case.lease_ns if unasked else 0)
    if stalled_ns > case.lease_ns / 2:
        least_ns = 0  # no fault of ours ended its lease: others may have heard it for longer
    if not least_ns <= taken.without_ns <= seen_ns + slack_ns:
        case.wrong.append(
            f"{taken.node} took over at {case.since(after.seen.start_ns)} and tells of "
            f"{taken.without_ns / MS:.0f} ms without a holder, packets show {seen_ns / MS:.0f} ms"
        )


def _unasked(case: _Case, router: str, t_ns: int) -> bool:
    """Whether a fault may have kept the observer's questions from a router."""
    return any(
        i.nemesis.startswith(UNASKED)
        and i.t_ns <= t_ns
        and (i.settled_ns is None or i.settled_ns >= t_ns - 2 * case.lease_ns - TOLERANCE_NS)
        for i in case.history.injections
        if router in (*i.nodes, *i.out, *i.hindered)
    )


def _stalled_ns(history: History, start_ns: int, end_ns: int) -> int:
    """Return for how long the machine stood still about that time, all stalls together."""
    return sum(
        s.late_ns
        for s in history.stalls
        if start_ns - TOLERANCE_NS <= s.t_ns <= end_ns + TOLERANCE_NS
    )


def _clocks(case: _Case) -> None:
    """Compare from when to when nodes say that they held, where their clocks were right.

    Not the first beginning: it is seen when the observer begins to look.
    """
    shared = {id(pair.seen) for pair in case.pairs if pair.again}
    for number, pair in enumerate(case.pairs):
        if pair.told is None or pair.seen is None or id(pair.seen) in shared:
            continue
        begun, ended = pair.told.begun, pair.told.ended
        if number and case.pairs[number - 1].seen is not None:
            _near(case, begun, pair.seen.start_ns, 0)
        if ended is not None and number + 1 < len(case.pairs):
            unasked = _unasked(case, pair.seen.router, pair.seen.end_ns + round(case.lease_ns))
            _near(case, ended, pair.seen.end_ns, case.lease_ns if unasked else 0)


def _near(case: _Case, event: EventTold, seen_ns: int, more_ns: float) -> None:
    """Compare an instant that was told with what packets show; it may be so much later."""
    if event.clock_wrong:
        return
    case.times += 1
    off_ns = event.t_ns - seen_ns
    slack_ns = TOLERANCE_NS + _stalled_ns(case.history, seen_ns, seen_ns)
    if not -slack_ns <= off_ns <= slack_ns + more_ns:
        case.wrong.append(
            f"{event.node} {event.what} at {case.since(seen_ns)} and tells "
            f"{case.since(event.t_ns)}, {off_ns / MS:+.0f} ms off"
        )
