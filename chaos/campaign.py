"""One chaos run: traffic, faults by plan, the undoing of each, and what was seen.

The runner decides nothing about right or wrong. It resolves targets, begins and undoes faults,
waits until the nodes say that all is well, and writes down when. Whatever goes wrong on the way
(a node that ends by itself, a cluster that does not agree again, Ctrl-C) ends the faults, not the
run: what is in force is undone, the traffic is stopped in order, and all of it is judged.
"""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from chaos.faults.attack import Aim, Attack, Nemesis, Site
from chaos.faults.bounds import BACK_MS
from chaos.faults.operators import Operators
from chaos.faults.plan import Step, plan
from chaos.faults.targets import choose
from chaos.lab.lab import Lab
from chaos.lab.lab_error import LabError
from chaos.observe import census, logs, node_history, run_history, waits
from chaos.observe.run_history import Fact, Injection
from chaos.observe.traffic import HTTP, HTTP_V6, SYN, SYN_V6, TCP, UDP, UDP_V6, Traffic

WARM_UP_S = 4.0  # a UDP flow counts as established after two seconds (nf_conntrack_proto_udp.c)
POLL_S = 0.1
# A supervisor waits up to 30 s before it starts a daemon that dies again and again.
SETTLE_S_MAX = 45.0
COUNTS_AT_LAST, COUNT_S = 4, 0.3  # by then checks that began together have ended
COUNTS_AT_LAST, COUNT_S = 4, 0.3  # by then checks that began together have ended
LAST_S = 3.0  # quiet time at the end, which the judges of the end look at
SPARE_S = 90.0  # clients end by themselves after the run's time and this
FIRST_HOLDER_S = 30.0

FAILURES = (LabError, OSError, subprocess.SubprocessError)  # of a run, not of this program

# New connections each 10 ms: a probe of an outage to some per cent of a lease, not a load.
WORKLOADS = (
    *UDP, *UDP_V6, *TCP, replace(HTTP, period_ms=50), HTTP_V6,
    *(replace(w, period_ms=10) for w in (*SYN, *SYN_V6)),
)  # fmt: skip
PROBED = tuple(w.name for w in (*UDP, *UDP_V6, *SYN, *SYN_V6))


@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked for; see `faults.plan.plan`."""

    seed: int
    nemeses: Sequence[Nemesis]
    time_s: float
    profile: str
    lasting: bool = False


@dataclass(slots=True)
class Campaign:
    """What a run has done and seen so far.

    Attributes:
        begun: Whether nodes were started: what goes wrong before that is not theirs.
        problem: What kept it from going on to the end.
        interrupted: Whether that was the person who started it.
        configured: Whether clients were told to change the configuration.
    """

    settings: Settings
    say: Callable[[str], None]
    facts: list[Fact] = field(default_factory=list)
    injections: list[Injection] = field(default_factory=list)
    start_ns: int = 0
    end_ns: int = 0
    begun: bool = False
    problem: str | None = None
    interrupted: bool = False
    configured: bool = False


@dataclass(slots=True)
class _InForce:
    """A fault that was begun and not undone, and its place among the injections."""

    attack: Attack
    index: int


def perform(lab: Lab, campaign: Campaign) -> None:
    """Start the cluster and the traffic, do what the plan says, stop in order.

    Raises:
        LabError: The cluster did not come up, or the traffic could not be measured.
    """
    offset_ns = logs.wall_minus_monotonic_ns()
    campaign.begun = True
    lab.start()
    first = lab.wait_for_holder(FIRST_HOLDER_S)
    campaign.say(f"{first} holds the floating addresses")
    limit_s = campaign.settings.time_s + SPARE_S
    traffic = Traffic(lab, WORKLOADS, limit_s=limit_s, carried=True)
    traffic.start()
    operators = Operators(lab, seed=campaign.settings.seed, limit_s=limit_s)
    campaign.configured = operators.start(first)
    if not campaign.configured:
        campaign.say("this hanat has no /v1/config: nobody changes the configuration")
    runner = Runner(lab, campaign)

    def remember() -> None:
        if not campaign.interrupted:  # nobody waited until all was well
            campaign.facts += node_history.fetch(lab, campaign.injections, offset_ns)

    try:
        attempt(campaign, runner.run)
    finally:
        for ending in (runner.heal_everything, operators.stop, remember, traffic.stop):
            attempt(campaign, ending)

    def logged() -> list[Fact]:
        texts = {name: lab.log(name) for name in lab.nodes}
        return [
            fact
            for name, text in texts.items()
            for read in (logs.roles, logs.lines)
            for fact in read(text, name, offset_ns=offset_ns)
        ]

    def by_faults() -> list[Fact]:
        folder = lab.folder / "history"
        files = sorted([*folder.glob("flows-*.jsonl"), *folder.glob("server-*.jsonl")])
        return [fact for file in files for fact in run_history.read(file)]

    for seen in (
        traffic.facts, operators.facts, lambda: campaign.injections, logged, by_faults
    ):  # fmt: skip
        attempt(campaign, lambda seen=seen: campaign.facts.extend(seen()))  # type: ignore[misc]
    campaign.start_ns, campaign.end_ns = traffic.start_ns, traffic.end_ns


def attempt(campaign: Campaign, act: Callable[[], object]) -> None:
    """Do something; what keeps it from being done becomes the problem of the run, the first does.

    What was done and seen until then is worth a judgement all the same.
    """
    try:
        act()
    except KeyboardInterrupt:
        problem, campaign.interrupted = "interrupted", True
    except FAILURES as error:
        problem = str(error)
    else:
        return
    campaign.problem = campaign.problem or problem
    campaign.say(problem)


class Runner:
    """What is done to the cluster while the traffic flows."""

    def __init__(self, lab: Lab, campaign: Campaign) -> None:
        self._lab = lab
        self._campaign = campaign
        self._site = Site(lab)
        self._in_force: list[_InForce] = []
        self._waits = waits.Waits()

    def run(self) -> None:
        """Warm up, then step by step until the time is over."""
        settings = self._campaign.settings
        deadline = time.monotonic() + settings.time_s - LAST_S
        self._rest(WARM_UP_S)
        self._settle()
        self._count()
        for step in plan(settings.seed, settings.nemeses, lasting=settings.lasting):
            if time.monotonic() + step.length_s > deadline:
                break
            self._do(step)
        self._rest(deadline - time.monotonic())
        self._campaign.facts += census.flow_tables(self._lab)
        self.heal()
        self._rest(LAST_S)
        self._settle()
        self._campaign.facts += census.flow_tables(self._lab)
        for _ in range(COUNTS_AT_LAST):
            self._count()
            self._rest(COUNT_S)

    def _do(self, step: Step) -> None:
        draw = random.Random(step.seed)
        holder = self._lab.holder()
        already = len(self._in_force)
        nodes = [name for name, node in self._lab.nodes.items() if node.wanted]
        victims = choose(step.target, nodes=nodes, holder=holder, draw=draw)
        attack = step.nemesis.attack(self._aim(victims, draw))
        self.begin(step.nemesis, step.target, attack, holder)
        spared = [n for n in nodes if n not in attack.nodes]
        if step.second and spared:
            self._rest(step.apart_s)
            word = step.second_target
            now = self._lab.holder() if word == "holder" else holder
            others = choose(word, nodes=spared, holder=now, draw=draw)
            second = step.second.attack(self._aim(others, draw))
            self.begin(step.second, word, second, now)
        for inner in step.inner:
            self._settle()
            self._do(inner)
        self._rest(step.hold_s)
        self._count()
        hit = any(here.attack.servers for here in self._in_force[already:])
        if not step.lasting:
            self.heal(already)
        if hit:
            self._rest(BACK_MS / 1000)  # until servers that serve again must have clients
        self._settle()
        self._count()
        self._rest(step.rest_s)

    def _aim(self, victims: tuple[str, ...], draw: random.Random) -> Aim:
        """Aim at some nodes, knowing of those that other faults have taken out."""
        out = {name for here in self._in_force for name in here.attack.out}
        away = (name for name in self._site.nodes if name in out and name not in victims)
        return Aim(self._site, victims, draw, tuple(away))

    def begin(self, nemesis: Nemesis, target: str, attack: Attack, holder: str | None) -> None:
        """Begin a fault and write it down."""
        before_ns = time.monotonic_ns()
        # Noted before it is done: what is interrupted half-way is undone all the same.
        self._campaign.injections.append(
            Injection(
                t_ns=before_ns,
                heal_ns=None,
                settled_ns=None,
                nemesis=nemesis.name,
                detail=attack.detail,
                target=target,
                nodes=list(attack.nodes),
                out=list(attack.out),
                hindered=list(attack.hindered),
                start_limit=attack.start_limit,
                heal_limit=attack.heal_limit,
                holder=holder,
                ends=list(attack.ends),
                stays=attack.stays,
                unjudged=list(attack.unjudged),
                servers=list(attack.servers),
                severs=attack.severs,
            )
        )
        here = _InForce(attack, len(self._campaign.injections) - 1)
        self._in_force.append(here)
        t_ns = attack.fault.start()
        self._replace(here, replace(self._injection(here), t_ns=t_ns))
        self._campaign.say(f"{nemesis.name}: {attack.detail} (holder {holder})")

    def _injection(self, here: _InForce) -> Injection:
        return self._campaign.injections[here.index]

    def _replace(self, here: _InForce, injection: Injection) -> None:
        self._campaign.injections[here.index] = injection

    def heal(self, leave: int = 0) -> None:
        """Undo what is in force, the last first, but for so many that began first."""
        while len(self._in_force) > leave:
            here = self._in_force[-1]
            # Before the undoing: a start that takes time is a part of it.
            healed = replace(self._injection(here), heal_ns=time.monotonic_ns())
            self._replace(here, healed)
            here.attack.fault.stop()
            self._in_force.pop()  # not before: an undoing that is interrupted is done again

    def heal_everything(self) -> None:
        """Undo what is in force, whatever becomes of each."""
        while self._in_force:
            try:
                self.heal()
            except FAILURES as error:
                self._campaign.say(
                    f"cannot undo {self._injection(self._in_force.pop()).label}: {error}"
                )

    def _settle(self) -> None:
        """Wait until all is well again; note when, and where hosts send their packets then."""
        deadline = time.monotonic() + SETTLE_S_MAX
        while (missing := lacking(self._lab)) is not None:
            if time.monotonic() > deadline:
                raise LabError(f"not well within {SETTLE_S_MAX:.0f} s: {missing}")
            self._rest(POLL_S)
        settled_ns = time.monotonic_ns()
        injections = self._campaign.injections
        for index, injection in enumerate(injections):
            if injection.heal_ns is not None and injection.settled_ns is None:
                injections[index] = replace(injection, settled_ns=settled_ns)
        self._campaign.facts += census.neighbours(self._lab)

    def _rest(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left_s := deadline - time.monotonic()) > 0:
            self._check()
            time.sleep(min(0.2, left_s))
            if (lag := self._waits.look()) is not None:
                self._campaign.facts.append(lag)

    def _check(self) -> None:
        for node in self._lab.nodes.values():
            if node.died:
                raise LabError(
                    f"{node.name} ended with exit code {node.exit_code}, which nobody asked for"
                )

    def _count(self) -> None:
        every = [p.pid for node in self._lab.nodes.values() for p in node.processes]
        self._waits.watch(waits.checkers(every))
        facts = self._campaign.facts
        facts += [census.count(self._lab, n) for n, node in self._lab.nodes.items() if node.wanted]


def lacking(lab: Lab) -> str | None:
    """Return what the nodes that are to run lack to be well, by their own word; None if nothing.

    Well is: one node ACTIVE, the others its BACKUPs, every one safe, unhindered and with all flows,
    and every service served.
    """
    statuses = {n: node.status() for n, node in lab.nodes.items() if node.wanted}
    for name, status in statuses.items():
        if status is None:
            return f"{name} does not answer"
        if found := [*status.get("unsafe", ()), *status.get("hindrances", ())]:
            return f"{name}: {'; '.join(found)}"
        if not status["flows"]["complete"]:
            return f"{name} has not all flows"
    known = {name: status for name, status in statuses.items() if status is not None}
    active = [name for name, status in known.items() if status["role"] == "ACTIVE"]
    if len(active) != 1:
        return f"{len(active)} nodes are ACTIVE"
    for name, status in known.items():
        if name != active[0] and (status["role"], status["leader"]) != ("BACKUP", active[0]):
            return f"{name} is {status['role']} and follows {status['leader']}"
    down = [s["name"] for s in lab.services(active[0]) if s["state"] == "down"]
    return f"no server serves {', '.join(down)}" if down else None
