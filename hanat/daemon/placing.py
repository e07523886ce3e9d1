"""Put floating addresses on their devices and take them off, a few at a time.

A thousand of them take the kernel some time, IPv6 above all, and the loop that waits for it renews
the lease. So they go in slices, with the loop between them; a slice has as many addresses as the
kernel does in about 2 ms. A few are done at once.

All happens in the order in which it was asked for, but what is to be taken off is not put on any
more: what a node gives up it gives up at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from hanat.core.configuration import FloatingAddress
from hanat.errors import KernelError
from hanat.kernel.ports import LABEL_BYTES_MAX, Addresses, Placement

AT_ONCE_MAX = 8
SLICE_MAX = 64
SLICE_S = 0.002

Ended = Callable[[KernelError | None], None]


@dataclass(slots=True, eq=False)
class _Job:
    """What is to be done with some addresses.

    Attributes:
        work: Does it; None for what only comes behind other jobs.
        removals: Those of the jobs before that take off.
    """

    work: Callable[[Iterable[Placement]], None] | None
    left: deque[Placement]
    ended: Ended
    adds: bool = False
    found: KernelError | None = None
    removals: tuple[_Job, ...] = ()


class Placing:
    """The addresses of a node.

    Args:
        addresses: Those of the kernel.
        soon: Calls something when the loop has looked at everything else.
        clock: Seconds.
    """

    def __init__(
        self,
        addresses: Addresses,
        *,
        soon: Callable[[Callable[[], None]], object],
        clock: Callable[[], float],
    ) -> None:
        self._addresses, self._soon, self._clock = addresses, soon, clock
        self._jobs: deque[_Job] = deque()
        self._size = AT_ONCE_MAX

    def add(self, placements: Iterable[Placement], ended: Ended) -> bool:
        """Add all, or begin to; see `_begin`. All are tried, then the first refusal is told."""
        return self._begin(_Job(self._addresses.add, deque(placements), ended, adds=True))

    def remove(self, placements: Iterable[Placement], ended: Ended) -> bool:
        """Remove all, or begin to; see `_begin`. All are tried, then the first refusal is told.

        What waits to be added of them is not.
        """
        left = deque(placements)
        if self._jobs:
            gone = {(placement.device, placement.address) for placement in left}
            for job in (job for job in self._jobs if job.adds):
                job.left = deque(p for p in job.left if (p.device, p.address) not in gone)
        return self._begin(_Job(self._addresses.remove, left, ended))

    def behind(self, then: Ended) -> None:
        """Call `then` when all that was begun is done, with what was not removed, if anything."""
        removals = tuple(job for job in self._jobs if job.work and not job.adds)
        job = _Job(None, deque(), then, removals=removals)
        if self._jobs:
            self._jobs.append(job)
        else:
            then(None)

    def _begin(self, job: _Job) -> bool:
        """Do a small job now if nothing is before it; else tell `ended` when it is done.

        Returns:
            Whether it is done: `ended` is not called then.

        Raises:
            KernelError: What the kernel refused now.
        """
        assert job.work is not None
        if not self._jobs and len(job.left) <= AT_ONCE_MAX:
            job.work(job.left)
            return True
        self._jobs.append(job)
        if len(self._jobs) == 1:
            self._soon(self._slice)
        return False

    def _slice(self) -> None:
        """Do a part of the first job; a part that takes long makes the next one smaller."""
        job = self._jobs[0]
        if job.left and job.work is not None:
            part = [job.left.popleft() for _ in range(min(self._size, len(job.left)))]
            began = self._clock()
            try:
                job.work(part)
            except KernelError as error:
                job.found = job.found or error
            took_s = self._clock() - began
            self._size = max(1, self._size // 2) if took_s > SLICE_S else self._size
            self._size = min(SLICE_MAX, self._size * 2) if took_s < SLICE_S / 4 else self._size
        if job.left:
            self._soon(self._slice)
            return
        self._jobs.popleft()
        if self._jobs:
            self._soon(self._slice)
        job.ended(next((j.found for j in job.removals if j.found), job.found))


def placements(vips: tuple[FloatingAddress, ...], interfaces: Mapping[str, str]) -> list[Placement]:
    """Return where each floating address goes, IPv4 with an alias label ``eth0:1``."""
    found: list[Placement] = []
    numbers: dict[str, int] = {}
    for vip in vips:
        device = interfaces.get(vip.interface)
        if device is None:
            continue  # InstallRuleset says so, and the node is not eligible
        for address in vip.addresses:
            label = ""
            if address.version == 4:
                numbers[device] = numbers.get(device, 0) + 1
                label = f"{device}:{numbers[device]}"
            if len(label) > LABEL_BYTES_MAX:
                label = ""
            found.append(Placement(device, address, label))
    return found
