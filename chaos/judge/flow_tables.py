"""Judge the flow tables of the routers' kernels: a pure function of what was dumped at the end."""

from __future__ import annotations

from chaos.judge.checkers import Verdict
from chaos.judge.spells import holder_at, tenures
from chaos.observe.replicated import FlowTable
from chaos.observe.run_history import History

EXAMPLES_MAX = 10


def tables_agree(history: History) -> Verdict:
    """Check that every router has each live flow of the holder, with the same translation.

    Live is what was in the holder's kernel at two dumps and carried a packet in between, so that
    its time to live was renewed: neither what has just begun nor what is only remembered.
    """
    dumps: dict[str, list[FlowTable]] = {}
    for table in history.tables:
        dumps.setdefault(table.node, []).append(table)
    twice = [seen for seen in dumps.values() if len(seen) > 1]
    if len(twice) != len(dumps) or not twice:
        return Verdict("tables", "unknown", "the flow tables were not dumped twice")
    holder = holder_at(tenures(history), min(seen[-1].t_ns for seen in twice))
    if holder not in dumps:
        return Verdict("tables", "unknown", "nobody held the addresses")
    live = _live(*dumps[holder][-2:])
    if not live:
        return Verdict("tables", "unknown", f"{holder}, the holder, had no live flow")
    lacking = {
        node: missing
        for node, seen in dumps.items()
        if (missing := sorted(live - seen[-1].flows.keys()))
    }
    text = f"all {len(dumps)} routers have the {len(live)} live flows of {holder}, the holder"
    if lacking:
        told = ", ".join(f"{node} lacks {len(flows)}" for node, flows in lacking.items())
        text = f"of {len(live)} live flows of {holder}, the holder, {told}"
    evidence = {node: flows[:EXAMPLES_MAX] for node, flows in lacking.items()}
    return Verdict("tables", not lacking, text, {"lacking": evidence})


def _live(before: FlowTable, after: FlowTable) -> set[str]:
    """Return the flows that have not aged between two dumps as they do when no packet comes."""
    elapsed_s = (after.t_ns - before.t_ns) / 1e9
    return {
        flow
        for flow, left_s in after.flows.items()
        if flow in before.flows and left_s > before.flows[flow] - elapsed_s / 2
    }
