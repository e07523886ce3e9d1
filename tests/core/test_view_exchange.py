"""Peers learn how a node sees its targets: all of it in slices, then what changes."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hanat.core.probing import Operational
from hanat.core.view_exchange import SLICE_VIEWS, Slice, ViewExchange
from hanat.core.views import View, Views

UP, DOWN = View(Operational.UP, ok=True), View(Operational.DOWN, ok=False)
PEER, THIRD = 2, 3


def of_many(count: int) -> tuple[ViewExchange, list[str]]:
    exchange = ViewExchange()
    targets = [f"t{n}" for n in range(count)]
    exchange.see((target, UP) for target in targets)
    return exchange, targets


def told(exchange: ViewExchange, peer: int = PEER) -> list[Slice]:
    """Return all slices that a peer is to be told."""
    slices = []
    while peer in exchange.waiting():
        slices.append(exchange.take(peer))
    return slices


def test_new_connection_is_told_of_ten_thousand_targets_in_slices() -> None:
    exchange, targets = of_many(10_000)
    exchange.connect({PEER: 1})
    slices = told(exchange)
    assert max(len(one.views) for one in slices) == SLICE_VIEWS
    assert [target for one in slices for target, _ in one.views] == targets
    assert [one.anew for one in slices] == [True] + [False] * (len(slices) - 1)
    assert [one.more for one in slices] == [True] * (len(slices) - 1) + [False]


def test_change_is_told_once_to_each_peer_and_each_target_waits_once() -> None:
    exchange, _ = of_many(2)
    exchange.connect({PEER: 1, THIRD: 1})
    told(exchange), told(exchange, THIRD)
    for view in (DOWN, UP, DOWN):  # before the connection has room
        exchange.see([("t1", view)])
    for peer in (PEER, THIRD):
        assert told(exchange, peer) == [Slice((("t1", DOWN),), anew=False, more=False)]
    assert exchange.waiting() == []


def test_node_that_probes_nothing_tells_so_to_all() -> None:
    exchange, _ = of_many(3)
    exchange.connect({PEER: 1, THIRD: 1})
    told(exchange)
    exchange.clear()
    assert told(exchange) == told(exchange, THIRD) == [Slice((), anew=True, more=False)]


def test_targets_that_are_none_any_more_are_not_told() -> None:
    exchange, _ = of_many(3)
    exchange.keep(["t1", "t9"])
    exchange.connect({PEER: 1})
    exchange.see([("t2", UP)])
    exchange.keep(["t1"])
    assert told(exchange) == [Slice((("t1", UP),), anew=True, more=False)]


def test_peers_without_a_connection_are_named_once() -> None:
    exchange, _ = of_many(1)
    assert exchange.connect({PEER: 1, THIRD: 4}) == ()
    assert exchange.connect({PEER: 1}) == (THIRD,)
    assert exchange.connect({PEER: 1}) == ()
    told(exchange)
    exchange.connect({PEER: 2})  # another path, perhaps: what was in flight may be lost
    assert told(exchange) == [Slice((("t0", UP),), anew=True, more=False)]


STEPS = st.one_of(
    st.tuples(st.just("see"), st.integers(0, 600), st.booleans()),
    st.tuples(st.just("keep"), st.integers(0, 600)),
    st.tuples(st.just("clear")),
    st.tuples(st.just("connect"), st.integers(1, 9)),
    st.tuples(st.just("take")),
)


class Told:
    """A node, and the peer that takes what it tells."""

    def __init__(self) -> None:
        self.exchange, _ = of_many(600)
        self.exchange.connect({PEER: 1})
        self.views = Views()  # what the peer has of this node, number 1

    def take(self) -> None:
        if PEER not in self.exchange.waiting():
            return
        one = self.exchange.take(PEER)
        if one.anew:
            self.views.renew(1)
        for target, view in one.views:
            self.views.hear(1, target, view)
        if not one.more:
            self.views.renewed(1)

    def see(self, number: int, up: bool) -> None:  # noqa: FBT001 - of a step
        self.exchange.see([(f"t{number}", UP if up else DOWN)])

    def keep(self, count: int) -> None:
        self.exchange.keep([f"t{n}" for n in range(count)])
        self.views.configure(count=count, gone=[f"t{n}" for n in range(count, 601)])

    def clear(self) -> None:
        self.exchange.clear()

    def connect(self, number: int) -> None:
        self.exchange.connect({PEER: number})


@given(st.lists(STEPS, max_size=30))
def test_peer_knows_all_when_nothing_waits_whatever_happened(steps: list[tuple[Any, ...]]) -> None:
    both = Told()
    for name, *given_ in steps:
        getattr(both, name)(*given_)
    while PEER in both.exchange.waiting():
        both.take()
    known = {t: both.views.of(t)[1] for t in (f"t{n}" for n in range(601)) if both.views.of(t)}
    both.connect(99)
    assert known == dict(view for one in told(both.exchange) for view in one.views)
