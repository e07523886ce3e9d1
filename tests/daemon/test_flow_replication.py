"""When the holder tells everything for peers that lack flows."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

from hanat.daemon.flow_replication import RESYNC_S, RESYNC_SOON_S, FlowReplication
from hanat.raft.guard import Guard
from hanat.raft.replica import Replica
from hanat.raft.state import State


class Holder:
    """A node that leads, or not, and hears which peers lack flows.

    Attributes:
        told: How often everything was told.
    """

    def __init__(self) -> None:
        self.leading, self.incomplete_peers, self.complete = True, set[int](), False
        self.last_index = self.told = 0
        self.node_id, self.state, self.connections = 1, State(), dict[int, int]()
        self.again = False
        itself = cast("Any", self)
        self._replication = FlowReplication(
            cast(Replica, itself), cast(Guard, itself),
            origin=1, kick=lambda: None, wall=lambda: 0.0,
        )  # fmt: skip
        self._replication.worker = itself

    def clock(self) -> float:
        return 0.0

    def on_views(self, peer: int, views: bytes) -> None:
        """As the guard."""

    def resync(self, *, again: bool) -> None:
        self.told += 1
        self.again = again

    def look(self) -> None:
        """As the flow worker."""

    def at(self, now: float) -> int:
        """Look; return how often everything was told so far."""
        self._replication.look(now)
        return self.told


def test_peer_that_begins_to_lack_flows_does_not_wait() -> None:
    h = Holder()
    assert h.at(100.0) == 0
    h.incomplete_peers = {2}
    assert h.at(100.1) == 1
    assert h.at(100.2) == 1
    h.incomplete_peers = set()
    assert h.at(100.3) == 1
    h.incomplete_peers = {3}
    assert h.at(100.4) == 1
    assert h.at(100.1 + RESYNC_SOON_S) == 2


def test_peer_that_goes_on_to_lack_flows_is_told_ever_less_often() -> None:
    h = Holder()
    h.incomplete_peers = {2}
    times = [step / 10 for step in range(10_000, 10_000 + 200) if h.told < h.at(step / 10)]
    gaps = [round(b - a) for a, b in pairwise(times)]
    assert gaps == [RESYNC_S, 2 * RESYNC_S]  # at 1000, 1003, 1009; then at 1021
    h.incomplete_peers = {2, 3}  # another one is no worse off for that
    told = h.told
    assert h.at(1020.0) == told + 1


def test_peer_that_goes_on_to_lack_flows_does_not_make_a_slow_resync_begin_again() -> None:
    h = Holder()
    h.incomplete_peers = {2}
    assert (h.at(100.0), h.again) == (1, True)  # it may have missed the beginning of another one
    assert (h.at(100.0 + RESYNC_S), h.again) == (2, False)
    h.incomplete_peers = {2, 3}
    assert (h.at(104.0 + RESYNC_SOON_S), h.again) == (3, True)


def test_who_comes_to_lead_tells_peers_that_lacked_flows_before() -> None:
    h = Holder()
    h.incomplete_peers, h.leading = {2}, False
    assert h.at(100.0) == 0
    h.leading = True
    assert h.at(100.1) == 1
