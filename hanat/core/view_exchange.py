"""What the peers do not know yet of how this node sees the targets.

A peer is told of all targets when a connection to it is new, and of changes afterwards. Of 10,000
targets that takes longer than a lease may wait, so they are told in slices, and only while the
connection takes them: behind a slow one changes gather here, each target once, instead of in a
buffer ahead of the log.

The first slice of all is *anew*; while others follow, the peer keeps what it knew of the targets
that are still to come, so that a holder in doubt does not lose its witness.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from hanat.core.views import View

SLICE_VIEWS = 250  # 0.5 ms here, 2 ms for the peer that takes them


class Slice(NamedTuple):
    """What is told at once.

    Attributes:
        anew: All of it is told from here on.
        more: Other slices follow of what is told anew.
    """

    views: tuple[tuple[str, View], ...]
    anew: bool
    more: bool


@dataclass(slots=True)
class _Peer:
    number: int  # of its connection
    targets: dict[str, None]  # to be told; ordered
    anew: bool = True  # nothing was told on this connection yet
    renews: bool = True  # not all was told


class ViewExchange:
    """This node's views, and which peer knows which."""

    def __init__(self) -> None:
        self._views: dict[str, View] = {}
        self._peers: dict[int, _Peer] = {}

    def connect(self, connections: Mapping[int, int]) -> tuple[int, ...]:
        """Note the connections there are, by peer; return the peers that have none any more."""
        gone = tuple(peer for peer in self._peers if peer not in connections)
        for peer in gone:
            del self._peers[peer]
        for peer, number in connections.items():
            known = self._peers.get(peer)
            if known is None or known.number != number:
                self._peers[peer] = _Peer(number, dict.fromkeys(self._views))
        return gone

    def see(self, views: Iterable[tuple[str, View]]) -> None:
        """Take how this node sees some targets now."""
        for target, view in views:
            self._views[target] = view
            for peer in self._peers.values():
                peer.targets[target] = None

    def keep(self, targets: Iterable[str]) -> None:
        """Forget all other targets: they are none any more."""
        self._views = {t: self._views[t] for t in targets if t in self._views}

    def clear(self) -> None:
        """Forget all views: nothing is probed."""
        self._views.clear()
        self._peers = {peer: _Peer(known.number, {}) for peer, known in self._peers.items()}

    def waiting(self) -> list[int]:
        """Return the peers that are to be told something."""
        return [peer for peer, known in self._peers.items() if known.targets or known.anew]

    def take(self, peer: int) -> Slice:
        """Return what a peer that waits is to be told next; it counts as told."""
        known = self._peers[peer]
        targets = list(islice(known.targets, SLICE_VIEWS))
        for target in targets:
            del known.targets[target]
        views = tuple((t, self._views[t]) for t in targets if t in self._views)
        told = Slice(views, known.anew, known.renews and bool(known.targets))
        known.anew, known.renews = False, told.more
        return told
