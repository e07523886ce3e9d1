"""The authenticated stream: two ends back to back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanat.core.identity import Identity
from hanat.errors import WireError
from hanat.net.secure_stream import FRAME_BYTES_MAX, HELLO_BYTES_MAX, SecureStream

KEY = bytes(range(32))


def identity(
    node_id: int,
    *,
    key: bytes = KEY,
    cluster: str = "edge1",
    lease_s: float = 0.1,
    members: tuple[int, ...] = (1, 2, 3),
) -> Identity:
    return Identity(key, cluster, lease_s, node_id, members)


def pair(dialler: Identity, acceptor: Identity) -> tuple[SecureStream, SecureStream]:
    return (
        SecureStream(dialler, nonce=bytes([1]) * 16, peer=acceptor.node_id),
        SecureStream(acceptor, nonce=bytes([2]) * 16, peer=None),
    )


def connected() -> tuple[SecureStream, SecureStream]:
    a, b = pair(identity(1), identity(2))
    _, reply = b.receive(a.opening())
    a.receive(reply)
    return a, b


def test_both_ends_agree_and_know_each_other() -> None:
    a, b = connected()
    assert b.receive(a.seal(b"one") + a.seal(b"two")) == ([b"one", b"two"], b"")
    assert a.receive(b.seal(b"three")) == ([b"three"], b"")
    assert (a.peer, b.peer) == (2, 1)


def test_end_is_established_only_by_a_frame_with_the_session_key() -> None:
    a, b = connected()
    assert not b.established
    b.receive(a.seal(b""))
    assert b.established


def test_recorded_hello_does_not_open_the_way_for_large_frames() -> None:
    a, b = pair(identity(1), identity(2))
    b.receive(a.opening())
    with pytest.raises(WireError, match="allowed are 16 to 256"):
        b.receive((HELLO_BYTES_MAX + 1).to_bytes(4))


def test_large_frame_may_come_with_the_first_small_one() -> None:
    a, b = connected()
    assert b.receive(a.seal(b"") + a.seal(bytes(10**6))) == ([b"", bytes(10**6)], b"")


@given(st.lists(st.binary(max_size=50), max_size=5), st.data())
def test_frames_arrive_whole_however_the_stream_is_cut(
    contents: list[bytes], data: st.DataObject
) -> None:
    a, b = connected()
    stream = b"".join(a.seal(content) for content in contents)
    received: list[bytes] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        received += b.receive(stream[:size])[0]
        stream = stream[size:]
    assert received == contents


def test_another_key_is_named_as_the_reason() -> None:
    a, b = pair(identity(1, key=bytes(32)), identity(2))
    with pytest.raises(WireError, match="node 1 has another cluster key"):
        b.receive(a.opening())


def test_another_cluster_is_named_as_the_reason() -> None:
    a, b = pair(identity(1, cluster="edge2"), identity(2))
    with pytest.raises(WireError, match="belongs to another cluster than 'edge1'"):
        b.receive(a.opening())


def test_another_lease_is_named_as_the_reason() -> None:
    a, b = pair(identity(1, lease_s=0.04), identity(2))
    with pytest.raises(WireError, match="node 1 has a lease of 40 ms, this node of 100 ms"):
        b.receive(a.opening())


def test_call_for_another_node_is_refused() -> None:
    a = SecureStream(identity(1), nonce=bytes(16), peer=3)
    b = SecureStream(identity(2), nonce=bytes([2]) * 16, peer=None)
    with pytest.raises(WireError, match="node 1 called node 3, this is node 2"):
        b.receive(a.opening())


def test_answer_of_another_node_than_the_one_called_is_refused() -> None:
    a = SecureStream(identity(1), nonce=bytes([1]) * 16, peer=2)
    stranger = SecureStream(identity(3), nonce=bytes([3]) * 16, peer=1)
    with pytest.raises(WireError, match="node 3 called node 1"):
        a.receive(stranger.opening())


def test_content_is_hidden_and_the_same_one_never_looks_the_same() -> None:
    a, b = connected()
    content = b"203.0.113.100:41234 to 10.11.12.101:8080"
    frames = [a.seal(content) for _ in range(3)]
    assert len(set(frames)) == len(frames)
    seen = b"".join(frames)
    assert not any(content[i : i + 6] in seen for i in range(len(content) - 5))
    assert b.receive(seen)[0] == [content] * 3


def test_frame_whose_bits_are_changed_is_refused() -> None:
    a, _ = connected()
    frame = a.seal(b"vote")
    for position in range(4, len(frame)):
        _, b = connected()
        damaged = bytearray(frame)
        damaged[position] ^= 1
        with pytest.raises(WireError, match="wrong tag"):
            b.receive(bytes(damaged))


def test_repeated_frame_is_refused() -> None:
    a, b = connected()
    frame = a.seal(b"vote")
    b.receive(frame)
    with pytest.raises(WireError, match="wrong tag"):
        b.receive(frame)


def test_frame_of_another_connection_is_refused() -> None:
    a, _ = connected()
    c, d = pair(identity(1), identity(2))
    d = SecureStream(identity(2), nonce=bytes([9]) * 16, peer=None)
    _, reply = d.receive(c.opening())
    c.receive(reply)
    with pytest.raises(WireError, match="wrong tag"):
        d.receive(a.seal(b"vote"))


def test_own_frame_sent_back_is_refused() -> None:
    a, _ = connected()
    with pytest.raises(WireError, match="wrong tag"):
        a.receive(a.seal(b"vote"))


@given(st.binary(min_size=24, max_size=400))
def test_garbage_is_refused_before_it_is_stored(garbage: bytes) -> None:
    _, b = pair(identity(1), identity(2))
    try:
        contents, reply = b.receive(garbage)
    except WireError:
        return
    assert (contents, reply) == ([], b"")


def test_frame_beyond_the_limit_is_refused_by_its_length() -> None:
    _, b = connected()
    with pytest.raises(WireError, match="a frame of"):
        b.receive((FRAME_BYTES_MAX + 1).to_bytes(4, "big"))
