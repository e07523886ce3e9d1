"""Put floating addresses on their devices and take them off, a few at a time.

A thousand of them take the kernel some time, IPv6 above all, and the loop that waits for it renews
the lease. So they go in slices, with the loop between them; a slice has as many addresses as the
kernel does in about 2 ms. A few are done at once.

What is to be taken off is not put on any more, and goes before all that is only to be put on: what
a node gives up it gives up at once, and a ruleset waits for what it must not find, not for the
rest of a thousand. Else all happens in the order in which it was asked for.

The kernel acknowledges an IPv6 address before it takes packets to it for its own: some
milliseconds later, when a thread of its own has made the route. Until then it would forward them
to the network, and ask there who has the address. So an addition ends when each is local.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from hanat.core.placements import Placement
from hanat.errors import KernelError
from hanat.kernel.ports import Addresses

AT_ONCE_MAX = 8
SLICE_MAX = 64
SLICE_S = 0.002
LOOK_S, LOCAL_S_MAX = 0.0005, 0.5  # usually it takes 1 to 7 ms

Ended = Callable[[KernelError | None], None]


@dataclass(slots=True, eq=False)
class _Job:
    """What is to be done with some addresses.

    Attributes:
        work: Does it; None for what only comes behind other jobs.
        strange: What was added and is perhaps not local yet.
        waits: The first of them is not; else there were only too many to look at together.
        due: When that is waited for no longer.
        removals: Those of the jobs before that take off.
    """

    work: Callable[[Iterable[Placement]], None] | None
    left: deque[Placement]
    ended: Ended
    adds: bool = False
    found: KernelError | None = None
    strange: deque[Placement] = field(default_factory=deque)
    waits: bool = False
    due: float = 0.0
    removals: tuple[_Job, ...] = ()


class Placing:
    """The addresses of a node.

    Args:
        addresses: Those of the kernel.
        soon: Calls something when the loop has looked at everything else.
        later: Calls something after some seconds.
        clock: Seconds.
    """

    def __init__(
        self,
        addresses: Addresses,
        *,
        soon: Callable[[Callable[[], None]], object],
        later: Callable[[float, Callable[[], None]], object],
        clock: Callable[[], float],
    ) -> None:
        self._addresses, self._clock = addresses, clock
        self._soon, self._later = soon, later
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
                job.strange = deque(p for p in job.strange if (p.device, p.address) not in gone)
        return self._begin(_Job(self._addresses.remove, left, ended))

    def behind(self, then: Ended) -> None:
        """Call `then` when all removals are done that were begun, with the first refusal."""
        removals = tuple(job for job in self._jobs if job.work and not job.adds)
        if removals:
            self._put(_Job(None, deque(), then, removals=removals))
        else:
            then(None)

    @property
    def _removes(self) -> bool:
        return bool(self._jobs) and not self._jobs[0].adds

    def _put(self, job: _Job) -> None:
        """Queue a job; additions come last."""
        begins = not self._jobs
        before = len(self._jobs) if job.adds else sum(not other.adds for other in self._jobs)
        self._jobs.insert(before, job)
        if begins:
            self._soon(self._slice)

    def _begin(self, job: _Job) -> bool:
        """Do a small job now if none must be before it; else tell `ended` when it is done.

        Returns:
            Whether it is done: `ended` is not called then.

        Raises:
            KernelError: What the kernel refused now.
        """
        assert job.work is not None
        waits = self._jobs if job.adds else self._removes
        if not waits and len(job.left) <= AT_ONCE_MAX:
            job.work(job.left)
            if not job.adds or self._all_local(job, job.left):
                return True
            job.left = deque()
        self._put(job)
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
            else:
                job.strange += self._doubtful(part) if job.adds else ()
            took_s = self._clock() - began
            self._size = max(1, self._size // 2) if took_s > SLICE_S else self._size
            self._size = min(SLICE_MAX, self._size * 2) if took_s < SLICE_S / 4 else self._size
        if job.left:
            self._soon(self._slice)
            return
        if not self._all_local(job, ()):
            if job.waits:
                self._later(LOOK_S, self._slice)
            else:
                self._soon(self._slice)
            return
        self._jobs.popleft()
        if self._jobs:
            self._soon(self._slice)
        job.ended(next((j.found for j in job.removals if j.found), job.found))

    @staticmethod
    def _doubtful(added: Iterable[Placement]) -> Iterable[Placement]:
        """Return what is perhaps not local yet: IPv4 is when the kernel has acknowledged it."""
        return (placement for placement in added if placement.address.version == 6)

    def _all_local(self, job: _Job, added: Iterable[Placement]) -> bool:
        """Say whether nothing of an addition is to be waited for, also if it takes too long."""
        job.strange += self._doubtful(added)
        looks = SLICE_MAX
        while job.strange and looks and self._addresses.local(job.strange[0]):
            job.strange.popleft()
            looks -= 1
        job.waits = looks > 0
        now = self._clock()
        if not job.strange:
            return True
        job.due = job.due or now + LOCAL_S_MAX
        if now < job.due:
            return False
        job.found = job.found or KernelError(
            operation=f"add {job.strange[0].address}", target=job.strange[0].device,
            found=f"the kernel does not take packets to it after {LOCAL_S_MAX} s",
            to_do="is the device up, and IPv6 not disabled on it?",
        )  # fmt: skip
        return True
