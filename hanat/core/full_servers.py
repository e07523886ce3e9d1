"""Which servers have as many connections as they may have: ``max_conn``.

The holder counts the connections of each server four times a second, of very many servers less
often (`daemon.counting`). A server that has `max_conn` or more leaves the rotation, so everybody
who comes goes to the others, also who would go there by persistence, then to the sorry server. It
comes back when a tenth of its connections is over, and not before a second has passed: else it
would come and go with each connection. IPVS has a second threshold for that, by default three
quarters of the first.

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


def counted(services: Iterable[VirtualService]) -> tuple[VirtualService, ...]:
    """Return the services of whose servers somebody has to know how many connections they have."""
    return tuple(
        s for s in services if s.scheduler.by_counts or any(server.max_conn for server in s.servers)
    )


class FullServers:
    """The servers of all services that are full, on the holder.

    A round looks at all services, some at a time: `begin`, `look` for each, `end`.
    """

    def __init__(self) -> None:
        self._since: dict[ServerId, float] = {}
        self._met: set[ServerId] = set()  # in this round, of those that are full

    def clear(self) -> None:
        """Forget all: somebody else holds."""
        self._since.clear()
        self._met.clear()

    def begin(self) -> None:
        """Begin a round, from the first service on."""
        self._met.clear()

    def look(
        self, services: Iterable[VirtualService], loads: Mapping[ServerId, Load], now: float
    ) -> tuple[list[ServerId], list[ServerId]]:
        """Return the servers that have become full, and those that are not any more.

        Args:
            services: Some from `counted`.
            loads: Of each of their servers that has or had connections.
            now: Seconds of a clock that does not go back.
        """
        came: list[ServerId] = []
        went: list[ServerId] = []
        for service in services:
            for server in service.servers:
                if not server.max_conn:
                    continue
                me = ServerId(service.name, server.name)
                count, since = loads.get(me, NO_LOAD).now, self._since.get(me)
                if since is None and count >= server.max_conn:
                    came.append(me)
                elif since is not None and _has_room(server.max_conn, count, now - since):
                    went.append(me)
                elif since is not None:
                    self._met.add(me)
        self._met.update(came)
        self._since |= dict.fromkeys(came, now)
        for me in went:
            del self._since[me]
        return came, went

    def end(self) -> list[ServerId]:
        """End a round: return the full servers that are gone, or have no limit any more."""
        gone: list[ServerId] = []
        if len(self._met) < len(self._since):
            gone = [me for me in self._since if me not in self._met]
            for me in gone:
                del self._since[me]
        self._met.clear()
        return gone


def _has_room(most: int, count: int, out_s: float) -> bool:
    return out_s >= OUT_S_MIN and count <= most - max(1, most // GAP)
