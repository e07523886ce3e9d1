"""What nodes have of the replicated log and of its flows: facts of a `run_history`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FlowTable:
    """The established flows in a router's kernel.

    Attributes:
        flows: By protocol and both tuples, as the kernel tells them: seconds to live.
    """

    kind: ClassVar = "flow_table"
    t_ns: int
    node: str
    flows: dict[str, int]


@dataclass(frozen=True, slots=True)
class Applied:
    """A node's state machine took an entry of the log; only the simulation can see it.

    Attributes:
        term: Of the entry.
        digest: Of its content, hexadecimal.
    """

    kind: ClassVar = "applied"
    t_ns: int
    node: str
    index: int
    term: int
    digest: str


@dataclass(frozen=True, slots=True)
class Committed:
    """A leader counted an entry on a majority; fields as `Applied`, the node is the leader."""

    kind: ClassVar = "committed"
    t_ns: int
    node: str
    index: int
    term: int
    digest: str
