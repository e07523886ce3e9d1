"""A check of a server as people see it: the verdict, and what each node saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hanat.core.probing import Operational


@dataclass(frozen=True, slots=True)
class ProbeView:
    """The last probe that this node made; `ago_s` since its end, `in_a_row` ended like it."""

    ok: bool
    answer: str
    in_a_row: int
    latency_s: float
    ago_s: float

    def to_document(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {
            "ok": self.ok,
            "answer": self.answer,
            "in_a_row": self.in_a_row,
            "latency_s": self.latency_s,
            "ago_s": self.ago_s,
        }


@dataclass(frozen=True, slots=True)
class CheckView:
    """A check of a server.

    Attributes:
        target: What is probed, see `core.checks.Target.name`.
        state: The verdict, which counts for all nodes.
        for_s: Since this node has that verdict; None: there is none.
        answer: One line, of the last probe that decided; they were `in_a_row`.
        decided_by: The holder that decided, by name.
        nodes: How each node that probes sees it, by name, this one first.
        probe: This node's last; None: it made none.
        note: Why the verdict is not what this node sees; may be empty.
    """

    target: str
    state: Operational
    for_s: float | None = None
    answer: str = ""
    in_a_row: int = 0
    latency_s: float = 0.0
    decided_by: str | None = None
    nodes: tuple[tuple[str, Operational], ...] = ()
    probe: ProbeView | None = None
    note: str = ""

    def to_document(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {
            "target": self.target,
            "state": self.state.value,
            "for_s": self.for_s,
            "answer": self.answer,
            "in_a_row": self.in_a_row,
            "latency_s": self.latency_s,
            "decided_by": self.decided_by,
            "nodes": {name: state.value for name, state in self.nodes},
            "probe": None if self.probe is None else self.probe.to_document(),
            "note": self.note,
        }
