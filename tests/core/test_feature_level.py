"""Which level nodes write, and when another one comes into force."""

from __future__ import annotations

import pytest

from hanat.core import feature_level
from hanat.core.feature_level import (
    LEVEL,
    OLDEST,
    first,
    has_agreed,
    is_readable,
    news,
    raised,
    span,
    written,
)
from hanat.errors import RefusedError

MEMBERS = {1: "r1", 2: "r2", 3: "r3"}


def test_level_that_is_written_is_one_that_this_version_can_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feature_level, "OLDEST", 6)
    monkeypatch.setattr(feature_level, "LEVEL", 7)
    assert [written(level) for level in (0, 5, 6, 7, 8)] == [6, 6, 6, 7, 7]
    assert [level for level in range(4, 10) if is_readable(level)] == [6, 7]


def test_this_version_reads_its_own_level_and_at_most_the_one_before() -> None:
    assert 0 <= LEVEL - OLDEST <= 1
    assert span(5, 5) == "5"
    assert span(5, 6) == "5 to 6"


def test_log_is_told_what_it_does_not_have() -> None:
    assert news(MEMBERS, {}, {2: 5, 1: 6}) == [(1, 6), (2, 5)]
    assert news(MEMBERS, {1: 6, 2: 6, 3: 5}, {1: 6, 2: 5}) == [(2, 5)]  # went back
    assert news(MEMBERS, {1: 6, 2: 6, 3: 5}, {1: 6}) == []  # who is away is as it was
    assert news(MEMBERS, {1: 6, 2: 6, 4: 5}, {1: 6}) == [(4, 0)]  # who left holds nobody back


def test_new_cluster_gets_a_level_when_all_nodes_were_heard() -> None:
    assert first(0, MEMBERS, {1: 6, 2: 6}) is None
    assert first(0, MEMBERS, {1: 6, 2: 5, 3: 6}) == 5
    assert first(5, MEMBERS, {1: 6, 2: 6, 3: 6}) is None  # it is raised by an operator only


def test_upgrade_is_finished_when_all_nodes_have_the_new_version() -> None:
    assert raised(5, MEMBERS, {1: 6, 2: 6, 3: 6}) == 6
    assert raised(5, MEMBERS, {1: 7, 2: 6, 3: 6}) == 6


@pytest.mark.parametrize(
    ("reached", "found"),
    [
        ({1: 6, 2: 6}, "nothing is known yet of r3"),
        ({1: 6, 2: 5, 3: 5}, "r2, r3 can do feature level 5, others 6; upgrade r2, r3 first"),
        ({1: 5, 2: 5, 3: 5}, "no upgrade to finish: feature level 5 is in force"),
    ],
)
def test_upgrade_that_cannot_be_finished_is_refused(reached: dict[int, int], found: str) -> None:
    with pytest.raises(RefusedError, match=found):
        raised(5, MEMBERS, reached)


def test_level_comes_into_force_only_if_no_node_lacks_it() -> None:
    assert has_agreed(6, 5, {1: 6, 2: 7})
    assert not has_agreed(6, 5, {1: 6, 2: 5})  # it went back before the entry was committed
    assert not has_agreed(5, 5, {1: 6})
    assert not has_agreed(5, 6, {1: 6})
