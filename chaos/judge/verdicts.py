"""All checkers of a chaos run, applied to its history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from chaos.campaign import PROBED, Campaign
from chaos.faults.bounds import GRACE_MS, LEASE_MS, SPARE_MS, limit_ms
from chaos.judge import (
    aftermath,
    agents,
    availability,
    checkers,
    flow_tables,
    linearizable,
    queued_packets,
    safety,
    server_outages,
    steadiness,
    told_history,
)
from chaos.judge.checkers import Verdict, checked
from chaos.judge.segments import Segment, segments
from chaos.judge.spells import acts, damped, spells
from chaos.lab.topology import floating
from chaos.observe.run_history import History
from chaos.observe.traffic import TCP

ADDRESSES = floating()

EXIT_VALID, EXIT_NOT_VALID, EXIT_UNKNOWN = 0, 1, 3


@dataclass(frozen=True, slots=True)
class Judgement:
    """A judged run."""

    history: History
    cut: tuple[Segment, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def valid(self) -> checkers.Valid:
        """The worst verdict."""
        return checkers.worst(self.verdicts)

    @property
    def exit_code(self) -> int:
        """0 valid, 1 not valid, 3 unknown."""
        codes = {True: EXIT_VALID, False: EXIT_NOT_VALID}
        return EXIT_UNKNOWN if self.valid == "unknown" else codes[self.valid]


def judge(campaign: Campaign, nodes: Sequence[str], left: Sequence[str]) -> Judgement:
    """Apply all checkers.

    Args:
        campaign: What was done and seen.
        nodes: All of them.
        left: What the lab left on the machine after it was removed.
    """
    history = queued_packets.set_apart(History.of(campaign.facts))
    if campaign.end_ns == 0:
        nothing = Verdict("measured", "unknown", "nothing was measured: there was no traffic")
        return Judgement(history, (), (_procedure(campaign, history), nothing))
    profile, end_ns = campaign.settings.profile, campaign.end_ns
    lease_ms = LEASE_MS[profile]
    bounds = (campaign.start_ns, end_ns)
    held = spells(acts(history))
    cut = segments(
        history.injections, nodes, bounds, lambda word: limit_ms(word, profile),
        lambda injection: damped(history, held, injection),
    )  # fmt: skip
    tcp = [w.name for w in TCP]
    settled = partial(aftermath.converged, interrupted=campaign.interrupted)
    applied: list[tuple[str, Callable[..., Verdict], tuple[object, ...]]] = [
        ("one-holder", safety.one_holder, (history,)),
        ("carried", safety.carried_in_time, (history, lease_ms, GRACE_MS)),
        ("both-addresses", safety.one_for_all, (history, ADDRESSES, bounds)),
        ("announced", safety.announced, (history, ADDRESSES)),
        ("announced-last", safety.announced_last, (history,)),
        ("stayed", availability.stayed, (history, cut, SPARE_MS[profile])),
        ("outage", availability.outages_bounded, (history, cut, PROBED)),
        ("payload", availability.nothing_corrupt, (history,)),
        ("connections", availability.connections_survive, (history, tcp, end_ns)),
        ("http", availability.requests_succeed, (history, bounds)),
        ("converged", settled, (history, ADDRESSES)),
        ("no-leak", aftermath.no_leak, (history, left)),
        ("roles-logged", aftermath.roles_logged, (history,)),
        ("unchanged", steadiness.unchanged, (history,)),
        ("processes", steadiness.same_processes, (history,)),
        ("own-addresses", steadiness.own_addresses, (history,)),
        ("log", steadiness.quiet_logs, (history,)),
        ("memory", steadiness.memory_bounded, (history,)),
    ]
    applied += [(name, checker, (history,)) for name, checker in server_outages.checkers(history)]
    if history.agents:
        applied.append((agents.NAME, agents.said, (history,)))
    if history.flows:
        applied.append(("translated", steadiness.translated, (history,)))
    if availability.bare_switchovers(history):
        applied.append((availability.SWITCHOVER, availability.handed_over, (history,)))
    if history.tables:  # not every kernel tells
        applied.append(("tables", flow_tables.tables_agree, (history,)))
    if campaign.configured:
        applied.append(("configuration", linearizable.configuration, (history,)))
    if not told_history.absent(history):
        applied.append((told_history.NAME, told_history.agrees, (history, lease_ms)))
    verdicts = [checked(name, checker, *arguments) for name, checker, arguments in applied]
    return Judgement(history, tuple(cut), _owed(_procedure(campaign, history), verdicts))


def _owed(procedure: Verdict, verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """Return the verdicts but for those that had nothing to judge; `procedure` names them then.

    Other faults may have met each: that is no lack of evidence where nothing is owed.
    """
    none = [v for v in verdicts if v.evidence.get("judged") == 0]
    if none and procedure.valid is True:
        names = ", ".join(v.name for v in none)
        procedure = replace(procedure, summary=f"{procedure.summary}; nothing to judge for {names}")
    return procedure, *(v for v in verdicts if v not in none)


def _procedure(campaign: Campaign, history: History) -> Verdict:
    """Say whether the run went on to its end; one that was interrupted or not begun is no proof.

    What came, or could have come, and was not judged is told here.
    """
    if campaign.problem is None:
        text = f"{len(campaign.injections)} faults, each done and undone"
        came = {injection.nemesis for injection in campaign.injections}
        if never := [n.name for n in campaign.settings.nemeses if n.name not in came]:
            text += f"; no time for {', '.join(never)}"
        if availability.SWITCHOVER in came and not availability.bare_switchovers(history):
            text += "; no switchover judged, other faults met each"
        return Verdict("procedure", True, text)  # noqa: FBT003
    nothing = campaign.interrupted or not campaign.begun
    return Verdict("procedure", "unknown" if nothing else False, campaign.problem.splitlines()[0])
