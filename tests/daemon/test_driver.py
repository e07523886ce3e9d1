"""When the driver comes back to the core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from hanat.core import inputs as told
from hanat.core.actions import Action
from hanat.core.node import Node
from hanat.core.outcomes import DONE, Outcome
from hanat.core.status import Role
from hanat.daemon.driver import Driver
from tests.core.test_node import CONFIGURATION, ME


class Timers:
    """A loop whose timers never fire: its clock stands still."""

    def __init__(self) -> None:
        self.delays: list[float] = []

    def call_later(self, delay_s: float, _call: Callable[[], None]) -> Timers:
        self.delays.append(delay_s)
        return self

    def cancel(self) -> None: ...


class Obedient:
    """Does whatever it is told."""

    def execute(self, _action: Action) -> Outcome:
        return DONE


class Holder:
    """A node that holds the addresses under a lease of 90 ms."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers = Timers()
        self.node = Node(node_id=ME, configuration=CONFIGURATION, now=self.now)
        self.driver = Driver(
            self.node,
            cast("Any", Obedient()),
            clock=lambda: self.now,
            loop=cast("Any", self.timers),
        )
        self.driver.begin()
        for item in (
            told.ConfigurationApplied(1, CONFIGURATION),
            told.LeaderObserved(1, ME),
            told.BarrierApplied(1),
            told.FlowsSettled(1),
            told.LeaseObserved(1, self.now + 0.09),
        ):
            self.driver.feed(item)
        assert self.node.role is Role.ACTIVE


def test_deadline_that_passed_while_the_machine_was_suspended_is_met_at_once() -> None:
    holder = Holder()
    holder.now += 10.0
    holder.driver.feed(told.CarrierObserved("public", carrier=True))
    assert holder.timers.delays[-1] == 0.0


def test_renewals_leave_an_early_timer_alone() -> None:
    holder = Holder()
    before = len(holder.timers.delays)
    for _ in range(5):
        holder.now += 0.001
        holder.driver.feed(told.LeaseObserved(1, holder.now + 0.09))
    assert len(holder.timers.delays) == before
