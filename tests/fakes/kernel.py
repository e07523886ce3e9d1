"""A kernel in memory, for simulations and tests: same Protocols, same refusals.

One `FakeKernel` is one node's kernel; the adapters beside it share its state.
Time is the caller's: rights in the gate end when `now` says so. What only the
outside world does (packets, cables, other programs) are methods of `FakeKernel`.

`tests/contract` holds these and the real adapters to one behaviour. Limits: a
script for nft is only followed as far as tables go, so a wrong rule passes here;
`tests/core` gives every rendered script to the real nft.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address

from hanat.core.configuration import Interface
from hanat.core.flows import (
    STATUS_ASSURED,
    ChangeKind,
    Flow,
    Run,
    is_over,
    is_translated,
    status_of,
)
from hanat.core.notation import GATE_TABLE
from hanat.core.placements import LABEL_BYTES_MAX, Placement
from hanat.core.table_pressure import TableStatistics
from hanat.errors import AbsentObjectError, KernelError
from hanat.kernel.ctnetlink import (
    TCP,
    TCP_CLOSE,
    TCP_ESTABLISHED,
    TCP_SYN_RECV,
    TCP_SYN_SENT,
    TCP_TIME_WAIT,
)
from hanat.kernel.kernel_errors import refused
from hanat.kernel.ports import AddressRemoved, Announced, CarrierChanged, Installed, LinkChange
from tests.fakes.flows import FakeAccounts, FlowTable
from tests.fakes.nft import Tables, after
from tests.fakes.streams import FakeCapture, FakeLinkWatch


@dataclass(slots=True)
class FakeDevice:
    """A device; `addresses` maps each address to its label."""

    up: bool = True
    carrier: bool = True
    received: int = 0  # frames
    addresses: dict[Interface, str] = field(default_factory=dict)


class FakeKernel:
    """One node's kernel.

    Args:
        devices: Names of the devices it starts with, up and with carrier.
        now: Seconds of any clock that does not go back.

    Attributes:
        announced: Time and placement of every announcement, oldest first.
        faults: What the next call of an adapter's method raises, by names like
            ``addresses.add``; forgotten once raised.
    """

    def __init__(self, devices: Iterable[str], now: Callable[[], float]) -> None:
        self.now = now
        self.devices = {name: FakeDevice() for name in devices}
        self.tables: Tables = {}
        self.answers_until: dict[str, float] = {}
        self.carries_until: dict[str, float] = {}
        self.permit_until, self.gate_script = 0.0, ""
        self.announced: list[tuple[float, Placement]] = []
        self.flows = FlowTable()
        self.faults: dict[str, KernelError] = {}
        self._captures, self._watches = list[FakeCapture](), list[FakeLinkWatch]()

    def may_answer(self, device: str) -> bool:
        """Say whether the gate grants *answers* on a device at this moment."""
        return self.answers_until.get(device, 0.0) > self.now()

    def may_carry(self, device: str) -> bool:
        """Say whether the gate grants *carries* on a device at this moment."""
        return self.carries_until.get(device, 0.0) > self.now()

    def set_carrier(self, device: str, *, carrier: bool) -> None:
        """Plug or unplug a cable."""
        found = self.device(device, operation="set the carrier")
        if found.carrier != carrier:
            found.carrier = carrier
            self._tell_watches(CarrierChanged(device=device, carrier=carrier))

    def add_device(self, name: str) -> None:
        """Let a device appear, up and with carrier."""
        assert name not in self.devices, f"{name} is there already"
        self.devices[name] = FakeDevice()
        self._tell_watches(CarrierChanged(device=name, carrier=True))

    def remove_device(self, name: str) -> None:
        """Let a device vanish with its addresses."""
        gone = self.devices.pop(name)
        self.carries_until.pop(name, None)
        if gone.carrier:
            self._tell_watches(CarrierChanged(device=name, carrier=False))

    def track(self, record: bytes) -> None:
        """Do what packets do that make a flow, or change it."""
        self.flows.put(record)
        self.tell_captures(ChangeKind.PUT, record)

    def end_flow(self, record: bytes) -> None:
        """Do what the end of a flow, or its timeout, does; nothing if it is absent."""
        gone = self.flows.pop(record)
        if gone is not None:
            self.tell_captures(ChangeKind.DELETE, gone)

    def device(self, name: str, *, operation: str) -> FakeDevice:
        """Return a device. Raises AbsentObjectError: there is none of that name."""
        if name not in self.devices:
            raise AbsentObjectError(
                operation=operation, target=name, found="ENODEV: no such interface",
                to_do=f"interfaces are {', '.join(sorted(self.devices))}",
            )  # fmt: skip
        return self.devices[name]

    def apply(self, script: str, *, operation: str) -> None:
        """Run a script for nft; rights do not outlive the gate they were granted in."""
        self.tables = after(self.tables, script, operation=operation)
        if ("inet", GATE_TABLE) not in self.tables:
            self.answers_until, self.carries_until = {}, {}
            self.permit_until = 0.0

    def meet_fault(self, name: str) -> None:
        """Raise the fault laid for a method, if any."""
        fault = self.faults.pop(name, None)
        if fault is not None:
            raise fault

    def open_capture(self, *, unassured: bool) -> FakeCapture:
        """Return a capture that is told of what follows."""
        opened = FakeCapture(unassured=unassured)
        self._captures = [capture for capture in self._captures if not capture.closed]
        self._captures.append(opened)
        return opened

    def open_watch(self) -> FakeLinkWatch:
        """Return a watch that is told of what follows."""
        opened = FakeLinkWatch(self._lacks)
        self._watches = [watch for watch in self._watches if not watch.closed]
        self._watches.append(opened)
        return opened

    def tell_captures(self, kind: ChangeKind, record: bytes) -> None:
        """Tell of a change, as far as the real filter lets it pass."""
        if not is_translated(record):
            return
        assured = status_of(record) & STATUS_ASSURED
        state = Flow.from_record(record).tcp_state if record[-6] == TCP else TCP_ESTABLISHED
        over = is_over(record)
        if kind is ChangeKind.DELETE and over:
            return  # told when it was over
        known = {TCP_ESTABLISHED, TCP_TIME_WAIT, TCP_CLOSE}
        if not assured:
            known |= {TCP_SYN_SENT, TCP_SYN_RECV}
        if kind is ChangeKind.PUT and state not in known:
            return
        for capture in self._captures:
            if assured or capture.unassured:
                capture.tell(Run(ChangeKind.DELETE if over else kind, [record]))

    def remove_address(self, device: str, address: Interface) -> None:
        """Take an address off a device, as any program may; nothing if it is absent."""
        found = self.devices.get(device)
        if found is not None and address in found.addresses:
            del found.addresses[address]
            self._tell_watches(AddressRemoved(device, address))

    def _lacks(self, event: AddressRemoved) -> bool:
        found = self.devices.get(event.device)
        return found is not None and event.address not in found.addresses

    def _tell_watches(self, event: LinkChange) -> None:
        for watch in self._watches:
            watch.tell(event)


class FakeAddresses:
    """Implements `ports.Addresses`."""

    def __init__(self, kernel: FakeKernel) -> None:
        self._kernel = kernel

    def present(self, device: str) -> frozenset[Interface]:
        """See `ports.Addresses.present`."""
        self._kernel.meet_fault("addresses.present")
        return frozenset(self._kernel.device(device, operation="list addresses").addresses)

    def add(self, placements: Iterable[Placement]) -> None:
        """See `ports.Addresses.add`."""
        refusals: list[KernelError] = []
        for placement in placements:
            try:
                self._add(placement)
            except KernelError as error:
                refusals.append(error)
        if refusals:
            raise refusals[0]

    def _add(self, placement: Placement) -> None:
        self._kernel.meet_fault("addresses.add")
        operation = f"add {placement.address}"
        device = self._kernel.device(placement.device, operation=operation)
        if len(placement.label.encode()) > LABEL_BYTES_MAX:
            raise refused(errno.ERANGE, operation=operation, target=placement.device)
        device.addresses.setdefault(placement.address, placement.label)

    def local(self, placement: Placement) -> bool:
        """See `ports.Addresses.local`."""
        return placement.address in self.present(placement.device)

    def remove(self, placements: Iterable[Placement]) -> None:
        """See `ports.Addresses.remove`."""
        self._kernel.meet_fault("addresses.remove")
        for placement in placements:
            self._kernel.remove_address(placement.device, placement.address)


class FakeAnnouncer:
    """Implements `ports.Announcer`."""

    def __init__(self, kernel: FakeKernel) -> None:
        self._kernel = kernel

    def announce(self, placements: Iterable[Placement]) -> Announced:
        """See `ports.Announcer.announce`."""
        sent = 0
        found: list[tuple[Placement, KernelError]] = []
        for placement in placements:
            operation = f"announce {placement.address.ip}"
            try:
                self._kernel.meet_fault("announcer.announce")
                if not self._kernel.device(placement.device, operation=operation).up:
                    raise refused(errno.ENETDOWN, operation=operation, target=placement.device)
            except KernelError as error:
                found.append((placement, error))
                continue
            self._kernel.announced.append((self._kernel.now(), placement))
            sent += 2 if placement.address.version == 4 else 1
        return Announced(sent, tuple(found))


class FakeFirewall:
    """Implements `ports.Firewall`, as far as tables go."""

    def __init__(self, kernel: FakeKernel) -> None:
        self._kernel = kernel

    def apply(self, script: str) -> None:
        """See `ports.Firewall.apply`."""
        self._kernel.meet_fault("firewall.apply")
        self._kernel.apply(script, operation="apply the ruleset")

    def check(self, script: str) -> None:
        """See `ports.Firewall.check`."""
        after(self._kernel.tables, script, operation="check the ruleset")

    def table(self, family: str, name: str) -> str | None:
        """See `ports.Firewall.table`."""
        self._kernel.meet_fault("firewall.table")
        body = self._kernel.tables.get((family, name))
        return None if body is None else f"table {family} {name} {{\n{body}\n}}\n"

    def names(self, family: str, name: str) -> tuple[tuple[str, str], ...]:
        """See `ports.Firewall.names`."""
        body = self._kernel.tables.get((family, name)) or ""
        return tuple(re.findall(r"(?m)^\s*(chain|set|map|counter|quota|limit) (\S+) \{", body))

    def fingerprint(self, family: str, name: str) -> bytes | None:
        """See `ports.Firewall.fingerprint`."""
        self._kernel.meet_fault("firewall.fingerprint")
        body = self._kernel.tables.get((family, name))
        return None if body is None else body.encode()


def elements(script: str, pattern: str) -> list[str]:
    """Return what a gate's script puts into its sets of some names."""
    lists = re.findall(rf"add element inet {GATE_TABLE} {pattern} {{ ([^}}]*) }}", script)
    return [word.strip() for words in lists for word in words.split(",")]


class FakeConntrack:
    """Implements `ports.Conntrack`."""

    def __init__(self, kernel: FakeKernel) -> None:
        self._kernel, self._accounts = kernel, FakeAccounts(kernel.flows)

    def capture(self, *, unassured: bool = False) -> FakeCapture:
        """See `ports.Conntrack.capture`."""
        self._kernel.meet_fault("conntrack.capture")
        return self._kernel.open_capture(unassured=unassured)

    def account(self) -> FakeAccounts:
        """See `ports.Conntrack.account`."""
        return self._accounts

    def install(self, records: Iterable[bytes]) -> Installed:
        """See `ports.Conntrack.install`."""
        self._kernel.meet_fault("conntrack.install")
        return self._kernel.flows.install(records)

    def extend(self, records: Iterable[bytes]) -> list[bytes]:
        """See `ports.Conntrack.extend`."""
        self._kernel.meet_fault("conntrack.extend")
        flows = self._kernel.flows
        return [record for record in records if not flows.renew(record)]

    def settle(self, records: Iterable[bytes]) -> int:
        """See `ports.Conntrack.settle`."""
        self._kernel.meet_fault("conntrack.settle")
        return self._kernel.flows.settle(records)

    def mark_for_reset(self, records: Iterable[bytes]) -> list[bytes]:
        """See `ports.Conntrack.mark_for_reset`."""
        self._kernel.meet_fault("conntrack.mark_for_reset")
        flows = self._kernel.flows
        return [record for record in records if not flows.mark_for_reset(record)]

    def delete(self, records: Iterable[bytes]) -> int:
        """See `ports.Conntrack.delete`."""
        self._kernel.meet_fault("conntrack.delete")
        return sum(self._kernel.flows.pop(record) is not None for record in records)

    def dump(self) -> list[bytes]:
        """See `ports.Conntrack.dump`."""
        self._kernel.meet_fault("conntrack.dump")
        return [record for record in self._kernel.flows.records() if is_translated(record)]

    def walk(self, *, every: bool = False) -> Iterator[list[bytes]]:
        """See `ports.Conntrack.walk`."""
        if every:
            self._kernel.meet_fault("conntrack.dump")
        yield self._kernel.flows.records() if every else self.dump()

    def count(self) -> int:
        """See `ports.Conntrack.count`."""
        self._kernel.meet_fault("conntrack.count")
        return len(self._kernel.flows.records())

    def statistics(self) -> TableStatistics:
        """See `ports.Conntrack.statistics`."""
        return TableStatistics(entries=self.count(), limit=self._kernel.flows.room)


class FakeRoutes:
    """Implements `ports.Routes`."""

    def __init__(self, kernel: FakeKernel) -> None:
        self._kernel = kernel

    def device_of(self, address: bytes) -> str:
        """See `ports.Routes.device_of`."""
        wanted = ip_address(address)
        found = ""
        for name, device in self._kernel.devices.items():
            for one in device.addresses:
                if wanted == one.ip:
                    return "lo"
                if wanted in one.network:
                    found = name
        return found


class FakeLinks:
    """Implements `ports.Links`."""

    def __init__(self, kernel: FakeKernel) -> None:
        self._kernel = kernel

    def names(self) -> tuple[str, ...]:
        """See `ports.Links.names`."""
        self._kernel.meet_fault("links.names")
        return tuple(sorted(self._kernel.devices))

    def carrier(self, device: str) -> bool:
        """See `ports.Links.carrier`."""
        self._kernel.meet_fault("links.carrier")
        found = self._kernel.device(device, operation="ask for the carrier")
        return found.up and found.carrier

    def received(self, device: str) -> int:
        """See `ports.Links.received`."""
        return self._kernel.device(device, operation="ask for counters").received

    def ask(self, device: str) -> int:
        """See `ports.Links.ask`; one frame, which nobody answers."""
        return int(device in self._kernel.devices)

    def answered(self, device: str) -> bool:
        """See `ports.Links.answered`."""
        del device
        return False

    def ask_no_more(self, device: str) -> None:
        """See `ports.Links.ask_no_more`."""

    def watch(self) -> FakeLinkWatch:
        """See `ports.Links.watch`."""
        self._kernel.meet_fault("links.watch")
        return self._kernel.open_watch()
