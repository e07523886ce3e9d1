"""What a node says of itself to one peer, again and again: the content of a beacon.

Tuples rather than frozen dataclasses: hundreds are made each second, and making a frozen
dataclass takes three times as long.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from hanat.core.feature_level import LEVEL, OLDEST

NOBODY = 0  # node ids begin at 1
PATHS_MAX = 4  # that beacons tell of
NOBODY_HEARD = (0,) * PATHS_MAX
_DIGEST_BITS, _BITS_A_NAME = 64, 3


def digest_of(names: Iterable[str]) -> int:
    """Return a set of names as a Bloom filter of 64 bits.

    All names of a set that is contained are found in it. Of three interfaces one in a
    thousand others is found as well.

    Source: Bloom, "Space/time trade-offs in hash coding with allowable errors", 1970.
    """
    digest = 0
    for name in names:
        hashed = sha256(name.encode()).digest()
        for index in range(_BITS_A_NAME):
            digest |= 1 << hashed[index] % _DIGEST_BITS
    return digest


class Promised(NamedTuple):
    """An answer to a leader's beacon: nobody else is helped for the length of a lease.

    Attributes:
        term: The leader's term.
        sequence: Number of the leader's beacon that the promise counts from.
    """

    term: int
    sequence: int


class Beacon(NamedTuple):
    """One node's view, as told to one peer.

    Attributes:
        term: The sender's Raft term.
        leads: The sender is the leader of that term.
        asks: And it asks for a promise.
        promise_s: How long the promises last that the sender counts on when it asks.
        released_term: In this term and all before it the sender has given its lease up
            and answers no more: promises made to it are void. 0 before the first.
        successor: Whom the sender ordered to lead after `released_term`, `NOBODY` if nobody.
        promised: What the sender promised this peer last, None if nothing in `term`.
        fit: The sender can stand in for a holder: it can vote and store, it is not unsafe
            and was not told to end.
        handicap: What speaks against it, see `core.eligibility`; 0 is best.
        complete: Its kernel has all committed flows.
        revision: Newest configuration of which the sender knows whether it is in force there.
        refuses: It is not: the sender cannot use it.
        unsafe: The sender must not hold the floating addresses.
        shut: It answers for none of them now, leader or not.
        hears: For each path, one bit for each node, by its place among all sorted ids: the
            sender hears it there.
        lively: One bit for each path: its device received frames in the last seconds.
        answered: Likewise: hosts were asked there, and one answered lately.
        interfaces: Logical interfaces for which the sender has a device, see `digest_of`.
        level: Newest feature level that the sender speaks, see `core.feature_level`.
    """

    term: int
    leads: bool = False
    asks: bool = False
    promise_s: float = 0.0
    released_term: int = 0
    successor: int = NOBODY
    promised: Promised | None = None
    fit: bool = False
    complete: bool = True
    revision: int = 0
    refuses: bool = False
    handicap: int = 0
    unsafe: bool = False
    shut: bool = False
    hears: tuple[int, ...] = NOBODY_HEARD
    lively: int = 0
    answered: int = 0
    interfaces: int = 0
    level: int = LEVEL


class Heard(NamedTuple):
    """A datagram that was believed.

    Attributes:
        sequence: Its number, for a promise.
        beacon: What the peer says of itself.
        payload: A Raft message, empty for none.
        echoed_at: When this node sent what the peer heard last [s].
        promised_at: When this node sent what the peer's promise counts from [s]; None
            without a promise, or when that is too long ago.
        introduced: The peer started anew since it was heard last: tell it at once that
            it was heard, so that it can believe this node.
        level: In which feature level it was written.
    """

    peer: int
    sequence: int
    beacon: Beacon
    payload: bytes
    echoed_at: float | None
    promised_at: float | None
    introduced: bool
    level: int = OLDEST


@dataclass(frozen=True, slots=True)
class Died:
    """A peer's daemon is dead, and its node has stopped answering: promises to it are void."""

    peer: int
