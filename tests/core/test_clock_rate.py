"""Whether a clock is trusted, from readings alone."""

from __future__ import annotations

import pytest

from hanat.core.clock_rate import ERROR_MAX, SPAN_S, ClockRate

LEASE_S = 0.5


class Clocks:
    """Two clocks, of which one is slewed."""

    def __init__(self) -> None:
        self.clock, self.raw = 1000.0, 50.0
        self.watch = ClockRate(lease_s=LEASE_S, clock=self.clock, raw=self.raw)

    def run(self, duration_s: float, *, rate: float = 1.0, step_s: float = 0.02) -> list[bool]:
        """Let time pass, look each step; return what was said, without the first span."""
        said = []
        for _ in range(round(duration_s / step_s)):
            self.raw += step_s
            self.clock += step_s * rate
            said.append(self.watch.look(clock=self.clock, raw=self.raw))
        return said


def test_clock_is_trusted_from_the_start() -> None:
    assert all(Clocks().run(3.0))


def test_clock_that_is_slewed_at_the_start_is_found_before_the_node_has_been_quiet() -> None:
    said = Clocks().run(0.4, rate=1.083)
    assert not said[-1]


@pytest.mark.parametrize("rate", [1 + 0.9 * ERROR_MAX, 1 - 0.9 * ERROR_MAX])
def test_what_the_margin_allows_is_no_reason(rate: float) -> None:
    clocks = Clocks()
    clocks.run(1.0)
    assert all(clocks.run(3.0, rate=rate))


@pytest.mark.parametrize("rate", [1.083, 0.917, 1.02])
def test_slewed_clock_is_not_trusted_until_it_was_right_for_a_lease(rate: float) -> None:
    clocks = Clocks()
    clocks.run(1.0)
    said = clocks.run(1.0, rate=rate)
    assert said.index(False) * 0.02 <= 2 * SPAN_S
    assert not any(said[said.index(False) :])
    back = clocks.run(2.0)
    assert LEASE_S <= back.index(True) * 0.02 <= LEASE_S + 3 * SPAN_S


def test_slew_that_begins_and_ends_between_two_looks_is_seen() -> None:
    clocks = Clocks()
    clocks.run(1.0)
    assert clocks.run(0.3, rate=1.083, step_s=0.3) == [False]


def test_suspended_machine_does_not_trust_its_clock_at_once() -> None:
    clocks = Clocks()
    clocks.run(1.0)
    clocks.clock += 3600.0
    clocks.raw += 0.2
    assert not clocks.watch.look(clock=clocks.clock, raw=clocks.raw)
