"""Whose end of a path is broken."""

from __future__ import annotations

import pytest

from hanat.core.beacon import PATHS_MAX
from hanat.core.configuration import PROFILES
from hanat.core.paths import (
    ANSWERED_S,
    ASK_S,
    FRAMES_S,
    HEARD_S_MIN,
    IN_VAIN_S,
    Frames,
    Paths,
    Questions,
    Word,
)

ME, LEFT, RIGHT = 1, 2, 3
PUBLIC, PRIVATE = 0, 1
BOTH = 0b11  # paths that are lively
NOTHING = (0,) * PATHS_MAX
PATHS = Paths(ME, [LEFT, RIGHT], paths=2, beacon_s=PROFILES["default"].beacon_s)
HEAR_ME, HEAR_LEFT, HEAR_RIGHT = 1, 2, 4
EACH_OTHER = {
    LEFT: Word((HEAR_RIGHT, HEAR_ME | HEAR_RIGHT, 0, 0), BOTH),
    RIGHT: Word((HEAR_LEFT, HEAR_ME | HEAR_LEFT, 0, 0), BOTH),
}


def silent(
    mine: tuple[int, ...], lively: int, told: dict[int, Word], unanswered: int = 0
) -> tuple[bool, ...]:
    """Return what is found of this when it stays so."""
    paths = Paths(ME, [LEFT, RIGHT], paths=2, beacon_s=PROFILES["default"].beacon_s)
    word = Word(mine, lively)
    assert paths.silent(word, unanswered, told, 1.0) == (False, False)
    return paths.silent(word, unanswered, told, 1.0 + paths.confirm_s)


def said(public: int, private: int) -> tuple[int, ...]:
    return (public, private, 0, 0)


def test_peer_counts_as_heard_where_it_was_heard_about_as_lately_as_elsewhere() -> None:
    now = 100.0
    heard = {
        (LEFT, PUBLIC): now - 5, (LEFT, PRIVATE): now,
        (RIGHT, PUBLIC): now - 9, (RIGHT, PRIVATE): now - 9.1,
    }  # fmt: skip
    # Node 3 is gone, or this process stood still: no path is to blame.
    assert PATHS.hears(heard)[:2] == (HEAR_RIGHT, HEAR_LEFT | HEAR_RIGHT)
    assert PATHS.hears({}) == NOTHING


def test_short_silence_is_none() -> None:
    fast = Paths(ME, [LEFT], paths=2, beacon_s=PROFILES["fast"].beacon_s)
    heard = {(LEFT, PUBLIC): 10.0 - HEARD_S_MIN + 0.01, (LEFT, PRIVATE): 10.0}
    assert fast.hears(heard)[PUBLIC] == HEAR_LEFT


def test_node_that_hears_nobody_where_the_others_hear_each_other_is_the_broken_one() -> None:
    mine = said(0, HEAR_LEFT | HEAR_RIGHT)
    told = {
        LEFT: Word(said(HEAR_RIGHT, HEAR_ME | HEAR_RIGHT), BOTH),
        RIGHT: Word(said(HEAR_LEFT, HEAR_ME | HEAR_LEFT), BOTH),
    }
    assert silent(mine, BOTH, told) == (True, False)


def broken_end() -> tuple[Paths, float]:
    """Return a node whose public end was found broken by the word of both others, and when."""
    paths = Paths(ME, [LEFT, RIGHT], paths=2, beacon_s=PROFILES["default"].beacon_s)
    mine = Word(said(0, HEAR_LEFT | HEAR_RIGHT), BOTH)
    paths.silent(mine, 0, EACH_OTHER, 1.0)
    now = 1.0 + paths.confirm_s
    assert paths.silent(mine, 0, EACH_OTHER, now) == (True, False)
    return paths, now


def test_broken_end_stays_broken_when_a_node_leaves_by_whose_word_it_was_found() -> None:
    paths, now = broken_end()
    left = {LEFT: Word(said(0, HEAR_ME), BOTH)}  # it hears nobody there either now
    mine = Word(said(0, HEAR_LEFT), BOTH)
    for seconds in range(5):
        assert paths.silent(mine, 0, left, now + seconds) == (True, False)
    assert paths.silent(Word(said(0, HEAR_LEFT), BOTH, 0b01), 0, left, now) == (False, False)


def test_broken_end_is_none_when_somebody_is_heard_there() -> None:
    paths, now = broken_end()
    told = {LEFT: Word(said(HEAR_ME, HEAR_ME), BOTH)}
    assert paths.silent(Word(said(HEAR_LEFT, HEAR_LEFT), BOTH), 0, told, now) == (False, False)


def test_broken_end_stays_broken_while_a_node_that_returned_has_not_heard_the_other_yet() -> None:
    paths, now = broken_end()
    assert paths.silent(Word(NOTHING, BOTH), 0, {}, now) == (True, False)  # this one stood still
    mine = Word(said(0, HEAR_LEFT | HEAR_RIGHT), BOTH)
    deaf_yet = EACH_OTHER | {RIGHT: Word(NOTHING, BOTH)}
    assert paths.silent(mine, 0, deaf_yet, now + 0.1) == (True, False)
    assert paths.silent(mine, 0, deaf_yet, now + 0.3) == (True, False)
    assert paths.silent(mine, 0, EACH_OTHER, now + 0.4) == (True, False)
    assert paths.silent(mine, 0, deaf_yet, now + 0.5) == (True, False)


def test_broken_end_is_none_when_whoever_is_left_there_is_as_deaf() -> None:
    paths, now = broken_end()
    left = {LEFT: Word(said(0, HEAR_ME), 0b10)}
    assert paths.silent(Word(said(0, HEAR_LEFT), BOTH), 0, left, now) == (False, False)


def test_network_that_dies_for_all_after_one_end_of_it_broke_blames_that_end_no_more() -> None:
    paths, now = broken_end()
    mine = Word(said(0, HEAR_LEFT | HEAR_RIGHT), BOTH)
    nobody = {peer: Word(said(0, 7), BOTH) for peer in (LEFT, RIGHT)}
    paths.silent(mine, 0, nobody, now)
    assert paths.silent(mine, 0, nobody, now + paths.confirm_s) == (False, False)


def test_word_of_before_a_network_died_for_all_blames_nobody() -> None:
    paths = Paths(ME, [LEFT, RIGHT], paths=2, beacon_s=PROFILES["default"].beacon_s)
    mine = Word(said(0, HEAR_LEFT | HEAR_RIGHT), BOTH)
    right = Word(said(HEAR_LEFT, HEAR_ME), BOTH)
    before = {LEFT: Word(said(HEAR_RIGHT, HEAR_ME), BOTH), RIGHT: right}
    after = {LEFT: Word(said(0, HEAR_ME), BOTH), RIGHT: right}
    assert paths.silent(mine, 0, before, 1.0) == (False, False)
    assert paths.silent(mine, 0, before, 0.99 + paths.confirm_s) == (False, False)
    assert paths.silent(mine, 0, after, 1.0 + paths.confirm_s) == (False, False)
    assert paths.silent(mine, 0, before, 1.1 + paths.confirm_s) == (False, False)


@pytest.mark.parametrize("one_way", [True, False])
def test_nobody_is_to_blame_where_nobody_hears_each_other(one_way: bool) -> None:  # noqa: FBT001 - a parameter
    mine = said(0, HEAR_LEFT | HEAR_RIGHT)
    told = {
        LEFT: Word(said(HEAR_RIGHT if one_way else 0, HEAR_ME | HEAR_RIGHT), BOTH),
        RIGHT: Word(said(0, HEAR_ME | HEAR_LEFT), BOTH),
    }
    assert silent(mine, BOTH, told) == (False, False)


def test_node_that_hears_one_other_is_not_silent() -> None:
    mine = said(HEAR_LEFT, HEAR_LEFT | HEAR_RIGHT)
    told = {LEFT: Word(said(HEAR_ME | HEAR_RIGHT, 5), BOTH), RIGHT: Word(said(HEAR_LEFT, 3), BOTH)}
    assert silent(mine, 0, told) == (False, False)


@pytest.mark.parametrize(
    ("mine_lives", "other_lives", "broken"),
    [(False, True, True), (True, False, False), (True, True, False), (False, False, False)],
)
def test_of_two_that_are_left_the_one_whose_device_received_nothing_is_the_broken_one(
    mine_lives: bool,  # noqa: FBT001 - a parameter
    other_lives: bool,  # noqa: FBT001 - a parameter
    broken: bool,  # noqa: FBT001 - a parameter
) -> None:
    told = {LEFT: Word(said(0, HEAR_ME), 0b10 | other_lives)}
    assert silent(said(0, HEAR_LEFT), 0b10 | mine_lives, told) == (broken, False)


@pytest.mark.parametrize(
    ("mine_in_vain", "other_answered", "broken"),
    [(True, True, True), (True, False, False), (False, True, False), (False, False, False)],
)
def test_of_two_that_are_left_the_one_whom_nobody_answers_is_the_broken_one(
    mine_in_vain: bool,  # noqa: FBT001 - a parameter
    other_answered: bool,  # noqa: FBT001 - a parameter
    broken: bool,  # noqa: FBT001 - a parameter
) -> None:
    """Both devices receive frames: a switch says something on each port."""
    told = {LEFT: Word(said(0, HEAR_ME), BOTH, 0b01 * other_answered)}
    found = silent(said(0, HEAR_LEFT), BOTH, told, unanswered=0b01 * mine_in_vain)
    assert found == (broken, False)


def test_answers_decide_nothing_where_a_peer_is_heard() -> None:
    told = {LEFT: Word(said(HEAR_ME, HEAR_ME), BOTH, BOTH)}
    assert silent(said(HEAR_LEFT, HEAR_LEFT), BOTH, told, unanswered=BOTH) == (False, False)


def test_hosts_are_asked_where_nobody_is_heard_and_nobody_can_say_why() -> None:
    mine, other = said(0, HEAR_LEFT), {LEFT: Word(said(0, HEAR_ME), BOTH)}
    assert PATHS.asks(mine, other) == (PUBLIC,)
    assert PATHS.asks(said(HEAR_LEFT, HEAR_LEFT), other) == (PUBLIC,)  # it may be deaf there
    assert PATHS.asks(said(HEAR_LEFT, HEAR_LEFT), {LEFT: Word(said(HEAR_ME, HEAR_ME), BOTH)}) == ()
    assert PATHS.asks(mine, {}) == ()
    each_other = {
        LEFT: Word(said(HEAR_RIGHT, HEAR_ME | HEAR_RIGHT), BOTH),
        RIGHT: Word(said(HEAR_LEFT, HEAR_ME | HEAR_LEFT), BOTH),
    }
    assert PATHS.asks(mine, each_other) == ()  # they can


def test_questions_are_in_vain_when_none_was_answered_for_long() -> None:
    questions = Questions(began=1.0)
    assert questions.due(1.0)
    assert not questions.due(0.9 + ASK_S)
    assert questions.due(1.0 + ASK_S)
    assert not questions.are_in_vain(1.0 + IN_VAIN_S)
    assert questions.are_in_vain(1.1 + IN_VAIN_S)
    assert not questions.are_answered(1.1)
    questions.answered = 3.0
    assert questions.are_answered(3.0 + ANSWERED_S)
    assert not questions.are_answered(3.1 + ANSWERED_S)
    assert not questions.are_in_vain(3.0 + IN_VAIN_S)
    assert questions.are_in_vain(3.1 + IN_VAIN_S)


@pytest.mark.parametrize("later_s", [0.0, ASK_S / 2, ASK_S, 2 * ASK_S])
def test_network_that_dies_for_both_that_are_left_blames_neither(later_s: float) -> None:
    """The last answer to one came before the last to the other, or the last one was lost."""
    mine, others = Questions(began=0.0, answered=9.0), Questions(began=0.0, answered=9.0 + later_s)
    paths = Paths(ME, [LEFT], paths=2, beacon_s=PROFILES["default"].beacon_s)
    for hundredth in range(900, 1300):
        now = hundredth / 100
        told = {LEFT: Word(said(0, HEAR_ME), BOTH, others.are_answered(now))}
        in_vain = mine.are_in_vain(now)
        assert paths.silent(Word(said(0, HEAR_LEFT), BOTH), in_vain, told, now) == (False, False)
    assert mine.are_in_vain(13.0)


def test_node_that_is_alone_has_no_silent_path() -> None:
    assert silent(NOTHING, 0, {}) == (False, False)


def test_device_lives_as_long_as_its_counter_moves() -> None:
    frames = Frames(["eth0", "eth1"])
    frames.look({"eth0": 5, "eth1": 7}, 0.0)
    assert frames.lives("eth0", FRAMES_S)  # nothing is known yet
    frames.look({"eth0": 6, "eth1": 7}, 2.0)
    assert frames.lives("eth0", 2.0 + FRAMES_S)
    assert not frames.lives("eth1", FRAMES_S + 0.1)
    frames.look({"eth0": 6, "eth1": 0}, 9.0)  # a driver that began anew
    assert frames.lives("eth1", 9.0)
    assert not frames.lives("eth0", 9.0)
