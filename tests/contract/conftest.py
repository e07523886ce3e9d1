"""Two subjects: the fakes anywhere, the real adapters in a namespace of their own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from chaos.lab.netns import entered
from hanat.core.configuration import GateKind
from hanat.core.gate_rules import render_gate
from hanat.core.rights import TIMEOUTS
from hanat.kernel.deadline_gate import KernelDeadlineGate
from hanat.kernel.gate_ports import TimedGate
from tests.contract.subjects import DEVICES, Adapters, FakeOutside, KernelOutside, Outside
from tests.core.examples import DEVICES as EXAMPLE_DEVICES
from tests.core.examples import EDGE
from tests.gates import DEADLINES
from tests.kernel.namespaces import cable, namespaces


@dataclass(frozen=True)
class Subject:
    """The adapters of one kernel and its outside."""

    adapters: Adapters
    outside: Outside
    kind: GateKind = GateKind.TIMEOUTS

    @property
    def gate(self) -> TimedGate | KernelDeadlineGate:
        """The gate that is judged."""
        return self.adapters.gate if self.kind is GateKind.TIMEOUTS else self.adapters.deadlines

    @property
    def script(self) -> str:
        """Its tables."""
        by = DEADLINES if self.kind is GateKind.DEADLINE else TIMEOUTS
        return render_gate(EDGE, EXAMPLE_DEVICES, by)


REAL = pytest.param("real", marks=pytest.mark.kernel)
WITH_DEADLINE = pytest.param("deadline", marks=pytest.mark.kernel)  # has no fake


@pytest.fixture(params=["fake", REAL])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    if request.param == "fake":
        outside = FakeOutside()
        yield Subject(outside.adapters(), outside)
        return
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "conntrack"))):
        pytest.skip("needs root, ip and conntrack: it makes network namespaces")
    with namespaces("here", "far") as made, entered(made["here"]):
        for device in DEVICES:
            cable((made["here"], device), (made["far"], f"far-{device}"))
        real = KernelOutside(made["here"], made["far"])
        try:
            has_deadline = request.param == "deadline"
            kind = GateKind.DEADLINE if has_deadline else GateKind.TIMEOUTS
            yield Subject(real.adapters(), real, kind)
        finally:
            real.close()
