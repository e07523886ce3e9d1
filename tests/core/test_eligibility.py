"""The order of all nodes: what speaks against each, as one number."""

from __future__ import annotations

from itertools import permutations, product

import pytest

from hanat.core.eligibility import (
    PATHS_MAX,
    Hindrance,
    Kind,
    Rival,
    Seen,
    better,
    electable,
    gravest,
    handicap,
    kinds_of,
    outdone,
    rank,
)

WORST = PATHS_MAX * Kind.PATH.value + sum(kind.value for kind in Kind if kind is not Kind.PATH)


def test_order_is_total_and_each_kind_weighs_more_than_all_behind_it() -> None:
    kinds = list(Kind)
    for i, kind in enumerate(kinds):
        rest = [Hindrance(k, "") for k in kinds[i + 1 :]]
        assert handicap([Hindrance(kind, "")]) > handicap(rest)
    paths = [Hindrance(Kind.PATH, str(n)) for n in range(50)]
    assert handicap([*paths, *(Hindrance(kind, "") for kind in kinds)]) == WORST
    assert handicap(paths[:2]) > handicap([Hindrance(k, "") for k in kinds])


def test_same_kind_counts_once_but_for_paths() -> None:
    twice = [Hindrance(Kind.ADDRESS, "a"), Hindrance(Kind.ADDRESS, "b")]
    assert handicap(twice) == Kind.ADDRESS.value
    assert handicap([Hindrance(Kind.PATH, "a"), Hindrance(Kind.PATH, "b")]) == 2 * Kind.PATH.value


@pytest.mark.parametrize("mine", [2, 62, 64, 66, 128, WORST])
def test_reason_to_give_up_is_the_gravest_difference(mine: int) -> None:
    for other in range(mine):
        kind = gravest(mine, other)
        if kind is Kind.PATH:
            assert mine // 64 > other // 64
        else:
            assert mine & kind.value
            assert not other & kind.value


def test_handicap_of_another_version_is_told_in_words_too() -> None:
    assert kinds_of(0) == ()
    assert kinds_of(Kind.PATH.value + Kind.FLOWS.value) == ("1 path broken", "lacks flows")
    assert kinds_of(65535)[0] == "1023 paths broken"


@pytest.mark.parametrize("handicaps", list(product((0, 1, 64), repeat=3)))
@pytest.mark.parametrize("fit", list(product((True, False), repeat=3)))
def test_every_node_finds_another_place_in_the_same_order(
    handicaps: tuple[int, ...], fit: tuple[bool, ...]
) -> None:
    nodes = [Rival(i + 1, f, h) for i, (f, h) in enumerate(zip(fit, handicaps, strict=True))]
    for order in permutations(nodes):
        ranks = {me.node_id: rank(me, [n for n in order if n != me]) for me in nodes}
        assert sorted(ranks.values()) == [0, 1, 2]
    first = min(nodes, key=lambda me: rank(me, [n for n in nodes if n != me]))
    assert first.fit is any(fit)
    # Hindered as all others are: it stands without delay.
    assert not outdone(first, nodes)


def test_better_is_fit_and_strictly_better_and_the_best_comes_first() -> None:
    seen = (
        Seen(4, fit=True, handicap=1), Seen(3, fit=True, handicap=0), Seen(2, fit=True, handicap=0),
        Seen(5, fit=False, handicap=0), Seen(6, fit=True, handicap=2), Seen(7, fit=True),
    )  # fmt: skip
    assert [s.node_id for s in better(2, seen)] == [2, 3, 4]
    assert better(0, seen) == ()


@pytest.mark.parametrize(
    ("fit", "self_fit", "quorum", "possible"),
    [
        (2, False, 2, True), (1, True, 2, True), (1, False, 2, False), (0, True, 2, False),
        (0, True, 1, False), (2, True, 3, True), (2, False, 3, False),
    ],
)  # fmt: skip
def test_others_can_elect_one_of_them_with_a_majority_that_votes(
    fit: int,
    self_fit: bool,  # noqa: FBT001 - a parameter
    quorum: int,
    possible: bool,  # noqa: FBT001 - a parameter
) -> None:
    assert electable(fit=fit, self_fit=self_fit, quorum=quorum) is possible
