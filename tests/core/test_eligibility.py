"""The order of all nodes: what speaks against each, as one number."""

from __future__ import annotations

from itertools import permutations, product

import pytest

from hanat.core.eligibility import (
    DAMPED_S,
    PATHS_MAX,
    SETTLED_S,
    SPREADING,
    Damping,
    Eligibility,
    Fault,
    Hindrance,
    Kind,
    Rival,
    Seen,
    all_said,
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


def test_kinds_are_told_in_words_the_gravest_first() -> None:
    assert kinds_of(2 * Kind.PATH.value + Kind.FORWARD.value) == (
        "2 paths broken",
        "forwards nothing",
    )
    assert kinds_of(Kind.PATH.value + Kind.ADDRESS.value) == (
        "1 path broken",
        "an address is missing",
    )
    assert kinds_of(Kind.REVISION.value + Kind.DISK.value + Kind.FLOWS.value) == (
        "older configuration",
        "cannot write its log",
        "lacks flows",
    )
    assert kinds_of(0) == ()


def test_broken_paths_count_up_to_a_number() -> None:
    broken = [Hindrance(Kind.PATH, f"path {n}: no carrier") for n in range(20)]
    assert handicap(broken) == 15 * Kind.PATH.value


def test_as_many_broken_paths_are_no_reason_and_the_next_kind_decides() -> None:
    mine = Kind.PATH.value + Kind.DISK.value
    assert gravest(mine, Kind.PATH.value) is Kind.DISK
    assert gravest(mine, Kind.PATH.value + Kind.FLOWS.value) is Kind.DISK
    with pytest.raises(AssertionError):
        gravest(mine, mine)


def test_all_have_said_when_each_that_can_stand_in_has() -> None:
    said, silent = Seen(2, fit=True, handicap=0), Seen(3, fit=True)
    assert all_said([])
    assert all_said([said, silent._replace(fit=False)])
    assert not all_said([said, silent])


def test_rival_of_which_nothing_is_known_stands_in_without_a_handicap() -> None:
    assert Rival(2) == Rival(2, fit=True, handicap=0)
    assert not Rival(2).after(Rival(2))
    assert not outdone(Rival(1, handicap=2), [Rival(2, fit=False), Rival(3, handicap=2)])
    assert outdone(Rival(1, handicap=2), [Rival(3, handicap=1)])


# ------------------------------------------------------------------------ damping


def test_for_the_same_reason_nobody_is_given_up_for_again_so_soon() -> None:
    damping = Damping()
    assert damping.free_at(Kind.PATH, 100.0, since=99.95) == 0.0
    damping.gave_up(Kind.PATH, 100.0)
    assert damping.free_at(Kind.PATH, 101.0, since=100.95) == 100.0 + DAMPED_S
    assert damping.free_at(Kind.FLOWS, 101.0, since=100.95) == 0.0


def test_reason_for_which_nobody_was_given_up_after_all_is_free_again() -> None:
    damping = Damping()
    damping.stayed()
    damping.gave_up(Kind.PATH, 100.0)
    damping.stayed()
    assert damping.free_at(Kind.PATH, 101.0, since=None) == 0.0
    damping.gave_up(Kind.PATH, 100.0)
    damping.gave_up(Kind.DISK, 100.0)
    damping.stayed()
    assert damping.free_at(Kind.PATH, 101.0, since=None) == 100.0 + DAMPED_S
    assert damping.free_at(Kind.DISK, 101.0, since=None) == 0.0


def test_nothing_is_tried_for_a_while_when_nobody_took_over() -> None:
    damping = Damping()
    damping.failed(100.0)
    assert damping.free_at(Kind.FLOWS, 101.0, since=None) == 100.0 + DAMPED_S


@pytest.mark.parametrize("kind", list(Kind))
def test_what_spreads_waits_for_the_others_to_notice_it(kind: Kind) -> None:
    expected = 50.0 + SETTLED_S if kind in SPREADING else 0.0
    assert Damping().free_at(kind, 50.05, since=50.0) == expected
    assert Damping().free_at(kind, 50.05, since=None) == 0.0


def test_holder_that_was_as_badly_off_for_long_waits_for_its_own_recovery() -> None:
    damping = Damping()
    # 2 s after it was hindered another node does better; that counts from then on.
    assert damping.free_at(Kind.PATH, 52.0, since=50.0) == 52.0 + SETTLED_S
    assert damping.free_at(Kind.PATH, 52.05, since=50.0) == 52.0 + SETTLED_S
    damping.not_outdone()
    assert damping.free_at(Kind.PATH, 53.0, since=50.0) == 53.0 + SETTLED_S
    # It got worse meanwhile: who does better than that does so from now on.
    assert damping.free_at(Kind.PATH, 60.0, since=59.95) == 0.0
    assert damping.free_at(Kind.PATH, 60.5, since=59.95) == 0.0
    exactly = Damping()
    assert exactly.free_at(Kind.PATH, 50.0 + SETTLED_S, since=50.0) == 50.0 + 2 * SETTLED_S


# --------------------------------------------------------------------- this node


def test_each_hindrance_is_said_in_words() -> None:
    known = Eligibility(
        carriers={"public": False, "private": True},
        silent={"public": True, "private": True, "third": False},
        journal="disk full",
        configuration="revision 7 refused",
        forward="chain FORWARD drops",
        complete=False,
        faults={Kind.ADDRESS: Fault("address refused", until=5.0)},
    )
    assert known.hindrances(["public", "private", "third", "unknown"], holds=False) == (
        Hindrance(Kind.PATH, "public: no carrier"),
        Hindrance(Kind.PATH, "private: silent"),
        Hindrance(Kind.FORWARD, "chain FORWARD drops"),
        Hindrance(Kind.REVISION, "revision 7 refused"),
        Hindrance(Kind.DISK, "disk full"),
        Hindrance(Kind.ADDRESS, "address refused"),
        Hindrance(Kind.FLOWS, "lacks flows"),
    )
    assert Kind.FLOWS not in {h.kind for h in known.hindrances([], holds=True)}
    assert Eligibility().hindrances(["public"], holds=False) == ()


def test_what_was_refused_is_tried_again_at_its_time_and_once_more_later() -> None:
    known = Eligibility(faults={Kind.ADDRESS: Fault("no", until=5.0)}, gate=Fault("no", until=6.0))
    assert known.due == 5.0
    assert known.retries(4.9, again_s=1.0) == ((), False)
    assert known.retries(5.0, again_s=1.0) == ((Kind.ADDRESS,), False)
    assert (known.faults[Kind.ADDRESS].until, known.faults[Kind.ADDRESS].retried) == (6.0, True)
    assert known.gate is not None
    assert not known.gate.retried
    assert known.retries(6.0, again_s=1.0) == ((Kind.ADDRESS,), True)
    assert known.gate.until == 7.0
    assert Eligibility().due is None
    assert Eligibility().retries(9.0, again_s=1.0) == ((), False)


def test_gate_that_waits_counts_until_it_was_tried_again() -> None:
    known = Eligibility(gate=Fault("no", until=6.0, waits=True))
    counts = [len(known.reasons)]
    known.gate_confirmed()
    counts.append(len(known.reasons))
    known.retries(6.0, again_s=1.0)
    known.gate_confirmed()
    counts.append(len(known.reasons))
    assert counts == [1, 1, 0]
    at_once = Eligibility(gate=Fault("no", until=6.0))
    at_once.installed()
    assert at_once.gate is None
