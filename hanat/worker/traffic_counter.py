"""The holder counts what its services carry, and tells its daemon each second what was added.

Ends of flows are read several times a second, at most some 60,000 of them. The table is walked each
ten seconds, slice by slice, with pauses: never more than a quarter of a processor's time while a
walk lasts, and over a longer time never more than a twentieth. So a table of 200,000 flows is
walked each 20 s. It is this thread's own time: on a busy machine walks are no rarer.

A backup walks once, at its start: entries that come later are made by itself, with counters of 0.
So a node that takes over counts from its first packet on. A node that stops holding walks once
more, so that nothing is lost when it hands over; what it tells then is of the time before.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from itertools import islice

from hanat.core.accounting import COUNTERS, FlowAccounting, Place, split
from hanat.core.flow_scope import ReplicationScope
from hanat.core.flows import RECORD_V4, RECORD_V6
from hanat.core.totals import Totals
from hanat.errors import KernelError
from hanat.kernel.ports import Conntrack

log = logging.getLogger(__name__)
complaints = logging.getLogger("hanat.complaints")  # clients choose how many flows there are

READ_S = 0.25
READ_SOON_S = 0.01  # what is more than one call reads
TELL_S = 1.0
TELL_SOON_S = 0.05  # what is more than a message holds
ROWS_A_MESSAGE = 200  # some two milliseconds for the daemon
WALK_S = 10.0
BUSY = 0.25  # of a processor, at most: while a walk lasts, and by strangers' flows that end
WALK_SHARE = 0.05  # of walks, over a longer time
READS_MAX = 4  # 8,000 ends of flows, 30 ms
ASKED = {  # where in a record with counters the address is that the client asked
    RECORD_V4.size + COUNTERS.size: slice(4, 8),
    RECORD_V6.size + COUNTERS.size: slice(16, 32),
}

Added = Mapping[Place, Totals]


def _nobody(_added: Added, _has_bytes: bool) -> None:  # noqa: FBT001 - a callback
    return


class TrafficCounter:
    """What the services of this node carried while it holds.

    Args:
        conntrack: The kernel's table.

    Attributes:
        scope: Which flows are ours.
        tell: Takes what was added since it was called last, and whether the kernel counts
            packets and bytes; called each second, more often if there is much.
    """

    def __init__(self, conntrack: Conntrack) -> None:
        self._accounts = conntrack.account()
        self._flows = FlowAccounting()
        self._walk: Generator[list[bytes]] | None = None
        self._walked_s = 0.0
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._waiting: dict[Place, Totals] = {}
        self._overruns = 0
        self._prepared = self._open = False
        self._last: str | None = None  # of the walks after which this node is done
        self.scope = ReplicationScope()
        self.tell: Callable[[Added, bool], None] = _nobody

    @property
    def walks(self) -> bool:
        """Whether a walk is under way."""
        return self._walk is not None

    def prepare(self) -> None:
        """Note once what entries have carried that are there at the start."""
        if not self._prepared:
            self._prepared = True
            self._begin_walk()

    def start(self) -> None:
        """Count from now on, as the holder; never raises: flows matter more than sums."""
        self._finish()
        try:
            self._accounts.open()
        except KernelError as error:
            log.error("flowsync op=account found=%r", str(error))  # noqa: TRY400 - the text says it all
            return
        self._open, self._prepared = True, True
        self._overruns = self._accounts.overruns
        self._later("read", READ_S, self._read)
        self._later("tell", TELL_S, self._tell)
        if self._walk is None:
            self._begin_walk()

    def stop(self) -> None:
        """Count once more what all flows carried, then stop."""
        if self._open and self._last is None:
            self._last = "next" if self._walk is not None else "this"
            if self._walk is None:
                self._begin_walk()

    def close(self) -> None:
        """Stop at once."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        walk, self._walk = self._walk, None
        if walk is not None:
            walk.close()
        self._accounts.close()
        self._open, self._last = False, None

    def opened(self, records: Sequence[bytes]) -> None:
        """Note flows of which the kernel told that they are assured."""
        if self._open:
            self._flows.opened(records)

    def _finish(self) -> None:
        """Tell what is counted so far, and read no more."""
        if not self._open:
            return
        for name in [name for name in self._timers if name != "walk" or self._walk is None]:
            self._timers.pop(name).cancel()
        self._read_all()
        self._take()
        while self._waiting:
            self._tell_some()
        self._accounts.close()
        self._open, self._last = False, None

    def _later(self, name: str, after_s: float, action: Callable[[], None]) -> None:
        if (earlier := self._timers.get(name)) is not None:
            earlier.cancel()  # the next walk waits, and the last one is asked for before
        self._timers[name] = asyncio.get_running_loop().call_later(after_s, action)

    # ------------------------------------------------------------------------ ends

    def _read(self) -> None:
        began = time.thread_time()
        more = self._read_some()
        if self._accounts.overruns > self._overruns:
            self._overruns = self._accounts.overruns
            complaints.warning("flowsync accounting overruns=%d", self._overruns)
        pause_s = (time.thread_time() - began) * (1 / BUSY - 1)
        self._later("read", max(READ_SOON_S if more else READ_S, pause_s), self._read)

    def _read_some(self) -> bool:
        """Read flows that ended; say whether there may be more."""
        try:
            counted = self._accounts.read()
        except KernelError as error:
            log.error("flowsync op=account found=%r", str(error))  # noqa: TRY400 - the text says it all
            return False
        self._flows.ended(*self._covered(counted))
        return bool(counted)

    def _read_all(self) -> bool:
        """Read what waits; say whether that was all."""
        return any(not self._read_some() for _ in range(READS_MAX))

    def _covered(self, counted: list[bytes]) -> tuple[list[bytes], list[bytes]]:
        """Return those that asked one of our addresses: records, and their counters."""
        ours, asked = self.scope.addresses, ASKED
        return split([c for c in counted if c[asked[len(c)]] in ours])

    # ----------------------------------------------------------------------- walks

    def _begin_walk(self) -> None:
        self._walked_s = 0.0
        self._walk = self._accounts.walk()
        self._flows.begin_walk()
        self._later("walk", 0.0, self._step)

    def _step(self) -> None:
        """Read a slice of the table; the next one after a pause."""
        assert self._walk is not None
        began = time.thread_time()
        over = True
        try:
            counted = next(self._walk, None)
            over = counted is None
            if counted:
                self._flows.see(*self._covered(counted))
            if over and (not self._open or self._read_all()):
                self._flows.end_walk()
            elif over:
                self._flows.break_off()  # ends that wait may be of flows it did not see
        except KernelError as error:
            self._flows.break_off()
            log.error("flowsync op=account found=%r", str(error))  # noqa: TRY400 - the text says it all
        took_s = time.thread_time() - began
        self._walked_s += took_s
        if over:
            self._walk = None
            self._walked()
        else:
            self._later("walk", took_s * (1 / BUSY - 1), self._step)

    def _walked(self) -> None:
        if self._last == "this":
            self._finish()
        elif self._last == "next":
            self._last = "this"
            self._begin_walk()
        elif self._open:
            self._later("walk", max(WALK_S, self._walked_s / WALK_SHARE), self._begin_walk)

    # ---------------------------------------------------------------------- telling

    def _tell(self) -> None:
        self._take()
        self._tell_some()
        self._later("tell", TELL_SOON_S if self._waiting else TELL_S, self._tell)

    def _take(self) -> None:
        for place, totals in self._flows.take(self.scope).items():
            before = self._waiting.get(place)
            self._waiting[place] = totals if before is None else before.plus(totals)

    def _tell_some(self) -> None:
        places = list(islice(self._waiting, ROWS_A_MESSAGE))
        added = {place: self._waiting.pop(place) for place in places}
        self.tell(added, self._accounts.enabled())
