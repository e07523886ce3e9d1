"""Sums that survive the holder: they never go back, and never say too much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from hanat.core.server_facts import ServerId
from hanat.core.totals import (
    ACCOUNTS_MAX,
    NOTHING,
    OF_SERVICE,
    TOLD_S,
    Books,
    Figures,
    Told,
    Totals,
)
from tests.core.examples import EDGE, WEB

WEB1, EVERY = ServerId("web", "web1"), ServerId("web", OF_SERVICE)
SINCE_S = 1_700_000_000
ONE = Totals(1, 10, 1000, 9, 9000)


def total(books: Books, name: ServerId = WEB1) -> Totals:
    found = books.tell([name], before=False)
    return found[0].totals if found else NOTHING


def holder(term: int = 1) -> Books:
    books = Books()
    books.begin(term, is_holder=True)
    books.is_whole = True
    return books


def told(books: Books) -> list[Told]:
    return books.tell(books.names(), before=False)


def test_next_holder_goes_on_from_what_it_was_told() -> None:
    first, second = holder(1), Books()
    first.count(WEB1, ONE, 0.0, 1000.0)
    second.hear(1, told(first), 0.0, has_bytes=True)
    first.count(WEB1, ONE, 0.0, 1000.0)  # and dies before it tells

    second.begin(2, is_holder=True)
    assert total(second) == ONE
    second.count(WEB1, ONE, 0.0, 2000.0)
    assert total(second) == ONE.plus(ONE)


def test_backup_that_knows_more_raises_the_sums_of_the_holder() -> None:
    first, second, third = holder(1), Books(), Books()
    first.count(WEB1, ONE, 0.0, float(SINCE_S))
    third.hear(1, told(first), 0.0, has_bytes=True)

    for books, holds in ((second, True), (third, False)):
        books.begin(2, is_holder=holds)
    second.count(WEB1, ONE, 0.0, SINCE_S + 5.0)
    third.hear(2, told(second), 0.0, has_bytes=True)
    known = third.tell(third.names(), before=True)

    assert second.learn(2, known) == [WEB1]
    assert total(second) == ONE.plus(ONE)
    assert second.learn(2, known) == []
    (found,) = told(second)
    assert found.since_s == SINCE_S


def test_what_a_backup_heard_in_this_term_is_no_news_for_the_holder() -> None:
    first, second = holder(1), Books()
    second.begin(1, is_holder=False)
    first.count(WEB1, ONE, 0.0, 1000.0)
    second.hear(1, told(first), 0.0, has_bytes=True)
    assert second.tell(second.names(), before=True) == []


def test_former_holder_is_not_believed_any_more() -> None:
    first, second = holder(1), Books()
    first.count(WEB1, ONE, 0.0, 1000.0)
    second.begin(2, is_holder=False)
    second.hear(1, told(first), 0.0, has_bytes=True)
    assert second.figures(WEB1, 0.0) is None


def test_what_a_former_holder_still_counts_is_told_to_the_next() -> None:
    first, second = holder(1), Books()
    for books, holds in ((first, False), (second, True)):
        books.begin(2, is_holder=holds)
    first.count(WEB1, ONE, 0.0, 1000.0)  # its last look at its table
    assert second.learn(2, first.tell([WEB1], before=True)) == [WEB1]
    assert total(second) == ONE


def test_nobody_counts_at_first() -> None:
    books = Books()
    assert books.figures(WEB1, 0.0) is None
    books.hear(1, (), 5.0, has_bytes=False, is_all=True)
    assert books.figures(WEB1, 7.5) == Figures(None, NOTHING, 0.0, has_bytes=False, age_s=2.5)


def test_nothing_is_said_before_everything_was_told_once() -> None:
    first, second = holder(1), Books()
    first.count(WEB1, ONE, 0.0, 1000.0)
    second.hear(1, (), 0.0, has_bytes=True, is_all=False)
    assert second.figures(WEB1, 0.0) is None
    second.hear(1, told(first), 0.0, has_bytes=True, is_all=False)
    assert second.figures(WEB1, 100.0) is None
    second.hear(1, (), 100.0, has_bytes=True, is_all=True)
    second.hear(1, (), 100.0, has_bytes=True, is_all=False)  # somebody else holds
    found = second.figures(WEB1, 100.0)
    assert found is not None
    assert found.totals == ONE


def test_holder_of_an_older_version_does_not_say_when_it_told_everything() -> None:
    books = Books()
    for now in (50.0, 50.0 + TOLD_S / 2):
        books.hear(1, (), now, has_bytes=True)
        assert books.figures(WEB1, now) is None
    books.hear(1, (), 50.0 + TOLD_S, has_bytes=True)
    assert books.figures(WEB1, 50.0 + TOLD_S) is not None


def test_unknown_bytes_are_null() -> None:
    figures = Figures(1000, ONE, 0.5, has_bytes=False, age_s=0.0)
    document = figures.to_document()
    assert document["connections"] == 1
    assert document["bytes_in"] is document["packets_out"] is None
    assert replace(figures, has_bytes=True).to_document()["bytes_in"] == 1000


def test_sums_of_what_is_not_configured_go_some_at_a_time() -> None:
    books = holder()
    for name in ("web1", "gone", OF_SERVICE):
        books.count(ServerId("web", name), ONE, 0.0, 0.0)
    books.count(ServerId("gone", "web1"), ONE, 0.0, 0.0)
    books.count(ServerId("gone", OF_SERVICE), ONE, 0.0, 0.0)

    turns = list(books.prune({service.name: service for service in EDGE.services}, 2))

    assert WEB.servers[0].name == "web1"
    assert len(turns) == 2
    assert books.names() == [WEB1, ServerId("web", OF_SERVICE)]


def test_no_more_sums_than_a_configuration_can_have() -> None:
    books = Books()
    assert not books.is_full
    books.hear(
        1, (Told(ServerId("web", str(i)), 0, ONE) for i in range(ACCOUNTS_MAX + 5)), 0.0,
        has_bytes=True,
    )  # fmt: skip
    assert len(books) == ACCOUNTS_MAX
    assert books.is_full


def rate(books: Books, now: float) -> float:
    books.counted(now, has_bytes=True)
    found = books.figures(WEB1, now)
    assert found is not None
    return found.connections_per_s


def test_rate_is_over_some_ten_seconds() -> None:
    books = holder()
    for second in range(30, 40):
        books.count(WEB1, Totals(5), float(second), 0.0)
    rates = [rate(books, at) for at in (39.0, 40.0, 45.0, 49.0, 50.0, 1000.0)]
    assert rates == pytest.approx([5.0, 5.0, 2.5, 0.5, 0.0, 0.0])
    books.count(WEB1, Totals(1), 45.0, 0.0)
    assert rate(books, 45.0) == pytest.approx(2.6)
    books.count(WEB1, Totals(1), 70.0, 0.0)
    assert rate(books, 70.0) == pytest.approx(0.1)


@pytest.mark.parametrize("order", [1, -1])
def test_clock_that_was_not_set_says_nothing_of_when_counting_began(order: int) -> None:
    books = holder()
    for wall_s in (12.0, 1_700_000_000.0, 1_700_000_500.0)[::order]:
        books.count(WEB1, ONE, 0.0, wall_s)
    books.count(EVERY, ONE, 0.0, 12.0)
    books.counted(0.0, has_bytes=True)
    since = [figures.since_s for n in (WEB1, EVERY) if (figures := books.figures(n, 0.0))]
    assert since == [1_700_000_000, None]


def test_rate_is_steady_while_connections_come_steadily() -> None:
    books = holder()
    rates = []
    for tick in range(400):
        now = tick / 4
        books.count(WEB1, Totals(2), now, 0.0)
        books.counted(now, has_bytes=True)
        figures = books.figures(WEB1, now)
        assert figures is not None
        rates.append(figures.connections_per_s)
    assert all(rate == pytest.approx(8.0, rel=0.05) for rate in rates[80:])


def test_backup_sees_the_rate_of_what_it_hears_but_not_of_the_first_word() -> None:
    first, second = holder(1), Books()
    first.count(WEB1, Totals(100_000), 0.0, 0.0)
    second.hear(1, told(first), 0.0, has_bytes=True, is_all=True)
    found = second.figures(WEB1, 0.0)
    assert found is not None
    assert found.connections_per_s == 0
    first.count(WEB1, Totals(50), 1.0, 0.0)
    second.hear(1, told(first), 1.0, has_bytes=True)
    found = second.figures(WEB1, 1.0)
    assert found is not None
    assert found.connections_per_s == 5.0


NODES = (1, 2, 3)


class Cluster:
    """Three nodes that count, die, lag behind, and lose what they tell each other.

    What is shown may be too small, never too large, and never smaller than it was. Each count is
    a power of 4 of its own: one that is counted twice is seen at once.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._books = {node: Books() for node in NODES}
        self._shown = dict.fromkeys(NODES, 0)
        self._tenures = [(0, 0)]  # term and holder, in the order of the log
        self._applied = dict.fromkeys(NODES, 0)
        self._sent: list[tuple[int, Callable[[Books], object]]] = []
        self._next, self._counted = 1, 0
        self._steps = {
            self._count: 6, self._tell: 4, self._tell_before: 2, self._deliver: 20,
            self._apply: 3, self._elect: 1, self._restart: 0.2,
        }  # fmt: skip

    def step(self) -> None:
        node = self._random.choice(NODES)
        (step,) = self._random.choices(list(self._steps), list(self._steps.values()))
        step(node, self._books[node])
        for one, books in self._books.items():
            now = total(books).connections
            assert now >= self._shown[one], f"node {one} says less"
            assert not now & ~self._counted, f"node {one} says too much"
            self._shown[one] = now

    def _count(self, _node: int, books: Books) -> None:
        if books.is_holder or self._random.random() < 0.02:
            books.count(WEB1, Totals(self._next), 0.0, 0.0)
            self._counted |= self._next
            self._next *= 4

    def _elect(self, node: int, books: Books) -> None:
        self._tenures.append((self._tenures[-1][0] + 1, node))
        self._applied[node] = len(self._tenures) - 1
        books.begin(self._tenures[-1][0], is_holder=True)

    def _apply(self, node: int, books: Books) -> None:
        """Let a node read on in the log."""
        if self._applied[node] < len(self._tenures) - 1:
            self._applied[node] += 1
            term, by = self._tenures[self._applied[node]]
            books.begin(term, is_holder=by == node)

    def _tell(self, _node: int, books: Books) -> None:
        if books.is_holder:
            term, sums = books.term, told(books)
            self._send(lambda other: other.hear(term, sums, 0.0, has_bytes=True))

    def _tell_before(self, _node: int, books: Books) -> None:
        term, sums = books.term, books.tell(books.names(), before=True)
        self._send(lambda other: other.learn(term, sums))

    def _send(self, take: Callable[[Books], object]) -> None:
        self._sent += [(node, take) for node in NODES]

    def _deliver(self, _node: int, _books: Books) -> None:
        """Let any message arrive, or get lost."""
        if self._sent:
            node, take = self._sent.pop(self._random.randrange(len(self._sent)))
            if self._random.random() < 0.9:
                take(self._books[node])

    def _restart(self, node: int, _books: Books) -> None:
        self._books[node], self._shown[node] = Books(), 0
        self._books[node].begin(self._tenures[self._applied[node]][0], is_holder=False)


@pytest.mark.parametrize("seed", range(100))
def test_sums_never_go_back_nor_say_too_much(seed: int) -> None:
    cluster = Cluster(Random(seed))
    for _ in range(150):
        cluster.step()
