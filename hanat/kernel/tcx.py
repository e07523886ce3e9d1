"""Programs at the two ends of a device, by tcx: the shortest way of a packet to them.

A program that is attached like this belongs to the device and outlives every process. A process
that has its descriptor can take it away; another one can do that by its place among the others, if
it knows the program's number. So the number is noted before the program is attached, and the
successor of a node that was killed finds what it has to take away. Nothing here needs
CAP_SYS_ADMIN.

Since Linux 6.6; `traffic_filters` does the same on older kernels.

Source: bpf(2), ``kernel/bpf/mprog.c``, ``kernel/bpf/tcx.c``.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Collection
from contextlib import closing, suppress
from pathlib import Path

from hanat.errors import AbsentObjectError, KernelError
from hanat.kernel.ebpf import Program, call
from hanat.kernel.program_notes import ProgramNotes
from hanat.kernel.traffic_filters import DIRECTIONS, EGRESS, INGRESS, TrafficFilters

_ATTACH, _DETACH, _QUERY = 8, 9, 16  # commands of bpf(2)
_PLACES = {INGRESS: 46, EGRESS: 47}  # BPF_TCX_INGRESS, BPF_TCX_EGRESS
_BEFORE, _AFTER, _ID = 1 << 3, 1 << 4, 1 << 5
_PROGRAMS_MAX = 64  # that the kernel has at one place
_LOOPBACK = 1  # the index of lo in every network namespace
_ATTACHMENT = struct.Struct("=6IQ")  # device, program, place, flags, replaced, relative, revision
_TRIES = 5  # others may attach programs meanwhile


def is_supported() -> bool:
    """Say whether this kernel has it."""
    try:
        _numbers(_LOOPBACK, INGRESS, device="lo")
    except KernelError:
        return False
    return True


class Tcx:
    """Implements `deadline_gate.Places`.

    Args:
        data_dir: Where the numbers of programs are noted; see `ProgramNotes`.
    """

    def __init__(self, data_dir: Path | None = None) -> None:
        self._notes = ProgramNotes(data_dir)
        self._others = TrafficFilters()

    def close(self) -> None:
        """Release the descriptor; the next call opens another."""
        self._others.close()

    def probe(self, index: int, *, device: str) -> None:
        """Find out whether programs can be attached to a device.

        Raises:
            KernelError: They cannot.
        """
        _numbers(index, INGRESS, device=device)

    def attach(self, index: int, direction: int, program: Program, *, device: str) -> None:
        """Put a program there before all others, and take away what a predecessor left.

        Args:
            index: Of the device.
            direction: `INGRESS` or `EGRESS`.
            program: A classifier.
            device: Its name, for errors.

        Raises:
            KernelError: The kernel refused it.
        """
        numbers, _ = _numbers(index, direction, device=device)
        noted = self._notes.read()
        self._notes.add(program.number)
        if program.number in numbers[:1]:
            return
        if program.number in numbers:  # who came before it may end the search
            _detach(index, direction, program.number, device=device)
        for stale in noted.intersection(numbers):
            _detach(index, direction, stale, device=device)
        self._others.detach(index, direction, program, device=device)  # of an older kernel's way
        attributes = _ATTACHMENT.pack(index, program.fd, _PLACES[direction], _BEFORE, 0, 0, 0)
        call(
            _ATTACH, attributes,
            operation=f"attach a program at the {DIRECTIONS[direction]}", target=device,
        )  # fmt: skip

    def detach(self, index: int, direction: int, program: Program, *, device: str) -> None:
        """Take a program away; if it is not there it is no error.

        Raises:
            KernelError: What the kernel said.
        """
        _detach(index, direction, program.number, device=device)

    def found(self, index: int, direction: int, program: Program, *, device: str) -> str:
        """Return what is wrong with a program that was attached; nothing if it is there.

        Raises:
            KernelError: What the kernel said.
        """
        try:
            numbers, _ = _numbers(index, direction, device=device)
        except AbsentObjectError:
            return ""  # the device went meanwhile
        if program.number not in numbers:
            return "gone"
        if numbers[0] != program.number:
            return f"behind {numbers[0]}"
        return "" if self._notes.is_in_table(program.number) else "not noted"


def remove_programs(devices: Collection[str], data_dir: Path | None = None) -> None:
    """Take away what a node left that does not run any more, in whichever way it was attached.

    Args:
        devices: Kernel names; what is not there is no error.
        data_dir: That node's; see `ProgramNotes`.

    Raises:
        KernelError: What the kernel said.
    """
    noted, supported = ProgramNotes(data_dir).read(), is_supported()
    with closing(TrafficFilters()) as filters:
        for index, device in socket.if_nameindex():
            for direction in _PLACES if device in devices else ():
                with suppress(AbsentObjectError):  # it went meanwhile
                    numbers = _numbers(index, direction, device=device)[0] if supported else []
                    for number in noted.intersection(numbers):
                        _detach(index, direction, number, device=device)
                    filters.detach(index, direction, None, device=device)


def _numbers(index: int, direction: int, *, device: str) -> tuple[list[int], int]:
    """Return the programs at a place, in the order in which packets meet them, and its revision."""
    found = (ctypes.c_uint32 * _PROGRAMS_MAX)()
    attributes = ctypes.create_string_buffer(
        struct.pack(
            "=4IQI4x", index, _PLACES[direction], 0, 0, ctypes.addressof(found), _PROGRAMS_MAX
        ),
        64,
    )
    call(
        _QUERY, attributes,
        operation=f"look at the {DIRECTIONS[direction]}", target=device,
    )  # fmt: skip
    (count,) = struct.unpack_from("=I", attributes.raw, 24)
    (revision,) = struct.unpack_from("=Q", attributes.raw, 56)
    return list(found[: min(count, _PROGRAMS_MAX)]), int(revision)


def _detach(index: int, direction: int, number: int, *, device: str) -> None:
    """Take a program away by its place, which others may change at any moment."""
    for _ in range(_TRIES):
        numbers, revision = _numbers(index, direction, device=device)
        if number not in numbers:
            return
        place = numbers.index(number)
        if place == 0:
            flags, anchor = _BEFORE, 0
        elif place == len(numbers) - 1:
            flags, anchor = _AFTER, 0
        else:
            flags, anchor = _BEFORE | _ID, numbers[place + 1]
        attributes = _ATTACHMENT.pack(index, 0, _PLACES[direction], flags, 0, anchor, revision)
        try:
            call(
                _DETACH, attributes,
                operation=f"take a program from the {DIRECTIONS[direction]}", target=device,
            )  # fmt: skip
        except AbsentObjectError:
            return
        except KernelError as error:
            if not error.found.startswith(errno.errorcode[errno.ESTALE]):
                raise
        else:
            return
