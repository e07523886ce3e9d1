"""How many first packets this node's kernel dropped for each limit of a service.

The kernel counts, and a node's counts are its own: they begin at 0 when it starts, go on through
rotations and takeovers, and are not told to other nodes. They are read when somebody wants to see
them, in slices: 2,000 services with limits have 10,000 counters.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Protocol

from hanat.core.configuration import Configuration
from hanat.core.notation import TABLE
from hanat.core.service_limits import counter_of, reasons_of
from hanat.errors import KernelError

_Limit = tuple[str, str]  # service, and key of the configuration


class Counters(Protocol):
    """The kernel's; see `hanat.kernel.counters`."""

    def walk(self, family: str, name: str) -> Iterator[Mapping[str, int]]:
        """Yield what the counters of a table have counted, in parts."""
        ...


class Refusals:
    """What was read last.

    Attributes:
        counts: By service with limits, then by limit, in the order in which they are looked at.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._configuration: Configuration | None = None
        self._limits: dict[str, _Limit] = {}  # by counter
        self._reading = asyncio.Lock()
        self.counts: Mapping[str, Mapping[str, int]] = {}

    async def refresh(self, configuration: Configuration) -> None:
        """Read the counters; the loop turns meanwhile. What cannot be read stays as it was."""
        async with self._reading:
            if configuration is not self._configuration:
                self._configure(configuration)
            if not self._limits:
                return
            counts = {name: dict(limits) for name, limits in self.counts.items()}
            parts = self._counters.walk("inet", TABLE)
            try:
                for part in parts:
                    for counter in part.keys() & self._limits.keys():
                        service, reason = self._limits[counter]
                        counts[service][reason] = part[counter]
                    await asyncio.sleep(0)
            except KernelError:
                pass  # the driver tells what is wrong with the rules
            finally:
                _finish(parts)
            self.counts = counts

    def _configure(self, configuration: Configuration) -> None:
        limited = {s.name: reasons_of(s) for s in configuration.services}
        self._configuration = configuration
        self._limits = {
            counter_of(name, reason): (name, reason)
            for name, reasons in limited.items()
            for reason in reasons
        }
        self.counts = {
            name: {reason: self.counts.get(name, {}).get(reason, 0) for reason in reasons}
            for name, reasons in limited.items()
            if reasons
        }


def _finish(parts: Iterator[Mapping[str, int]]) -> None:
    """Read what is left of an answer, which must not meet the next question."""
    try:
        for _ in parts:
            pass
    except KernelError:
        pass
