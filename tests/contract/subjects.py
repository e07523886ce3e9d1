"""What the contract suite judges: the adapters of one kernel, and that kernel's outside.

Both subjects offer the same: seven adapters and what only the outside world does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from hanat.core.configuration import Interface
from hanat.core.flows import Flow
from hanat.core.rights import MARK_MASK
from hanat.kernel.addresses import KernelAddresses
from hanat.kernel.announcer import KernelAnnouncer
from hanat.kernel.conntrack import KernelConntrack
from hanat.kernel.deadline_gate import KernelDeadlineGate
from hanat.kernel.firewall import KernelFirewall
from hanat.kernel.gate_ports import TimedGate
from hanat.kernel.links import KernelLinks
from hanat.kernel.ports import Addresses, Announcer, Conntrack, Firewall, Links, Routes
from hanat.kernel.route_lookup import KernelRoutes
from hanat.kernel.timeout_gate import KernelGate
from tests.fakes.gate import FakeGate
from tests.fakes.kernel import (
    FakeAddresses,
    FakeAnnouncer,
    FakeConntrack,
    FakeFirewall,
    FakeKernel,
    FakeLinks,
    FakeRoutes,
)
from tests.kernel.namespaces import run, until

DEVICES = ("eth0", "eth1")


@dataclass(frozen=True)
class Adapters:
    """All seven, by the names of their Protocols.

    Attributes:
        make_deadlines: Makes the gate with deadlines, which has no fake.
    """

    addresses: Addresses
    announcer: Announcer
    firewall: Firewall
    gate: TimedGate
    conntrack: Conntrack
    links: Links
    routes: Routes
    make_deadlines: Callable[[], KernelDeadlineGate] | None = None

    @property
    def deadlines(self) -> KernelDeadlineGate:
        """The gate with deadlines."""
        assert self.make_deadlines is not None
        return self.make_deadlines()


TCP_STATES = {"FIN_WAIT": 4, "TIME_WAIT": 7, "CLOSE": 8}


class Outside(Protocol):
    """What happens to a kernel without hanat."""

    def set_carrier(self, device: str, *, carrier: bool) -> None:
        """Plug or unplug the cable."""

    def vanish(self, device: str) -> None:
        """Remove a device."""

    def remove_address(self, device: str, address: Interface) -> None:
        """Let another program take an address off a device."""

    def track(self, record: bytes) -> None:
        """Let packets make an assured flow."""

    def begin(self, record: bytes) -> None:
        """Let a first packet make a flow that is not answered."""

    def turn_flow(self, record: bytes, state: str) -> None:
        """Let packets bring a TCP flow into another state, ``TIME_WAIT``."""

    def set_mark(self, record: bytes, mark: int) -> None:
        """Let another program write the whole mark of a flow."""

    def end_flow(self, record: bytes) -> None:
        """Let a flow end."""

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Let time pass until a condition holds."""


class FakeOutside:
    """Moves the fake kernel's clock instead of waiting."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.kernel = FakeKernel(("lo", *DEVICES), lambda: self.now)

    def adapters(self) -> Adapters:
        """Return the fakes."""
        return Adapters(
            addresses=FakeAddresses(self.kernel),
            announcer=FakeAnnouncer(self.kernel),
            firewall=FakeFirewall(self.kernel),
            gate=FakeGate(self.kernel),
            conntrack=FakeConntrack(self.kernel),
            links=FakeLinks(self.kernel),
            routes=FakeRoutes(self.kernel),
        )

    def set_carrier(self, device: str, *, carrier: bool) -> None:
        """See `Outside`."""
        self.kernel.set_carrier(device, carrier=carrier)

    def vanish(self, device: str) -> None:
        """See `Outside`."""
        self.kernel.remove_device(device)

    def remove_address(self, device: str, address: Interface) -> None:
        """See `Outside`."""
        self.kernel.remove_address(device, address)

    def track(self, record: bytes) -> None:
        """See `Outside`."""
        self.kernel.track(record)

    def begin(self, record: bytes) -> None:
        """See `Outside`."""
        self.kernel.track(record)

    def turn_flow(self, record: bytes, state: str) -> None:
        """See `Outside`."""
        flow = replace(Flow.from_record(record), tcp_state=TCP_STATES[state])
        self.kernel.track(flow.to_record())

    def set_mark(self, record: bytes, mark: int) -> None:
        """See `Outside`."""
        self.kernel.flows.put(replace(Flow.from_record(record), mark=mark).to_record())

    def end_flow(self, record: bytes) -> None:
        """See `Outside`."""
        self.kernel.end_flow(record)

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """See `Outside`."""
        for _ in range(10_000):
            if condition():
                return
            self.now += 0.001
        raise AssertionError(f"waited 10 s for: {what}")


class KernelOutside:
    """Acts on the namespace this thread is in.

    Args:
        namespace: Its name; the far ends of its cables are in `far`.
        far: Name of the other namespace.
    """

    def __init__(self, namespace: str, far: str) -> None:
        self._namespace = namespace
        self._far = far
        self._addresses = KernelAddresses()
        self._announcer = KernelAnnouncer()
        self._firewall = KernelFirewall()
        self._gate = KernelGate()
        self._deadline_gate: KernelDeadlineGate | None = None
        self._conntrack = KernelConntrack()
        self._links = KernelLinks()
        self._routes = KernelRoutes()
        self._stranger = KernelConntrack()

    def adapters(self) -> Adapters:
        """Return the real ones."""
        return Adapters(
            addresses=self._addresses,
            announcer=self._announcer,
            firewall=self._firewall,
            gate=self._gate,
            conntrack=self._conntrack,
            links=self._links,
            routes=self._routes,
            make_deadlines=self._deadlines,
        )

    def _deadlines(self) -> KernelDeadlineGate:
        if self._deadline_gate is None:
            self._deadline_gate = KernelDeadlineGate(DEVICES, MARK_MASK)
        return self._deadline_gate

    def close(self) -> None:
        """Release all descriptors."""
        for adapter in (self._addresses, self._announcer, self._firewall, self._gate,
                        self._conntrack, self._links, self._routes, self._stranger):  # fmt: skip
            adapter.close()
        if self._deadline_gate is not None:
            self._deadline_gate.close()

    def set_carrier(self, device: str, *, carrier: bool) -> None:
        """See `Outside`."""
        run(f"ip link set far-{device} {'up' if carrier else 'down'}", self._far)

    def vanish(self, device: str) -> None:
        """See `Outside`."""
        run(f"ip link del {device}", self._namespace)

    def remove_address(self, device: str, address: Interface) -> None:
        """See `Outside`."""
        run(f"ip addr del {address} dev {device}", self._namespace)

    def track(self, record: bytes) -> None:
        """See `Outside`; a change by another program makes the event a packet would."""
        self._stranger.install([record])
        self._update(record, "-t 600")

    def begin(self, record: bytes) -> None:
        """See `Outside`."""
        self._stranger.install([record])

    def turn_flow(self, record: bytes, state: str) -> None:
        """See `Outside`."""
        self._update(record, f"--state {state}")

    def set_mark(self, record: bytes, mark: int) -> None:
        """See `Outside`."""
        self._update(record, f"--mark {mark}")

    def _update(self, record: bytes, options: str) -> None:
        flow = Flow.from_record(record)
        command = (
            f"conntrack -U -p tcp -s {flow.original.source} -d {flow.original.destination} "
            f"--sport {flow.original.source_port} --dport {flow.original.destination_port}"
        )
        run(f"{command} {options}", self._namespace)

    def end_flow(self, record: bytes) -> None:
        """See `Outside`."""
        self._stranger.delete([record])

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """See `Outside`."""
        until(condition, what)
