"""While the cluster key is changed: who understands whom, over datagrams, streams and notices."""

from __future__ import annotations

from itertools import product

import pytest

from hanat.core.beacon import Beacon
from hanat.core.identity import Identity, fingerprint
from hanat.errors import WireError
from hanat.net.beacon_wire import NOTHING, BeaconWire, Datagram, Mark
from hanat.net.death_notice import open_release, seal_release
from hanat.net.secure_stream import SecureStream

OLD, NEW = bytes(32), bytes([1]) * 32
# A node's file in the three rounds of a change: the used key, and the accepted one.
ROUNDS = [(OLD, b""), (OLD, NEW), (NEW, OLD), (NEW, b"")]
AT_ONCE = {(a, b) for a, b in product(range(4), repeat=2) if abs(a - b) <= 1}


def identity(node_id: int, keys: tuple[bytes, bytes]) -> Identity:
    return Identity(keys[0], "edge1", 0.1, node_id, (1, 2), keys[1])


def hears_beacon(sender: Identity, receiver: Identity) -> bool:
    wire = BeaconWire(receiver)
    for sequence in (1, 2):  # the second one by the cipher of the first
        mark = Mark(7, sequence)
        said = Datagram(sender.node_id, receiver.node_id, mark, NOTHING, Beacon(1))
        try:
            assert wire.open(BeaconWire(sender).seal(said)).mark == mark
        except WireError:
            return False
    return True


def hears_notice(sender: Identity, receiver: Identity) -> bool:
    try:
        return open_release(receiver, seal_release(sender, 7)) == (sender.node_id, 7)
    except WireError:
        return False


def connects(dialler: Identity, acceptor: Identity) -> bool:
    a = SecureStream(dialler, nonce=bytes([1]) * 16, peer=acceptor.node_id)
    b = SecureStream(acceptor, nonce=bytes([2]) * 16, peer=None)
    try:
        _, reply = b.receive(a.opening())
    except WireError:
        return False
    a.receive(reply)
    return b.receive(a.seal(b"x"))[0] == [b"x"] and a.receive(b.seal(b"y"))[0] == [b"y"]


@pytest.mark.parametrize("understands", [hears_beacon, hears_notice, connects])
def test_nodes_a_round_apart_understand_each_other(understands: object) -> None:
    assert callable(understands)
    for first, second in product(range(4), repeat=2):
        sender, receiver = identity(1, ROUNDS[first]), identity(2, ROUNDS[second])
        known = sender.key in receiver.keys
        assert understands(sender, receiver) is known, (first, second)
        assert known or (first, second) not in AT_ONCE


def test_a_key_is_told_apart_without_being_told() -> None:
    assert fingerprint(OLD) != fingerprint(NEW)
    assert len(fingerprint(OLD)) == 8
    assert NEW.hex() not in repr(identity(1, (NEW, OLD)))
    assert "accepted" not in repr(identity(1, (NEW, OLD)))
