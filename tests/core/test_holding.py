"""Addresses that come after a while, and rulesets that come behind a takeover."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_interface

from hanat.core import actions as do
from hanat.core import inputs as told
from hanat.core.address_schedule import ANNOUNCE_OFFSETS_S
from hanat.core.configuration import Configuration, FloatingAddress, among
from hanat.core.holding import FIRST_MAX
from hanat.core.status import Role
from hanat.core.tenure import FLUSH_S_MAX, OPENING_S_MAX
from tests.core.examples import because
from tests.core.test_node import CONFIGURATION, ME, PEER, PROFILE, VIPS, Harness

EXTRA = FloatingAddress("extra", "public", (ip_interface("203.0.113.20/24"),))
MORE = Configuration("test", PROFILE, (*VIPS, EXTRA), (), ())
LESS = Configuration("test", PROFILE, VIPS[:1], (), ())


def opening() -> tuple[Harness, do.AddAddresses]:
    """Return an elected node whose addresses are still being added."""
    h = Harness()
    h.elect()
    h.tell(told.BarrierApplied(1))
    actions = h.node.step(told.LeaseObserved(1, 0.09), h.now)
    (adding,) = (action for action in actions if isinstance(action, do.AddAddresses))
    assert not any(isinstance(action, do.ArmGate) for action in actions)
    return h, adding


def test_gate_is_armed_after_the_last_address() -> None:
    h, adding = opening()
    h.now = 0.08
    assert h.lease(until=0.15) == []  # renewed meanwhile
    assert h.waits
    assert h.tell(told.ActionDone(adding))[1] == do.ArmGate(0.15, 0.15 + PROFILE.grace_s)
    assert h.role is Role.ACTIVE


def test_lease_that_ended_while_addresses_were_added_opens_nothing() -> None:
    h, adding = opening()
    h.now = 0.09
    actions = h.tell(told.ActionDone(adding))
    assert h.role is Role.FENCED
    assert do.RemoveAddresses(VIPS) in actions
    assert not any(isinstance(action, do.ArmGate) for action in actions)


def test_end_of_an_earlier_takeover_s_addresses_opens_nothing() -> None:
    h, adding = opening()
    assert do.RemoveAddresses(VIPS) in h.tell(told.LeaderObserved(2, PEER))
    h.tell(told.LeaderObserved(3, ME))
    h.tell(told.BarrierApplied(3))
    later = h.node.step(told.LeaseObserved(3, 0.09), h.now)
    assert do.AddAddresses(VIPS) in later
    assert h.tell(told.ActionDone(adding)) == []
    assert h.waits


def test_address_that_a_revision_removes_while_it_is_added_goes_before_its_gate_does() -> None:
    h, adding = opening()
    assert h.tell(told.ConfigurationApplied(2, LESS)) == [
        do.RemoveAddresses(VIPS[1:]),
        do.InstallRuleset(LESS),
    ]
    assert do.Announce(VIPS[:1], until=0.09) in h.tell(told.ActionDone(adding))


def test_address_that_a_revision_adds_while_others_are_added_comes_after_its_gate() -> None:
    h, adding = opening()
    h.tell(told.ConfigurationApplied(2, MORE))  # its gate is installed at once
    assert h.tell(told.ActionDone(adding))[2:] == [
        do.AddAddresses((EXTRA,)), do.Announce(VIPS, until=0.09), do.ProposeHolder(1),
        do.Announce((EXTRA,), until=0.09),
    ]  # fmt: skip


def test_takeover_does_not_wait_for_the_ruleset_of_the_newest_revision() -> None:
    h = Harness()
    h.slow = True
    changed = replace(MORE, vips=(VIPS[0], EXTRA))
    h.tell(told.ConfigurationApplied(2, changed))
    h.elect()
    h.tell(told.BarrierApplied(1))
    actions = h.lease(until=0.09)
    # Neither what the newest revision removed, nor what it adds before its gate is there.
    assert do.AddAddresses(VIPS[:1]) in actions
    assert h.role is Role.ACTIVE
    assert h.tell(told.ActionDone(do.InstallRuleset(changed))) == [
        do.AddAddresses((EXTRA,)), do.Announce((EXTRA,), until=0.09),
    ]  # fmt: skip


def test_takeover_waits_for_a_gate_that_somebody_removed() -> None:
    h = Harness(slow=False)
    h.slow = True
    h.tell(told.RulesetDrifted(("table inet hanat_gate gone",)))
    h.elect()
    h.tell(told.BarrierApplied(1))
    assert h.lease(until=0.09) == []
    assert h.waits
    assert do.AddAddresses(VIPS) in h.tell(told.ActionDone(do.InstallRuleset(CONFIGURATION)))


def test_restored_addresses_are_announced_when_they_are_there() -> None:
    h = Harness().active(until=9.0)
    address = VIPS[0].addresses[0]
    h.tell(told.RemovalObserved("public", (address,)))
    h.now = 0.05
    actions = h.node.step(told.TimerDue(), h.now)
    assert do.RestoreAddresses(VIPS[:1]) in actions
    announced = h.tell(told.ActionDone(do.RestoreAddresses(VIPS[:1])))
    assert announced == [do.Announce(VIPS[:1], until=9.0)]


def test_vip_with_another_address_is_held_by_the_one_that_has_its_gate() -> None:
    both = replace(VIPS[0], addresses=(*VIPS[0].addresses, ip_interface("2001:db8::10/64")))
    assert among((both, VIPS[1]), VIPS) == VIPS
    assert among((replace(both, interface="private"),), VIPS) == ()


def test_nothing_is_among_others_without_a_look_at_them() -> None:
    looked = iter([*VIPS])
    assert among((), looked) == ()
    assert tuple(looked) == VIPS


def test_of_a_thousand_addresses_none_is_compared_with_all_others() -> None:
    """A flush takes them off one by one; each is looked up, not searched for."""
    compared = 0

    class Counted(FloatingAddress):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return self is other

        __hash__ = FloatingAddress.__hash__

    many = tuple(
        Counted(f"v{n}", "public", (ip_interface(f"10.9.{n // 250}.{n % 250 + 1}/16"),))
        for n in range(1000)
    )
    h = Harness()
    h.tell(told.ConfigurationApplied(2, replace(CONFIGURATION, vips=many)))
    h.elect()
    h.tell(told.BarrierApplied(1))
    h.lease(until=9.0)
    compared = 0
    for vip in many:
        h.node.step(told.RemovalObserved("public", vip.addresses[:1]), h.now)
    h.now = 0.05
    assert do.RestoreAddresses(many) in h.node.step(told.TimerDue(), h.now)
    assert compared < 10 * len(many)


def test_opening_that_takes_longer_than_a_lease_is_waited_for_is_not_given_up() -> None:
    """A thousand IPv6 addresses take the kernel 0.6 s; ten leases of `fast` are 0.4."""
    h, adding = opening()
    h.lease(until=60.0)
    while h.node.deadline is not None and h.node.deadline < OPENING_S_MAX:
        h.now = h.node.deadline
        assert do.StepDown() not in h.tell(told.TimerDue())
    assert h.tell(told.ActionDone(adding))[1] == do.ArmGate(60.0, 60.0 + PROFILE.grace_s)
    assert h.role is Role.ACTIVE


def many(count: int = 200) -> tuple[FloatingAddress, ...]:
    return tuple(
        FloatingAddress(f"v{n}", "public", (ip_interface(f"10.9.{n // 250}.{n % 250 + 1}/16"),))
        for n in range(count)
    )


def opening_of(vips: tuple[FloatingAddress, ...]) -> tuple[Harness, do.AddAddresses]:
    """Return an elected node that adds the first of so many."""
    h = Harness()
    h.tell(told.ConfigurationApplied(2, replace(CONFIGURATION, vips=vips)))
    h.elect()
    h.tell(told.BarrierApplied(1))
    return h, added_in(h.node.step(told.LeaseObserved(1, 9.0), h.now))


def added_in(actions: Iterable[do.Action]) -> do.AddAddresses:
    (adding,) = (action for action in actions if isinstance(action, do.AddAddresses))
    return adding


def announced_in(actions: Iterable[do.Action]) -> set[FloatingAddress]:
    return {vip for a in actions if isinstance(a, do.Announce) for vip in a.vips}


def open_gate(h: Harness, adding: do.AddAddresses) -> list[do.Action]:
    (_, arm) = h.node.step(told.ActionDone(adding), h.now)
    return [*h.node.step(told.ActionDone(arm), h.now)]


def add_rest(
    h: Harness, actions: list[do.Action], *, every_s: float = 0.0
) -> list[do.AddAddresses]:
    """Let all additions that follow succeed; return them."""
    found = []
    while do.AddAddresses in map(type, actions):
        h.now += every_s
        h.node.step(told.TimerDue(), h.now)
        found.append(added_in(actions))
        actions = [*h.node.step(told.ActionDone(found[-1]), h.now)]
    return found


def holding(vips: tuple[FloatingAddress, ...]) -> Harness:
    """Return a holder that has all of them."""
    h, adding = opening_of(vips)
    add_rest(h, open_gate(h, adding))
    return h


def test_gate_opens_when_the_first_of_many_addresses_are_there_and_each_is_announced() -> None:
    vips = many()
    h, adding = opening_of(vips)
    assert adding.vips == vips[:FIRST_MAX]
    actions = open_gate(h, adding)
    assert h.role is Role.ACTIVE
    assert announced_in(actions) == {*adding.vips}  # none that is not there
    there = [*adding.vips]
    while len(there) < len(vips):
        adding = added_in(actions)
        assert 0 < len(adding.vips) <= len(there)
        there += adding.vips
        actions = [*h.node.step(told.ActionDone(adding), h.now)]
        assert announced_in(actions) == {*adding.vips}
    assert tuple(there) == vips
    assert do.AddAddresses not in map(type, actions)
    (_, again) = (h.node.step(told.TimerDue(), now) for now in (0.01, 0.05))
    assert announced_in(again) == {*vips}


def test_address_is_not_announced_before_it_is_there() -> None:
    vips = many()
    h, adding = opening_of(vips)
    there = [*adding.vips]
    actions = open_gate(h, adding)
    now = 0.0
    while do.AddAddresses in map(type, actions):
        adding = added_in(actions)
        now += 0.02
        assert announced_in(h.node.step(told.TimerDue(), now)) == {*there}
        there += adding.vips
        actions = [*h.node.step(told.ActionDone(adding), now)]


def test_address_is_called_held_when_it_is_there_and_not_when_it_is_to_come() -> None:
    vips = many()

    def held() -> list[bool]:
        places = h.node.snapshot().places()
        return [(vip.interface, a) in places for vip in vips for a in vip.addresses]

    h, adding = opening_of(vips)
    assert not any(held())  # behind a gate that is shut
    actions = open_gate(h, adding)
    there = len(adding.vips)
    while do.AddAddresses in map(type, actions):
        assert held() == [n < there for n in range(len(vips))]
        adding = added_in(actions)
        there += len(adding.vips)
        actions = [*h.node.step(told.ActionDone(adding), h.now)]
    assert all(held())
    h.node.step(told.ConfigurationApplied(2, replace(MORE, vips=(*vips, EXTRA))), h.now)
    assert all(held())
    assert ("public", EXTRA.addresses[0]) not in h.node.snapshot().places()
    h.node.step(told.LeaderObserved(2, PEER), h.now)
    assert not any(held())


def test_address_that_is_refused_keeps_none_of_those_behind_it_away() -> None:
    vips = many()
    h, adding = opening_of(vips)
    actions = open_gate(h, adding)
    added = [*adding.vips]
    while do.AddAddresses in map(type, actions):
        adding = added_in(actions)
        added += adding.vips
        actions = [*h.node.step(told.ActionFailed(adding, because("refused")), h.now)]
    assert tuple(added) == vips


def test_holder_that_gives_up_adds_no_more_and_removes_all_that_may_be_there() -> None:
    vips = many()
    h, adding = opening_of(vips)
    more = added_in(open_gate(h, adding))
    actions = h.node.step(told.LeaderObserved(2, PEER), h.now)
    (removal,) = (action for action in actions if isinstance(action, do.RemoveAddresses))
    assert {*removal.vips} == {*vips}
    assert h.node.step(told.ActionDone(more), h.now) == ()
    assert h.node.step(told.ActionDone(removal), h.now) == ()


def test_revision_that_comes_while_many_are_added_decides_which_still_come() -> None:
    vips = many()
    h, adding = opening_of(vips)
    more = added_in(open_gate(h, adding))
    kept = vips[: FIRST_MAX + 5] + vips[-5:]
    changed = replace(CONFIGURATION, vips=kept)
    actions = h.node.step(told.ConfigurationApplied(3, changed), h.now)
    (removal,) = (action for action in actions if isinstance(action, do.RemoveAddresses))
    assert {*removal.vips} == {*more.vips[5:]}  # what was not begun is not taken away
    h.node.step(told.ActionDone(removal), h.now)
    actions = h.node.step(told.ActionDone(more), h.now)
    assert announced_in(actions) == {*more.vips[:5]}
    # Those have the gate of the older revision, too.
    assert {*added_in(actions).vips} == {*vips[-5:]}


def test_addresses_come_although_the_gate_that_was_put_back_is_not_armed() -> None:
    """What is behind an action that failed is not done, and nobody would ask for it again."""
    h = Harness().active(until=9.0)
    h.slow = True
    h.tell(told.RulesetDrifted(("table inet hanat_gate gone",)))
    h.tell(told.ConfigurationApplied(2, MORE))
    actions = h.node.step(told.ActionDone(do.InstallRuleset(MORE)), h.now)
    kinds = [*map(type, actions)]
    assert kinds.index(do.AddAddresses) < kinds.index(do.ArmGate)


def test_additions_go_on_after_a_flush_although_the_newest_revision_is_refused() -> None:
    vips = many()
    h, adding = opening_of(vips)
    more = added_in(open_gate(h, adding))
    changed = replace(CONFIGURATION, name="other", vips=vips)
    refused = told.ActionFailed(do.InstallRuleset(changed), because("refused"), kept=True)
    h.node.step(told.ConfigurationApplied(3, changed), h.now)
    h.node.step(told.RulesetDrifted(("table inet hanat_gate gone",)), h.now)
    assert do.AddAddresses not in map(type, h.node.step(told.ActionDone(more), h.now))
    assert added_in(h.node.step(refused, h.now)).vips == vips[2 * FIRST_MAX : 4 * FIRST_MAX]
    assert h.role is Role.ACTIVE


def test_all_of_many_addresses_are_announced_as_often_as_a_few_are() -> None:
    """The last come after the repetitions for those that were there first."""
    vips = many()
    h, adding = opening_of(vips)
    add_rest(h, open_gate(h, adding), every_s=0.1)
    rounds = 0
    for offset in ANNOUNCE_OFFSETS_S[1:]:
        found = h.node.step(told.TimerDue(), h.now + offset)
        rounds += announced_in(found) == {*vips}
    assert rounds == len(ANNOUNCE_OFFSETS_S) - 1


def test_called_off_switchover_forgets_none_of_many_addresses_that_are_on_the_devices() -> None:
    vips = many()
    h = holding(vips)
    h.node.step(told.SwitchoverRequested(None), h.now)
    assert h.role is Role.RELEASING
    h.now += FLUSH_S_MAX  # the flows do not drain
    assert added_in(h.node.step(told.TimerDue(), h.now)).vips
    actions = [
        *h.node.step(told.ConfigurationApplied(3, replace(CONFIGURATION, vips=vips[:5])), h.now)
    ]
    (removal,) = (action for action in actions if isinstance(action, do.RemoveAddresses))
    assert {*removal.vips} == {*vips[5:]}


def test_addresses_that_somebody_took_during_a_called_off_switchover_are_put_back() -> None:
    vips = many()
    h = holding(vips)
    h.node.step(told.SwitchoverRequested(None), h.now)
    h.node.step(told.RemovalObserved("public", vips[-1].addresses), h.now)
    h.now += FLUSH_S_MAX
    adding = added_in(h.node.step(told.TimerDue(), h.now))
    rest = add_rest(h, open_gate(h, adding))
    assert tuple(vip for each in (adding, *rest) for vip in each.vips) == vips
