"""The bytes of a beacon: what survives them, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanat.core.beacon import PATHS_MAX, Beacon, Promised
from hanat.core.feature_level import LEVEL
from hanat.core.identity import Identity
from hanat.errors import WireError
from hanat.net.beacon_wire import DATAGRAM_BYTES_MAX, MAGIC, BeaconWire, Datagram, Mark

numbers = st.integers(0, 2**64 - 1)
nodes = st.integers(0, 255)
beacons = st.builds(
    Beacon,
    term=numbers,
    leads=st.booleans(),
    asks=st.booleans(),
    promise_s=st.integers(0, 500_000).map(lambda us: us / 1e6),
    released_term=numbers,
    successor=nodes,
    promised=st.none() | st.builds(Promised, numbers, numbers),
    fit=st.booleans(),
    complete=st.booleans(),
    revision=numbers,
    refuses=st.booleans(),
    handicap=st.integers(0, 2**16 - 1),
    unsafe=st.booleans(),
    shut=st.booleans(),
    level=st.just(LEVEL),
    hears=st.tuples(*[nodes] * PATHS_MAX),
    lively=nodes,
    answered=nodes,
    interfaces=numbers,
)
marks = st.builds(Mark, numbers, numbers)
PLAIN = Datagram(1, 2, Mark(7, 1), Mark(9, 3), Beacon(term=4, leads=True, asks=True))


def identity(
    node_id: int = 2,
    *,
    key: bytes = bytes(32),
    cluster: str = "edge1",
    lease_s: float = 0.1,
    members: tuple[int, ...] = (1, 2, 3),
) -> Identity:
    return Identity(key, cluster, lease_s, node_id, members)


def refusal(data: bytes, receiver: Identity | None = None) -> str:
    """Return why a datagram is refused."""
    with pytest.raises(WireError) as refused:
        BeaconWire(receiver or identity()).open(data)
    return str(refused.value)


@given(marks, marks, beacons, st.binary(max_size=200))
def test_datagram_survives_the_wire(mark: Mark, echo: Mark, beacon: Beacon, payload: bytes) -> None:
    datagram = Datagram(1, 2, mark, echo, beacon, payload)
    data = BeaconWire(identity(1)).seal(datagram)
    assert len(data) <= DATAGRAM_BYTES_MAX
    assert BeaconWire(identity(2)).open(data) == datagram


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_change_of_any_byte_is_refused(position: int, change: int) -> None:
    data = bytearray(BeaconWire(identity(1)).seal(PLAIN))
    data[position % len(data)] ^= change
    refusal(bytes(data))


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=9))
def test_shorter_or_longer_is_refused(size: int, tail: bytes) -> None:
    data = BeaconWire(identity(1)).seal(PLAIN)
    refusal(data[: size % len(data)])
    refusal(data + tail)


@given(st.binary(max_size=300))
def test_garbage_is_refused(garbage: bytes) -> None:
    refusal(garbage)
    refusal(MAGIC + garbage)


def test_reasons_are_named() -> None:
    data = BeaconWire(identity(1)).seal(PLAIN)
    assert "no beacon of a hanat node" in refusal(b"hello")
    assert "another cluster than 'other'" in refusal(data, identity(cluster="other"))
    assert "another cluster key" in refusal(data, identity(key=bytes(31) + b"k"))
    assert "this is node 3; compare id and addresses" in refusal(data, identity(3))
    longer = refusal(data, identity(lease_s=0.5))
    assert "node 1 has a lease of 100 ms, this node of 500 ms" in longer
    grown = refusal(data, identity(members=(1, 2, 3, 4, 5)))
    assert "node 1 has nodes 1, 2, 3 in its node file, this node has 1, 2, 3, 4, 5" in grown


def test_no_nonce_is_used_twice() -> None:
    # One key for each sender and incarnation, one nonce for each sequence: the same
    # content never gives the same bytes, unless it is the same datagram.
    wire = BeaconWire(identity(1))
    variants = [
        PLAIN,
        PLAIN._replace(mark=Mark(7, 2)),
        PLAIN._replace(mark=Mark(8, 1)),
        PLAIN._replace(sender=3),
    ]
    bodies = {wire.seal(variant)[-40:] for variant in variants}
    assert len(bodies) == len(variants)
