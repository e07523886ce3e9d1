"""Judge what ordinary trouble must leave alone: the holder, processes, logs, memory, addresses.

hanat's rule is that a holder with a lease gives up only for somebody who can do better. So a move
from one node to another that the same fault hits alike is needless, whatever the fault is.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from chaos.judge.availability import BLAME_NS, SWITCHOVER
from chaos.judge.checkers import Valid, Verdict
from chaos.judge.reasons import DISK
from chaos.judge.safety import EXAMPLES_MAX, during
from chaos.judge.spells import Spell, tenures
from chaos.observe.run_history import MS, Census, History, Injection

# Faults that hit several nodes do not hit them at one instant, nor do nodes notice at one.
TOGETHER_NS = 500 * MS
LINES_PER_S = 5.0
LINES_BURST = 150  # a start, and every role, path and peer that changes in a fault
PEAK_SPARE_KIB = 64 * 1024
FLOW_SILENT_NS = 1_200 * MS  # two of its packets went unanswered


def unchanged(history: History) -> Verdict:
    """Check that the addresses moved to no node that was hit as the one before was.

    Nothing is said of a holder that was out, but for its disk: others take over, whatever they
    suffer from.
    """
    wrong = []
    moves = 0
    for before, after in pairwise(tenures(history)):
        moves += 1
        out = any(before.router in i.out and i.nemesis != DISK for i in _near(history, after))
        if out or _asked(history, after):
            continue
        for fault in _near(history, after):
            alike = {before.router, after.router} <= set(fault.nodes)
            if alike and after.start_ns - fault.t_ns > TOGETHER_NS:
                wrong.append(f"{before.router}→{after.router} during {fault.label}")
    text = f"{moves} moves, none to a node that the same fault had hit"
    valid: Valid = not wrong
    return Verdict(
        "unchanged", valid, "; ".join(wrong[:3]) or text, {"wrong": wrong[:EXAMPLES_MAX]}
    )


def _near(history: History, after: Spell) -> list[Injection]:
    """Return the faults in force when a router began to hold, or undone just before."""
    t_ns = after.start_ns
    return [
        i for i in history.injections if i.t_ns <= t_ns and (i.heal_ns is None or t_ns < i.heal_ns)
    ]


def _asked(history: History, after: Spell) -> bool:
    """Whether an operator wanted that router to hold, or another one to give up."""
    return any(
        i.nemesis == SWITCHOVER
        and after.router in i.nodes
        and i.t_ns <= after.start_ns <= (i.heal_ns or i.t_ns) + BLAME_NS
        for i in history.injections
    )


def same_processes(history: History) -> Verdict:
    """Check that every process lives on where no fault ends one."""
    if len(history.censuses) < 2:
        return Verdict("processes", "unknown", "the nodes were not counted twice")
    wrong, compared = [], 0
    for before, after in _censuses(history):
        compared += 1
        changed = sorted(name for name, pid in before.pids.items() if after.pids.get(name) != pid)
        if changed and not _ended(history, before, after):
            what = ", ".join(changed)
            at = during(history.injections, after.t_ns)
            wrong.append(f"{before.node}: {what} ended by itself before {at}")
    text = f"every process lived where none was killed, counted {compared} times"
    valid: Valid = not wrong
    return Verdict(
        "processes", valid, "; ".join(wrong[:3]) or text, {"wrong": wrong[:EXAMPLES_MAX]}
    )


def _censuses(history: History) -> Iterator[tuple[Census, Census]]:
    """Yield every two that follow each other of one node that has processes."""
    last: dict[str, Census] = {}
    for census in history.censuses:
        if census.pids:
            if census.node in last:
                yield last[census.node], census
            last[census.node] = census


def _ended(history: History, before: Census, after: Census) -> bool:
    return any(
        before.node in i.ends
        and i.t_ns <= after.t_ns
        and (i.settled_ns is None or i.settled_ns >= before.t_ns)
        for i in history.injections
    )


def quiet_logs(history: History) -> Verdict:
    """Check that no node logs more than some lines a second, after a burst."""
    if not history.log_lines:
        return Verdict("log", "unknown", "no log was read")
    level: dict[str, float] = {}
    last: dict[str, int] = {}
    worst: dict[str, tuple[float, str]] = {}
    for seen in history.log_lines:
        passed_s = max(0, seen.t_ns - last.get(seen.node, seen.t_ns)) / 1e9
        last[seen.node] = seen.t_ns
        left = max(0.0, level.get(seen.node, 0.0) - passed_s * LINES_PER_S)
        level[seen.node] = left + seen.lines
        if level[seen.node] > worst.get(seen.node, (0.0, ""))[0]:
            where = f"{seen.example!r} about {during(history.injections, seen.t_ns)}"
            worst[seen.node] = (level[seen.node], where)
    bad = [
        f"{node}: {lines:.0f} lines beyond {LINES_PER_S:.0f} a second, such as {where}"
        for node, (lines, where) in sorted(worst.items())
        if lines > LINES_BURST
    ]
    most = max(lines for lines, _ in worst.values())
    text = f"{sum(s.lines for s in history.log_lines)} lines; {most:.0f} at most beyond "
    text += f"{LINES_PER_S:.0f} a second, of {LINES_BURST} that may come at once"
    valid: Valid = not bad
    return Verdict("log", valid, "; ".join(bad) or text, {"most": round(most), "bad": bad})


def memory_bounded(history: History) -> Verdict:
    """Check that no node takes much more memory at any time than at the beginning."""
    first: dict[str, int] = {}
    bad: dict[str, str] = {}
    grown = 0
    for census in history.censuses:
        if not census.pids:
            continue
        more = census.memory_kib - first.setdefault(census.node, census.memory_kib)
        grown = max(grown, more)
        if more > PEAK_SPARE_KIB:
            at = during(history.injections, census.t_ns)
            bad[census.node] = f"{census.node}: {more // 1024} MiB more, {at}"
    text = f"{grown // 1024} MiB more than at the beginning at most"
    valid: Valid = not bad if first else "unknown"
    return Verdict("memory", valid, "; ".join(bad.values()) or text, {"grown_kib": grown})


def own_addresses(history: History) -> Verdict:
    """Check that every router has its own addresses whenever one looks."""
    wrong = [
        f"{c.node} lacks {', '.join(c.lacks)} ({during(history.injections, c.t_ns)})"
        for c in history.censuses
        if c.lacks
    ]
    text = f"every router had its own addresses, {len(history.censuses)} times looked at"
    valid: Valid = not wrong if history.censuses else "unknown"
    found = {"wrong": wrong[:EXAMPLES_MAX]}
    return Verdict("own-addresses", valid, "; ".join(wrong[:3]) or text, found)


def translated(history: History) -> Verdict:
    """Check that every flow that was opened while rules were missing is answered at last.

    A flow whose first packet passed without a translation has none as long as it sends.
    """
    left, opened = [], 0
    for flows in history.flows:
        opened += len(flows.opened)
        silent = [
            number
            for number, (sent, answered) in enumerate(zip(flows.sent, flows.answered, strict=True))
            if sent and sent - (answered or 0) > FLOW_SILENT_NS
        ]
        if silent:
            at = during(history.injections, flows.opened[silent[0]])
            left.append(f"{len(silent)} of {len(flows.opened)} flows are not answered, {at}")
    text = f"{opened} new UDP flows, each of them answered at last"
    valid: Valid = not left if opened else "unknown"
    return Verdict("translated", valid, "; ".join(left[:3]) or text, {"left": left[:EXAMPLES_MAX]})
