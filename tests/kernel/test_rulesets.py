"""Rulesets on a real thread and a real kernel: the gate does not wait for them."""

from __future__ import annotations

import asyncio
import threading

import pytest

from hanat.core.gate_rules import render_gate
from hanat.core.outcomes import DONE, Done, Failed
from hanat.daemon.background import Background
from hanat.daemon.gate_change import GateChange
from hanat.daemon.realtime import step_back
from hanat.daemon.ruleset_installer import RulesetInstaller
from hanat.kernel.addresses import KernelAddresses
from hanat.kernel.firewall import KernelFirewall
from hanat.kernel.timeout_gate import KernelGate
from tests.core.examples import CONVERSATION, DEVICES, EDGE
from tests.gates import grant

pytestmark = pytest.mark.kernel


class HeldFirewall(KernelFirewall):
    """Begins when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.may_go_on = threading.Event(), threading.Event()

    def apply(self, script: str) -> None:
        self.begun.set()
        assert self.may_go_on.wait(10)
        super().apply(script)


@pytest.mark.usefixtures("inside")
def test_gate_is_armed_and_withdrawn_while_a_ruleset_is_held_back() -> None:
    gate, firewall = KernelGate(), HeldFirewall()
    gate.install(render_gate(EDGE, DEVICES))

    async def install() -> None:
        ended: asyncio.Future[Done | Failed] = asyncio.get_running_loop().create_future()
        background = Background("rulesets", after=lambda: None, begin=step_back)
        try:
            rulesets = RulesetInstaller(
                DEVICES,
                conversation=CONVERSATION,
                gate=GateChange(gate, KernelAddresses(), DEVICES.values()),
                firewall=firewall,
                background=background,
                known=("", EDGE),
            )
            rulesets.install(EDGE, lambda outcome, _: ended.set_result(outcome))
            assert await asyncio.to_thread(firewall.begun.wait, 10)

            grant(gate, DEVICES.values(), answers_s=10, carries_s=20)
            assert gate.rights()["eth0"].answers_s > 0
            gate.withdraw()
            assert not gate.rights()  # nothing carries: there are no such devices here

            assert not ended.done()
            assert firewall.table("inet", "hanat") is None
            firewall.may_go_on.set()
            assert await ended == DONE
        finally:
            firewall.may_go_on.set()
            background.close()

    asyncio.run(install())
    assert firewall.table("inet", "hanat") is not None
    gate.close()
    firewall.close()
