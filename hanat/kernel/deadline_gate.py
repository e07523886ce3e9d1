"""The gate whose rights end at a deadline: programs at the devices, rules that ask them.

Granting is a store into memory; everything else is done when the gate is installed, or when a
device was made anew.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from hanat.errors import AbsentObjectError, KernelError
from hanat.kernel.deadline import Programs
from hanat.kernel.deadlines import NS
from hanat.kernel.device_indexes import DeviceIndexes
from hanat.kernel.ebpf import Program, numbered
from hanat.kernel.fence import ATTACHED
from hanat.kernel.gate import InstalledGate, not_installed
from hanat.kernel.gate_ports import Rights
from hanat.kernel.nfnetlink import NfNetlink, Refill
from hanat.kernel.tcx import Tcx, is_supported
from hanat.kernel.traffic_filters import DIRECTIONS, EGRESS, INGRESS, TrafficFilters

LOOK_S = 1.0  # how often a holder looks whether the programs are still there


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


def _indexes() -> dict[str, int]:
    return {name: index for index, name in socket.if_nameindex()}


def _best_places(notes: Path | None) -> Callable[[], Places]:
    return partial(Tcx, notes) if is_supported() else TrafficFilters


class KernelDeadlineGate(InstalledGate):
    """Implements `ports.DeadlineGate`.

    Args:
        devices: Kernel names of this node's interfaces.
        mask: Two neighbouring bits of packets' marks.
        notes: A file for the numbers of programs, see `tcx`.
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
        notes: Path | None = None,
        places: Callable[[], Places] | None = None,
    ) -> None:
        super().__init__()
        self._devices = tuple(sorted(set(devices)))
        self._sets, self._indexes = NfNetlink(), DeviceIndexes()
        self._make_places = places or _best_places(notes)
        self._places = self._make_places()
        # What changes an attachment is the thread that installs, or the loop if a device is new.
        self._changing = threading.Lock()
        self._attached: frozenset[int] = frozenset()
        self._looked_at = 0.0
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
        with suppress(KernelError):  # the tables are gone
            self._sets.refill(
                [Refill(name) for name in ATTACHED], operation="shut the gate", target="nftables"
            )
        for index, device in socket.if_nameindex():
            if device in self._devices:
                for direction, program in self._wanted.items():
                    with suppress(KernelError):  # the device went
                        self._places.detach(index, direction, program, device=device)
        super().close()
        self._sets.close()
        self._indexes.close()
        self._places.close()
        self._programs.close()

    def probe(self) -> None:
        """Find out whether the devices that are there have places for the programs.

        Nothing is attached: another daemon of this node may run.

        Raises:
            KernelError: One has not.
        """
        there = _indexes()
        for device in self._devices:
            if device in there:
                self._places.probe(there[device], device=device)

    def attach(self) -> None:
        """Put the programs on those devices that are there.

        Raises:
            KernelError: The kernel refused it.
        """
        with self._changing:
            self._attach()

    def install(self, script: str) -> None:
        """See `ports.Gate.install`."""
        super().install(script)
        with self._changing:
            self._attach()
            self._tell()

    def confirm(self) -> None:
        """See `ports.DeadlineGate.confirm`."""
        with self._changing:
            self._tell()

    def grant(self, *, answers_until: float, carries_until: float) -> None:
        """See `ports.DeadlineGate.grant`."""
        assert answers_until <= carries_until, (answers_until, carries_until)
        if self._changing.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._changing.release()
        self._programs.deadlines.grant(int(answers_until * NS), int(carries_until * NS))

    def withdraw(self) -> None:
        """See `ports.Gate.withdraw`."""
        self._programs.deadlines.withdraw()

    def shut(self) -> None:
        """See `ports.Gate.shut`."""
        self._programs.deadlines.shut()

    def rights(self) -> Mapping[str, Rights]:
        """See `ports.Gate.rights`."""
        self.ports()  # says so if there is no gate
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        answers, carries = (max(until - now, 0) / NS for until in self.deadlines())
        if not carries:
            return {}
        there = {name for _, name in socket.if_nameindex()}
        return {
            device: Rights(answers_s=answers, carries_s=carries)
            for device in self._devices
            if device in there and not any(self._missing(device))
        }

    def deadlines(self) -> tuple[int, int]:
        """Return when *answers* and *carries* end, nanoseconds of CLOCK_BOOTTIME."""
        return self._programs.deadlines.read()

    def missing(self) -> tuple[str, ...]:
        """See `ports.Gate.missing`."""
        return tuple(word for device in self._devices for word in self._missing(device))

    def _look(self) -> None:
        """Attach what is not attached: to a device that is new, or where somebody took it away."""
        whole = self._attached.issuperset(self._indexes.of(self._devices))
        now = time.monotonic()
        if whole and now - self._looked_at >= LOOK_S:
            self._looked_at = now
            whole = not any(what for name in self._devices for what in self._wrong(name))
        if not whole:
            self._attach()
            self._tell()

    def _missing(self, device: str) -> Iterator[str]:
        with closing(self._make_places()) as places:
            yield from self._wrong(device, places)
        index = _indexes().get(device)
        if index is not None and index not in self._attached:
            yield f"{device} not told to the rules"

    def _wrong(self, device: str, places: Places | None = None) -> Iterator[str]:
        """Yield what is wrong with a device's programs."""
        index = _indexes().get(device)
        if index is None:
            return
        for direction, program in self._wanted.items():
            found = (places or self._places).found(index, direction, program, device=device)
            if found:
                yield f"program at the {DIRECTIONS[direction]} of {device} {found}"

    def _attach(self) -> None:
        """Put both programs on all devices; who has not both is none of `_attached`."""
        self._attached = frozenset()
        done = set()
        there = _indexes()
        for device in self._devices:
            if device in there:
                for direction, program in self._wanted.items():
                    self._places.attach(there[device], direction, program, device=device)
                done.add(there[device])
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
