"""Servers that came into rotation beside others, and take their clients little by little."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heappop, heappush

from hanat.core.rotation import ServiceChanged
from hanat.core.schedulers import slow_start
from hanat.core.server_facts import ServerId


class SlowStarts:
    """Since when each of them is in rotation; see `core.schedulers.slow_start`."""

    def __init__(self) -> None:
        self._joined: dict[ServerId, tuple[float, float]] = {}  # since when, for how long
        self._agenda: list[tuple[float, ServerId]] = []  # when a server has more

    def note(self, change: ServiceChanged, duration_s: float, now: float) -> None:
        """Take another rotation: who is new in it starts, who is not in it any more forgets."""
        had = None if change.was is None else {name for name, _ in change.was.rotation}
        has = set() if change.now is None else {name for name, _ in change.now.rotation}
        for name in (had or set()) - has:
            self._joined.pop(ServerId(change.name, name), None)
        if had is not None and duration_s > 0:
            for name in has - had:
                server = ServerId(change.name, name)
                self._joined[server] = now, duration_s
                self._plan(server, now)

    def _plan(self, server: ServerId, now: float) -> None:
        since, duration_s = self._joined[server]
        at = slow_start(since=since, duration_s=duration_s, now=now).changes_at
        if at is None:
            del self._joined[server]
        else:
            heappush(self._agenda, (at, server))

    def percent(self, server: ServerId, now: float) -> int:
        """Return what part of its weight a server has."""
        if server not in self._joined:
            return 100
        since, duration_s = self._joined[server]
        return slow_start(since=since, duration_s=duration_s, now=now).percent

    def percents(self, now: float) -> Mapping[ServerId, int]:
        """Return that of all that have less than all."""
        return {server: self.percent(server, now) for server in self._joined}

    def due(self) -> float | None:
        """Return when to call `step`."""
        return self._agenda[0][0] if self._agenda else None

    def step(self, now: float) -> set[str]:
        """Return the services of which a server has more now."""
        services = set()
        while self._agenda and self._agenda[0][0] <= now:
            _, server = heappop(self._agenda)
            if server in self._joined:
                services.add(server.service)
                self._plan(server, now)
        return services
