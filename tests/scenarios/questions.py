"""What may be asked of a cluster: the commands of a transcript that change nothing."""

from __future__ import annotations

import click

from hanat.cli.status_text import status_lines, table
from tests.scenarios.commands import command
from tests.scenarios.stage import Call, Stage
from tests.scenarios.steady import after
from tests.sim.run import judge
from tests.sim.serving import WALL_S

# Of "hanat status" what no harmless change moves.
AGREE_S = 2.0
SHOWN = (
    "role",
    "leader",
    "holder",
    "quorum",
    "revision",
    "unsafe",
    "hindered",
    "no holder",
    "trouble",
)


@command
def holder(stage: Stage, _call: Call) -> list[str]:
    """``holder``: who answers for the floating addresses, since when, and the gap before."""
    found = stage.holder
    if found is None:
        return ["nobody"]
    assert stage.world.answering is not None, "who answers began to"
    router, since, gap_s = stage.world.answering
    assert router is found, f"{router.name} answers, {found.name} is ACTIVE"
    return [f"{found.name} since {stage.world.ms(since)}{after(gap_s)}"]


@command
def roles(stage: Stage, _call: Call) -> list[str]:
    """``roles``: each node in one line, as the service manager shows it."""
    lines = []
    for router in stage.routers.values():
        state = "does not run" if not router.alive else "stands still" if router.paused else ""
        if not state:
            assert router.backend is not None, "it runs"
            state = stage.world.on(router, router.backend.describe)
        lines.append(f"{router.name} {state}")
    return lines


@command
def status(stage: Stage, call: Call) -> list[str]:
    """``status r1``: hanat status, without what only counts."""
    (router,) = stage.named(call)
    if router.backend is None or not router.alive:
        return [f"{router.name} does not run"]
    document = stage.world.on(router, router.backend.status).to_document()
    lines = map(click.unstyle, status_lines(document))
    return [line for line in lines if line.startswith(tuple(f"{word} " for word in SHOWN))]


@command
def history(stage: Stage, call: Call) -> list[str]:
    """``history [ask=r1]``: hanat history; ``history servers``: hanat history --servers."""
    backend = stage.asked(call).backend
    assert backend is not None, "a node that does not run was asked"
    if call.words == ("servers",):
        changes = backend.server_history(100)
        rows = [(_at(stage, c["at_s"]), c["what"], c["node"] or "-", c["text"]) for c in changes]
        return table(("AT", "FACT", "NODE", "WHAT"), rows)
    events = backend.history(100)
    rows = [(_at(stage, e["at_s"]), str(e["term"]), e["node"], e["text"]) for e in events]
    return table(("AT", "TERM", "NODE", "WHAT"), rows)


def _at(stage: Stage, wall_s: float) -> str:
    return stage.world.ms(wall_s - WALL_S)


@command
def clients(stage: Stage, _call: Call) -> list[str]:
    """``clients``: which servers get new clients by the rules of each node."""
    found: dict[tuple[str, ...], list[str]] = {}
    for router in stage.present:
        found.setdefault(tuple(sorted(router.clients)), []).append(router.name)
    return [
        f"by {', '.join(names)}: {', '.join(servers) or 'none'}" for servers, names in found.items()
    ]


@command
def revision(stage: Stage, _call: Call) -> list[str]:
    """``revision``: which configuration is in force on each node."""
    return [
        f"{r.name} {r.core.settled} {'refused' if r.core.refuses else 'in force'}"
        for r in stage.present
    ]


@command
def invariants(stage: Stage, _call: Call) -> list[str]:
    """``invariants``: what must hold at every moment, and, if all agree, at the end.

    Never two that answer, nobody carries longer than the grace, one leader a term, logs that
    match, no committed entry lost, somebody holds whenever a majority could; at the end nothing
    acknowledged is missing anywhere, and only the holder has the addresses.
    """
    if stage.world.run_until(stage.settled, within_s=AGREE_S):
        judge(stage.world)
        agree = f"{', '.join(r.name for r in stage.present)} agree"
    else:
        agree = "nodes do not agree yet"
    return [f"VIOLATION {text}" for text in stage.world.violations] or [f"no violation; {agree}"]
