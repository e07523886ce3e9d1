"""Actions on a fake kernel: what is refused because it comes too late."""

from __future__ import annotations

from typing import cast

from hanat.consensus.replica import Replica
from hanat.core.actions import AddAddresses, Announce, InstallRuleset
from hanat.daemon.executor import Callbacks, Kernel, NodeExecutor, Place
from hanat.errors import KernelError
from hanat.flowsync.worker import FlowWorker
from hanat.kernel.fake import FakeAddresses, FakeAnnouncer, FakeFirewall, FakeGate, FakeKernel
from tests.core.examples import DEVICES, EDGE


class Executed:
    """An executor with a clock in hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.kernel = FakeKernel(DEVICES.values(), now=self.clock)
        self.executor = NodeExecutor(
            Place(1, DEVICES, "", self.clock),
            kernel=Kernel(
                FakeAddresses(self.kernel),
                FakeAnnouncer(self.kernel),
                FakeFirewall(self.kernel),
                FakeGate(self.kernel),
            ),
            replica=cast(Replica, None),
            worker=cast(FlowWorker, None),
            callbacks=Callbacks(lambda: None, lambda _: None, lambda: None),
        )

    def clock(self) -> float:
        return self.now


def test_nothing_is_announced_once_the_lease_is_over() -> None:
    e = Executed()
    assert e.executor.execute(Announce(EDGE.vips, until=100.01)) is None
    sent = len(e.kernel.announced)
    assert sent

    e.now = 100.01

    assert e.executor.execute(Announce(EDGE.vips, until=100.01)) == (
        "the lease ended before the announcement"
    )
    assert len(e.kernel.announced) == sent


def test_what_is_installed_is_not_installed_again_unless_the_kernel_refused_something() -> None:
    e = Executed()
    refusal = KernelError(operation="do it", target="eth0", found="EIO: it failed")
    assert e.executor.execute(InstallRuleset(EDGE)) is None

    e.kernel.faults["firewall.apply"] = refusal
    assert e.executor.execute(InstallRuleset(EDGE)) is None

    e.kernel.faults["addresses.add"] = refusal
    assert e.executor.execute(AddAddresses(EDGE.vips))
    assert e.executor.execute(InstallRuleset(EDGE))  # not known to be there: tried, and refused
    assert e.executor.execute(InstallRuleset(EDGE)) is None
