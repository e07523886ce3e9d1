"""What hanat needs of the kernel's switch that enforces the lease, as Protocols.

See `ports`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from hanat.core.configuration import Address

# A kernel without commit e0c47281723f (netfilter, September 2024) takes a timeout of less than a
# tick for none at all: the right would never end. A tick is 10 ms at most (HZ=100).
TIMEOUT_S_MIN = 0.010


@dataclass(frozen=True, slots=True)
class Rights:
    """What is left of both rights on one device, in seconds; 0 when withdrawn."""

    answers_s: float
    carries_s: float


class Gate(Protocol):
    """The kernel switch that enforces the lease; see `core.gate_rules.render_gate`.

    A device without a right neither answers nor forwards. Rights end by themselves, in the
    kernel, whatever becomes of this process.
    """

    def install(self, script: str) -> None:
        """Put the gate's tables in place (idempotent); rights granted before stay."""
        ...

    def withdraw(self) -> None:
        """End *answers* at once, everywhere (and the permit); *carries* runs out by itself."""
        ...

    def shut(self) -> None:
        """End both rights at once, everywhere (and the permit)."""
        ...

    def missing(self) -> tuple[str, ...]:
        """Return what somebody took away that `install` put beside the tables, for people."""
        ...

    def guarded(self) -> frozenset[Address]:
        """Return the floating addresses of the gate that is installed.

        Raises:
            AbsentObjectError: None is.
        """
        ...

    def ports(self) -> frozenset[str]:
        """Return the devices of the gate that is installed; raises as `guarded` does."""
        ...

    def rights(self) -> Mapping[str, Rights]:
        """Return what is granted now, by device; devices without a right are absent."""
        ...

    def close(self) -> None:
        """Release what is open."""
        ...


class TimedGate(Gate, Protocol):
    """One whose rights are members of sets, which the kernel drops when their timeout is over."""

    def permit(self, valid_s: float) -> None:
        """Let the next grant be made within `valid_s` seconds from now, rounded down to ms.

        Args:
            valid_s: At least `TIMEOUT_S_MIN`.

        Raises:
            AbsentObjectError: The gate is not installed.
        """
        ...

    def arm(self, devices: Iterable[str], *, answers_s: float, carries_s: float) -> bool:
        """Grant both rights anew, in one transaction for all devices and families.

        Rights of devices that are not named end. A device that is missing carries nothing, nor
        does one that is made anew under its name, until the next grant. Who makes a grant must
        have a permit, which only the kernel's clock ends: `permit` gives one, and each grant
        gives one for as long as its *answers* last. So a caller that stood still between
        reading the clock and this call, until the former grant was over, grants nothing.

        Args:
            devices: Kernel names.
            answers_s: From now; at least `TIMEOUT_S_MIN`, millisecond resolution, rounded down.
            carries_s: From now; at least answers_s.

        Returns:
            Whether it was granted; False: there was no permit (any more), nothing was changed.

        Raises:
            AbsentObjectError: The gate is not installed.
        """
        ...


class DeadlineGate(Gate, Protocol):
    """One whose rights are deadlines, with which a program compares each packet."""

    def confirm(self) -> None:
        """Make sure that the gate is installed.

        Raises:
            AbsentObjectError: It is not.
        """
        ...

    def grant(self, *, answers_until: float, carries_until: float) -> None:
        """Let both rights end then, on all devices of this node; what is over is no right.

        It asks nothing of the kernel. A device that is made anew has no right before the next
        installation, which `missing` asks for.

        Args:
            answers_until: Seconds of CLOCK_BOOTTIME, resolution 1 ns, rounded down.
            carries_until: Likewise, not before.
        """
        ...
