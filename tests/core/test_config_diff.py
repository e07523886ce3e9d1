"""What may change while a cluster runs, and how it is told."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest
from hypothesis import given

from hanat.core import actions as do
from hanat.core import inputs as told
from hanat.core.checks import HttpCheck, PingCheck, ServiceCheck
from hanat.core.config_diff import Report, Rollout, differences, refusals
from hanat.core.configuration import PROFILES, Configuration, RealServer, Replicate
from hanat.core.probing import Check
from hanat.core.status import Role
from tests.core.configurations import configurations
from tests.core.examples import EDGE, MEDIA, OFF, WEB, because
from tests.core.test_node import PROFILE, VIPS, Harness

OFTEN = Check(2.0, 1.0)


@pytest.mark.parametrize(
    ("report", "state"),
    [
        (Report(None), Rollout.UNREACHABLE),
        (Report(6), Rollout.BEHIND),
        (Report(6, refuses=True), Rollout.BEHIND),  # that was an older one
        (Report(7), Rollout.IN_FORCE),
        (Report(7, refuses=True), Rollout.REFUSED),
        (Report(8), Rollout.IN_FORCE),
    ],
)
def test_report_says_what_became_of_a_revision(report: Report, state: Rollout) -> None:
    assert report.state(7) is state


def test_name_and_profile_stay_and_both_are_told_at_once() -> None:
    wanted = replace(EDGE, name="edge2", profile=PROFILES["calm"])
    found = refusals(EDGE, wanted, profile=EDGE.profile, file="new.toml")
    assert [problem.path for problem in found] == ["cluster.name", "cluster.profile"]
    assert 'write "default" here, or stop all nodes' in str(found[1])
    assert not refusals(EDGE, replace(EDGE, services=()), profile=EDGE.profile, file="new.toml")


def test_profile_is_held_against_the_one_that_nodes_run_with() -> None:
    calm = PROFILES["calm"]
    assert not refusals(EDGE, replace(EDGE, profile=calm), profile=calm, file="new.toml")
    assert refusals(EDGE, EDGE, profile=calm, file="new.toml")


def test_differences_name_what_is_added_removed_and_changed() -> None:
    more = RealServer("web4", ip_address("10.11.12.104"), 8080, weight=1)
    less = replace(WEB.servers[0], weight=0)
    web = replace(WEB, servers=(less, *WEB.servers[1:3], more), replicate=Replicate(min_age_s=2))
    vips = (replace(EDGE.vips[0], addresses=EDGE.vips[0].addresses[:1]), EDGE.vips[1])
    wanted = replace(EDGE, vips=vips, masquerades=(), services=(OFF, web))
    assert differences(EDGE, wanted) == (
        "~ vip public: 203.0.113.10/24, 2001:db8:1::10/64 on public -> 203.0.113.10/24 on public",
        "- masquerade 10.11.12.0/24, 10.11.12.128/25, fd00:12::/64: to 2001:db8:1::10, "
        "203.0.113.10 on public",
        "~ service web: 203.0.113.10 tcp/80, 2001:db8:1::10 tcp/80, wrr -> "
        "203.0.113.10 tcp/80, 2001:db8:1::10 tcp/80, wrr, replicated after 2 s",
        "~ service web server web1: 10.11.12.101:8080 weight 2 -> 10.11.12.101:8080 weight 0",
        "- service web server web6: [fd00:12::101]:8080 weight 1",
        "- service media: 203.0.113.10 udp/5000-5099, 203.0.113.10 tcp/5000, sh",
        "- service media server any: 10.11.12.101 weight 200",
        "- service media server one: 10.11.12.102:5000 weight 300",
        "+ service web server web4: 10.11.12.104:8080 weight 1",
    )
    assert MEDIA not in wanted.services


def test_checks_are_told_by_kind_in_any_order_and_one_line_each() -> None:
    http, ping = ServiceCheck(HttpCheck(), OFTEN), ServiceCheck(PingCheck(), OFTEN)
    other = ServiceCheck(HttpCheck(path="/other"), OFTEN)
    before, after = (
        replace(EDGE, services=(replace(WEB, checks=checks), MEDIA, OFF))
        for checks in ((http, ping), (other, http))
    )
    assert differences(before, after) == (
        '~ service web check http: GET "/", every 2 s, timeout 1 s, fall 3, rise 2 -> '
        'GET "/", every 2 s, timeout 1 s, fall 3, rise 2; '
        'GET "/other", every 2 s, timeout 1 s, fall 3, rise 2',
        "- service web check ping: every 2 s, timeout 1 s, fall 3, rise 2",
    )
    swapped = replace(EDGE, services=(replace(WEB, checks=(http, other)), MEDIA, OFF))
    assert differences(after, swapped) == ()


@given(configurations(), configurations())
def test_no_difference_means_the_same_values_in_any_order(
    one: Configuration, other: Configuration
) -> None:
    same = _sorted(one) == _sorted(other)
    assert (not differences(one, other)) == same


def _sorted(configuration: Configuration) -> object:
    services = {
        replace(
            s,
            servers=tuple(sorted(s.servers, key=repr)),
            sources=tuple(sorted(s.sources)),
            checks=tuple(sorted(s.checks, key=repr)),
            sorry=tuple(sorted(s.sorry, key=repr)),
        )
        for s in configuration.services
    }
    passing = configuration.forward, frozenset(configuration.transits)
    return frozenset(configuration.vips), frozenset(configuration.masquerades), services, passing


def test_node_settles_a_revision_when_its_ruleset_is_installed() -> None:
    h = Harness(slow=True)
    changed = Configuration("test", PROFILE, tuple(reversed(VIPS)), (), ())
    h.tell(told.ConfigurationApplied(2, changed))
    assert (h.node.settled, h.node.refuses) != (2, False)
    h.tell(told.ActionDone(do.InstallRuleset(changed)))
    assert (h.node.settled, h.node.refuses) == (2, False)


def test_node_settles_a_revision_that_it_or_its_kernel_refuses() -> None:
    h = Harness(slow=True)
    h.tell(told.ConfigurationRefused(2, "no device"))
    assert (h.node.settled, h.node.refuses) == (2, True)
    changed = Configuration("test", PROFILE, tuple(reversed(VIPS)), (), ())
    h.tell(told.ConfigurationApplied(3, changed))
    h.tell(told.ActionFailed(do.InstallRuleset(changed), because("refused")))
    assert (h.node.settled, h.node.refuses) == (3, True)
    h.tell(told.ActionDone(do.InstallRuleset(changed)))
    assert (h.node.settled, h.node.refuses) == (3, False)


def test_reinstalled_ruleset_of_before_does_not_settle_a_refused_revision() -> None:
    h = Harness(revision=1)
    h.tell(told.ConfigurationRefused(2, "no device"))
    h.tell(told.ActionDone(do.InstallRuleset(h.node.snapshot().configuration)))
    assert (h.node.settled, h.node.refuses) == (2, True)


def test_holder_removes_only_the_addresses_that_are_wanted_no_more() -> None:
    h = Harness().active(until=9.0)
    more = ip_interface("2001:db8::10/64")
    both = replace(VIPS[0], name="outside", addresses=(*VIPS[0].addresses, more))
    changed = Configuration("test", PROFILE, (both, VIPS[1]), (), ())
    assert h.tell(told.ConfigurationApplied(2, changed)) == [
        do.InstallRuleset(changed), do.AddAddresses((both,)), do.Announce((both,), until=9.0),
    ]  # fmt: skip

    back = Configuration("test", PROFILE, VIPS, (), ())
    gone = replace(both, addresses=(more,))
    assert do.RemoveAddresses((gone,)) in h.tell(told.ConfigurationApplied(3, back))
    assert h.role is Role.ACTIVE
    assert do.RemoveAddresses(VIPS) in h.tell(told.LeaderObserved(2, 2))


@pytest.mark.parametrize(
    "replicate", [Replicate(established=False), Replicate(min_age_s=2.0), Replicate(unassured=True)]
)
def test_other_replication_is_a_difference(replicate: Replicate) -> None:
    (line,) = differences(
        EDGE, replace(EDGE, services=(replace(WEB, replicate=replicate), MEDIA, OFF))
    )
    assert line.startswith("~ service web: ")
