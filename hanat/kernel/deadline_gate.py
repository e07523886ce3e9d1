"""The gate whose rights end at a deadline: programs at the devices, rules that ask them.

Granting is a store into memory; everything else is done when the gate is installed, or when a
device was made anew.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from hanat.core.notation import ATTACHED_SET
from hanat.errors import AbsentObjectError, KernelError
from hanat.kernel.deadline_map import NS
from hanat.kernel.deadline_programs import Programs
from hanat.kernel.ebpf import Program, numbered
from hanat.kernel.fence import ATTACHED
from hanat.kernel.gate_ports import Rights
from hanat.kernel.nfnetlink import NfNetlink, Refill, numbers_in
from hanat.kernel.nft import NftLibrary
from hanat.kernel.tcx import Tcx, is_supported
from hanat.kernel.timeout_gate import InstalledGate, not_installed
from hanat.kernel.traffic_filters import DIRECTIONS, EGRESS, INGRESS, TrafficFilters, kind_of


class Places(Protocol):
    """Where programs are attached; see `tcx.Tcx`, `traffic_filters.TrafficFilters`."""

    def probe(self, index: int, *, device: str) -> None:
        """Find out whether there are such places; raises KernelError."""
        ...

    def attach(self, index: int, direction: int, program: Program, *, device: str) -> None:
        """Put a program there; raises KernelError."""
        ...

    def detach(self, index: int, direction: int, program: Program, *, device: str) -> None:
        """Take it away; raises KernelError."""
        ...

    def found(self, index: int, direction: int, program: Program, *, device: str) -> str:
        """Return what is wrong with it, for people; nothing if it is there."""
        ...

    def close(self) -> None:
        """Release what is open."""
        ...


def demand_no_bridge(index: int, device: str) -> None:
    """Refuse a bridge.

    Where br_netfilter is loaded (Docker, Kubernetes) the rules see a packet at its port, before the
    bridge's own ingress where the program is: no packet would have a right.

    Raises:
        KernelError: It is one.
    """
    if kind_of(index, device=device) == "bridge":
        raise KernelError(
            operation="attach a program at the ingress", target=device,
            found="it is a bridge, and rules may see packets before its ingress",
            to_do='write kind = "timeouts" under [gate] in node.toml',
        )  # fmt: skip


def _there(devices: Collection[str]) -> dict[str, int]:
    """Return the indexes of those devices that are there, by their names."""
    return {name: index for index, name in socket.if_nameindex() if name in devices}


class KernelDeadlineGate(InstalledGate):
    """Implements `gate_ports.DeadlineGate`.

    Args:
        devices: Kernel names of this node's interfaces.
        mask: Two neighbouring bits of packets' marks.
        nft: See `InstalledGate`.
        data_dir: See `program_notes.ProgramNotes`.
        places: Makes what attaches them; None: the shortest way that this kernel has.

    Raises:
        KernelError: The kernel refused a program.
        OSError: The map cannot be mapped into memory.
    """

    def __init__(
        self,
        devices: Iterable[str],
        mask: int,
        *,
        nft: NftLibrary | None = None,
        data_dir: Path | None = None,
        places: Callable[[], Places] | None = None,
    ) -> None:
        super().__init__(nft)
        self._devices = tuple(sorted(set(devices)))
        self._sets = NfNetlink()
        tcx = partial(Tcx, data_dir) if is_supported() else TrafficFilters
        self._make_places: Callable[[], Places] = places or tcx
        self._places = self._make_places()
        self._attached: frozenset[int] = frozenset()
        self._programs = Programs(mask)
        self._wanted = {  # that at the ingress is attached last: it gives rights
            EGRESS: numbered(self._programs.egress_fd),
            INGRESS: numbered(self._programs.ingress_fd),
        }

    @property
    def map_fd(self) -> int:
        """Descriptor of the map with the deadlines; whoever has it can withdraw them."""
        return self._programs.map_fd

    def close(self) -> None:
        """End both rights, take the programs away and release what is open.

        An earlier release that comes after must not meet a rule that asks for bits of a mark.
        """
        self._programs.deadlines.shut()
        if self._attached:  # else the tables may be of another daemon that runs
            self._take_away()
        super().close()
        self._sets.close()
        self._places.close()
        self._programs.close()

    def _take_away(self) -> None:
        with suppress(KernelError):  # the tables are gone
            self._sets.refill(
                [Refill(name) for name in ATTACHED], operation="shut the gate", target="nftables"
            )
        for device, index in _there(self._devices).items():
            for direction, program in self._wanted.items():
                with suppress(KernelError):  # the device went
                    self._places.detach(index, direction, program, device=device)

    def probe(self) -> None:
        """Find out whether the devices that are there have places for the programs.

        Nothing is attached: another daemon of this node may run.

        Raises:
            KernelError: One has not.
        """
        for device, index in _there(self._devices).items():
            demand_no_bridge(index, device)
            self._places.probe(index, device=device)

    def attach(self) -> None:
        """Put the programs on those devices that are there, and tell the rules if there are any.

        Raises:
            KernelError: The kernel refused it.
        """
        self._attach()
        with suppress(AbsentObjectError):
            self._tell()

    def install(self, script: str) -> None:
        """See `gate_ports.Gate.install`."""
        super().install(script)
        self._attach()
        self._tell()

    def confirm(self) -> None:
        """See `gate_ports.DeadlineGate.confirm`."""
        try:
            numbers_in(ATTACHED[0])
        except AbsentObjectError as error:
            raise not_installed("grant rights", ", ".join(self._devices)) from error

    def grant(self, *, answers_until: float, carries_until: float) -> None:
        """See `gate_ports.DeadlineGate.grant`."""
        assert answers_until <= carries_until, (answers_until, carries_until)
        self._programs.deadlines.grant(int(answers_until * NS), int(carries_until * NS))

    def withdraw(self) -> None:
        """See `gate_ports.Gate.withdraw`."""
        self._programs.deadlines.withdraw()

    def shut(self) -> None:
        """See `gate_ports.Gate.shut`."""
        self._programs.deadlines.shut()

    def rights(self) -> Mapping[str, Rights]:
        """See `gate_ports.Gate.rights`."""
        self.ports()  # says so if there is no gate
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        answers, carries = (max(until - now, 0) / NS for until in self.deadlines())
        if not carries:
            return {}
        with closing(self._make_places()) as places:
            return {
                device: Rights(answers_s=answers, carries_s=carries)
                for device, index in _there(self._devices).items()
                if index in self._attached and not any(self._wrong(places, device, index))
            }

    def deadlines(self) -> tuple[int, int]:
        """Return when *answers* and *carries* end, nanoseconds of CLOCK_BOOTTIME."""
        return self._programs.deadlines.read()

    def missing(self) -> tuple[str, ...]:
        """See `gate_ports.Gate.missing`."""
        told, there = self._attached, _there(self._devices)
        with closing(self._make_places()) as places:
            found = [word for at in there.items() for word in self._wrong(places, *at)]
        found += [f"{name} not told to the rules" for name, i in there.items() if i not in told]
        with suppress(AbsentObjectError):  # somebody else looks for the tables
            if any(numbers_in(name) != told for name in ATTACHED):
                found.append(f"set {ATTACHED_SET} changed")
        return tuple(found)

    def _wrong(self, places: Places, device: str, index: int) -> Iterator[str]:
        """Yield what is wrong with a device's programs."""
        for direction, program in self._wanted.items():
            if found := places.found(index, direction, program, device=device):
                yield f"program at the {DIRECTIONS[direction]} of {device} {found}"

    def _attach(self) -> None:
        """Put both programs on all devices; who has not both is none of `_attached`."""
        done = set()
        try:
            for device, index in _there(self._devices).items():
                with suppress(AbsentObjectError):  # it went meanwhile
                    demand_no_bridge(index, device)
                    for direction, program in self._wanted.items():
                        self._places.attach(index, direction, program, device=device)
                    done.add(index)
        finally:
            self._attached = frozenset(done)

    def _tell(self) -> None:
        """Tell the rules which devices have the programs."""
        members = tuple(sorted(self._attached))
        try:
            self._sets.refill(
                [Refill(name, members) for name in ATTACHED],
                operation="say which interfaces have the programs", target=", ".join(self._devices),
            )  # fmt: skip
        except AbsentObjectError as error:
            raise not_installed("grant rights", ", ".join(self._devices)) from error
