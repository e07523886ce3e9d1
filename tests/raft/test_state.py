"""What committed events, and records of servers, do to the state."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanat import raft
from hanat.core.feature_level import LEVEL, OLDEST
from hanat.core.history import EVENT_BYTES_MAX, EVENTS_MAX
from hanat.core.server_records import KEY_BYTES_MAX, Record
from hanat.raft.state import (
    RECORDS_A_PART,
    SKIPPABLE,
    Barrier,
    FeatureLevel,
    Happened,
    Records,
    State,
    decode,
    encode,
    kept_on_disk_only,
    may_be_applied,
)

happened = st.builds(
    Happened, st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.binary(max_size=40)
)


@given(happened)
def test_event_survives_the_log(command: Happened) -> None:
    assert decode(encode(command)) == command


def test_event_that_is_told_twice_counts_once() -> None:
    state = State()
    told = encode(Happened(5, 1, b"x"))
    assert state.apply(told) == Happened(5, 1, b"x")
    assert state.apply(told) is None
    assert state.apply(encode(Happened(6, 1, b"x"))) is not None
    assert [event.origin for event in state.events] == [5, 6]


def test_only_the_newest_events_are_kept() -> None:
    state = State()
    for serial in range(EVENTS_MAX + 3):
        state.apply(encode(Happened(1, serial, b"")))
    assert [event.serial for event in state.events] == list(range(3, EVENTS_MAX + 3))


def test_event_that_is_too_large_is_skipped() -> None:
    state = State()
    assert state.apply(encode(Happened(1, 1, bytes(EVENT_BYTES_MAX + 1)))) is None
    assert not state.events


@given(st.lists(happened, max_size=5))
def test_events_survive_a_snapshot(commands: list[Happened]) -> None:
    state = State()
    for command in commands:
        state.apply(encode(command))
    other = State()
    other.apply(encode(Happened(1, 1, b"of before")))
    other.restore(dict(state.freeze()))
    assert other.events == state.events


def test_snapshot_of_before_there_were_events_has_none() -> None:
    state = State()
    state.restore({b"core": dict(State().freeze())[b"core"]})
    assert not state.events


names = st.builds(lambda kind, name: kind + name, st.sampled_from([b"v", b"m", b"w"]), st.binary())
records = st.builds(Record, names.map(lambda n: n[:KEY_BYTES_MAX]), st.binary(max_size=40))


@given(st.builds(Records, st.integers(0, 2**64 - 1), st.lists(records).map(tuple)))
def test_records_survive_the_log(command: Records) -> None:
    assert decode(encode(command)) == command


def test_entry_of_records_that_ends_too_early_is_skipped() -> None:
    state = State()
    data = encode(Records(0, (Record(b"mweb/web1", b"drain"),)))
    for size in range(1, len(data)):
        state.apply(data[:size])
    assert state.records == {}


def test_newest_record_of_a_key_is_kept_and_an_empty_one_deletes_it() -> None:
    state = State()
    for value in (b"drain", b"maint"):
        state.apply(encode(Records(0, (Record(b"mweb/web1", value), Record(b"wweb/web1", b"2")))))
    assert state.records == {b"mweb/web1": b"maint", b"wweb/web1": b"2"}
    state.apply(encode(Records(0, (Record(b"mweb/web1", b""), Record(b"munknown", b"")))))
    assert state.records == {b"wweb/web1": b"2"}


def test_verdict_of_a_holder_that_lost_its_term_counts_nowhere() -> None:
    state = State()
    state.apply(encode(Barrier(7, 1)))
    assert state.apply(encode(Records(6, (Record(b"vtcp", b"down"),)))) is None
    assert state.apply(encode(Records(7, (Record(b"vtcp", b"up"),)))) is not None
    assert state.records == {b"vtcp": b"up"}
    assert state.refused_records == 1


def test_more_records_than_there_may_be_are_refused_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(raft.state, "RECORDS_MAX", 2)
    state = State()
    first, second, third = (Record(b"m%d" % n, b"x") for n in range(3))
    assert state.apply(encode(Records(0, (first, second)))) is not None
    assert state.apply(encode(Records(0, (Record(first.key, b"y"), third)))) is None
    assert state.records == dict([first, second])
    assert state.apply(encode(Records(0, (Record(first.key, b"y"),)))) is not None


@given(st.lists(records))
def test_records_survive_a_snapshot(some: list[Record]) -> None:
    state, other = State(), State()
    state.apply(encode(Records(0, tuple(some))))
    other.apply(encode(Records(0, (Record(b"mof before", b"x"),))))
    other.restore(dict(state.freeze()))
    assert other.records == state.records
    assert other.changes == state.changes


def test_what_an_operator_wants_is_never_acknowledged_from_memory() -> None:
    drain = (Record(b"mweb/web1", b"drain"),)
    assert kept_on_disk_only(encode(Records(0, drain)))
    assert not kept_on_disk_only(encode(Records(7, drain)))


def test_snapshot_has_the_records_of_its_moment_though_they_are_put_into_bytes_later() -> None:
    state, other = State(), State()
    many = tuple(Record(b"m%d" % n, b"x") for n in range(1, 2 * RECORDS_A_PART))
    state.apply(encode(Records(0, many)))
    frozen = state.freeze()
    state.apply(encode(Records(0, (Record(many[0].key, b"y"), Record(b"mlater", b"z")))))
    parts = [*frozen]
    assert [kind for kind, _ in parts].count(b"servers") == 2
    whole: dict[bytes, bytes] = {}
    for kind, content in parts:
        whole[kind] = whole.get(kind, b"") + content
    other.restore(whole)
    assert other.records == dict(many)


def test_levels_of_nodes_and_the_one_in_force_survive_log_and_snapshot() -> None:
    state, other = State(), State()
    told = [FeatureLevel(1, 6), FeatureLevel(2, 6), FeatureLevel(0, 6)]
    for command in told:
        assert decode(encode(command)) == command
        state.apply(encode(command))
    assert (state.level, state.levels) == (6, {1: 6, 2: 6})
    assert state.apply(encode(told[0])) is None  # told twice
    other.restore(dict(state.freeze()))
    assert (other.level, other.levels) == (6, {1: 6, 2: 6})


def test_level_that_a_node_lacks_does_not_come_into_force() -> None:
    state = State()
    for command in (FeatureLevel(1, 6), FeatureLevel(2, 5)):
        state.apply(encode(command))
    assert state.apply(encode(FeatureLevel(0, 6))) is None
    assert state.level == 0
    assert state.apply(encode(FeatureLevel(0, 5))) is not None
    assert state.apply(encode(FeatureLevel(0, 4))) is None
    assert state.apply(encode(FeatureLevel(2, 0))) is not None  # it left
    assert state.apply(encode(FeatureLevel(2, 0))) is None
    assert state.apply(encode(FeatureLevel(0, 6))) is not None
    assert state.written_level == LEVEL


def test_entry_of_a_level_that_cannot_be_read_is_not_applied_nor_the_end_of_an_upgrade() -> None:
    barrier = encode(Barrier(7, 1))
    assert may_be_applied(barrier)
    for level in (OLDEST - 1, LEVEL + 1):
        assert not may_be_applied(bytes((level,)) + barrier[1:])
        assert may_be_applied(bytes((level, SKIPPABLE | 1)) + barrier[2:])
    assert may_be_applied(encode(FeatureLevel(2, LEVEL + 1)))
    assert may_be_applied(encode(FeatureLevel(0, LEVEL)))
    assert not may_be_applied(encode(FeatureLevel(0, LEVEL + 1)))
