"""Judge what state machines were given: a pure function of what nodes and leaders recorded.

Which entry a node applies nobody sees on the wire, and in a cluster of three an entry that a
follower has appended is mostly committed a moment later. So this is judged where nodes can be
asked: `tests/sim` records it, in the format of a chaos run.

Source: Ongaro, "Consensus: Bridging Theory and Practice", 2014, figure 3.2 (state machine
safety) and section 3.5 (an entry is applied once it is committed).
"""

from __future__ import annotations

from collections.abc import Sequence

from chaos.judge.checkers import Verdict
from chaos.observe.replicated import Applied, Committed
from chaos.observe.run_history import MS, History

EXAMPLES_MAX = 10


def applied_as_committed(history: History) -> Verdict:
    """Check that every node was given the entries that were committed, and not before."""
    if not history.applied or not history.committed:
        return Verdict("applied", "unknown", "no applied entry was recorded, or no committed one")
    first: dict[int, Committed] = {}
    for committed in history.committed:
        first.setdefault(committed.index, committed)
    lost = [
        f"index {c.index}: committed by {first[c.index].node} and, another, by {c.node}"
        for c in history.committed
        if c.digest != first[c.index].digest
    ]
    different = _different(history.applied)
    early = [
        f"{a.node}, index {a.index} of term {a.term}: {why}"
        for a in history.applied
        if (why := _why_early(a, first.get(a.index))) is not None
    ]
    nodes = len({a.node for a in history.applied})
    text = f"{nodes} nodes applied {len(history.applied)} entries, each committed before"
    found = [
        (lost, "two entries committed at {} indices"),
        (different, "different entries applied at {} indices"),
        (early, "{} entries applied that were not committed"),
    ]
    if problems := [f"{told.format(len(some))} ({some[0]})" for some, told in found if some]:
        text = "; ".join(problems)
    evidence = {
        "lost": lost[:EXAMPLES_MAX],
        "different": different[:EXAMPLES_MAX],
        "early": early[:EXAMPLES_MAX],
    }
    return Verdict("applied", not problems, text, evidence)


def _different(applied: Sequence[Applied]) -> list[str]:
    """Return the indices at which not all applied the same, and who did."""
    by_index: dict[int, dict[str, set[str]]] = {}
    for a in applied:
        by_index.setdefault(a.index, {}).setdefault(a.digest, set()).add(a.node)
    return [
        f"index {index}: {' | '.join('+'.join(sorted(nodes)) for nodes in entries.values())}"
        for index, entries in sorted(by_index.items())
        if len(entries) > 1
    ]


def _why_early(a: Applied, committed: Committed | None) -> str | None:
    if committed is None:
        return "never committed"
    if committed.digest != a.digest:
        return f"another was committed there, in term {committed.term}"
    if committed.t_ns > a.t_ns:
        return f"committed {(committed.t_ns - a.t_ns) / MS:.1f} ms later"
    return None
