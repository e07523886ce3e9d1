"""Facts of the machine, of servers, and of what was seen of many things at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Flows:
    """Many new UDP flows that a client opened and went on sending on.

    Attributes:
        t_ns: When it stopped to send.
        opened: When each was opened.
        sent: When each sent last.
        answered: When each was answered last, None if never.
    """

    kind: ClassVar = "flows"
    t_ns: int
    workload: str
    opened: list[int]
    sent: list[int]
    answered: list[int | None]


@dataclass(frozen=True, slots=True)
class LogLines:
    """How many lines a node logged within a second of its wall clock; seconds without are left out.

    Attributes:
        t_ns: Of the second, as an instant of ours; wrong where that clock was stepped.
        example: The commonest of these lines, without its time and numbers.
    """

    kind: ClassVar = "log-lines"
    t_ns: int
    node: str
    lines: int
    example: str


@dataclass(frozen=True, slots=True)
class Stall:
    """The observer, which wants little and comes first, was kept waiting for a core.

    Attributes:
        t_ns: When it should have run.
        late_ns: How much later it did.
    """

    kind: ClassVar = "stall"
    t_ns: int
    late_ns: int


@dataclass(frozen=True, slots=True)
class Lag:
    """A checker was ready to run and kept from a core, of all nodes' the one that waited most.

    Attributes:
        t_ns: When it was looked at before.
        late_ns: For how long it waited since, once or several times.
    """

    kind: ClassVar = "lag"
    t_ns: int
    late_ns: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """The kernel had no room for frames that the observer was to see.

    Attributes:
        t_ns: When it was noticed, at the end.
        capture: What they would have been: ``acts`` or ``carried``.
    """

    kind: ClassVar = "dropped"
    t_ns: int
    capture: str
    frames: int


@dataclass(frozen=True, slots=True)
class ServerOutage:
    """A server did not serve as it should.

    Attributes:
        t_ns: Just before it began.
        end_ns: Just before it was undone.
        back_ns: When the server served again for certain.
        server: ``s1``; all of its services.
        how: A word of `outages.HOW`.
    """

    kind: ClassVar = "server-outage"
    t_ns: int
    end_ns: int
    back_ns: int
    server: str
    how: str


@dataclass(frozen=True, slots=True)
class AgentSaid:
    """An agent of the web service said something else than that all is well.

    Attributes:
        t_ns: Just before it began.
        end_ns: Just before it said again that all is well.
        server: ``s1``.
        words: ``50%``.
    """

    kind: ClassVar = "agent-said"
    t_ns: int
    end_ns: int
    server: str
    words: str


@dataclass(frozen=True, slots=True)
class NeighbourSeen:
    """The link-layer address that a host knew for a floating one; None if it knew none."""

    kind: ClassVar = "neighbour"
    t_ns: int
    host: str
    address: str
    mac: str | None


@dataclass(frozen=True, slots=True)
class RoleLogged:
    """A line of a node's log about its role, or about a start of its daemon (role ``START``).

    Attributes:
        t_ns: By the node's wall clock, as an instant of ours; wrong where that was stepped.
    """

    kind: ClassVar = "role"
    t_ns: int
    node: str
    role: str
    was: str
    term: int
    reason: str
