"""What the rules of services counted: first packets dropped for a limit, and single datagrams.

The kernel counts, and a node's counts are its own: they begin at 0 when it starts, go on through
rotations and takeovers, and are not told to other nodes. They are read when somebody wants to see
them, in slices: 2,000 services with limits have 10,000 counters. Datagrams are those of services
with ``ops``, which have no flows that could be counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Literal, Protocol

from hanat.core.configuration import Configuration
from hanat.core.notation import TABLE
from hanat.core.one_packet_turns import counters_of, is_counted
from hanat.core.server_facts import ServerId
from hanat.core.service_limits import counter_of, reasons_of
from hanat.core.service_view import Datagrams
from hanat.errors import KernelError

_Limit = tuple[str, str]  # service, and key of the configuration
_Way = Literal["to_server", "to_clients"]


class Counters(Protocol):
    """The kernel's; see `hanat.kernel.counters`."""

    def walk(self, family: str, name: str) -> Iterator[Mapping[str, int]]:
        """Yield what the counters of a table have counted, in parts."""
        ...


class RuleCounts:
    """What was read last.

    Attributes:
        refused: By service with limits, then by limit, in the order in which they are looked at.
        datagrams: Of each server of a service with ``ops``.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._configuration: Configuration | None = None
        self._limits: dict[str, _Limit] = {}  # by counter
        self._reading = asyncio.Lock()
        self._ways: dict[str, tuple[ServerId, _Way]] = {}  # by counter
        self.refused: Mapping[str, Mapping[str, int]] = {}
        self.datagrams: Mapping[ServerId, Datagrams] = {}

    async def refresh(self, configuration: Configuration) -> None:
        """Read the counters; the loop turns meanwhile. What cannot be read stays as it was."""
        async with self._reading:
            if configuration is not self._configuration:
                self._configure(configuration)
            if not self._limits and not self._ways:
                return
            refused = {name: dict(limits) for name, limits in self.refused.items()}
            datagrams = dict(self.datagrams)
            parts = self._counters.walk("inet", TABLE)
            try:
                for part in parts:
                    for counter in part.keys() & self._limits.keys():
                        service, reason = self._limits[counter]
                        refused[service][reason] = part[counter]
                    for counter in part.keys() & self._ways.keys():
                        server, way = self._ways[counter]
                        datagrams[server] = replace(datagrams[server], **{way: part[counter]})
                    await asyncio.sleep(0)
            except KernelError:
                pass  # the driver tells what is wrong with the rules
            finally:
                _finish(parts)
            self.refused, self.datagrams = refused, datagrams

    def _configure(self, configuration: Configuration) -> None:
        limited = {s.name: reasons_of(s) for s in configuration.services}
        self._configuration = configuration
        self._limits = {
            counter_of(name, reason): (name, reason)
            for name, reasons in limited.items()
            for reason in reasons
        }
        self.refused = {
            name: {reason: self.refused.get(name, {}).get(reason, 0) for reason in reasons}
            for name, reasons in limited.items()
            if reasons
        }
        self._ways = {}
        for service in configuration.services:
            for server in service.servers if service.ops else ():
                if is_counted(service, server):
                    to, back = counters_of(service, server)
                    me = ServerId(service.name, server.name)
                    self._ways |= {to: (me, "to_server"), back: (me, "to_clients")}
        self.datagrams = {me: self.datagrams.get(me, Datagrams()) for me, _ in self._ways.values()}


def _finish(parts: Iterator[Mapping[str, int]]) -> None:
    """Read what is left of an answer, which must not meet the next question."""
    try:
        for _ in parts:
            pass
    except KernelError:
        pass
