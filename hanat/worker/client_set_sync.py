"""The kernel's sets of clients, kept in line with the table: in slices, between other work."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

from hanat.core.stick_table import StickTable
from hanat.core.sticky import Change, Wanted
from hanat.errors import AbsentObjectError, KernelError, NoRoomError

complaints = logging.getLogger("hanat.complaints")  # clients choose what is in the sets

SLICE = 250  # of a transaction, which the gate's next grant may have to wait for: 0.8 ms
SETS_MAX = 8  # the kernel looks for each by going through all sets, of which there may be 10,000
AGAIN_S, AGAIN_S_MAX = 1.0, 60.0  # after a refusal
WATCH_S = 1.0  # sets of services of UDP, at most so often, and
WATCH_REST = 30  # so many times as long at rest as at work: 3 % of a processor
HOLDER_REST = 3  # the same of a comparison of all sets, beside the work for flows


class Part(NamedTuple):
    """What is to become of clients of a set; see `ClientSets.write`."""

    name: str
    put: Sequence[Wanted]
    gone: Sequence[bytes]


class ClientSets(Protocol):
    """Sets of clients, by name, in the table ``inet hanat``; see `kernel.client_sets`."""

    def write(self, name: str, *, put: Sequence[Wanted], gone: Sequence[bytes]) -> None:
        """Let a set have clients for so long from now, and others not, in one transaction.

        Whatever it had of them before. At most a thousand in all.

        Raises:
            AbsentObjectError: There is no such set.
            NoRoomError: It is full; who was to go is gone, and nothing else was changed.
            KernelError: What else the kernel said; nothing was changed.
        """
        ...

    def write_all(self, parts: Sequence[Part]) -> None:
        """Do the same with several sets, in one transaction.

        Raises:
            KernelError: What the kernel said of one of them; nothing was changed.
        """
        ...

    def walk(self, name: str) -> Iterator[list[Wanted]]:
        """Return the clients of a set in slices; to be walked to the end before the next one.

        One may come twice, or not at all, while the kernel makes the set's table larger.

        Raises:
            AbsentObjectError: There is no such set.
        """
        ...


class SetWriter:
    """Lets sets have of clients what the table says at that time, a transaction a turn.

    Args:
        sets: Of this kernel; None: nothing is written.
        table: What they are to have.
        clock: Seconds of CLOCK_BOOTTIME.
        refused: Called when the kernel did not take something.
    """

    def __init__(
        self,
        sets: ClientSets | None,
        table: StickTable,
        clock: Callable[[], float],
        *,
        refused: Callable[[], None],
    ) -> None:
        self._sets, self._table, self._clock, self._refused = sets, table, clock, refused
        self._waiting: dict[str, dict[bytes, None]] = {}
        self._alone: deque[tuple[str, list[bytes]]] = deque()  # refused together
        self._is_writing = False

    def write(self, name: str, clients: Sequence[bytes]) -> None:
        """Bring clients of a set in line, soon."""
        if self._sets is None or not clients:
            return
        self._waiting.setdefault(name, {}).update(dict.fromkeys(clients))
        if not self._is_writing:
            self._is_writing = True
            asyncio.get_running_loop().call_soon(self._write_some, self._sets)

    def clear(self) -> None:
        """Forget what waits."""
        self._waiting.clear()
        self._alone.clear()

    def _write_some(self, sets: ClientSets) -> None:
        if self._alone:
            self._write_alone(sets, *self._alone.popleft())
        elif self._waiting:
            taken = self._take()
            parts = [self._part(name, clients) for name, clients in taken]
            try:
                sets.write_all(parts)
            except KernelError:
                self._alone.extend(taken)  # which one it is about is found out so
        else:
            self._is_writing = False
            return
        asyncio.get_running_loop().call_soon(self._write_some, sets)

    def _take(self) -> list[tuple[str, list[bytes]]]:
        """Return what waits first, of some sets."""
        taken = []
        room = SLICE
        for name in list(islice(self._waiting, SETS_MAX)):
            waiting = self._waiting[name]
            some = list(islice(waiting, room))
            for client in some:
                del waiting[client]
            if not waiting:
                del self._waiting[name]
            taken.append((name, some))
            room -= len(some)
            if not room:
                break
        return taken

    def _part(self, name: str, clients: Sequence[bytes]) -> Part:
        put = self._table.wanted(name, clients, self._clock())
        kept = {client for client, _ in put}
        return Part(name, put, [client for client in clients if client not in kept])

    def _write_alone(self, sets: ClientSets, name: str, clients: Sequence[bytes]) -> None:
        _, put, gone = self._part(name, clients)
        try:
            sets.write(name, put=put, gone=gone)
        except AbsentObjectError:
            self._waiting.pop(name, None)  # a sweep follows when there are rules
        except NoRoomError as error:
            complaints.warning("flowsync op=clients found=%r refused=%d", str(error), len(put))
            self._table.refused += len(put)
        except KernelError as error:
            complaints.warning("flowsync op=clients found=%r action=sweep", str(error))
            self._waiting.pop(name, None)
            self._refused()


class SetSweeper:
    """Compares sets with the table, a slice a turn.

    Args:
        sets: Of this kernel; None: nothing is compared.
        table: What they are compared with.
        clock: Seconds of CLOCK_BOOTTIME.
        learnt: Takes what sets had that was newer.

    Attributes:
        differs: Takes the name of a set, and clients that are to be brought in line.
    """

    def __init__(
        self,
        sets: ClientSets | None,
        table: StickTable,
        clock: Callable[[], float],
        *,
        learnt: Callable[[Sequence[Change]], None],
    ) -> None:
        self._sets, self._table, self._clock, self._learnt = sets, table, clock, learnt
        self.differs: Callable[[str, Sequence[bytes]], None] = lambda _name, _clients: None
        self._names: list[str] = []  # still to be compared; the next one is the last
        self._walk: Iterator[list[Wanted]] | None = None
        self._name = ""  # of the set that is walked through
        self._met: set[bytes] = set()
        self._expected: dict[str, list[bytes]] = {}
        self._read_at = 0.0  # the kernel fills a slice when the one before is read
        self._is_whole = False  # this round compares all
        self._holds = self._is_paused = False
        self._believes = True  # packets put them there before this process was there
        self._missed = False  # a set was not read in this round
        self._next: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._again_s, self._was_refused = AGAIN_S, False

    def sweep(self, *, believe: bool = False) -> None:
        """Compare all sets, from the first one on.

        Args:
            believe: What packets put into the holder's is true, since nothing else tells of it.
        """
        if self._sets is not None:
            self._believes |= believe
            self._missed = False
            self._names = list(reversed(self._table.sets))
            self._expected = {}
            self._is_whole = True
            self._go_on(0.0)

    def later(self) -> None:
        """Compare all sets after a while; a longer one each time, as long as there is reason."""
        self._was_refused = True
        if self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(self._again_s, self._sweep_again)
            self._again_s = min(2 * self._again_s, AGAIN_S_MAX)

    def _sweep_again(self) -> None:
        self._retry = None
        self.sweep()

    def watch(self, *, holds: bool) -> None:
        """Begin, or stop, to compare sets of which no event tells, at leisure."""
        self._holds = holds
        if holds and self._sets is not None and self._next is None:
            self._go_on(WATCH_S)

    def pause(self, *, paused: bool) -> None:
        """Stand still, or go on where it was."""
        was, self._is_paused = self._is_paused, paused
        if was is not paused and self._sets is not None:
            self._go_on(0.0)

    def _go_on(self, after_s: float) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._is_paused:
            return
        self._next = asyncio.get_running_loop().call_later(after_s, self._step)

    def _step(self) -> None:
        self._next = None
        assert self._sets is not None
        if self._walk is None and not self._names:
            self._end_round()
            return
        began = self._clock()
        try:
            if self._walk is None:
                self._name = self._names.pop()
                self._met = set()
                self._walk = self._sets.walk(self._name)
                self._read_at = began
            filled_at, self._read_at = self._read_at, began
            self._compare(next(self._walk, None), filled_at)
        except AbsentObjectError:
            self._walk, self._missed = None, True  # a sweep follows when there are rules
        except KernelError as error:
            complaints.warning("flowsync op=clients found=%r action=sweep", str(error))
            self._walk, self._missed = None, True
            self.later()
        rest = (HOLDER_REST if self._holds else 0) if self._is_whole else WATCH_REST
        self._go_on(rest * (self._clock() - began))

    def _compare(self, present: list[Wanted] | None, at: float) -> None:
        """Compare a slice of a set as of a moment, or, at its end, look what was in none."""
        if present is None:
            self._walk = None
            if self._is_whole:
                if self._name not in self._expected:
                    # Of all sets of a service.
                    self._expected = self._table.expected(self._name, self._clock())
                expected = self._expected.pop(self._name)
                self.differs(self._name, [c for c in expected if c not in self._met])
            self._met = set()
            return
        self._met.update(client for client, _ in present)
        packets = self._holds or self._believes
        found = self._table.compare(
            self._name, present, at, packets=packets, believe=self._believes
        )
        if found.changes:
            self._learnt(found.changes)
        self.differs(self._name, found.strange + found.outdated)

    def _end_round(self) -> None:
        if self._is_whole:
            self._is_whole = False
            self._believes = self._believes and self._missed
            if not self._was_refused:
                self._again_s = AGAIN_S
            self._was_refused = False
        self._names = list(reversed(self._table.datagram_sets))
        if self._holds and self._names:
            self._go_on(WATCH_S)
