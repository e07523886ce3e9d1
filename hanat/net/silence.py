"""Notice peers whose beacons stay away although their connection works.

Nothing is broken then that anybody would see: the log's messages still keep the peer from
standing for election, but no lease can rest on it. A packet filter that lets TCP through
and not UDP does this, and a node that is only told so at the next failover is told late.

A connection works if something came over it lately: a peer that lost its power closes none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping

log = logging.getLogger(__name__)

SILENT_S = 2.0  # several times the longest period of any profile
WORKS_S = 3.0  # above the period of keepalives, 2.5 s in "calm"; below twice SILENT_S
LOOK_S = 0.5


class Silence:
    """Whose beacons are missing.

    Args:
        peers: The other nodes.
        heard_at: Returns when a peer's beacons were heard last [s], None if never.
    """

    def __init__(self, peers: Collection[int], heard_at: Callable[[int], float | None]) -> None:
        self._heard_at = heard_at
        self._well_at = dict.fromkeys(peers, float("-inf"))
        self._silent: set[int] = set()
        self._looked_at = float("-inf")

    def look(
        self, connected: Mapping[int, tuple[str, float]], *, now: float
    ) -> list[tuple[int, bool]]:
        """Return the peers that fell silent (True) or are heard again (False) since last asked.

        Args:
            connected: By peer to which there is a connection, the address of its other end,
                and when something came over it last, keepalives included [s].
            now: Seconds of the clock that `heard_at` counts in.
        """
        if now - self._looked_at < LOOK_S:
            return []
        away = now - self._looked_at > SILENT_S  # this process was: it would have heard nobody
        self._looked_at = now
        changes = []
        for peer in self._well_at:
            heard_at = self._heard_at(peer)
            heard = heard_at is not None and now - heard_at <= SILENT_S
            _, tcp_heard_at = connected.get(peer, ("", float("-inf")))
            works = now - tcp_heard_at <= WORKS_S
            if heard or away or not works:
                self._well_at[peer] = now
            silent = now - self._well_at[peer] > SILENT_S
            if silent and peer not in self._silent:
                self._silent.add(peer)
                changes.append((peer, True))
            elif heard and peer in self._silent:
                self._silent.remove(peer)
                changes.append((peer, False))
        return changes


def tell(peer: int, *, silent: bool, port: int) -> None:
    """Log that a peer fell silent or is heard again."""
    if not silent:
        log.info("peer=%d beacons=heard", peer)
        return
    log.warning(
        "peer=%d beacons=missing to_do=%r",
        peer,
        f"its TCP works, UDP port {port} does not: let it through on every path, in both "
        "directions; without it no lease can rest on this peer",
    )
