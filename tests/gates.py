"""Grant rights without a race against the clock."""

from __future__ import annotations

from collections.abc import Iterable

from hanat.kernel.ports import Gate

VALID_S = 60.0


def grant(gate: Gate, devices: Iterable[str], *, answers_s: float, carries_s: float) -> None:
    """Let these devices answer and carry for so long."""
    gate.permit(VALID_S)
    assert gate.arm(devices, answers_s=answers_s, carries_s=carries_s)
