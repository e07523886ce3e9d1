"""Clocks of the simulated machines, slewed or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hanat.core.clock_rate import ClockWatch
from hanat.core.configuration import nominal_lease_s

if TYPE_CHECKING:
    from tests.sim.process import Process


def clock_watch(process: Process) -> ClockWatch:
    """Return what compares a node's clock with one that nothing slews."""

    def read() -> tuple[float, float]:
        return process.clock(), process.world.now * process.raw_rate

    return ClockWatch(lease_s=nominal_lease_s(process.configuration.profile), read=read)


def slew(process: Process, rate: float) -> None:
    """Let a node's clock run at another rate from now on; the kernel's timeouts follow it."""
    now, slower = process.world.now, process.rate / rate
    process.offset, process.rate = process.clock() - now * rate, rate
    if process.answers_until > now:
        process.answers_until = now + (process.answers_until - now) * slower
    if process.carries_until > now:
        process.carries_until = now + (process.carries_until - now) * slower
