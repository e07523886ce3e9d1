"""Facts of the machine and of many things at once: stalls, drops, many flows, lines of logs."""

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
