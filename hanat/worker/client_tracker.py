"""Clients of services with persistence: from connections into the log and the kernel's sets.

The holder's kernel puts clients into its sets itself. Its worker sees the same connections as
changes of flows, and tells of their clients in batches of their own, since connections end and
entries stay; also of services whose flows are not replicated. Every other node's worker puts what
is committed into its own kernel's sets, a slice of a transaction's length after the other, so that
a takeover finds them there and does nothing.

Now and then a *sweep* compares the sets with the table, both ways: at the start, when rules were
installed (a set may be new, or was filled by packets while no worker ran), after a resync, after a
refusal; and on the holder all the time for services of UDP, since the kernel tells nothing of
connections of one question and one answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from hanat.core.feature_level import OLDEST
from hanat.core.reconcile import Rules
from hanat.core.stick_table import TICKS, StickTable
from hanat.core.sticky import NOBODY, Change, Key
from hanat.errors import WireError
from hanat.worker.client_batch import CLIENTS_MAX, decode, encode
from hanat.worker.client_set_sync import ClientSets, SetSweeper, SetWriter
from hanat.worker.window import Window

complaints = logging.getLogger("hanat.complaints")  # clients choose what is in the sets

GATHER_S = 0.2
EARLY_MAX, EARLY_S = 1_000, 60.0  # batches of servers that are not known yet, 8 KB each
# Batches under way, of any kind: flows go first. Of what is told once more it is one at a time:
# that begins with a term, when the loop has better things to do.
WINDOW = 8

Send = Callable[[bytes, int], int]


class ClientTracker:
    """Both sides; a node changes sides.

    Args:
        sets: Of this kernel; None: none are written.
        clock: Seconds of CLOCK_BOOTTIME.

    Attributes:
        tell: Called when `drain` has something.
        level: The feature level to write (`core.feature_level`).
    """

    def __init__(self, sets: ClientSets | None, clock: Callable[[], float]) -> None:
        self._clock, self.level = clock, OLDEST
        self._table = StickTable()
        self._sweeper = SetSweeper(sets, self._table, clock, learnt=self._learnt)
        self._writer = SetWriter(sets, self._table, clock, refused=self._sweeper.later)
        self._sweeper.differs = self._writer.write
        self._holds = False
        self._early: deque[tuple[float, bytes]] = deque(maxlen=EARLY_MAX)
        self._late: deque[tuple[float, bytes]] = deque(maxlen=EARLY_MAX)  # their rules are there
        self._untold: dict[tuple[Key, bytes], None] = {}
        self._all: Iterator[tuple[Key, bytes]] | None = None
        self._told_again = 0  # number of the batch of those that is under way
        self._is_due = False
        self._left: int | None = None  # batches until somebody else holds, once that is near
        self._gathering: asyncio.TimerHandle | None = None
        self.tell: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._table)

    @property
    def refused(self) -> int:
        """How often a client was not taken, since there was no room for it."""
        return self._table.refused

    def configure(self, rules: Rules) -> None:
        """Be about the services of rules that were installed."""
        if not self._table and not rules.sticky:
            return
        ports = {place: [p[:2] for p in some] for place, some in rules.listens.items()}
        self._table.configure(rules.sticky, ports)
        self._writer.clear()
        if not self._late and self._early:
            asyncio.get_running_loop().call_soon(self._learn_early)
        self._late.extend(self._early)
        self._early.clear()
        self.sweep()

    def sweep(self, *, believe: bool = False) -> None:
        """Compare all sets with the table, and mend what differs; see `SetSweeper.sweep`."""
        if self._table:
            self._sweeper.sweep(believe=believe)

    # ------------------------------------------------------------------ holder

    @property
    def untold(self) -> bool:
        """Whether a hand-over waits for what is to be told."""
        return bool(self._untold) and self._left != 0

    @property
    def telling_all(self) -> bool:
        """Whether not everything was sent since `tell_all`."""
        return self._all is not None

    def hold(self, *, holds: bool) -> None:
        """Note whether packets put clients into this kernel's sets."""
        self._holds = holds
        self._untold.clear()
        self._all = None
        self._sweeper.watch(holds=holds)
        self.hurry(hurried=False)

    def note(self, records: Iterable[bytes]) -> None:
        """Take flows into account that the kernel told of as holder."""
        if self._table:
            self._learnt(self._table.note(records, self._clock()))

    def _learnt(self, changes: Sequence[Change]) -> None:
        """Tell of what this kernel knew first."""
        for change in changes:
            self._forsake(change)
        if not self._holds:
            return
        self._untold.update(dict.fromkeys((change.key, change.client) for change in changes))
        if self._untold and self._gathering is None:
            self._gathering = asyncio.get_running_loop().call_later(GATHER_S, self._gathered)

    def _forsake(self, change: Change) -> None:
        """Let the set of the former server lose a client that moved."""
        if change.former not in {NOBODY, change.server}:
            self._writer.write(self._table.set_name(change.key, change.former), [change.client])

    def _gathered(self) -> None:
        self._gathering = None
        self._is_due = True
        if self._holds:
            self.tell()

    def tell_all(self) -> None:
        """Tell everything, from the beginning if that is being done."""
        self._untold.clear()
        self._all = self._table.everything() if self._table and self._left is None else None

    def lost(self) -> None:
        """Tell nothing that waits: everything is told soon, since something was lost."""
        self._untold.clear()
        self._all = None

    def hurry(self, *, hurried: bool = True) -> None:
        """Tell the changes of a window without waiting for more, then nothing; or go on as before.

        Addresses do not wait for the clients of a flood: the next holder lacks the rest.
        """
        self._left = WINDOW if hurried else None
        if hurried:
            self._all = None
        self._sweeper.pause(paused=hurried)

    def drain(self, send: Send, window: Window) -> None:
        """Send the changes that wait and are due, as far as the window allows.

        Args:
            send: Takes a batch, and how many changes of flows it has; returns its number.
            window: What is under way.
        """
        while len(window) < WINDOW and (batch := self._take_changes()) is not None:
            send(batch, 0)

    def drain_all(self, send: Send, window: Window, told: set[int]) -> None:
        """Send what `tell_all` is about, as far as the window allows.

        Args:
            send: As of `drain`.
            window: As of `drain`.
            told: Takes the numbers of what was sent.
        """
        if len(window) >= WINDOW or self._told_again in window:
            return
        if (batch := self._take_all()) is not None:
            self._told_again = send(batch, 0)
            told.add(self._told_again)

    def _take_changes(self) -> bytes | None:
        is_hurried = self._left is not None
        if self._left == 0 or not (self._is_due or is_hurried or len(self._untold) >= CLIENTS_MAX):
            return None
        some = list(islice(self._untold, CLIENTS_MAX))
        for one in some:
            del self._untold[one]
        self._is_due = self._is_due and bool(self._untold)
        if self._left is not None and some:
            self._left -= 1
        return self._encoded(some)

    def _take_all(self) -> bytes | None:
        some = [] if self._all is None else list(islice(self._all, CLIENTS_MAX))
        if not some:
            self._all = None
        return self._encoded(some)

    def _encoded(self, some: list[tuple[Key, bytes]]) -> bytes | None:
        return encode(self._table.tell(some, self._clock()), self.level) if some else None

    # ------------------------------------------------------------------ backup

    def install(self, batch: bytes) -> None:
        """Take a committed batch of another node; never raises."""
        try:
            self._learn(self._clock(), batch)
        except WireError as error:
            complaints.error("flowsync op=install found=%r", str(error))

    def _learn(self, at: float, batch: bytes, *, late: bool = False) -> None:
        """Believe what another node told at a time; keep it if the rules that it is about are new.

        A node that starts is told everything while its rules are installed, and another node may
        have had a new configuration in force a moment before.

        Args:
            at: When it was told, in seconds.
            batch: What.
            late: Others came since.
        """
        now, there = self._clock(), self._table.servers
        passed = round((now - at) * TICKS)
        is_early = False
        for told in decode(batch):
            is_early |= (told.service, told.version, told.server) not in there
            aged = told._replace(ages=[age + passed for age in told.ages]) if passed else told
            for change in self._table.learn(aged, now, late=late):
                self._forsake(change)
                name = self._table.set_name(change.key, change.server)
                self._writer.write(name, [change.client])
        if is_early and now - at < EARLY_S:
            self._early.append((at, batch))

    def _learn_early(self) -> None:
        """Look at a batch that came before the rules, and at the next one in another turn."""
        if not self._late:
            return
        at, batch = self._late.popleft()
        if self._clock() - at < EARLY_S:
            self._learn(at, batch, late=True)
        asyncio.get_running_loop().call_soon(self._learn_early)
