"""The numbers of programs at devices, noted for whoever comes after a killed node.

They are noted in two places, and either one is enough. The table of nftables needs no disk, and
ends with the programs when the machine or the network namespace does; but somebody may flush all
tables while no node runs to put them back. The file has no such end; but a disk may have failed.
"""

from __future__ import annotations

import os
from contextlib import closing, suppress
from pathlib import Path

from hanat.core.notation import NOTES_TABLE
from hanat.errors import AbsentObjectError
from hanat.kernel.nfnetlink import NfNetlink, SetName, added_mark, numbers_in

_SET = SetName("inet", NOTES_TABLE, "programs")
_BOOT = Path("/proc/sys/kernel/random/boot_id")  # numbers begin anew when the machine starts
_FILE = "programs"
_FILE_BYTES, _NOTED_MAX = 4096, 256  # a number has at most ten digits


class ProgramNotes:
    """The notes of a node.

    Args:
        data_dir: Where its file is; None: the table alone.
    """

    def __init__(self, data_dir: Path | None) -> None:
        self._file = None if data_dir is None else data_dir / _FILE
        self._seen_in_table: frozenset[int] = frozenset()
        self._tried: set[int] = set()  # to write into the file: a disk that fails is asked once

    def read(self) -> frozenset[int]:
        """Return what is noted in either place.

        Raises:
            KernelError: What the kernel said.
        """
        return self._in_table() | self._in_file()

    def add(self, number: int) -> None:
        """Note a number in both places.

        A file that cannot be written is no error: the journal is on the same disk and tells of it.

        Raises:
            KernelError: The kernel refused the table.
        """
        if number not in self._in_table():
            with closing(NfNetlink()) as netlink:  # once for each program of a start
                netlink.run(
                    added_mark(_SET, number),
                    operation="note the number of a program", target=f"inet {NOTES_TABLE}",
                )  # fmt: skip
        if self._file is not None and number not in self._tried:
            self._tried.add(number)
            with suppress(OSError):
                self._write(self._file, self._in_file() | {number})

    def is_in_table(self, number: int) -> bool:
        """Say whether a number is noted where a disk cannot lose it.

        Raises:
            KernelError: What the kernel said.
        """
        if number not in self._seen_in_table:  # one look asks for all devices
            self._seen_in_table = self._in_table()
        return number in self._seen_in_table

    def _in_table(self) -> frozenset[int]:
        try:
            return numbers_in(_SET)
        except AbsentObjectError:
            return frozenset()

    def _in_file(self) -> frozenset[int]:
        """Return what was written since the machine started; nothing of a file that is torn."""
        if self._file is None:
            return frozenset()
        try:
            boot, *numbers = self._file.read_text(encoding="ascii").split()
            return frozenset(map(int, numbers)) if boot == _this_boot() else frozenset()
        except (OSError, ValueError):
            return frozenset()

    def _write(self, file: Path, numbers: frozenset[int]) -> None:
        """Write numbers down, the newest if they are many; raises OSError.

        In the place of what was there, of the same length: a full disk has room for that.
        """
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        words = [_this_boot(), *map(str, sorted(numbers)[-_NOTED_MAX:])]
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(descriptor, " ".join(words).encode().ljust(_FILE_BYTES), 0)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)


def _this_boot() -> str:
    return _BOOT.read_text(encoding="ascii").strip()
