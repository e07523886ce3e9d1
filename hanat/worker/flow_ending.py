"""End the connections of servers that went, in slices of the holder's table."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence, Set
from typing import NamedTuple

from hanat.core.configuration import OnServerDown
from hanat.core.endings import Ended, Ending, Endings
from hanat.errors import KernelError
from hanat.kernel.ports import Conntrack

log = logging.getLogger(__name__)

Told = Callable[[Sequence[Ended]], None]
"""Takes how many connections ended, of each ending in order."""

End = Callable[[list[bytes], list[bytes]], bool]
"""Deletes the first and marks the second, here and on the backups; False: nothing was done."""


class _Asked(NamedTuple):
    endings: Sequence[Ending]
    told: Told


class EndingQueue:
    """What is asked for; however much that is, the table is read by one walk at a time.

    A walk begins when the loop had its turn, for all that was asked by then; what is asked
    meanwhile waits for its end.

    Args:
        conntrack: The kernel's table.
        end: See `End`.
        local: Returns the packed addresses of this machine's programs.
        idle: Called when nothing is left to do.
    """

    def __init__(
        self,
        conntrack: Conntrack,
        *,
        end: End,
        local: Callable[[], Set[bytes]],
        idle: Callable[[], None],
    ) -> None:
        self._conntrack, self._end, self._local, self._idle = conntrack, end, local, idle
        self._waiting: list[_Asked] = []
        self._walk: _Walk | None = None

    @property
    def busy(self) -> bool:
        """Whether there is something left to do."""
        return self._walk is not None or bool(self._waiting)

    def ask(self, endings: Sequence[Ending], told: Told) -> None:
        """Let connections end."""
        begins = not self.busy
        self._waiting.append(_Asked(endings, told))
        if begins:
            asyncio.get_running_loop().call_soon(self._begin)

    def stop(self) -> None:
        """Do no more; tell what was done."""
        walk, self._walk = self._walk, None
        if walk is not None:
            walk.tell()
        waiting, self._waiting = self._waiting, []
        for asked in waiting:
            asked.told([Ended()] * len(asked.endings))

    def _begin(self) -> None:
        if self._walk is not None or not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        self._walk = _Walk(waiting, self._conntrack, self._end, self._local())
        self._step(self._walk)

    def _step(self, walk: _Walk) -> None:
        """Read a slice; the loop has its turn before the next."""
        if walk is not self._walk:
            return
        if walk.read():
            asyncio.get_running_loop().call_soon(self._step, walk)
            return
        self._walk = None
        walk.tell()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._begin)
        else:
            self._idle()


class _Walk:
    """One through the whole table, for all that was asked."""

    def __init__(
        self, asked: Sequence[_Asked], conntrack: Conntrack, end: End, local: Set[bytes]
    ) -> None:
        self._asked, self._end = asked, end
        endings = [ending for one in asked for ending in one.endings]
        self._endings = Endings(endings, local)
        self._expired, self._reset = [0] * len(endings), [0] * len(endings)
        self._slices: Iterator[list[bytes]] = conntrack.walk() if self._endings else iter(())

    def read(self) -> bool:
        """Read a slice; return whether to go on."""
        try:
            records = next(self._slices, None)
            return records is not None and self._look(records)
        except KernelError as error:
            log.error("flowsync op=end found=%r", str(error))  # noqa: TRY400 - the text says it all
            return False

    def _look(self, records: list[bytes]) -> bool:
        """End what fits; return whether to go on."""
        expired: list[bytes] = []
        reset: list[bytes] = []
        numbers: list[tuple[list[int], int]] = []
        for record in records:
            found = self._endings.find(record)
            if found is not None:
                number, what = found
                expires = what is OnServerDown.EXPIRE
                (expired if expires else reset).append(record)
                numbers.append((self._expired if expires else self._reset, number))
        if numbers and not self._end(expired, reset):
            return False
        for counts, number in numbers:
            counts[number] += 1
        return True

    def tell(self) -> None:
        ended = list(map(Ended, self._expired, self._reset))
        total = Ended(sum(self._expired), sum(self._reset))
        if any(total):
            log.info("flowsync ended expired=%d reset=%d", *total)
        first = 0
        for asked in self._asked:
            last = first + len(asked.endings)
            asked.told(ended[first:last])
            first = last
