"""When our tables are looked at."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from hanat.core.inputs import RulesetDrifted
from hanat.daemon.drift_watch import GAP_S, GONE_GAP_S, PERIOD_S, DriftWatch
from hanat.kernel.ports import Changed

TOOK_S = 0.001


class Clockwork:
    """A loop whose time passes when it is told to, with the kernel and the rulesets."""

    def __init__(self) -> None:
        self.now, self.timers = 100.0, list[tuple[float, Callable[[], None]]]()
        self.heard = Changed.NOTHING
        self.looks: list[float] = []
        self.gate_looks: list[float] = []
        self.gate_lacks: tuple[str, ...] = ()
        self.fed: list[object] = []
        self.done: Callable[[tuple[str, ...], float], None] | None = None

    def time(self) -> float:
        return self.now

    def add_reader(self, _descriptor: int, read: Callable[[], None]) -> None:
        self.told = read

    def call_at(self, at: float, call: Callable[[], None]) -> SimpleNamespace:
        entry = (at, call)
        self.timers.append(entry)
        return SimpleNamespace(when=lambda: at, cancel=lambda: self.timers.remove(entry))

    def fileno(self) -> int:
        return 0

    def read(self, paths: object = None) -> Changed | dict[str, str]:
        return self.heard if paths is None else {}

    def look(self, done: Callable[[tuple[str, ...], float], None]) -> None:
        self.looks.append(self.now)
        self.done = done

    def look_at_gate(self, done: Callable[[tuple[str, ...]], None]) -> None:
        self.gate_looks.append(self.now)
        done(self.gate_lacks)

    def change(self, what: Changed) -> None:
        self.heard = what
        self.told()

    def go(self, seconds: float) -> None:
        """Let time pass; each look ends a millisecond after it began unless one hangs."""
        until = self.now + seconds
        while self.timers and min(at for at, _ in self.timers) <= until:
            entry = min(self.timers, key=lambda timer: timer[0])
            self.timers.remove(entry)
            self.now = max(self.now, entry[0])
            entry[1]()
        self.now = until

    def end(self, waited_s: float = 0.0) -> None:
        done, self.done = self.done, None
        assert done is not None
        self.now += waited_s + TOOK_S
        done((), TOOK_S)


def begun() -> Clockwork:
    works = Clockwork()
    both = cast("Any", works)
    DriftWatch(both, both, both, devices=(), feed=works.fed.append).begin(both)
    works.end()
    return works


def test_a_table_that_is_gone_is_looked_for_at_once_other_changes_wait() -> None:
    for change, gap_s in ((Changed.RULES, GAP_S), (Changed.TABLES, GONE_GAP_S)):
        works = begun()
        first = works.looks[0]
        works.change(change)
        works.go(PERIOD_S / 2)
        assert [round(at - first, 3) for at in works.looks] == [0, gap_s]


def test_look_that_waited_for_a_busy_machine_makes_the_next_one_wait_no_longer() -> None:
    """600 ms without translation (chaos seed 1413)."""
    works = begun()
    works.go(PERIOD_S)
    works.end(waited_s=0.15)
    looked_at = works.now
    works.change(Changed.TABLES)
    works.go(PERIOD_S / 2)
    assert works.looks[-1] == looked_at


def test_what_changes_while_a_look_is_under_way_is_looked_at_after_it() -> None:
    works = begun()
    works.change(Changed.TABLES)
    works.go(GONE_GAP_S)
    works.change(Changed.TABLES)
    works.go(1.0)
    assert len(works.looks) == 2
    works.end()
    works.go(0.0)
    assert len(works.looks) == 3


def test_the_gate_is_looked_at_each_second_and_what_it_lacks_is_told() -> None:
    works = begun()
    works.go(3.5)
    assert len(works.gate_looks) == 3
    assert works.fed == []
    works.gate_lacks = ("program at the ingress of eth0 gone",)
    works.go(1.0)
    assert works.fed == [RulesetDrifted(works.gate_lacks)]
