"""What keeps a node from holding the addresses, as far as it is known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Hindrances:
    """Everything that speaks against a node.

    Attributes:
        carriers: Logical interface to carrier, as last observed; unknown ones count as up.
        journal: What is wrong with it; empty when nothing is.
        configuration: What is wrong with the newest one.
        faults: Why, and until when in seconds of the node's clock; None: for ever.
        retried: A fault that is over in time, but speaks until the ruleset is installed anew.
    """

    carriers: dict[str, bool] = field(default_factory=dict)
    journal: str = ""
    configuration: str = ""
    faults: dict[str, float | None] = field(default_factory=dict)
    retried: str = ""

    def among(self, interfaces: Iterable[str]) -> tuple[str, ...]:
        """Return all that counts for a node that needs these interfaces."""
        dark = [f"{name}: no carrier" for name in interfaces if not self.carriers.get(name, True)]
        standing = [found for found in (self.journal, self.configuration, self.retried) if found]
        return (*dark, *standing, *self.faults)

    @property
    def due(self) -> float | None:
        """When the next fault is over."""
        return min((due for due in self.faults.values() if due is not None), default=None)

    def expire(self, now: float) -> bool:
        """Say whether a fault is over, so that it is worth another try."""
        over = [why for why, due in self.faults.items() if due is not None and due <= now]
        for why in over:
            del self.faults[why]
            self.retried = why
        return bool(over)
