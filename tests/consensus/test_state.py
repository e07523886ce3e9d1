"""What committed events do to the state."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hanat.consensus.state import Happened, State, decode, encode
from hanat.core.history import EVENT_BYTES_MAX, EVENTS_MAX

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
    state.restore({b"core": State().freeze()[0][1]})
    assert not state.events
