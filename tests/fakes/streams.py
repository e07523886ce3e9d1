"""The fakes' event sources: queues with a descriptor an event loop can wait for."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from hanat.core.flows import Run
from hanat.kernel.ports import AddressRemoved, CarrierChanged, LinkChange

Event = TypeVar("Event")

# About what the real buffer holds.
EVENTS_QUEUED_MAX = 100_000


class FakeStream(Generic[Event]):
    """A queue; its descriptor is readable while something waits.

    The descriptor is made when it is asked for: thousands of simulated nodes
    never ask.
    """

    def __init__(self, capacity: int = EVENTS_QUEUED_MAX) -> None:
        self._capacity = capacity
        self._waiting: deque[Event] = deque()
        self._overruns = 0
        self._descriptor = -1
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether nobody reads any more."""
        return self._closed

    def tell(self, event: Event) -> None:
        """Queue an event, or count it as lost."""
        if self._closed:
            return
        if len(self._waiting) >= self._capacity:
            self._overruns += 1
            return
        self._waiting.append(event)
        if self._descriptor >= 0:
            os.eventfd_write(self._descriptor, 1)

    def fileno(self) -> int:
        """Return the descriptor, -1 when closed."""
        if self._descriptor < 0 and not self._closed:
            self._descriptor = os.eventfd(len(self._waiting), os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        return self._descriptor

    def read(self) -> list[Event]:
        """Return what waits, oldest first."""
        found = list(self._waiting)
        self._waiting.clear()
        if found and self._descriptor >= 0:
            os.eventfd_read(self._descriptor)
        return found

    def close(self) -> None:
        """Stop; what waits is dropped."""
        self._closed = True
        self._waiting.clear()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class FakeCapture(FakeStream[Run]):
    """Implements `ports.Capture`.

    Attributes:
        unassured: Flows that were not answered count, too.
    """

    def __init__(self, *, unassured: bool = False) -> None:
        super().__init__()
        self.unassured = unassured

    @property
    def overruns(self) -> int:
        """See `ports.Capture.overruns`."""
        return self._overruns


class FakeLinkWatch(FakeStream[LinkChange]):
    """Implements `ports.LinkWatch`.

    Args:
        lacks: Says whether a device that is there lacks the address.
    """

    stale = False

    def __init__(self, lacks: Callable[[AddressRemoved], bool]) -> None:
        super().__init__()
        self._lacks = lacks

    def read(self) -> list[LinkChange]:
        """See `ports.LinkWatch.read`."""
        found = super().read()
        carriers = [event for event in found if isinstance(event, CarrierChanged)]
        removals = [event for event in found if isinstance(event, AddressRemoved)]
        return [*carriers, *filter(self._lacks, dict.fromkeys(removals))]
