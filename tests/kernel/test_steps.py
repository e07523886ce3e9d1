"""The real nft follows the steps from one ruleset to another, and gets where one script gets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hanat.core.configuration import Configuration
from hanat.core.gate_rules import render_gate
from hanat.core.outcomes import DONE, Cause, Done, Failed
from hanat.core.ruleset import render_rotations, render_ruleset
from hanat.core.services import Rotations, Turns
from hanat.core.steps import SLICE_CHAINS, steps, without_services
from hanat.daemon.gate_change import GateChange
from hanat.daemon.ruleset_installer import RulesetInstaller
from hanat.errors import KernelError
from hanat.kernel.addresses import KernelAddresses
from hanat.kernel.firewall import KernelFirewall
from hanat.kernel.timeout_gate import KernelGate
from hanat.raft.slow_work import at_once
from tests.core.configurations import configurations, rotations
from tests.core.examples import CONVERSATION, DEVICES, EDGE
from tests.core.test_steps import services
from tests.kernel.test_drift import look

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("inside")]


@pytest.fixture
def firewall(inside: object) -> Iterator[KernelFirewall]:  # noqa: ARG001 - the namespace first
    opened = KernelFirewall()
    yield opened
    opened.close()


def text(configuration: Configuration, rotations: Rotations | None = None) -> str:
    return render_ruleset(configuration, DEVICES, CONVERSATION, rotations=rotations)


def listed(firewall: KernelFirewall) -> dict[str, list[str]]:
    """Return what the table holds by chain and map, elements in one order."""
    found = firewall.table("inet", "hanat") or ""
    blocks = re.findall(r"^\t(\S+ \S+) \{\n(.*?)^\t\}", found, re.MULTILINE | re.DOTALL)
    plain = re.compile(r"counter packets \d+ bytes \d+")
    return {name: sorted(re.split(r"[,\s]+", plain.sub("counter", body))) for name, body in blocks}


def follow(firewall: KernelFirewall, old: str, new: str) -> None:
    plan = steps(old, new)
    assert plan is not None
    for script in (*plan.builds, plan.switch, *plan.clears):
        if script:
            firewall.apply(script)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(old=configurations(), new=configurations())
def test_steps_end_where_one_script_does(
    firewall: KernelFirewall, old: Configuration, new: Configuration
) -> None:
    firewall.apply(text(new))
    wanted = listed(firewall)
    firewall.apply(text(old))
    follow(firewall, text(old), text(new))
    assert listed(firewall) == wanted

    firewall.apply(without_services(text(new)))
    follow(firewall, without_services(text(new)), text(new))
    assert listed(firewall) == wanted


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(configurations(), st.data())
def test_rotations_end_where_one_script_does(
    firewall: KernelFirewall, configuration: Configuration, data: st.DataObject
) -> None:
    before, after = data.draw(rotations(configuration)), data.draw(rotations(configuration))
    firewall.apply(text(configuration, after))
    wanted = listed(firewall)
    firewall.apply(text(configuration, before))
    follow(firewall, *render_rotations(configuration, Turns(before), Turns(after)))
    assert listed(firewall) == wanted


def test_many_services_come_change_and_go_in_slices(firewall: KernelFirewall) -> None:
    many, other = services(3 * SLICE_CHAINS), services(3 * SLICE_CHAINS, weight=3)
    fewer = tuple(replace(service, servers=service.servers[:2]) for service in other)
    firewall.apply(text(EDGE))
    before = text(EDGE)
    for wanted in (many, other, fewer, EDGE.services):
        after = text(replace(EDGE, services=wanted))
        follow(firewall, before, after)
        before = after
    stepped = listed(firewall)
    firewall.apply(text(EDGE))
    assert stepped == listed(firewall)


class Refusing(KernelFirewall):
    """Refuses the script with this number from now on, and counts all."""

    def __init__(self) -> None:
        super().__init__()
        self.applied, self.refuses = 0, -1

    def apply(self, script: str) -> None:
        self.applied += 1
        if self.applied == self.refuses:
            raise KernelError(operation="apply", target="nftables", found="refused")
        super().apply(script)


@pytest.mark.parametrize("refused", range(1, 5))
def test_change_that_is_refused_halfway_leaves_the_ruleset_before(refused: int) -> None:
    gate, firewall = KernelGate(), Refusing()
    rulesets = RulesetInstaller(
        DEVICES, conversation=CONVERSATION, firewall=firewall,
        gate=GateChange(gate, KernelAddresses(), DEVICES.values()),
        background=at_once, known=("", EDGE),
    )  # fmt: skip
    outcomes: list[tuple[Done | Failed, bool]] = []

    def told(outcome: Done | Failed, kept: bool) -> None:  # noqa: FBT001 - called by the thread
        outcomes.append((outcome, kept))

    rulesets.install(EDGE, told)
    wanted = listed(firewall)
    firewall.applied, firewall.refuses = 0, refused
    rulesets.install(replace(EDGE, services=services(3 * SLICE_CHAINS)), told)
    firewall.refuses = -1
    refusal = Failed(Cause.KERNEL, "cannot apply on nftables: refused")
    assert outcomes == [(DONE, True), (refusal, True)]
    assert listed(firewall) == wanted
    assert look(rulesets) == ()
    gate.close()
    firewall.close()


def test_weight_of_one_service_changes_only_its_chain_and_no_gate(
    firewall: KernelFirewall, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = KernelGate()
    rulesets = RulesetInstaller(
        DEVICES, conversation=CONVERSATION, firewall=firewall,
        gate=GateChange(gate, KernelAddresses(), DEVICES.values()),
        background=at_once, known=("", EDGE),
    )  # fmt: skip
    count = 2 * SLICE_CHAINS
    rulesets.install(replace(EDGE, services=services(count)), fail)
    scripts: list[str] = []
    apply = firewall.apply

    def told(script: str) -> None:
        scripts.append(script)
        apply(script)

    monkeypatch.setattr(firewall, "apply", told)
    monkeypatch.setattr(gate, "install", lambda _: pytest.fail("the gate did not change"))
    rulesets.install(replace(EDGE, services=services(count, weight=2)), fail)
    assert len(scripts) == 1
    assert scripts[0].count("chain service/") == 1
    assert look(rulesets) == ()

    firewall.apply("flush chain inet hanat floating")
    rulesets.install(replace(EDGE, services=services(count, weight=2)), fail)
    assert look(rulesets) == ()
    gate.close()


def fail(outcome: Done | Failed, kept: bool) -> None:  # noqa: FBT001 - called by the thread
    assert outcome == DONE
    assert kept


def test_gate_is_not_part_of_a_change_of_services(firewall: KernelFirewall) -> None:
    gate = KernelGate()
    gate.install(render_gate(EDGE, DEVICES))
    before = firewall.fingerprint("inet", "hanat_gate")
    firewall.apply(text(EDGE))
    assert firewall.fingerprint("inet", "hanat_gate") == before
    gate.close()
