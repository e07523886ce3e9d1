"""Batches of flow changes: nothing is lost, nothing damaged is believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanat.errors import WireError
from hanat.worker.flow_batch import CHANGES_MAX, Changes, Mark, decode, encode, encode_mark, is_mark
from tests.strategies import flows

records = st.builds(lambda flow: flow.to_record(), flows())
changes = st.builds(Changes, st.lists(records, max_size=20), st.lists(records, max_size=20))


@given(changes)
def test_batch_carries_every_change(some: Changes) -> None:
    found = decode(encode(some))
    assert not isinstance(found, Mark)
    assert not is_mark(encode(some))
    assert (sorted(found.put), sorted(found.gone)) == (sorted(some.put), sorted(some.gone))


@pytest.mark.parametrize("ends", [False, True])
def test_mark_says_what_it_marks(ends: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    batch = encode_mark(Mark(2**63 + 1, ends))
    assert decode(batch) == Mark(2**63 + 1, ends)
    assert is_mark(batch)


@given(changes, st.data())
def test_damaged_batch_is_refused_or_read_never_worse(some: Changes, data: st.DataObject) -> None:
    batch = bytearray(encode(some))
    position = data.draw(st.integers(0, len(batch) - 1))
    batch[position] ^= data.draw(st.integers(1, 255))
    try:
        found = decode(bytes(batch))
    except WireError:
        return
    records = () if isinstance(found, Mark) else (*found.put, *found.gone)
    assert all(len(record) in {48, 96} for record in records)


@given(st.binary(max_size=200))
def test_garbage_is_refused(garbage: bytes) -> None:
    if garbage[:2] == b"\x02\x00":
        return  # the empty batch
    with pytest.raises(WireError):
        decode(garbage)


def test_batch_that_unpacks_to_more_than_it_announces_is_refused() -> None:
    batch = bytearray(encode(Changes([bytes(48)], [])))
    bomb = encode(Changes([bytes(48)] * 2, []))
    with pytest.raises(WireError, match="announced"):
        decode(bytes(batch[:6]) + bomb[6:])


def test_batch_of_similar_flows_takes_about_ten_bytes_a_flow() -> None:
    similar = [
        bytes([203, 0, 113, n % 250]) + bytes(20) + n.to_bytes(4, "big") + bytes(20)
        for n in range(CHANGES_MAX)
    ]
    assert len(encode(Changes(similar, []))) < 16 * CHANGES_MAX
