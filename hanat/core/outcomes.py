"""How an action ended: done, not yet, or failed, and then why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """Whose doing a failure is."""

    KERNEL = "kernel"  # the kernel refused it
    NO_DEVICE = "interfaces"  # this node's file names no device for an interface
    LATE = "late"  # the lease was over before it was done
    SLOW = "slow"  # it took longer than what may be granted too much
    NO_PEER = "peers"  # no connected peer has the whole log
    LOG = "log"  # the replicated log did not take it
    SYSTEM = "system"  # another call to the system failed


@dataclass(frozen=True, slots=True)
class Done:
    """It is done."""


@dataclass(frozen=True, slots=True)
class Pending:
    """It has begun; how it ended is an input later."""


@dataclass(frozen=True, slots=True)
class Failed:
    """It is not done.

    Attributes:
        cause: For decisions.
        detail: For people: what was tried, what was found, what to do.
    """

    cause: Cause
    detail: str

    def __str__(self) -> str:
        return f"{self.cause}: {self.detail}"


Outcome = Done | Pending | Failed

DONE, PENDING = Done(), Pending()
