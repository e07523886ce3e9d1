"""Which servers have as many connections as they may have: ``max_conn``.

The holder counts the connections of each server four times a second (`daemon.levels`). A server
that has `max_conn` or more leaves the rotation, so everybody who comes goes to the others, also who
would go there by persistence, then to the sorry server. It comes back when a tenth of its
connections is over, and not before a second has passed: else it would come and go with each
connection. IPVS has a second threshold for that, by default three quarters of the first.

This is not exact: until it is seen, more connections may come, as many as the service gets in
about half a second. The kernel can count exactly, ``ct count`` of nft, and that was left out for
three reasons. Who asks it for the count is counted, and then must not go anywhere else: a client
that overflows to another server would count at both until it ends. It begins at nothing at each
takeover, where this counts the table that was replicated. And it cannot tell who is to see.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hanat.core.configuration import VirtualService
from hanat.core.levelling import NO_LOAD, Load
from hanat.core.server_facts import ServerId

GAP = 10  # a server is not full any more with a tenth less than it may have
OUT_S_MIN = 1.0
# Each is a chain that is made anew; so many in a look, four times a second. Those first that
# became full.
SERVICES_A_LOOK = 12


def counted(services: Iterable[VirtualService]) -> tuple[VirtualService, ...]:
    """Return the services of whose servers somebody has to know how many connections they have."""
    return tuple(
        s for s in services if s.scheduler.by_counts or any(server.max_conn for server in s.servers)
    )


class FullServers:
    """The servers of all services that are full, on the holder."""

    def __init__(self) -> None:
        self._since: dict[ServerId, float] = {}

    def clear(self) -> None:
        """Forget all: somebody else holds."""
        self._since.clear()

    def look(
        self, services: Iterable[VirtualService], loads: Mapping[ServerId, Load], now: float
    ) -> frozenset[ServerId]:
        """Return the servers that are full now.

        Args:
            services: From `counted`.
            loads: Of each server that has or had connections.
            now: Seconds of a clock that does not go back.
        """
        came: dict[str, list[ServerId]] = {}
        went: dict[str, list[ServerId]] = {}
        there: set[ServerId] = set()
        for service in services:
            for server in service.servers:
                if not server.max_conn:
                    continue
                me = ServerId(service.name, server.name)
                there.add(me)
                count, since = loads.get(me, NO_LOAD).now, self._since.get(me)
                if since is None and count >= server.max_conn:
                    came.setdefault(service.name, []).append(me)
                elif since is not None and _has_room(server.max_conn, count, now - since):
                    went.setdefault(service.name, []).append(me)
        self._since = {me: since for me, since in self._since.items() if me in there}
        for name in list(dict.fromkeys((*came, *went)))[:SERVICES_A_LOOK]:
            self._since |= dict.fromkeys(came.get(name, ()), now)
            for me in went.get(name, ()):
                del self._since[me]
        return frozenset(self._since)


def _has_room(most: int, count: int, out_s: float) -> bool:
    return out_s >= OUT_S_MIN and count <= most - max(1, most // GAP)
