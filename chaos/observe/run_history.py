"""The history of a run: JSON lines, one fact each, times in CLOCK_MONOTONIC nanoseconds.

Every process of a run writes its own file; merged, they are all that a checker sees,
so a history can be kept, mailed and judged again. One clock for all: the processes
share a machine. A fact is a frozen dataclass below, stored as its fields and its `kind`.

Outcomes are Jepsen's: ``ok``, ``fail`` (it certainly did not happen) and ``info`` (unknown;
a request that timed out may have been served).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, TextIO, TypeVar, get_args

from chaos.lab.lab_error import LabError
from chaos.observe.observed import (
    AgentSaid,
    Dropped,
    Flows,
    Lag,
    LogLines,
    NeighbourSeen,
    RoleLogged,
    ServerOutage,
    Stall,
)
from chaos.observe.replicated import Applied, Committed, FlowTable

MS = 1_000_000  # nanoseconds

Outcome = Literal["ok", "fail", "info"]


@dataclass(frozen=True, slots=True)
class Fault:
    """What the nemesis (or the operator it plays) did.

    Attributes:
        t_ns: Just before it was done.
        f: ``kill``, ``restart``, ``switchover``.
        node: The node it was done to; for a switchover the node that is to hold.
        moves_holder: Whether another node should hold the addresses afterwards.
    """

    kind: ClassVar = "fault"
    t_ns: int
    f: str
    node: str
    moves_holder: bool


@dataclass(frozen=True, slots=True)
class Injection:
    """One fault of a chaos run, from its beginning to the time when all was well again.

    Attributes:
        t_ns: Just before it began.
        heal_ns: Just before it was undone; None if it was not.
        settled_ns: When all nodes said that they agree and lack nothing; None if they did not.
        nemesis: ``kill``, ``link-public``.
        detail: What exactly, ``r1`` or ``r1 does not hear r2``.
        target: The word it was aimed with, ``holder``.
        nodes: Whom it hit.
        out: Those of them that could neither promise nor hold meanwhile.
        hindered: Those that could promise but not hold.
        start_limit, heal_limit: How long it may be felt, words of `faults.bounds`.
        holder: Who held before.
        ends: Whose processes it ends, some or all.
        stays: Whether the holder is to stay until it is undone, though it is hit.
        unjudged: Streams of probes of which nothing is promised while it is in force.
        servers: That it hits.
        severs: Whether the nodes that are left may take living servers for dead.
    """

    kind: ClassVar = "injection"
    t_ns: int
    heal_ns: int | None
    settled_ns: int | None
    nemesis: str
    detail: str
    target: str
    nodes: list[str]
    out: list[str]
    hindered: list[str]
    start_limit: str
    heal_limit: str
    holder: str | None
    ends: list[str] = field(default_factory=list)
    stays: bool = False
    unjudged: list[str] = field(default_factory=list)
    servers: list[str] = field(default_factory=list)
    severs: bool = False

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.nemesis} {self.detail}"

    def holds(self, t_ns: int) -> bool:
        """Whether it was in force at an instant."""
        return self.t_ns <= t_ns and (self.heal_ns is None or t_ns < self.heal_ns)


@dataclass(frozen=True, slots=True)
class CarriedSeen:
    """A router forwarded packets of flows that are under way, in a slice of time.

    Attributes:
        t_ns: When the first of them came out of the router's cable, by the kernel's clock.
        last_ns: When the last did, some milliseconds later.
        frames: How many were looked at; not all are.
        version: Of IP.
    """

    kind: ClassVar = "carried"
    t_ns: int
    last_ns: int
    router: str
    network: str
    frames: int
    version: int = 4


@dataclass(frozen=True, slots=True)
class Census:
    """What a node consisted of.

    Attributes:
        commands: Of its processes, sorted.
        descriptors: Open in all of them.
        memory_kib: Resident in all of them.
        addresses: Floating ones on its devices.
        pids: Of its processes, by name and start time: ``{"hanat.daemon": "4711@99"}``.
        lacks: Its own addresses that are not on its devices.
    """

    kind: ClassVar = "census"
    t_ns: int
    node: str
    commands: list[str]
    descriptors: int
    memory_kib: int
    addresses: list[str]
    pids: dict[str, str] = field(default_factory=dict)
    lacks: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ConfigOperation:
    """What a client did to the replicated configuration.

    Attributes:
        f: ``read``, ``write`` or ``stale``, a write that was refused because of its revision.
        based_on: The revision that a write was to replace.
        revision: That a read showed, or a write got.
        text: What stands for the text read or written.
    """

    kind: ClassVar = "configuration"
    t_ns: int
    end_ns: int
    client: str
    node: str
    f: str
    based_on: int | None
    revision: int | None
    text: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class EventTold:
    """An event of the history that the nodes keep of themselves (``/v1/history``).

    Attributes:
        t_ns: By the wall clock of the node that tells, as an instant of ours.
        clock_wrong: Whether that clock may have been stepped then: `t_ns` means nothing.
        number: Its place in the order that was told, from 0.
        node: Who took over or gave up.
        what: ``took over`` or ``gave up``.
        term: In which it held.
        why, found: The reason, a word of hanat's, and more about it.
        previous: Who held before, of who took over; None if unknown.
        without_ns: Of who took over: for how long nobody answered, None if unknown.
        held_ns: Of who gave up: for how long it had held.
        text: The event as hanat words it.
    """

    kind: ClassVar = "told"
    t_ns: int
    clock_wrong: bool
    number: int
    node: str
    what: str
    term: int
    why: str
    found: str
    previous: str | None
    without_ns: int | None
    held_ns: int | None
    text: str


@dataclass(frozen=True, slots=True)
class HistoryAsked:
    """A node was asked for its history, after all was well again.

    Attributes:
        t_ns: When it was asked the last time.
        code: HTTP status of the answer, None if there was none.
        events: How many it told.
        digest: Of all it told: those of two nodes that tell the same are the same.
        problem: Why its answer was no history, empty if it was one.
    """

    kind: ClassVar = "asked"
    t_ns: int
    node: str
    code: int | None
    events: int
    digest: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ArpSeen:
    """An ARP frame, or its counterpart of IPv6, that says where a floating address lives.

    That is a neighbour advertisement (RFC 4861); the address tells the two apart.

    Attributes:
        t_ns: When it came out of the router's cable, by the kernel's clock.
        router: By the port of the switch, which cannot be forged.
        network: ``public`` or ``private``.
        gratuitous: Whether it announces, to everybody, rather than answers somebody.
    """

    kind: ClassVar = "arp"
    t_ns: int
    router: str
    network: str
    address: str
    mac: str
    gratuitous: bool


@dataclass(frozen=True, slots=True)
class AdmissionSeen:
    """A router let the first packet of a client's new TCP connection through.

    Attributes:
        t_ns: When it came out of the router's cable, by the kernel's clock.
        router: By the port of the switch.
        network: Where it came out: ``private`` for a service, ``public`` for masquerading.
        version: Of IP.
        source, target: ``203.0.113.100:40000``, ``[fd00:12::101]:8080``; a packet that is sent
            again has the same.
    """

    kind: ClassVar = "admission"
    t_ns: int
    router: str
    network: str
    version: int = 4
    source: str = ""
    target: str = ""

    @property
    def last_ns(self) -> int:
        """When it ended: at once."""
        return self.t_ns


@dataclass(frozen=True, slots=True)
class AddressSeen:
    """A floating address was put on a device (or found there), or taken off it."""

    kind: ClassVar = "address"
    t_ns: int
    router: str
    address: str
    present: bool


@dataclass(frozen=True, slots=True)
class Probes:
    """A stream of numbered probes and their answers.

    Attributes:
        sent: When each was sent, in order.
        answered: When its answer arrived, None if it did not.
        corrupt: Answers that differed from what was sent.
    """

    kind: ClassVar = "probes"
    workload: str
    period_ns: int
    sent: list[int]
    answered: list[int | None]
    corrupt: int = 0


@dataclass(frozen=True, slots=True)
class Connection:
    """A TCP connection that was to live as long as the run.

    Attributes:
        exchanges: How many payloads came back as they were sent.
        payload_errors: How many came back different, out of order or twice.
        error: Why it ended before it was told to, None if it did not.
        source: Its own end, as that of `AdmissionSeen`.
    """

    kind: ClassVar = "connection"
    workload: str
    opened_ns: int | None
    ended_ns: int
    exchanges: int
    payload_errors: int
    error: str | None
    source: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request over a connection of its own; `source` as of `AdmissionSeen`."""

    kind: ClassVar = "request"
    workload: str
    t_ns: int
    end_ns: int
    outcome: Outcome
    server: str | None
    error: str | None
    source: str = ""


Fact = (
    Fault
    | Injection
    | ArpSeen
    | AdmissionSeen
    | CarriedSeen
    | AddressSeen
    | NeighbourSeen
    | RoleLogged
    | Census
    | ConfigOperation
    | EventTold
    | HistoryAsked
    | Stall
    | Lag
    | ServerOutage
    | AgentSaid
    | Dropped
    | Probes
    | Connection
    | Request
    | FlowTable
    | Flows
    | LogLines
    | Applied
    | Committed
)
_KINDS: dict[str, type[Fact]] = {cls.kind: cls for cls in get_args(Fact)}
_Timed = TypeVar(
    "_Timed",
    Fault,
    Injection,
    ArpSeen,
    AdmissionSeen,
    CarriedSeen,
    AddressSeen,
    NeighbourSeen,
    RoleLogged,
    Census,
    ConfigOperation,
    HistoryAsked,
    Stall,
    Lag,
    AgentSaid,
    ServerOutage,
    Dropped,
    Request,
    FlowTable,
    Flows,
    LogLines,
    Applied,
    Committed,
)


@dataclass(frozen=True, slots=True)
class History:
    """All facts of a run, each kind ordered by time.

    Attributes:
        kept: Admissions that `queued_packets` set apart, not among `admissions`.
    """

    faults: tuple[Fault, ...] = ()
    arp: tuple[ArpSeen, ...] = ()
    admissions: tuple[AdmissionSeen, ...] = ()
    addresses: tuple[AddressSeen, ...] = ()
    probes: tuple[Probes, ...] = ()
    connections: tuple[Connection, ...] = ()
    requests: tuple[Request, ...] = ()
    injections: tuple[Injection, ...] = ()
    carried: tuple[CarriedSeen, ...] = ()
    neighbours: tuple[NeighbourSeen, ...] = ()
    roles: tuple[RoleLogged, ...] = ()
    censuses: tuple[Census, ...] = ()
    stalls: tuple[Stall, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    operations: tuple[ConfigOperation, ...] = ()
    tables: tuple[FlowTable, ...] = ()
    applied: tuple[Applied, ...] = ()
    committed: tuple[Committed, ...] = ()
    kept: tuple[AdmissionSeen, ...] = ()
    told: tuple[EventTold, ...] = ()  # in the order that was told
    asked: tuple[HistoryAsked, ...] = ()
    flows: tuple[Flows, ...] = ()
    log_lines: tuple[LogLines, ...] = ()
    outages: tuple[ServerOutage, ...] = ()
    agents: tuple[AgentSaid, ...] = ()
    lags: tuple[Lag, ...] = ()

    @staticmethod
    def of(facts: Iterable[Fact]) -> History:
        """Sort a mixture of facts."""
        every = tuple(facts)
        return History(
            faults=_sorted(every, Fault),
            arp=_sorted(every, ArpSeen),
            admissions=_sorted(every, AdmissionSeen),
            addresses=_sorted(every, AddressSeen),
            probes=tuple(f for f in every if isinstance(f, Probes)),
            connections=tuple(f for f in every if isinstance(f, Connection)),
            requests=_sorted(every, Request),
            injections=_sorted(every, Injection),
            carried=_sorted(every, CarriedSeen),
            neighbours=_sorted(every, NeighbourSeen),
            roles=_sorted(every, RoleLogged),
            censuses=_sorted(every, Census),
            stalls=_sorted(every, Stall),
            dropped=_sorted(every, Dropped),
            operations=_sorted(every, ConfigOperation),
            tables=_sorted(every, FlowTable),
            applied=_sorted(every, Applied),
            committed=_sorted(every, Committed),
            told=tuple(
                sorted((f for f in every if isinstance(f, EventTold)), key=lambda f: f.number)
            ),
            asked=_sorted(every, HistoryAsked),
            flows=_sorted(every, Flows),
            log_lines=_sorted(every, LogLines),
            outages=_sorted(every, ServerOutage),
            agents=_sorted(every, AgentSaid),
            lags=_sorted(every, Lag),
        )


def _sorted(facts: Iterable[Fact], cls: type[_Timed]) -> tuple[_Timed, ...]:
    return tuple(sorted((f for f in facts if isinstance(f, cls)), key=lambda f: f.t_ns))


def write(file: TextIO, fact: Fact) -> None:
    """Append a fact to an open history file."""
    file.write(json.dumps({"kind": fact.kind, **asdict(fact)}) + "\n")


def read(path: Path) -> list[Fact]:
    """Read one file; a last line that was cut off by a kill is left out.

    Raises:
        LabError: The file is missing, or a line is not a fact.
    """
    try:
        text = path.read_text()
    except OSError as error:
        raise LabError(f"cannot read history {path}: {error.strerror}") from error
    facts: list[Fact] = []
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            break
        try:
            fields = json.loads(line)
            facts.append(_KINDS[fields.pop("kind")](**fields))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LabError(f"{path}:{number}: not a fact of a history: {error!r}") from error
    return facts
