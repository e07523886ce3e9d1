"""Tell the holder's kernel which clients have too many connections, see `core.crowds`.

A look at 250,000 flows takes 220 ms of a processor, so it is done in steps between which the loop
turns, and the sets are told some clients a turn. That is once a second, and less often with more
than 100,000 flows, so that it takes a tenth of the time at most. What it finds is forgotten by the
kernel if it does not look again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

from hanat.core.crowds import Census, Crowd
from hanat.errors import AbsentObjectError, KernelError
from hanat.flowsync.client_sets import REFILLED_MAX, ClientSets

complaints = logging.getLogger("hanat.complaints")

PERIOD_S = 1.0
REST = 10  # times as long as a look took, until the next
STEP_FLOWS = 2_000
KEPT_PERIODS = 3

Piece = tuple[str, Sequence[bytes], Sequence[bytes] | None]
"""Name of a set, who is to be there, and who is not; see `ClientSets.refill`."""


class CrowdWatch:
    """Looks, while this node holds.

    Args:
        keys: Returns the keys of all flows.
        sets: Where the clients are told.
    """

    def __init__(self, keys: Callable[[], list[bytes]], sets: ClientSets) -> None:
        self._keys, self._sets = keys, sets
        self._crowds: tuple[Crowd, ...] = ()
        self._holds = False
        self._told: dict[str, set[bytes] | None] = {}  # whom each set has; None: unknown
        self._next: asyncio.TimerHandle | asyncio.Handle | None = None

    def configure(self, crowds: tuple[Crowd, ...]) -> None:
        """Look at these."""
        if crowds != self._crowds:
            self._crowds = crowds
            self._told = dict.fromkeys(crowd.name for crowd in crowds)
            self._again()

    def begin(self) -> None:
        """This node holds: look at once."""
        self._holds = True
        self._again()

    def end(self) -> None:
        """This node does not hold any more; what the kernel was told passes."""
        self._holds = False
        self._again()

    def _again(self) -> None:
        """Begin anew, or stop."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._holds and self._crowds:
            self._next = asyncio.get_running_loop().call_soon(self._begin_look)

    def _begin_look(self) -> None:
        keys = self._keys()
        steps = (keys[first : first + STEP_FLOWS] for first in range(0, len(keys), STEP_FLOWS))
        self._step(Census(self._crowds), steps, 0.0)

    def _step(self, census: Census, steps: Iterator[list[bytes]], took_s: float) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        some = next(steps, None)
        if some is not None:
            census.add(some)
            took_s += loop.time() - began
            self._next = loop.call_soon(self._step, census, steps, took_s)
            return
        period_s = max(PERIOD_S, REST * took_s)
        self._tell(self._pieces(census.crowded()), KEPT_PERIODS * period_s, period_s)

    def _tell(self, pieces: Iterator[Piece], timeout_s: float, period_s: float) -> None:
        """Tell the kernel a piece, which the gate's next grant may have to wait for."""
        loop = asyncio.get_running_loop()
        piece = next(pieces, None)
        if piece is None:
            self._next = loop.call_later(period_s, self._begin_look)
            return
        name, clients, gone = piece
        had = self._told[name]
        try:
            self._sets.refill(name, clients, gone=gone, timeout_s=timeout_s)
        except AbsentObjectError:
            self._told[name] = None  # its rules are being installed
        except KernelError as error:
            self._told[name] = None
            complaints.warning("flowsync op=tell_crowds found=%r", str(error))
        else:
            self._told[name] = (had or set()).difference(gone or ()).union(clients)
        self._next = loop.call_soon(self._tell, pieces, timeout_s, period_s)

    def _pieces(self, crowded: Mapping[str, Sequence[bytes]]) -> Iterator[Piece]:
        """Yield what makes sets out of what they were; the rest of a set only if that was told."""
        for name, clients in crowded.items():
            had = self._told[name]
            gone = [] if had is None else list(had.difference(clients))
            if had is None:
                yield name, clients[:REFILLED_MAX], None
                clients = clients[REFILLED_MAX:]  # noqa: PLW2901 - the rest
            for some in _parts(clients):
                if self._told[name] is not None:
                    yield name, some, []
            for some in _parts(gone):
                if self._told[name] is not None:
                    yield name, [], some


def _parts(clients: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for first in range(0, len(clients), REFILLED_MAX):
        yield clients[first : first + REFILLED_MAX]
