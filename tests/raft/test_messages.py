"""Raft's messages as bytes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanat.errors import WireError
from hanat.raft.messages import NO_OP, decode, encode, unwrap, wrap

number = st.integers(0, 2**64 - 1)
command = st.one_of(st.just(NO_OP), st.binary(max_size=300).map(wrap))


@st.composite
def appends(draw: st.DrawFn) -> dict[str, Any]:
    previous = draw(st.integers(0, 2**40))
    commands = draw(st.lists(st.tuples(command, number), max_size=5))
    return {
        "type": "append_entries",
        "term": draw(number),
        "commit_index": draw(number),
        "prevLogIdx": previous,
        "prevLogTerm": draw(number),
        "gen": draw(number),
        "last": draw(number),
        "entries": [(c, previous + 1 + n, term) for n, (c, term) in enumerate(commands)],
    }


def typed(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"type": st.just(kind), **fields})


messages = st.one_of(
    appends(),
    typed(
        "next_node_idx",
        next_node_idx=number,
        reset=st.booleans(),
        success=st.booleans(),
        fit=st.booleans(),
        term=number,
        gen=st.one_of(st.none(), st.integers(1, 2**64 - 1)),
    ),
    typed(
        "request_vote",
        term=number,
        last_log_index=number,
        last_log_term=number,
        transfer=st.booleans(),
        all=st.booleans(),
    ),
    typed("pre_vote", term=number, last=st.tuples(number, number), round=number),
    *[typed(kind, round=number) for kind in ("pre_vote_ok", "pre_vote_if_all")],
    *[typed(kind, term=number) for kind in ("response_vote", "timeout_now", "stale_term")],
)


@given(messages)
def test_message_survives_the_wire(message: dict[str, Any]) -> None:
    assert decode(encode(message)) == message


@given(messages, st.data())
def test_changed_message_is_refused_or_read_never_worse(
    message: dict[str, Any], data: st.DataObject
) -> None:
    content = bytearray(encode(message))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decode(bytes(content[: data.draw(st.integers(0, len(content)))]))
    except WireError:
        return


@given(st.binary(max_size=100))
def test_garbage_raises_nothing_but_wire_errors(garbage: bytes) -> None:
    try:
        decode(garbage)
    except WireError:
        return


@given(st.binary(max_size=70_000))
def test_entry_gives_back_what_it_wraps(data: bytes) -> None:
    assert unwrap(wrap(data)) == data


@pytest.mark.parametrize("kind", ["apply_command", "install", "set_version", "add"])
def test_message_kinds_without_a_layout_are_not_sent(kind: str) -> None:
    with pytest.raises(WireError, match="no layout"):
        encode({"type": kind})


def test_entries_of_the_library_s_other_command_types_are_not_sent() -> None:
    with pytest.raises(AssertionError, match="unknown type"):
        unwrap(b"\x02membership")
