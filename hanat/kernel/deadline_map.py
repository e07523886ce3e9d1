"""The map with the two deadlines, as memory.

Standard library only: a supervisor withdraws a dead daemon's rights here, through a descriptor
of the map that the daemon left it.
"""

from __future__ import annotations

import mmap

VALUE_BYTES = 16
NS = 1_000_000_000


class Deadlines:
    """The two deadlines of a map, in nanoseconds of CLOCK_BOOTTIME.

    Args:
        descriptor: Of the map; kept by whoever has it.

    Raises:
        OSError: It is no such map, or there is no memory.
    """

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, mmap.PAGESIZE)
        # Eight bytes at a time, aligned: a packet meets the old deadline or the new one.
        self._words = memoryview(self._memory).cast("Q")

    def close(self) -> None:
        """Unmap them; the map stays."""
        self._words.release()
        self._memory.close()

    def grant(self, answers_ns: int, carries_ns: int) -> None:
        """Let both rights end then, whatever was granted before."""
        self._words[1] = carries_ns
        self._words[0] = answers_ns

    def withdraw(self) -> None:
        """End *answers*; *carries* runs out."""
        self._words[0] = 0

    def shut(self) -> None:
        """End both."""
        self._words[0] = 0
        self._words[1] = 0

    def read(self) -> tuple[int, int]:
        """Return both, *answers* first."""
        return self._words[0], self._words[1]
