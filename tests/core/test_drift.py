"""What other programs changed, and what is put back."""

from __future__ import annotations

import pytest

from hanat.core import actions as do
from hanat.core import inputs as told
from hanat.core.drift import (
    EVENTS,
    IP_FORWARD,
    LIBERAL,
    REPAIR_GAP_S,
    Settings,
    is_right,
    settings_of,
)
from hanat.core.eligibility import Fitness
from hanat.core.node import KERNEL_RETRY_S
from hanat.core.status import Role
from tests.core.test_node import CONFIGURATION, PROFILE, Harness

GONE = told.RulesetDrifted(("table inet hanat gone",))
INSTALL = do.InstallRuleset(CONFIGURATION)
FILTER = "net/ipv4/conf/eth0/rp_filter"


def test_backup_puts_its_tables_back() -> None:
    h = Harness()
    assert h.tell(GONE) == [INSTALL]
    assert h.node.snapshot().repairs == (("ruleset", 1),)


def test_holder_arms_the_gate_anew_that_it_put_back() -> None:
    h = Harness().active(until=9.0)
    assert h.tell(GONE) == [INSTALL, do.ArmGate(9.0, 9.0 + PROFILE.grace_s)]
    assert h.role is Role.ACTIVE
    assert h.tell(told.ActionDone(INSTALL)) == []  # once


def test_elected_node_waits_until_its_tables_are_back() -> None:
    h = Harness(slow=True)
    h.tell(told.ActionDone(INSTALL))
    h.elect()
    h.tell(told.BarrierApplied(1))
    h.tell(GONE)
    assert h.lease(until=9.0) == []
    assert h.waits
    h.tell(told.ActionDone(INSTALL))
    assert h.role is Role.ACTIVE


def test_fight_over_tables_costs_one_installation_a_second() -> None:
    h = Harness()
    assert h.tell(GONE) == [INSTALL]
    h.now = REPAIR_GAP_S / 2
    assert h.tell(GONE) == []
    h.now = REPAIR_GAP_S
    assert h.tell(GONE) == [INSTALL]
    assert h.node.snapshot().repairs == (("ruleset", 2),)


def test_holder_whose_gate_cannot_be_armed_stops_and_puts_it_back_at_once() -> None:
    h = Harness().active(until=0.09)
    h.failing = do.ArmGate(0.19, 0.19 + PROFILE.grace_s)
    actions = h.tell(told.LeaseObserved(1, 0.19))
    assert actions[:4] == [
        h.failing, do.SetFitness(Fitness(safe=False)), do.WithdrawGate(), do.FlushFlows(),
    ]  # fmt: skip
    assert INSTALL in actions
    assert h.role is Role.RELEASING
    h.now = KERNEL_RETRY_S
    assert do.SetFitness(Fitness()) in h.tell(told.TimerDue())


def test_setting_is_put_back_once_a_second() -> None:
    h = Harness()
    wrong = ((IP_FORWARD, "0", "1"),)
    assert h.tell(told.SettingsDrifted(wrong)) == [do.RestoreSettings(wrong)]
    assert h.tell(told.SettingsDrifted(wrong)) == []
    assert h.tell(GONE) == [INSTALL]  # another kind
    assert h.node.snapshot().repairs == (("ruleset", 1), ("sysctl", 1))


def test_setting_that_cannot_be_put_back_is_tried_again_in_a_minute() -> None:
    wrong = ((IP_FORWARD, "0", "1"),)
    h = Harness(failing=do.RestoreSettings(wrong)).active(until=1000.0)
    assert h.tell(told.SettingsDrifted(wrong)) == [do.RestoreSettings(wrong)]
    assert h.node.snapshot().repairs == (("sysctl", 0),)
    h.now += 59.0
    assert h.tell(told.SettingsDrifted(wrong)) == []
    h.now += 1.0
    assert h.tell(told.SettingsDrifted(wrong)) == [do.RestoreSettings(wrong)]


def test_only_what_was_right_once_is_missed() -> None:
    settings = Settings()
    assert settings.look({IP_FORWARD: "1", LIBERAL: "0", FILTER: "2"}) == ()
    found = settings.look({IP_FORWARD: "0", LIBERAL: "0", FILTER: "1"})
    assert found == ((IP_FORWARD, "0", "1"), (FILTER, "1", "2"))
    assert settings.look({LIBERAL: "1"}) == ()  # what is absent is not wrong
    assert settings.look({LIBERAL: "0"}) == ((LIBERAL, "0", "1"),)


@pytest.mark.parametrize(
    ("path", "value", "right"),
    [(IP_FORWARD, "1", True), (EVENTS, "2", False), (FILTER, "0", True), (FILTER, "1", False)],
)
def test_strict_reverse_path_filters_and_switches_that_are_off_are_wrong(
    path: str, value: str, *, right: bool
) -> None:
    assert is_right(path, value) is right


def test_settings_of_every_device_count() -> None:
    assert FILTER in settings_of(("eth0",))
    assert "net/ipv4/conf/all/rp_filter" in settings_of(())
