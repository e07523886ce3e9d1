"""Grant the two rights in time, whatever kind of gate there is.

With deadlines this is a store. With timeouts the kernel counts from the call, so a process that
stands still between reading the clock and the call would grant too long: that is what permits and
repeated tries are for. `NodeExecutor` does not know which one it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from hanat.core.outcomes import DONE, Cause, Done, Failed
from hanat.kernel.gate_ports import TIMEOUT_S_MIN, DeadlineGate, Gate, TimedGate

# What is granted too long must stay below what the lease gives away for kernel ticks, 8 ms.
ARM_S_MAX, ARM_TRIES = 0.002, 6  # an installation in slices keeps it several times
PERMIT_S = TIMEOUT_S_MIN  # how late a first grant may come to the kernel


class Granting(Protocol):
    """Grants both rights, and takes them back.

    Attributes:
        gate: Whose rights.
    """

    @property
    def gate(self) -> Gate:
        """The gate."""
        ...

    def confirm(self) -> None:
        """Make sure that the gate is in place.

        Raises:
            AbsentObjectError: It is not.
        """
        ...

    def grant(self, answers_until: float, carries_until: float) -> Done | Failed:
        """Grant both until then, seconds of the clock.

        Returns:
            Failed: nothing that is over was granted.

        Raises:
            KernelError: What the kernel refused.
        """
        ...

    def forget(self) -> None:
        """Note that the rights are given up."""
        ...


class TimedGranting:
    """Implements `Granting` with timeouts.

    Args:
        gate: Where.
        devices: Kernel names.
        clock: Seconds of CLOCK_BOOTTIME.
    """

    def __init__(self, gate: TimedGate, devices: Iterable[str], clock: Callable[[], float]) -> None:
        self.gate = gate
        self._devices = tuple(sorted(set(devices)))
        self._clock = clock
        self._permitted_until = 0.0  # as far as we know; the kernel knows

    def confirm(self) -> None:
        """See `Granting.confirm`."""
        if self._permitted_until <= self._clock():
            self.gate.permit(PERMIT_S)

    def grant(self, answers_until: float, carries_until: float) -> Done | Failed:
        """Grant both rights for what is left of them; see `Granting.grant`.

        The kernel counts from the call. A process that stood still between computing the
        rest and the call has granted too long, by as much as both took together. It grants
        anew: less by what that call took or, if nothing would be left then, what is left.
        If every try takes too long it takes the rights back. If it stood still until the
        former grant was over, the kernel grants nothing.
        """
        took_s = 0.0
        slow = f"arming the gate took more than {ARM_S_MAX * 1000:.0f} ms, {ARM_TRIES} times"
        failure = Failed(Cause.SLOW, slow)
        granted = False
        for _ in range(ARM_TRIES):
            self.confirm()
            now = self._clock()
            left_s = answers_until - now
            if left_s < TIMEOUT_S_MIN:
                failure = _too_late(left_s)
                break
            spare_s = took_s if left_s - took_s >= TIMEOUT_S_MIN else 0.0
            answers_s, carries_s = left_s - spare_s, carries_until - now - spare_s
            if not self.gate.arm(self._devices, answers_s=answers_s, carries_s=carries_s):
                self._permitted_until = 0.0
                failure = Failed(Cause.LATE, "the former grant was over when the kernel was asked")
                continue
            granted = True
            self._permitted_until = now + answers_s
            took_s = self._clock() - now
            if took_s <= spare_s + ARM_S_MAX:
                return DONE
        if granted:
            self._permitted_until = 0.0
            self.gate.shut()
        return failure

    def forget(self) -> None:
        """See `Granting.forget`."""
        self._permitted_until = 0.0


class DeadlineGranting:
    """Implements `Granting` with deadlines.

    Args:
        gate: Where.
        clock: Seconds of CLOCK_BOOTTIME.
    """

    def __init__(self, gate: DeadlineGate, clock: Callable[[], float]) -> None:
        self.gate, self._clock = gate, clock

    def confirm(self) -> None:
        """See `Granting.confirm`."""
        self.gate.confirm()

    def grant(self, answers_until: float, carries_until: float) -> Done | Failed:
        """See `Granting.grant`."""
        left_s = answers_until - self._clock()
        if left_s <= 0:
            return _too_late(left_s)
        self.gate.grant(answers_until=answers_until, carries_until=carries_until)
        return DONE

    def forget(self) -> None:
        """See `Granting.forget`."""


def _too_late(left_s: float) -> Failed:
    if left_s > 0:
        return Failed(Cause.LATE, f"only {left_s * 1000:.1f} ms of the lease were left")
    late = f"the lease was over for {-left_s * 1000:.1f} ms: the loop came late"
    return Failed(Cause.LATE, late)
