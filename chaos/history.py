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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Literal, TextIO

from chaos.errors import LabError

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
class ArpSeen:
    """An ARP frame that says where a floating address lives.

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
    """

    kind: ClassVar = "admission"
    t_ns: int
    router: str
    network: str


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
    """

    kind: ClassVar = "connection"
    workload: str
    opened_ns: int | None
    ended_ns: int
    exchanges: int
    payload_errors: int
    error: str | None


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request over a connection of its own."""

    kind: ClassVar = "request"
    workload: str
    t_ns: int
    end_ns: int
    outcome: Outcome
    server: str | None
    error: str | None


Fact = Fault | ArpSeen | AdmissionSeen | AddressSeen | Probes | Connection | Request
_KINDS: dict[str, type[Fact]] = {
    cls.kind: cls
    for cls in (Fault, ArpSeen, AdmissionSeen, AddressSeen, Probes, Connection, Request)
}


@dataclass(frozen=True, slots=True)
class History:
    """All facts of a run, each kind ordered by time."""

    faults: tuple[Fault, ...] = ()
    arp: tuple[ArpSeen, ...] = ()
    admissions: tuple[AdmissionSeen, ...] = ()
    addresses: tuple[AddressSeen, ...] = ()
    probes: tuple[Probes, ...] = ()
    connections: tuple[Connection, ...] = ()
    requests: tuple[Request, ...] = ()

    @staticmethod
    def of(facts: Iterable[Fact]) -> History:
        """Sort a mixture of facts."""
        every = tuple(facts)
        return History(
            faults=tuple(sorted((f for f in every if isinstance(f, Fault)), key=_time)),
            arp=tuple(sorted((f for f in every if isinstance(f, ArpSeen)), key=_time)),
            admissions=tuple(sorted((f for f in every if isinstance(f, AdmissionSeen)), key=_time)),
            addresses=tuple(sorted((f for f in every if isinstance(f, AddressSeen)), key=_time)),
            probes=tuple(f for f in every if isinstance(f, Probes)),
            connections=tuple(f for f in every if isinstance(f, Connection)),
            requests=tuple(sorted((f for f in every if isinstance(f, Request)), key=_time)),
        )


def _time(fact: Fault | ArpSeen | AdmissionSeen | AddressSeen | Request) -> int:
    return fact.t_ns


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
