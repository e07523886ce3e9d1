"""Actions on a fake kernel: what comes too late, what comes later, what is there already."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

import pytest

from hanat.core.actions import (
    Action,
    AddAddresses,
    Announce,
    ArmGate,
    InstallRuleset,
    WithdrawGate,
)
from hanat.core.configuration import Configuration, FloatingAddress
from hanat.core.gate_rules import render_gate
from hanat.core.inputs import ActionDone, ActionFailed, Input
from hanat.core.outcomes import DONE, PENDING, Cause, Failed
from hanat.core.placements import Placement
from hanat.daemon.executor import Callbacks, Kernel, NodeExecutor, Place
from hanat.daemon.gate_change import GateChange
from hanat.daemon.granting import TimedGranting
from hanat.daemon.ruleset_installer import TABLES, RulesetInstaller
from hanat.daemon.worker_link import WorkerLink
from hanat.errors import HanatError, KernelError
from hanat.kernel.sysctls import KernelSettings
from hanat.raft.replica import Replica
from hanat.raft.slow_work import Done
from tests.core.examples import CONVERSATION, DEVICES, EDGE
from tests.fakes.gate import FakeGate
from tests.fakes.kernel import FakeAddresses, FakeAnnouncer, FakeFirewall, FakeKernel

P = ParamSpec("P")
R = TypeVar("R")
REFUSAL = KernelError(operation="do it", target="eth0", found="EIO: it failed")
REFUSED = Failed(Cause.KERNEL, str(REFUSAL))


def vip(name: str, address: IPv4Interface | IPv6Interface) -> FloatingAddress:
    return FloatingAddress(name, "public", (address,))


class Held:
    """A thread that works when it is told to."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Callable[[], None], Done]] = deque()

    def __call__(self, work: Callable[[], None], done: Done) -> None:
        self._waiting.append((work, done))

    def go_on(self) -> None:
        """Do everything that waits."""
        while self._waiting:
            work, done = self._waiting.popleft()
            error: BaseException | None = None
            try:
                work()
            except (HanatError, AssertionError) as raised:
                error = raised
            done(error)


class Executed:
    """An executor with a clock in hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.kernel = FakeKernel(DEVICES.values(), now=self.clock)
        self.gate = FakeGate(self.kernel)
        self.firewall = FakeFirewall(self.kernel)
        self.thread = Held()
        self.outcomes: list[Input] = []
        self.turns: deque[Callable[[], None]] = deque()  # of the loop, that were asked for
        self.settings = KernelSettings(Path("/nonexistent"))
        self.rulesets = RulesetInstaller(
            DEVICES,
            conversation=CONVERSATION,
            gate=GateChange(self.gate, FakeAddresses(self.kernel), DEVICES.values()),
            firewall=self.firewall,
            background=self.thread,
            known=("", EDGE),
        )
        self.executor = NodeExecutor(
            Place(1, DEVICES, "", self.clock),
            kernel=Kernel(
                FakeAddresses(self.kernel),
                FakeAnnouncer(self.kernel),
                TimedGranting(self.gate, DEVICES.values(), self.clock),
                self.rulesets,
                self.settings,
            ),
            replica=cast(Replica, None),
            worker=cast(WorkerLink, None),
            callbacks=Callbacks(
                lambda: None,
                lambda _: None,
                lambda: None,
                self.outcomes.append,
                self.turns.append,
                lambda _delay_s, call: self.turns.append(call),
            ),
        )

    def clock(self) -> float:
        return self.now

    def begin(self, action: Action) -> None:
        assert self.executor.execute(action) == PENDING

    def install(self) -> Input:
        """Install the ruleset of the example; return the outcome."""
        self.begin(InstallRuleset(EDGE))
        self.thread.go_on()
        return self.outcomes.pop()


def test_nothing_is_announced_once_the_lease_is_over() -> None:
    e = Executed()
    assert e.executor.execute(Announce(EDGE.vips, until=100.01)) == DONE
    sent = len(e.kernel.announced)
    assert sent

    e.now = 100.01

    assert e.executor.execute(Announce(EDGE.vips, until=100.01)) == Failed(
        Cause.LATE, "the lease ended before the announcement"
    )
    assert len(e.kernel.announced) == sent


def test_what_the_present_gate_guards_goes_before_a_gate_without_it_comes() -> None:
    # A killed predecessor had a newer configuration in force than this node's file has.
    e = Executed()
    newer = ip_interface("203.0.113.77/24")
    gate = render_gate(replace(EDGE, vips=(*EDGE.vips, vip("new", newer))), DEVICES)
    e.gate.install(gate)
    FakeAddresses(e.kernel).add([Placement("eth0", newer), Placement("eth1", newer)])
    own = ip_interface("203.0.113.11/24")
    FakeAddresses(e.kernel).add([Placement("eth0", own)])

    e.kernel.faults["addresses.remove"] = REFUSAL
    assert isinstance(e.install(), ActionFailed)
    assert newer.ip in e.gate.guarded()

    assert isinstance(e.install(), ActionDone)
    assert newer.ip not in e.gate.guarded()
    assert [*e.kernel.devices["eth0"].addresses] == [own]
    assert [*e.kernel.devices["eth1"].addresses] == []


def test_gate_is_armed_and_withdrawn_while_a_ruleset_is_being_installed() -> None:
    e = Executed()
    e.install()
    e.begin(InstallRuleset(EDGE))

    assert e.executor.execute(ArmGate(100.1, 100.3)) == DONE
    assert e.gate.rights()["eth0"].answers_s > 0

    assert e.executor.execute(WithdrawGate()) == DONE
    assert "eth0" not in e.gate.rights() or e.gate.rights()["eth0"].answers_s == 0
    assert e.outcomes == []


def test_installed_ruleset_is_told_when_it_is_there() -> None:
    e = Executed()
    action = InstallRuleset(EDGE)
    e.begin(action)
    assert e.firewall.table("inet", "hanat") is None

    e.thread.go_on()

    assert e.firewall.table("inet", "hanat") is not None
    assert e.outcomes == [ActionDone(action)]


def test_refused_ruleset_is_told_with_the_kernels_words() -> None:
    e = Executed()
    e.kernel.faults["firewall.apply"] = REFUSAL
    assert e.install() == ActionFailed(InstallRuleset(EDGE), REFUSED)


def test_what_is_installed_is_not_installed_again_unless_somebody_changed_it() -> None:
    e = Executed()
    assert isinstance(e.install(), ActionDone)

    e.kernel.faults["firewall.apply"] = REFUSAL
    assert isinstance(e.install(), ActionDone)

    del e.kernel.tables["inet", "hanat"]
    assert isinstance(e.install(), ActionFailed)  # tried, and refused


@pytest.mark.parametrize("before", [EDGE, replace(EDGE, vips=EDGE.vips[1:], services=())])
@pytest.mark.parametrize("call", range(12))
def test_rules_that_are_flushed_while_others_are_installed_are_found_to_be_gone(
    monkeypatch: pytest.MonkeyPatch, before: Configuration, call: int
) -> None:
    """At whatever moment; what is remembered of the kernel's tables must not be their absence."""
    e = Executed()
    e.begin(InstallRuleset(before))
    e.thread.go_on()
    calls = 0

    def flushing(work: Callable[P, R]) -> Callable[P, R]:
        def done(*arguments: P.args, **named: P.kwargs) -> R:
            nonlocal calls
            if calls == call:
                e.kernel.tables.clear()
            calls += 1
            return work(*arguments, **named)

        return done

    monkeypatch.setattr(e.firewall, "fingerprint", flushing(e.firewall.fingerprint))
    monkeypatch.setattr(e.firewall, "apply", flushing(e.firewall.apply))
    e.install()
    monkeypatch.undo()
    found: list[str] = []
    e.rulesets.look(lambda changes, _spent_s: found.extend(changes))
    e.thread.go_on()
    gone = {t for t in TABLES if t not in e.kernel.tables}
    there = {t for t in TABLES if f"table {t[0]} {t[1]} gone" not in found}
    told = isinstance(e.outcomes[-1], ActionFailed) and not e.outcomes[-1].kept
    assert told or not gone & there


def test_no_address_comes_to_a_kernel_whose_gate_is_gone() -> None:
    e = Executed()
    e.install()
    e.kernel.tables.clear()
    found = e.executor.execute(AddAddresses(EDGE.vips))
    assert isinstance(found, Failed)
    assert "the gate's tables are missing" in found.detail
    assert not any(e.kernel.devices[device].addresses for device in DEVICES.values())


def test_refused_ruleset_leaves_the_one_before_in_force() -> None:
    e = Executed()
    e.install()
    gate, ruleset = e.kernel.tables["inet", "hanat_gate"], e.kernel.tables["inet", "hanat"]
    other = replace(EDGE, vips=EDGE.vips[1:], masquerades=(), services=())
    e.kernel.faults["firewall.apply"] = REFUSAL

    e.begin(InstallRuleset(other))
    e.thread.go_on()

    assert e.outcomes == [ActionFailed(InstallRuleset(other), REFUSED, kept=True)]
    assert e.kernel.tables["inet", "hanat_gate"] == gate
    assert e.kernel.tables["inet", "hanat"] == ruleset


@pytest.mark.parametrize("took_s", [0.05, 0.1])
def test_gate_that_was_armed_too_long_is_armed_anew(
    took_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    e = Executed()
    e.install()
    slow = iter([took_s])
    stand_still(e, slow, monkeypatch)

    found = e.executor.execute(ArmGate(100.1, 100.3))

    left_s = 100.1 - e.now
    answers_s = e.gate.rights()["eth0"].answers_s if "eth0" in e.gate.rights() else 0.0
    assert answers_s <= max(left_s, 0.0) + 0.002
    assert (found == DONE) is (left_s > 0)


def test_standing_still_until_the_former_grant_is_over_grants_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    e = Executed()
    e.install()
    assert e.executor.execute(ArmGate(100.06, 100.3)) == DONE
    e.now += 0.03
    stand_still(e, iter([0.17]), monkeypatch)
    granted: list[float] = []
    monkeypatch.setattr(e.gate, "shut", lambda: granted.append(e.now))

    found = e.executor.execute(ArmGate(100.09, 100.33))

    assert found == Failed(Cause.LATE, "the lease was over for 110.0 ms: the loop came late")
    assert granted == []  # nothing to take back: there was no instant with a right
    assert e.gate.rights()["eth0"].answers_s == 0.0


def test_first_grant_that_comes_late_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    e = Executed()
    e.install()
    stand_still(e, iter([0.17]), monkeypatch)
    found = e.executor.execute(ArmGate(100.1, 100.3))
    assert found == Failed(Cause.LATE, "the lease was over for 70.0 ms: the loop came late")
    assert e.gate.rights() == {}


def test_gate_that_takes_long_each_time_is_shut(monkeypatch: pytest.MonkeyPatch) -> None:
    e = Executed()
    e.install()
    stand_still(e, itertools.count(0.003, 0.003), monkeypatch)
    assert "took more than 2 ms, 6 times" in str(e.executor.execute(ArmGate(100.1, 100.3)))
    assert e.gate.rights() == {}


def test_gate_is_not_armed_when_the_lease_is_over_and_says_for_how_long() -> None:
    e = Executed()
    e.install()
    e.now = 102.1
    found = e.executor.execute(ArmGate(100.1, 100.3))
    assert found == Failed(Cause.LATE, "the lease was over for 2000.0 ms: the loop came late")
    assert e.gate.rights() == {}


def test_gate_that_takes_equally_long_each_time_is_armed_for_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    e = Executed()
    e.install()
    assert e.executor.execute(ArmGate(100.08, 100.3)) == DONE
    stand_still(e, itertools.repeat(0.02), monkeypatch)
    assert e.executor.execute(ArmGate(100.1, 100.3)) == DONE
    assert 0.0 < e.gate.rights()["eth0"].answers_s <= 100.1 - e.now


def test_one_long_call_does_not_end_a_lease_that_has_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    e = Executed()
    e.install()
    assert e.executor.execute(ArmGate(100.1, 100.3)) == DONE
    e.now += 0.033
    stand_still(e, iter([0.06]), monkeypatch)
    assert e.executor.execute(ArmGate(100.14, 100.34)) == DONE  # 47 ms of it are left
    assert 0.0 < e.gate.rights()["eth0"].answers_s <= 100.14 - e.now


def stand_still(e: Executed, slow: Iterator[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let time pass between the clock and the kernel."""
    arm = e.gate.arm

    def late(devices: Iterable[str], *, answers_s: float, carries_s: float) -> bool:
        e.now += next(slow, 0.0)
        return arm(devices, answers_s=answers_s, carries_s=carries_s)

    monkeypatch.setattr(e.gate, "arm", late)
