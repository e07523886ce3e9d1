"""The gate of the kernel that is not there; see `kernel`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address

from hanat.core.configuration import Address
from hanat.core.notation import GATE_TABLE
from hanat.errors import AbsentObjectError
from hanat.kernel.gate_ports import TIMEOUT_S_MIN, Rights
from tests.fakes.kernel import FakeKernel, elements


class FakeGate:
    """Implements `ports.Gate`; rights end as `FakeKernel.now` goes on."""

    def __init__(self, kernel: FakeKernel) -> None:
        self._kernel = kernel

    def install(self, script: str) -> None:
        """See `ports.Gate.install`."""
        self._kernel.meet_fault("gate.install")
        self._kernel.apply(script, operation="install the gate")
        self._kernel.gate_script = script

    def permit(self, valid_s: float) -> None:
        """See `ports.Gate.permit`."""
        self._demand("gate.permit", operation="permit a grant")
        self._kernel.permit_until = self._kernel.now() + valid_s

    def arm(self, devices: Iterable[str], *, answers_s: float, carries_s: float) -> bool:
        """See `ports.Gate.arm`."""
        assert TIMEOUT_S_MIN <= answers_s <= carries_s, (answers_s, carries_s)
        self._demand("gate.arm", operation="grant rights")
        now, named = self._kernel.now(), sorted(set(devices))
        if self._kernel.permit_until <= now:
            return False
        self._kernel.permit_until = now + int(answers_s * 1000) / 1000
        self._kernel.answers_until = dict.fromkeys(named, now + int(answers_s * 1000) / 1000)
        present = [name for name in named if name in self._kernel.devices]
        self._kernel.carries_until = dict.fromkeys(present, now + int(carries_s * 1000) / 1000)
        return True

    def withdraw(self) -> None:
        """See `ports.Gate.withdraw`."""
        self._demand("gate.withdraw", operation="withdraw answers")
        self._kernel.answers_until = {}
        self._kernel.permit_until = 0.0

    def shut(self) -> None:
        """See `ports.Gate.shut`."""
        self._demand("gate.shut", operation="shut the gate")
        self._kernel.answers_until = {}
        self._kernel.carries_until = {}
        self._kernel.permit_until = 0.0

    def missing(self) -> tuple[str, ...]:
        """See `ports.Gate.missing`."""
        return ()

    def close(self) -> None:
        """See `ports.Gate.close`."""

    def guarded(self) -> frozenset[Address]:
        """See `ports.Gate.guarded`."""
        self._demand("gate.guarded", operation="list floating addresses")
        words = elements(self._kernel.gate_script, "vips_v[46]")
        return frozenset(map(ip_address, words))

    def ports(self) -> frozenset[str]:
        """See `ports.Gate.ports`."""
        self._demand("gate.ports", operation="list interfaces")
        return frozenset(word.strip('"') for word in elements(self._kernel.gate_script, "ports"))

    def rights(self) -> Mapping[str, Rights]:
        """See `ports.Gate.rights`."""
        self._demand("gate.rights", operation="list rights")
        kernel, now = self._kernel, self._kernel.now()
        return {
            device: Rights(
                answers_s=max(kernel.answers_until.get(device, 0.0) - now, 0.0),
                carries_s=max(kernel.carries_until.get(device, 0.0) - now, 0.0),
            )
            for device in sorted(kernel.answers_until.keys() | kernel.carries_until.keys())
            if kernel.may_answer(device) or kernel.may_carry(device)
        }

    def _demand(self, name: str, *, operation: str) -> None:
        self._kernel.meet_fault(name)
        if ("inet", GATE_TABLE) not in self._kernel.tables:
            raise AbsentObjectError(
                operation=operation, target="all interfaces",
                found="the gate's tables are missing", to_do="install the gate first",
            )  # fmt: skip
