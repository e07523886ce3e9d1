"""What a node does while its newest configuration is being read and installed."""

from __future__ import annotations

from ipaddress import ip_interface

from hanat.core import actions as do
from hanat.core import inputs as told
from hanat.core.address_schedule import ANNOUNCE_OFFSETS_S
from hanat.core.configuration import Configuration, FloatingAddress
from hanat.core.eligibility import Fitness
from hanat.core.node import KERNEL_RETRY_S
from hanat.core.status import Role
from tests.core.examples import because
from tests.core.test_node import CONFIGURATION, PROFILE, VIPS, Harness


def test_addresses_of_a_new_configuration_wait_for_its_gate() -> None:
    h = Harness().active(until=0.09)
    extra = FloatingAddress("extra", "public", (ip_interface("203.0.113.20/24"),))
    changed = Configuration("test", PROFILE, (*VIPS, extra), (), ())
    h.slow = True
    assert h.tell(told.ConfigurationApplied(2, changed)) == [do.InstallRuleset(changed)]

    h.now = ANNOUNCE_OFFSETS_S[1]
    assert h.tell(told.TimerDue()) == [do.Announce(VIPS, until=0.09)]  # not yet the extra one

    assert h.tell(told.ActionDone(do.InstallRuleset(changed))) == [
        do.AddAddresses((extra,)),
        do.Announce((extra,), until=0.09),
    ]


def test_ruleset_that_was_to_come_behind_a_refused_removal_is_tried_again() -> None:
    changed = Configuration("test", PROFILE, VIPS[:1], (), ())
    h = Harness(failing=do.RemoveAddresses(VIPS))
    assert do.InstallRuleset(changed) not in h.tell(told.ConfigurationApplied(2, changed))
    assert h.node.unsafe  # none was ever there
    h.failing = None
    h.now = KERNEL_RETRY_S
    assert do.InstallRuleset(changed) in h.tell(told.TimerDue())
    assert not h.node.unsafe + h.node.hindrances


def test_ruleset_of_an_older_configuration_opens_nothing() -> None:
    h = Harness(slow=True)
    h.elect()
    h.tell(told.BarrierApplied(1))
    changed = Configuration("test", PROFILE, tuple(reversed(VIPS)), (), ())
    h.tell(told.ConfigurationApplied(2, changed))
    assert h.lease(until=0.09) == []

    assert h.tell(told.ActionDone(do.InstallRuleset(CONFIGURATION))) == []
    assert h.waits

    assert do.AddAddresses(changed.vips) in h.tell(told.ActionDone(do.InstallRuleset(changed)))
    assert h.role is Role.ACTIVE


def test_refused_ruleset_of_an_older_configuration_does_not_hinder() -> None:
    h = Harness(slow=True)
    changed = Configuration("test", PROFILE, tuple(reversed(VIPS)), (), ())
    h.tell(told.ConfigurationApplied(2, changed))
    h.tell(told.ActionFailed(do.InstallRuleset(CONFIGURATION), because("refused")))
    assert not h.node.unsafe + h.node.hindrances
    h.tell(told.ActionFailed(do.InstallRuleset(changed), because("refused")))
    assert h.node.snapshot().unsafe == ("kernel: refused",)


def test_elected_node_waits_for_a_configuration_that_is_being_read() -> None:
    h = Harness(revision=0)
    h.tell(told.ConfigurationCommitted(1))
    h.elect()
    h.lease(until=0.09)
    assert h.tell(told.BarrierApplied(1)) == []  # the cluster has one: none is proposed
    assert h.waits
    h.tell(told.ConfigurationApplied(1, CONFIGURATION))
    assert h.role is Role.ACTIVE


def test_holder_goes_on_while_a_configuration_is_being_read() -> None:
    h = Harness().active(until=0.09)
    assert h.tell(told.ConfigurationCommitted(2)) == []
    assert h.lease(until=0.11) == [do.ArmGate(0.11, 0.11 + PROFILE.grace_s)]


def test_node_is_safe_again_when_the_refused_ruleset_is_there_not_when_it_is_tried() -> None:
    h = Harness(slow=True)
    h.tell(told.ActionFailed(do.InstallRuleset(CONFIGURATION), because("refused")))
    h.now = h.node.deadline or 0.0
    assert h.tell(told.TimerDue()) == [do.InstallRuleset(CONFIGURATION)]
    assert h.node.snapshot().unsafe == ("kernel: refused",)
    h.tell(told.ActionFailed(do.InstallRuleset(CONFIGURATION), because("refused again")))
    assert h.node.snapshot().unsafe == ("kernel: refused again",)
    h.now = h.node.deadline or 0.0
    h.tell(told.TimerDue())
    installed = h.tell(told.ActionDone(do.InstallRuleset(CONFIGURATION)))
    assert installed == [do.SetFitness(Fitness())]
    assert not h.node.unsafe + h.node.hindrances


def test_elected_node_whose_file_becomes_the_configuration_announces_at_once() -> None:
    h = Harness(revision=0)
    h.tell(told.ActionDone(do.InstallRuleset(CONFIGURATION)))  # of its start
    h.elect()
    h.lease(until=0.09)
    h.tell(told.BarrierApplied(1))
    actions = h.tell(told.ConfigurationApplied(1, CONFIGURATION))
    assert actions.count(do.Announce(VIPS, until=0.09)) == 1
    assert h.role is Role.ACTIVE
