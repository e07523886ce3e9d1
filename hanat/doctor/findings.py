"""What the doctor found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at.

    Attributes:
        check: What was looked at, e.g. ``net.ipv4.ip_forward``.
        found: What it is, and why that matters if it is not ok.
        fix: The command that helps; empty when ok.
    """

    level: Level
    check: str
    found: str
    fix: str = ""
