"""A resync on the holder: everything that its kernel has is told once more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from hanat.worker.waiting import Waiting


@dataclass(slots=True)
class Resync:
    """One that is under way.

    Attributes:
        number: Told in its marks.
        slices: What the kernel has, as it is read.
        waiting: Read, and not proposed yet.
        gone: Flows that ended since the begin: a slice may still tell of them.
        told: Batches on their way, by sequence number.
        read: Everything was read.
    """

    number: int
    slices: Iterator[list[bytes]]
    waiting: Waiting = field(default_factory=Waiting)
    gone: set[bytes] = field(default_factory=set)
    told: set[int] = field(default_factory=set)
    read: bool = False

    @property
    def over(self) -> bool:
        """Whether everything was told, and is committed."""
        return self.read and not self.waiting and not self.told
