"""Tell the holder's kernel which clients have too many connections, see `core.crowds`.

A look at 250,000 flows takes 220 ms of a processor, so it is done in steps between which the loop
turns: once a second, and less often with more than 100,000 flows, so that it takes a tenth of the
time at most. What it finds is forgotten by the kernel if it does not look again.

The kernel is told what is different from the last time, and of those who stay every second time: a
few clients in a transaction, one transaction a turn. The gate's next grant may have to wait for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hanat.core.crowds import Census, Crowd
from hanat.core.sticky import Wanted
from hanat.errors import AbsentObjectError, KernelError
from hanat.worker.client_set_sync import SLICE, ClientSets

complaints = logging.getLogger("hanat.complaints")

PERIOD_S = 1.0
REST = 10  # times as long as a look took, until the next
STEP_FLOWS = 2_000
KEPT_PERIODS = 4
RENEWED_PERIODS = 2.5  # who has less left than so much is told again
KEPT_S_MAX = 600.0  # the sets' own


class _Write(NamedTuple):
    name: str
    put: Sequence[bytes]
    gone: Sequence[bytes]


@dataclass(slots=True)
class _Look:
    """One look, at all sets or at those that are new."""

    census: Census
    steps: Iterator[list[bytes]]
    whole: bool
    renews: bool
    writes: Iterator[_Write | None] | None = None  # None: all flows are to be counted first
    took_s: float = 0.0
    failed: set[str] = field(default_factory=set)


class CrowdWatch:
    """Looks, while this node holds.

    Args:
        keys: Returns the keys of all flows.
        sets: Where the clients are told.
        whole: Says whether these flows are all; if not, nothing is told.
    """

    def __init__(
        self, keys: Callable[[], list[bytes]], sets: ClientSets, *, whole: Callable[[], bool]
    ) -> None:
        self._keys, self._sets, self._whole = keys, sets, whole
        self._crowds: tuple[Crowd, ...] = ()
        self._holds = False
        self._told: dict[str, dict[bytes, float]] = {}  # by set: clients, and when they pass
        self._new: set[str] = set()  # sets that are looked at before the others
        self._renews = False  # rules were installed: sets may be empty that were not
        self._due, self._period_s = 0.0, PERIOD_S
        self._next: asyncio.TimerHandle | asyncio.Handle | None = None

    def configure(self, crowds: tuple[Crowd, ...]) -> None:
        """Look at these; at once at those that are new, or others than before."""
        if crowds == self._crowds:
            return
        there, names = set(self._crowds), {crowd.name for crowd in crowds}
        self._new = {n for n in self._new if n in names}
        self._new |= {crowd.name for crowd in crowds if crowd not in there}
        self._told = {name: told for name, told in self._told.items() if name in names}
        self._crowds, self._renews = crowds, True
        if self._new or not crowds:
            self._again()

    def begin(self) -> None:
        """This node holds: look at once."""
        self._holds = True
        self._due = 0.0
        self._new.clear()
        self._again()

    def end(self) -> None:
        """This node does not hold any more; what the kernel was told passes."""
        self._holds = False
        self._told.clear()
        self._again()

    def _again(self) -> None:
        """Begin anew, or stop."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._holds and self._crowds:
            self._next = asyncio.get_running_loop().call_soon(self._begin_look)

    def _begin_look(self) -> None:
        loop = asyncio.get_running_loop()
        if not self._whole():
            self._next = loop.call_later(PERIOD_S, self._begin_look)
            return
        whole = not self._new
        crowds = [crowd for crowd in self._crowds if whole or crowd.name in self._new]
        renews = whole and self._renews
        if whole:
            self._due, self._renews = 0.0, False  # until it is over
        keys = self._keys()
        steps = (keys[first : first + STEP_FLOWS] for first in range(0, len(keys), STEP_FLOWS))
        self._step(_Look(Census(crowds), steps, whole=whole, renews=renews))

    def _step(self, look: _Look) -> None:
        """Count some flows, or when all are counted, tell some clients."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        if look.writes is None:
            some = next(look.steps, None)
            if some is None:
                look.writes = self._writes(look)
            else:
                look.census.add(some)
        else:
            try:
                write = next(look.writes)
            except StopIteration:
                self._end_look(look)
                return
            if write is not None and write.name not in look.failed:
                self._write(look, write)
        look.took_s += loop.time() - began
        self._next = loop.call_soon(self._step, look)

    def _end_look(self, look: _Look) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if look.whole:
            self._period_s = max(PERIOD_S, REST * look.took_s)
            self._due = now + self._period_s
        else:
            self._new.difference_update(look.census.names)
        self._next = loop.call_at(max(now, self._due), self._begin_look)

    def _writes(self, look: _Look) -> Iterator[_Write | None]:
        """Yield what is to be told; None when a set is looked through."""
        loop = asyncio.get_running_loop()
        for name in look.census.names:
            crowded, told, now = look.census.crowded_in(name), self._told.get(name, {}), loop.time()
            there = set(crowded)
            gone = [client for client, until in told.items() if client not in there and until > now]
            soon = now + RENEWED_PERIODS * self._period_s
            put = [c for c in crowded if look.renews or told.get(c, 0.0) < soon]
            self._told[name] = {client: told.get(client, 0.0) for client in (*gone, *crowded)}
            for first in range(0, len(gone), SLICE):  # who goes makes room
                yield _Write(name, (), gone[first : first + SLICE])
            for first in range(0, len(put), SLICE):
                yield _Write(name, put[first : first + SLICE], ())
            yield None

    def _write(self, look: _Look, write: _Write) -> None:
        kept_s = min(KEPT_S_MAX, KEPT_PERIODS * max(self._period_s, REST * look.took_s))
        until = asyncio.get_running_loop().time() + kept_s
        told = self._told.get(write.name)
        if told is None:
            return  # its service is gone
        try:
            put = [Wanted(client, round(kept_s * 1000)) for client in write.put]
            self._sets.write(write.name, put=put, gone=write.gone)
        except KernelError as error:
            look.failed.add(write.name)
            told.clear()  # the next look tells all of them
            if not isinstance(error, AbsentObjectError):  # or its rules are being installed
                complaints.warning("flowsync op=tell_crowds found=%r", str(error))
        else:
            told.update(dict.fromkeys(write.put, until))
            for client in write.gone:
                told.pop(client, None)
