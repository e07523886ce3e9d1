"""Streams damaged on their way: what arrives is what was sent, or the connection ends."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest

from hanat.errors import WireError
from hanat.raft.messages import decode
from tests.net.test_secure_stream import connected, identity, pair
from tests.raft import fuzz


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_stream_delivers_what_was_sent_or_nothing(seed: int) -> None:
    _damage_streams(seed, streams=500)


@pytest.mark.swarm
@pytest.mark.parametrize("seed", range(100, 120))
def test_a_hundred_thousand_damaged_streams(seed: int) -> None:
    _damage_streams(seed, streams=5000)


def _damage_streams(seed: int, *, streams: int) -> None:
    rng = random.Random(seed)
    refused = 0
    for _ in range(streams):
        sender, receiver = connected()
        sent = [fuzz.encoded(rng, term=1, last=(6, 1)) for _ in range(rng.randint(1, 4))]
        stream = fuzz.mutated(rng, b"".join(map(sender.seal, sent)))
        got: list[bytes] = []
        try:
            while stream:
                size = rng.randint(1, len(stream))
                got += receiver.receive(stream[:size])[0]
                stream = stream[size:]
        except WireError:
            refused += 1
        assert got == sent[: len(got)]
    assert refused


@pytest.mark.parametrize("seed", range(2))
def test_a_damaged_hello_is_refused(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(500):
        dialler, acceptor = pair(identity(1), identity(2))
        damaged = fuzz.mutated(rng, dialler.opening())
        with suppress(WireError):
            # Zeros behind it: a frame of no length, if the hello was left as it was. It may
            # have become the beginning of a longer frame behind a whole hello.
            acceptor.receive(damaged + bytes(300))
            assert damaged.startswith(dialler.opening())
        assert not acceptor.established


@pytest.mark.parametrize("seed", range(2))
def test_any_bytes_are_a_message_or_refused(seed: int) -> None:
    rng = random.Random(seed)
    refused = 0
    for _ in range(2000):
        try:
            decode(fuzz.mutated(rng, fuzz.encoded(rng, term=1, last=(6, 1))))
        except WireError:
            refused += 1
    assert refused
