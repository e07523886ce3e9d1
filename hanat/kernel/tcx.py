"""Programs at the two ends of a device, by tcx: the shortest way of a packet to them.

A program that is attached like this belongs to the device and outlives every process. Who has
its descriptor can take it away; who has not can do that by its place among the others, if it
knows its number. So the numbers are written down before a program is attached, and the successor of
a node that was killed finds what it has to take away. Nothing here needs CAP_SYS_ADMIN.

Since Linux 6.6; `traffic_filters` does the same on older kernels.

Source: bpf(2), ``kernel/bpf/mprog.c``, ``kernel/bpf/tcx.c``.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from hanat.errors import AbsentObjectError, KernelError
from hanat.kernel.ebpf import Program, call
from hanat.kernel.traffic_filters import DIRECTIONS, EGRESS, INGRESS, TrafficFilters

_ATTACH, _DETACH, _QUERY = 8, 9, 16  # commands of bpf(2)
_PLACES = {INGRESS: 46, EGRESS: 47}  # BPF_TCX_INGRESS, BPF_TCX_EGRESS
_BEFORE, _AFTER, _ID = 1 << 3, 1 << 4, 1 << 5
_PROGRAMS_MAX = 64  # that the kernel has at one place
_LOOPBACK = 1  # the index of lo in every network namespace
_ATTACHMENT = struct.Struct("=6IQ")  # device, program, place, flags, replaced, relative, revision
_NOTES_BYTES, _NOTED_MAX = 4096, 256  # numbers have at most ten digits
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
        notes: The file where numbers of programs are written down; None: nowhere.
    """

    def __init__(self, notes: Path | None = None) -> None:
        self._notes = notes
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
            OSError: Its number cannot be written down.
        """
        numbers, _ = _numbers(index, direction, device=device)
        if program.number in numbers[:1]:
            return
        if program.number in numbers:  # who came before it may end the search
            _detach(index, direction, program.number, device=device)
        noted = set() if self._notes is None else read_notes(self._notes)
        if self._notes is not None and program.number not in noted:
            write_notes(self._notes, noted | {program.number})
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
        if program.number in numbers:
            return "" if numbers[0] == program.number else f"behind {numbers[0]}"
        return "gone"


def detach_noted(notes: Path, devices: Iterable[tuple[str, int]]) -> None:
    """Take away what a node left that does not run any more.

    Args:
        notes: The file that it wrote.
        devices: Names and indexes.

    Raises:
        KernelError: What the kernel said.
    """
    noted = read_notes(notes)
    for device, index in devices if noted else ():
        for direction in _PLACES:
            with suppress(AbsentObjectError):
                numbers, _ = _numbers(index, direction, device=device)
                for number in noted.intersection(numbers):
                    _detach(index, direction, number, device=device)


def read_notes(file: Path) -> set[int]:
    """Return the numbers that were written down since the machine started."""
    try:
        noted = json.loads(file.read_text())
        return set(map(int, noted["programs"])) if noted["boot"] == _boot() else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()  # there is none, or it is torn: then a predecessor had attached nothing


def write_notes(file: Path, numbers: set[int]) -> None:
    """Write numbers down, the newest if they are many.

    In the place of what was there, of the same length, by one call: a full disk has room for that.

    Raises:
        OSError: That failed.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = json.dumps({"boot": _boot(), "programs": sorted(numbers)[-_NOTED_MAX:]})
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(descriptor, text.encode().ljust(_NOTES_BYTES), 0)
    finally:
        os.close(descriptor)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


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
