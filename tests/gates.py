"""Gates of both kinds, and rights granted without a race against the clock."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

from hanat.core.configuration import GateKind
from hanat.core.rights import MARK_MASK, TIMEOUTS, Enforcement
from hanat.kernel.deadline_gate import KernelDeadlineGate
from hanat.kernel.gate_ports import TimedGate
from hanat.kernel.timeout_gate import KernelGate
from hanat.kernel.traffic_filters import TrafficFilters

VALID_S = 60.0

DEADLINES = Enforcement(GateKind.DEADLINE)


class Kind(StrEnum):
    """A gate of the real kernel; that with a deadline in both ways to attach its programs."""

    TIMEOUTS = "timeouts"
    DEADLINE = "deadline"  # the shortest way that the kernel has
    CLASSIFIERS = "classifiers"  # that of older kernels

    @property
    def by(self) -> Enforcement:
        """How its rules know the rights."""
        return TIMEOUTS if self is Kind.TIMEOUTS else DEADLINES


def _release(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("-")[0].split(".")[:2])


# By its release, not by what `tcx.is_supported` says: else a fault there would end the trial of tcx
# without a word.
HAS_TCX = _release(platform.release()) >= (6, 6)
WAYS = (Kind.DEADLINE, Kind.CLASSIFIERS) if HAS_TCX else (Kind.CLASSIFIERS,)
"""Gates with a deadline, one for each way to attach programs that this kernel has."""
KINDS = (Kind.TIMEOUTS, *WAYS)
"""Gates that differ on this kernel."""


def open_gate(kind: Kind, devices: Iterable[str]) -> KernelGate | KernelDeadlineGate:
    """Return a gate of the real kernel."""
    return KernelGate() if kind is Kind.TIMEOUTS else open_deadline_gate(kind, devices)


def open_deadline_gate(
    way: Kind, devices: Iterable[str], data_dir: Path | None = None
) -> KernelDeadlineGate:
    """Return a gate with a deadline whose programs are attached this way."""
    places = TrafficFilters if way is Kind.CLASSIFIERS else None
    return KernelDeadlineGate(devices, MARK_MASK, data_dir=data_dir, places=places)


def grant(
    gate: TimedGate | KernelDeadlineGate,
    devices: Iterable[str],
    *,
    answers_s: float,
    carries_s: float,
) -> None:
    """Let these devices answer and carry for so long; a gate with a deadline: all of its own."""
    if isinstance(gate, KernelDeadlineGate):
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        gate.grant(answers_until=now + answers_s, carries_until=now + carries_s)
        return
    gate.permit(VALID_S)
    assert gate.arm(devices, answers_s=answers_s, carries_s=carries_s)
