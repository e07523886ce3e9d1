"""Drift on a real kernel: what is heard, and what is found."""

from __future__ import annotations

import re
import select
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_interface

import pytest

from hanat.core.configuration import FloatingAddress, Listen, Protocol
from hanat.core.gate_rules import render_gate
from hanat.core.outcomes import DONE, Done, Failed
from hanat.daemon.gate_change import GateChange
from hanat.daemon.ruleset_installer import RulesetInstaller
from hanat.errors import KernelError
from hanat.kernel.addresses import KernelAddresses
from hanat.kernel.firewall import KernelFirewall
from hanat.kernel.ports import Changed
from hanat.kernel.ruleset_watch import KernelRulesetWatch
from hanat.kernel.sysctls import KernelSettings
from hanat.kernel.timeout_gate import KernelGate
from hanat.raft.slow_work import at_once
from tests.core.examples import CONVERSATION, DEVICES, EDGE, MEDIA, PUBLIC
from tests.gates import grant

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("inside")]


@pytest.fixture
def firewall(inside: object) -> Iterator[KernelFirewall]:  # noqa: ARG001 - the namespace first
    opened = KernelFirewall()
    yield opened
    opened.close()


@pytest.fixture
def gate(inside: object) -> Iterator[KernelGate]:  # noqa: ARG001 - the namespace first
    opened = KernelGate()
    opened.install(render_gate(EDGE, DEVICES))
    yield opened
    opened.close()


def test_renewals_wake_nobody_and_other_changes_do(
    gate: KernelGate, firewall: KernelFirewall
) -> None:
    watch = KernelRulesetWatch()
    for _ in range(50):
        grant(gate, DEVICES.values(), answers_s=10, carries_s=20)
    gate.withdraw()
    assert not select.select([watch], [], [], 0)[0]

    for script, changed in (
        ("add table ip other", Changed.RULES),
        ("delete table ip other", Changed.TABLES),
        ("flush table inet hanat_gate", Changed.RULES),
        ("flush ruleset", Changed.TABLES),
    ):
        firewall.apply(script)
        assert select.select([watch], [], [], 0)[0], script
        assert watch.read() is changed, script
        assert watch.read() is Changed.NOTHING
    watch.close()


def test_fingerprint_does_not_change_with_rights_and_does_with_rules(
    gate: KernelGate, firewall: KernelFirewall
) -> None:
    before = firewall.fingerprint("inet", "hanat_gate")
    grant(gate, DEVICES.values(), answers_s=10, carries_s=20)
    assert firewall.fingerprint("inet", "hanat_gate") == before
    assert before is not None

    firewall.apply("delete element inet hanat_gate vips_v4 { 203.0.113.10 }")
    assert firewall.fingerprint("inet", "hanat_gate") != before


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("add table ip foreign", []),
        ("flush chain inet hanat prerouting", ["table inet hanat changed"]),
        ("insert rule inet hanat_gate input accept", ["table inet hanat_gate changed"]),
        ("delete table arp hanat_gate", ["table arp hanat_gate gone"]),
        (
            "flush ruleset",
            ["table inet hanat_gate gone", "table arp hanat_gate gone", "table inet hanat gone"],
        ),
    ],
)
def test_changed_tables_are_found_and_put_back(
    gate: KernelGate, firewall: KernelFirewall, script: str, found: list[str]
) -> None:
    rulesets = installed(gate, firewall)
    text = words(firewall, "hanat")
    firewall.apply(script)

    assert look(rulesets) == tuple(found)
    assert look(rulesets) == tuple(found)  # until they are put back

    rulesets.install(EDGE, done_or_fail)
    assert look(rulesets) == ()
    assert words(firewall, "hanat") == text
    assert firewall.table("arp", "hanat_gate") is not None


@pytest.mark.parametrize("gone", ["ruleset", "table inet hanat", "table inet hanat_gate"])
def test_what_is_in_force_is_put_back_although_the_newest_is_refused(
    gate: KernelGate, firewall: KernelFirewall, gone: str
) -> None:
    rulesets = installed(gate, firewall)
    text, guarded = words(firewall, "hanat"), gate.guarded()
    extra = FloatingAddress("extra", "public", (ip_interface("203.0.113.20/24"),))
    # Two services share some ports: the kernel does not take that.
    again = replace(MEDIA, name="again", listens=(Listen(PUBLIC, Protocol.UDP, 5050, 5150),))
    newest = replace(EDGE, vips=(*EDGE.vips, extra), services=(MEDIA, again))
    outcomes: list[tuple[bool, bool]] = []

    def told(outcome: Done | Failed, kept: bool) -> None:  # noqa: FBT001 - called by the thread
        outcomes.append((outcome == DONE, kept))

    for _ in range(3):
        firewall.apply("flush ruleset" if gone == "ruleset" else f"add {gone}\ndelete {gone}")
        rulesets.install(newest, told)
    assert outcomes == [(False, True)] * 3
    assert (words(firewall, "hanat"), gate.guarded()) == (text, guarded)
    assert firewall.table("arp", "hanat_gate") is not None
    assert look(rulesets) == ()


@pytest.mark.parametrize("script", ["flush ruleset", "flush table inet hanat_gate"])
def test_what_is_in_force_is_put_back_although_the_newest_lacks_a_device_here(
    gate: KernelGate, firewall: KernelFirewall, script: str
) -> None:
    """A gate whose rules are flushed takes rights, and ends none."""
    rulesets = installed(gate, firewall)
    text, guard = words(firewall, "hanat"), words(firewall, "hanat_gate")
    kept: list[bool] = []
    for _ in range(2):
        firewall.apply(script)
        rulesets.pass_over(kept.append)
    assert kept == [True, True]
    found = words(firewall, "hanat"), words(firewall, "hanat_gate")
    assert found == (text, guard)
    assert look(rulesets) == ()


def test_settings_are_read_and_written() -> None:
    settings = KernelSettings()
    path = "net/ipv4/ip_forward"
    settings.write(path, "1")
    assert settings.read([path, "net/ipv4/nothing"]) == {path: "1"}
    settings.write(path, "0")
    assert settings.read([path]) == {path: "0"}
    with pytest.raises(KernelError, match=r"set net\.ipv4\.nothing to 1"):
        settings.write("net/ipv4/nothing", "1")


def words(firewall: KernelFirewall, name: str) -> list[str]:
    """Return what is in a table, in whatever order that was put there."""
    return sorted(re.split(r"[,\s]+", firewall.table("inet", name) or ""))


def done_or_fail(outcome: Done | Failed, _kept: bool) -> None:  # noqa: FBT001 - called by the thread
    assert outcome == DONE


def installed(gate: KernelGate, firewall: KernelFirewall) -> RulesetInstaller:
    """Return rulesets whose thread is this one, with the example installed."""
    rulesets = RulesetInstaller(
        DEVICES,
        conversation=CONVERSATION,
        gate=GateChange(gate, KernelAddresses(), DEVICES.values()),
        firewall=firewall,
        background=at_once,
        known=("", EDGE),
    )
    rulesets.install(EDGE, done_or_fail)
    return rulesets


def look(rulesets: RulesetInstaller) -> tuple[str, ...]:
    """Return what a look finds."""
    found: list[tuple[str, ...]] = []
    rulesets.look(lambda changes, _spent_s: found.append(changes))
    return found[0]
