"""The demonstration: kill the holder, bring it back, switch over to it, kill its daemon.

Then a server stops and goes on. All under traffic, less than a minute, every stage with a
deadline. The story is told while it happens; the judgement comes from the history
afterwards, never from what the daemons said.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from chaos import stopping
from chaos.judge import checkers
from chaos.judge.checkers import Verdict, Window, checked
from chaos.lab.lab import Lab
from chaos.lab.lab_error import LabError
from chaos.lab.topology import floating
from chaos.observe.run_history import MS, Fact, Fault, History
from chaos.observe.traffic import TCP, UDP, UDP_V6, Traffic

WARM_UP_S = 4.0  # a UDP flow counts as established after two seconds (nf_conntrack_proto_udp.c)
AFTER_KILL_S = 5.0
AFTER_RESTART_S = 3.0
AFTER_SWITCHOVER_S = 4.0
AFTER_DAEMON_S = 4.0
TAKEOVER_S_MAX = 10.0
REJOIN_S_MAX = 20.0
REFUSED = 409  # "not now": another node holds, or this one lacks something

ADDRESSES = floating()
WORKLOADS = tuple(w.name for w in (*UDP, *UDP_V6))


@dataclass(slots=True)
class Run:
    """What a demonstration has done and seen so far.

    Attributes:
        at_end: By node, the floating addresses on its devices after the last probe.
        problem: What kept it from going on to the end.
    """

    say: Callable[[str], None]
    faults: list[Fault] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    at_end: dict[str, set[str]] = field(default_factory=dict)
    start_ns: int = 0
    end_ns: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """The judged demonstration."""

    history: History
    windows: tuple[Window, ...]
    verdicts: tuple[Verdict, ...]
    holders: tuple[str, ...]
    outage_ms: float
    tcp_survived: int

    @property
    def valid(self) -> checkers.Valid:
        """The worst verdict."""
        return checkers.worst(self.verdicts)


def perform(lab: Lab, run: Run) -> None:
    """Do everything, from first start to the last probe, in a lab that was built.

    What fails once the traffic flows ends the acts but not the run: it is told together
    with what was seen up to then.

    Raises:
        LabError: The cluster did not come up, or the traffic could not be measured.
    """
    lab.start()
    first = lab.wait_for_holder()
    run.say(f"{first} holds the floating addresses, the others follow; {_timing(lab, first)}")
    traffic = Traffic(lab)
    traffic.start()
    run.say(
        "traffic over IPv4: HTTP 50/s, UDP probes 1 kHz each way, a TCP connection each way; "
        "over IPv6: HTTP 10/s, UDP 250 Hz, a TCP connection"
    )
    try:
        _act(lab, run, traffic, first)
    except LabError as error:
        run.problem = str(error)
        run.say(run.problem)
    traffic.stop()
    run.at_end = {name: lab.addresses(name) for name in lab.nodes}
    run.facts += [*traffic.facts(), *run.faults]
    run.start_ns, run.end_ns = traffic.start_ns, traffic.end_ns
    run.say("traffic stopped")


def _act(lab: Lab, run: Run, traffic: Traffic, first: str) -> None:
    traffic.run_for(WARM_UP_S)

    second = _kill_holder(lab, run, first)
    traffic.run_for(AFTER_KILL_S)

    run.faults.append(Fault(time.monotonic_ns(), "restart", first, moves_holder=False))
    lab.start_node(first)
    lab.wait_for(_caught_up(lab, first, second), REJOIN_S_MAX, f"{first} to follow {second}")
    run.say(f"{first} was started again, follows {second} and has caught up")
    traffic.run_for(AFTER_RESTART_S)

    _switch_over(lab, run, first)
    traffic.run_for(AFTER_SWITCHOVER_S)

    _kill_daemon(lab, run, first)
    traffic.run_for(AFTER_DAEMON_S)

    faults, outage = stopping.perform(lab, run.say, traffic.run_for)
    run.faults += faults
    run.facts.append(outage)


def _kill_holder(lab: Lab, run: Run, first: str) -> str:
    instant_ns = lab.kill_node(first)
    run.faults.append(Fault(instant_ns, "kill", first, moves_holder=True))
    run.say(f"SIGKILL to all processes of {first}")
    second = _wait_for_another(lab, first)
    took_ms = (time.monotonic_ns() - instant_ns) / MS
    run.say(f"{second} says it is ACTIVE, {took_ms:.0f} ms after the kill")
    return second


def _kill_daemon(lab: Lab, run: Run, holder: str) -> None:
    instant_ns = lab.kill_daemon(holder)
    run.faults.append(Fault(instant_ns, "kill daemon", holder, moves_holder=True))
    run.say(f"SIGKILL to the daemon of {holder}, its supervisor lives")
    other = _wait_for_another(lab, holder)
    took_ms = (time.monotonic_ns() - instant_ns) / MS
    run.say(f"{other} says it is ACTIVE, {took_ms:.0f} ms after the kill")
    lab.wait_for(_caught_up(lab, holder, other), REJOIN_S_MAX, f"{holder} to follow {other}")
    run.say(f"{holder} was started again by its supervisor and follows {other}")


def _wait_for_another(lab: Lab, than: str) -> str:
    return lab.wait_for(
        lambda: (lab.holder() or "").replace(than, ""), TAKEOVER_S_MAX, "another node to be ACTIVE"
    )


def _timing(lab: Lab, holder: str) -> str:
    status = lab.status(holder) or {}
    return f"profile {status.get('profile')}, lease {status.get('lease_s', 0) * 1000:.0f} ms"


def _switch_over(lab: Lab, run: Run, to: str) -> None:
    told: list[str] = []

    def accepted() -> Fault | None:
        why = lab.unready(to)
        if why is None:
            asked = Fault(time.monotonic_ns(), "switchover", to, moves_holder=True)
            code, answer = lab.switchover(to)
            if code == 200 and isinstance(answer, dict) and answer.get("holder") == to:
                return asked
            why = f"{code} {answer}"
            if code != REFUSED:
                raise LabError(f"the switchover to {to} was refused: {why}")
        if why not in told:
            run.say(f"waiting until {to} may be counted on: {why}")
            told.append(why)
        return None

    run.faults.append(lab.wait_for(accepted, REJOIN_S_MAX, f"{to} to be counted on"))
    took_ms = (time.monotonic_ns() - run.faults[-1].t_ns) / MS
    run.say(f"switchover to {to} answered after {took_ms:.0f} ms")
    lab.wait_for(lambda: lab.holder() == to, TAKEOVER_S_MAX, f"{to} to be the one ACTIVE node")


def _caught_up(lab: Lab, name: str, holder: str) -> Callable[[], bool]:
    """Return a condition: the node follows the holder and has what that had then, log and flows."""
    target: list[int] = []

    def condition() -> bool:
        of_holder, own = lab.status(holder), lab.status(name)
        if not of_holder or not own:
            return False
        # It has all flows, and the holder has heard so.
        connected = any(
            p["name"] == name and p["connected"] and p["complete"] for p in of_holder["peers"]
        )
        if own["role"] != "BACKUP" or own["leader"] != holder or not connected:
            return False
        if not target:
            # A fixed mark: the holder's own index runs ahead as long as there is traffic.
            target.append(of_holder["log"]["commit_index"])
        return own["log"]["applied_index"] >= target[0] and not own["unsafe"] + own["hindrances"]

    return condition


def judge(run: Run, *, outage_limit_ms: float) -> Result:
    """Apply all checkers to what was seen."""
    history = History.of(run.facts)
    cut = checkers.windows(history, run.start_ns, run.end_ns)
    # A flow of the server that stops waits until that is noticed; this is not a router's outage.
    served = [w for w in cut if not w.label.startswith(stopping.STOP)]
    went = Verdict("procedure", run.problem is None, run.problem or "every step was done")
    verdicts = (
        went,
        checked("one-holder", checkers.one_speaker, history, cut),
        checked("holder-moved", checkers.holder_moved, history, cut, "public"),
        checked("addresses-together", checkers.addresses_together, history, cut, ADDRESSES),
        checked("announced", checkers.announced, history, cut, ADDRESSES),
        checked("addresses-at-end", checkers.addresses_at_end, run.at_end, ADDRESSES),
        checked("outage", checkers.outage_bounded, history, served, WORKLOADS, outage_limit_ms),
        checked("connections", checkers.connections_survived, history, cut, len(TCP)),
        checked("http", checkers.requests_recovered, history, cut),
        checked(stopping.NAME, stopping.judge, history),
    )
    moves = [w for w in cut if w.moves_holder]
    found = [o.outage_ms for o in checkers.outages(history, moves) if o.workload in WORKLOADS]
    survived = next(v.evidence.get("survived", 0) for v in verdicts if v.name == "connections")
    return Result(
        history=history,
        windows=cut,
        verdicts=verdicts,
        holders=tuple(checkers.holders(history, cut, "public")),
        outage_ms=max(found, default=0.0),
        tcp_survived=survived,
    )


def last_line(result: Result) -> str:
    """Return the one line that scripts read."""
    failed = _names(result.verdicts, valid=False)
    unknown = _names(result.verdicts, valid="unknown")
    figures = (
        f"holder={'→'.join(result.holders)} outage_ms={result.outage_ms:.0f} "
        f"tcp_survived={result.tcp_survived}/{len(TCP)}"
    )
    if (server := stopping.seen(result.history)) is not None:
        figures += f" server_stopped={server.server} requests_met={server.met}/{server.requests}"
    if not failed and not unknown:
        return f"demo: ok {figures}"
    words = [*failed, *(f"{name} (unknown)" for name in unknown)]
    return f"demo: FAILED {', '.join(words)}; {figures}"


def _names(verdicts: Sequence[Verdict], *, valid: checkers.Valid) -> list[str]:
    return [v.name for v in verdicts if v.valid == valid]
