"""The statement that a daemon is dead: who may make it, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanat.core.identity import Identity
from hanat.errors import WireError
from hanat.net.death_notice import DATAGRAM_BYTES, MAGIC, is_release, open_release, seal_release

INCARNATIONS = st.integers(0, 2**64 - 1)


def identity(
    node_id: int = 1, *, key: bytes = bytes(range(32)), cluster: str = "edge1"
) -> Identity:
    return Identity(key, cluster, lease_s=0.1, node_id=node_id)


@given(st.integers(1, 255), INCARNATIONS)
def test_any_node_of_the_cluster_reads_who_is_dead(node_id: int, incarnation: int) -> None:
    datagram = seal_release(identity(node_id), incarnation)
    assert is_release(datagram)
    assert open_release(identity(2), datagram) == (node_id, incarnation)


@given(INCARNATIONS, st.integers(0, DATAGRAM_BYTES - 1), st.integers(1, 255))
def test_change_of_any_byte_is_refused(incarnation: int, position: int, change: int) -> None:
    datagram = bytearray(seal_release(identity(), incarnation))
    datagram[position] ^= change
    with pytest.raises(WireError):
        open_release(identity(), bytes(datagram))


@given(INCARNATIONS, st.integers(0, DATAGRAM_BYTES - 1), st.binary(min_size=1, max_size=9))
def test_shorter_or_longer_is_refused(incarnation: int, size: int, tail: bytes) -> None:
    datagram = seal_release(identity(), incarnation)
    for wrong in (datagram[:size], datagram + tail):
        with pytest.raises(WireError):
            open_release(identity(), wrong)


@given(st.binary(max_size=80))
def test_garbage_is_refused(garbage: bytes) -> None:
    for datagram in (garbage, MAGIC + garbage):
        with pytest.raises(WireError):
            open_release(identity(), datagram)


def test_reasons_are_named() -> None:
    datagram = seal_release(identity(), 7)
    with pytest.raises(WireError, match="no release of a hanat node"):
        open_release(identity(), b"hello")
    with pytest.raises(WireError, match="a release of feature level 9, this node reads 5"):
        open_release(identity(), MAGIC + b"\x09" + datagram[len(MAGIC) + 1 :])
    with pytest.raises(WireError, match="a release of 41 bytes, it has 42"):
        open_release(identity(), datagram[:-1])
    with pytest.raises(WireError, match="node 1 of another cluster"):
        open_release(identity(cluster="edge2"), datagram)
    with pytest.raises(WireError, match="node 1 with a wrong code: another cluster key"):
        open_release(identity(key=bytes(32)), datagram)
