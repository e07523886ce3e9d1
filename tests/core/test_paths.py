"""Whose end of a path is broken."""

from __future__ import annotations

import pytest

from hanat.core.beacon import PATHS_MAX
from hanat.core.configuration import PROFILES
from hanat.core.paths import FRAMES_S, HEARD_S_MIN, QUIET_S, Frames, Paths

ME, LEFT, RIGHT = 1, 2, 3
PUBLIC, PRIVATE = 0, 1
BOTH = 0b11  # paths that are lively
NOTHING = (0,) * PATHS_MAX
PATHS = Paths(ME, [LEFT, RIGHT], paths=2, beacon_s=PROFILES["default"].beacon_s)
HEAR_ME, HEAR_LEFT, HEAR_RIGHT = 1, 2, 4


def silent(
    mine: tuple[int, ...], lively: int, told: dict[int, tuple[tuple[int, ...], int]]
) -> tuple[bool, ...]:
    """Return what is found of this when it stays so."""
    paths = Paths(ME, [LEFT, RIGHT], paths=2, beacon_s=PROFILES["default"].beacon_s)
    assert paths.silent(mine, lively, told, 1.0) == (False, False)
    return paths.silent(mine, lively, told, 1.0 + paths.confirm_s)


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
        LEFT: (said(HEAR_RIGHT, HEAR_ME | HEAR_RIGHT), BOTH),
        RIGHT: (said(HEAR_LEFT, HEAR_ME | HEAR_LEFT), BOTH),
    }
    assert silent(mine, BOTH, told) == (True, False)


def test_word_of_before_a_network_died_for_all_blames_nobody() -> None:
    paths = Paths(ME, [LEFT, RIGHT], paths=2, beacon_s=PROFILES["default"].beacon_s)
    mine = said(0, HEAR_LEFT | HEAR_RIGHT)
    before = {LEFT: (said(HEAR_RIGHT, HEAR_ME), BOTH), RIGHT: (said(HEAR_LEFT, HEAR_ME), BOTH)}
    after = {LEFT: (said(0, HEAR_ME), BOTH), RIGHT: (said(HEAR_LEFT, HEAR_ME), BOTH)}
    assert paths.silent(mine, BOTH, before, 1.0) == (False, False)
    assert paths.silent(mine, BOTH, before, 0.99 + paths.confirm_s) == (False, False)
    assert paths.silent(mine, BOTH, after, 1.0 + paths.confirm_s) == (False, False)
    assert paths.silent(mine, BOTH, before, 1.1 + paths.confirm_s) == (False, False)


@pytest.mark.parametrize("one_way", [True, False])
def test_nobody_is_to_blame_where_nobody_hears_each_other(one_way: bool) -> None:  # noqa: FBT001 - a parameter
    mine = said(0, HEAR_LEFT | HEAR_RIGHT)
    told = {
        LEFT: (said(HEAR_RIGHT if one_way else 0, HEAR_ME | HEAR_RIGHT), BOTH),
        RIGHT: (said(0, HEAR_ME | HEAR_LEFT), BOTH),
    }
    assert silent(mine, BOTH, told) == (False, False)


def test_node_that_hears_one_other_is_not_silent() -> None:
    mine = said(HEAR_LEFT, HEAR_LEFT | HEAR_RIGHT)
    told = {LEFT: (said(HEAR_ME | HEAR_RIGHT, 5), BOTH), RIGHT: (said(HEAR_LEFT, 3), BOTH)}
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
    told = {LEFT: (said(0, HEAR_ME), 0b10 | other_lives)}
    assert silent(said(0, HEAR_LEFT), 0b10 | mine_lives, told) == (broken, False)


def test_hosts_are_asked_where_nothing_comes_and_nobody_can_say_why() -> None:
    quiet, other = said(0, HEAR_LEFT), {LEFT: (said(0, HEAR_ME), BOTH)}
    assert PATHS.asks(quiet, 0b01, other) == (PUBLIC,)
    assert PATHS.asks(quiet, 0b10, other) == ()  # something comes
    assert PATHS.asks(said(HEAR_LEFT, HEAR_LEFT), 0b01, other) == ()
    assert PATHS.asks(quiet, 0b01, {}) == ()
    each_other = {
        LEFT: (said(HEAR_RIGHT, HEAR_ME | HEAR_RIGHT), BOTH),
        RIGHT: (said(HEAR_LEFT, HEAR_ME | HEAR_LEFT), BOTH),
    }
    assert PATHS.asks(quiet, 0b01, each_other) == ()  # they can


def test_node_that_is_alone_has_no_silent_path() -> None:
    assert silent(NOTHING, 0, {}) == (False, False)


def test_device_lives_as_long_as_its_counter_moves() -> None:
    frames = Frames(["eth0", "eth1"])
    frames.look({"eth0": 5, "eth1": 7}, 0.0)
    assert frames.lives("eth0", FRAMES_S)  # nothing is known yet
    frames.look({"eth0": 6, "eth1": 7}, 2.0)
    assert frames.lives("eth0", 2.0 + FRAMES_S)
    assert not frames.lives("eth0", 2.0 + FRAMES_S, within_s=QUIET_S)
    assert not frames.lives("eth1", FRAMES_S + 0.1)
    frames.look({"eth0": 6, "eth1": 0}, 9.0)  # a driver that began anew
    assert frames.lives("eth1", 9.0)
    assert not frames.lives("eth0", 9.0)
