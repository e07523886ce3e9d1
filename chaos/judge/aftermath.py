"""Judge what a run leaves behind: agreement, processes, memory, a log that tells why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from chaos.judge.checkers import Valid, Verdict
from chaos.judge.safety import EXAMPLES_MAX
from chaos.judge.spells import tenures
from chaos.observe.logs import START
from chaos.observe.observed import RoleLogged
from chaos.observe.run_history import Census, History

DESCRIPTORS_SPARE = 16  # connections that are being made or ended when one counts
AT_LAST_NS = 3_000_000_000  # the fewest of so long count: checks of a moment are open at once
MEMORY_SPARE_KIB = 48 * 1024  # flow tables grow with use, and Python keeps what it once had


def converged(history: History, floating: Collection[str], *, interrupted: bool = False) -> Verdict:
    """Check that after every fault all was well again, and one node has the addresses at last.

    Args:
        history: Of the run.
        floating: All floating addresses.
        interrupted: Whether nobody waited for that after the last fault.
    """
    never = [i.label for i in history.injections if i.settled_ns is None]
    last = {c.node: c.addresses for c in history.censuses}
    having = [node for node, addresses in last.items() if addresses]
    good = len(having) == 1 and last[having[0]] == sorted(floating)
    text = f"all was well again after each of {len(history.injections)} faults"
    waits = [
        (i.settled_ns - i.heal_ns, i) for i in history.injections if i.settled_ns and i.heal_ns
    ]
    if waits:
        longest_ns, slowest = max(waits, key=lambda wait: wait[0])
        text += f", last after {longest_ns / 1e9:.1f} s ({slowest.label})"
    if never:
        text = f"not well again after {', '.join(never[:3])}"
    elif not good:
        told = ", ".join(f"{n}: {' '.join(last[n])}" for n in having) or "none"
        text = f"floating addresses on devices at the end: {told}"
    if interrupted:
        text = f"nobody waited for the end; until then: {text}"
    valid: Valid = (not never and good) if last and not interrupted else "unknown"
    return Verdict("converged", valid, text, {"never": never, "addresses": last})


def no_leak(history: History, left: Sequence[str]) -> Verdict:
    """Check that every node is at the end what it was at the beginning, and nothing outlives it.

    Args:
        history: With a census of every node at the beginning and at the end.
        left: What the lab left on the machine after it was removed.
    """
    first: dict[str, Census] = {}
    last: dict[str, Census] = {}
    for census in history.censuses:
        first.setdefault(census.node, census)
        last[census.node] = census
    problems = list(left)
    for node, before in first.items():
        after = last[node]
        if after is before:
            return Verdict("no-leak", "unknown", "the nodes were not counted twice")
        if after.commands != before.commands:
            more = Counter(after.commands) - Counter(before.commands)
            fewer = Counter(before.commands) - Counter(after.commands)
            told = [f"+{name}" for name in more] + [f"-{name}" for name in fewer]
            problems.append(f"{node} has other processes: {' '.join(told)}")
        fewest = min(c.descriptors for c in _at_last(history, after))
        if fewest > before.descriptors + DESCRIPTORS_SPARE:
            problems.append(f"{node}: {before.descriptors} descriptors, now {fewest}")
        if after.memory_kib > before.memory_kib + MEMORY_SPARE_KIB:
            mib = [round(c.memory_kib / 1024) for c in (before, after)]
            problems.append(f"{node}: {mib[0]} MiB, now {mib[1]}")
    grown = {n: last[n].memory_kib - first[n].memory_kib for n in first}
    text = f"processes as before; memory {_span(grown)} KiB, nothing left on the machine"
    evidence = {"problems": problems, "memory_kib": grown}
    valid: Valid = not problems if first else "unknown"
    return Verdict("no-leak", valid, "; ".join(problems[:3]) or text, evidence)


def _at_last(history: History, last: Census) -> Iterator[Census]:
    for census in history.censuses:
        if census.node == last.node and last.t_ns - census.t_ns < AT_LAST_NS:
            yield census


def _span(values: Mapping[str, int]) -> str:
    return " ".join(f"{value:+d}" for value in values.values())


def roles_logged(history: History) -> Verdict:
    """Check that nodes log every change of role once, with a reason, and none is missing.

    What one line says was the role must be what the line before it made the role. Every time a
    router began to act on the wire, its log has a line that it became ACTIVE.
    """
    problems: list[str] = []
    by_node: dict[str, list[RoleLogged]] = {}
    for line in history.roles:
        by_node.setdefault(line.node, []).append(line)
    for node, lines in by_node.items():
        problems += _chain(node, lines)
    begun = Counter(tenure.router for tenure in tenures(history))
    for node, count in begun.items():
        told = sum(line.role == "ACTIVE" for line in by_node.get(node, []))
        if told < count:
            problems.append(f"{node} began to hold {count} times and logged {told}")
    text = f"{len(history.roles)} lines about roles, every change once, with its reason"
    valid: Valid = not problems if by_node else "unknown"
    evidence = {"problems": problems[:EXAMPLES_MAX]}
    return Verdict("roles-logged", valid, "; ".join(problems[:3]) or text, evidence)


def _chain(node: str, lines: Sequence[RoleLogged]) -> list[str]:
    problems = []
    role: str | None = None
    for line in lines:
        if line.role == START:
            role = None
            continue
        told = f"{node} {line.was}→{line.role} term={line.term}"
        if not line.reason:
            problems.append(f"{told} without a reason")
        if line.role == line.was:
            problems.append(f"{told} is no change")
        if role is not None and line.was != role:
            problems.append(f"{told} after {role}")
        role = line.role
    return problems
