"""Batches of clients: nothing is lost, nothing damaged is believed."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanat.core.feature_level import OLDEST
from hanat.core.sticky import Told
from hanat.errors import WireError
from hanat.raft import state
from hanat.worker.client_batch import CLIENTS_MAX, FIRST_BYTE, decode, encode, is_of_clients
from hanat.worker.flow_batch import Changes, Mark, encode_mark
from hanat.worker.flow_batch import encode as encode_flows

names = st.text("abc-_.09", min_size=1, max_size=63)


@st.composite
def told(draw: st.DrawFn) -> Told:
    size = draw(st.sampled_from((4, 16)))
    clients = draw(st.lists(st.binary(min_size=size, max_size=size), max_size=20))
    ages = [draw(st.integers(0, 2**32 - 1)) for _ in clients]
    prefix = draw(st.integers(1, 8 * size))
    version = 4 if size == 4 else 6
    return Told(draw(names), version, prefix, draw(names), clients, ages)


groups = st.lists(told(), max_size=5)


@given(groups)
def test_batch_carries_every_client(some: list[Told]) -> None:
    batch = encode(some)
    assert is_of_clients(batch)
    assert decode(batch) == some


@given(groups, st.data())
def test_damaged_batch_is_refused_or_read_never_worse(
    some: list[Told], data: st.DataObject
) -> None:
    batch = bytearray(encode(some))
    batch[data.draw(st.integers(0, len(batch) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = decode(bytes(batch))
    except WireError:
        return
    assert sum(len(one.clients) for one in found) <= CLIENTS_MAX


@given(st.binary(max_size=200))
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(WireError):
        decode(FIRST_BYTE + bytes((OLDEST,)) + zlib.compress(b"\0" + garbage))


def test_batch_that_unpacks_to_too_much_is_refused() -> None:
    with pytest.raises(WireError, match="more than"):
        decode(FIRST_BYTE + bytes((OLDEST,)) + zlib.compress(bytes(1 << 24)))


def test_batch_of_flows_is_none_of_clients() -> None:
    assert not is_of_clients(encode_flows(Changes([bytes(48)], [])))
    assert not is_of_clients(encode_mark(Mark(7, ends=True)))


def test_client_takes_about_eight_bytes() -> None:
    clients = [bytes((198, 51, i >> 8, i & 255)) for i in range(1000)]
    ages = [i * 37 % 20 for i in range(1000)]
    assert len(encode([Told("web", 4, 32, "web1", clients, ages)])) < 8 * 1000


def test_log_has_another_kind_of_entry_for_them() -> None:
    """A strange batch of flows would count as a loss."""
    batch = encode([])
    entry = state.encode(state.Flows(3, 7, batch, of_clients=True))
    assert state.decode(entry) == state.Flows(3, 7, batch, of_clients=True)
    assert entry[:2] != state.encode(state.Flows(3, 7, batch))[:2]
