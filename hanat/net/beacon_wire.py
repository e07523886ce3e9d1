"""The bytes of a beacon: a clear header, and a sealed body.

Each start of a node has an *incarnation*, a random number, and each datagram of an
incarnation a *sequence* number of its own. Both make the nonce: the key is derived
from the cluster key, the sender and the incarnation, the nonce is the sequence
number, so no pair of key and nonce is used twice.

Header, in clear but authenticated: magic, feature level of the body, newest level that the sender
speaks (`core.feature_level`), cluster id, sender, receiver, incarnation, sequence. Body,
AES-128-GCM: which beacon of the receiver was heard last (*echo*), length of the sender's promises,
its member list, the view (`core.beacon`), and perhaps one Raft message, opaque here.

Source: RFC 5116 (authenticated encryption); NIST SP 800-38D, section 8.2.1 (nonces by counter).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from struct import Struct
from struct import error as StructFault  # noqa: N812 - `error` says too little
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hanat.core import members
from hanat.core.beacon import Beacon, Promised
from hanat.core.feature_level import LEVEL, OLDEST, is_readable, readable
from hanat.core.identity import Identity, code
from hanat.errors import WireError

MAGIC = b"hntb"
DATAGRAM_BYTES_MAX = 1200  # below any path's MTU, so never a fragment

_HEADER = Struct("!4sBB8sBBQQ")
_ORIGIN = Struct("!BQ")
_NONCE = Struct("!4xQ")
_BODY = Struct(f"!QQII{members.BYTES}sQBQBQQQH4BBBQ")
_LEADS, _ASKS, _PROMISED, _FIT, _COMPLETE, _REFUSES, _UNSAFE = 1, 2, 4, 8, 16, 32, 64
_SHUT = 128
_TAG_BYTES = 16


class Mark(NamedTuple):
    """One datagram of one start of a node; (0, 0) stands for none."""

    incarnation: int
    sequence: int


NOTHING = Mark(0, 0)


class Datagram(NamedTuple):
    """What one datagram says.

    Attributes:
        mark: Which one it is.
        echo: The newest datagram of the receiver that the sender believed.
        payload: A Raft message, empty for none.
        level: In which feature level it was written, once it was.
    """

    sender: int
    receiver: int
    mark: Mark
    echo: Mark
    beacon: Beacon
    payload: bytes = b""
    level: int = OLDEST


class BeaconWire:
    """Seals and opens datagrams of one cluster; keeps the keys of the newest incarnations.

    Args:
        identity: This node.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._cluster_id = identity.cluster_id
        self._lease_us = round(identity.lease_s * 1e6)
        self._members = members.pack(identity.members)
        self._ciphers: dict[int, tuple[int, AESGCM]] = {}  # sender → incarnation, its cipher

    def seal(self, datagram: Datagram, level: int = OLDEST) -> bytes:
        """Return the bytes of a datagram of this node, in a feature level."""
        d, b = datagram, datagram.beacon
        header = _HEADER.pack(MAGIC, level, LEVEL, self._cluster_id, d.sender, d.receiver, *d.mark)
        promised = b.promised or Promised(0, 0)
        flags = b.leads * _LEADS | b.asks * _ASKS | b.fit * _FIT
        flags |= (b.promised is not None) * _PROMISED | b.complete * _COMPLETE
        flags |= b.refuses * _REFUSES | b.unsafe * _UNSAFE | b.shut * _SHUT
        body = _BODY.pack(
            d.echo.incarnation, d.echo.sequence, self._lease_us, round(b.promise_s * 1e6),
            self._members, b.term, flags,
            b.released_term, b.successor, promised.term, promised.sequence,
            b.revision, b.handicap, *b.hears, b.lively, b.answered, b.interfaces,
        )  # fmt: skip
        nonce = _NONCE.pack(d.mark.sequence)
        (cipher,) = self._ciphers_of(d.sender, d.mark.incarnation)
        return header + cipher.encrypt(nonce, body + d.payload, header)

    def open(self, data: bytes) -> Datagram:
        """Return what a datagram says, once it is known to be a peer's.

        Raises:
            WireError: No beacon, not for this node, another cluster, key, lease or member list.
        """
        if len(data) < _HEADER.size + _BODY.size + _TAG_BYTES or not data.startswith(MAGIC):
            raise WireError(f"{len(data)} bytes that are no beacon of a hanat node")
        header = data[: _HEADER.size]
        fields = _HEADER.unpack(header)
        _, level, _, cluster_id, sender, receiver, *mark = fields
        if not is_readable(level):
            raise WireError(
                f"node {sender} sends beacons of feature level {level}, this node reads "
                f"{readable()}; upgrade one version after the other"
            )
        if cluster_id != self._cluster_id:
            cluster = self._identity.cluster
            raise WireError(f"node {sender} belongs to another cluster than {cluster!r}")
        if receiver != self._identity.node_id or sender == receiver:
            raise WireError(
                f"a beacon from node {sender} to node {receiver}, this is node "
                f"{self._identity.node_id}; compare id and addresses of the peers in both "
                "node files"
            )
        cipher, body = self._decrypted(sender, Mark(*mark), data)
        try:
            datagram, lease_us, listed = _parse(fields, body)
        except StructFault as error:  # sealed with our key, so of another version
            raise WireError(f"node {sender} sends beacons of another layout: {error}") from error
        self._ciphers[sender] = (mark[0], cipher)
        if lease_us != self._lease_us:
            raise WireError(
                f"node {sender} has a lease of {lease_us / 1000:g} ms, this node of "
                f"{self._lease_us / 1000:g} ms; cluster.profile must be the same in all "
                "cluster files"
            )
        self._identity.check_members(sender, members.unpack(listed))
        return datagram

    def _decrypted(self, sender: int, mark: Mark, data: bytes) -> tuple[AESGCM, bytes]:
        """Return what a datagram carries, and the cipher that opened it."""
        header, body = data[: _HEADER.size], data[_HEADER.size :]
        for cipher in self._ciphers_of(sender, mark.incarnation):
            with suppress(InvalidTag):
                return cipher, cipher.decrypt(_NONCE.pack(mark.sequence), body, header)
        raise WireError(f"node {sender} has another cluster key, or somebody forges its beacons")

    def _ciphers_of(self, sender: int, incarnation: int) -> Sequence[AESGCM]:
        """Return the one by which a node was understood, or one for each key."""
        known, cipher = self._ciphers.get(sender, (None, None))
        if cipher is not None and known == incarnation:
            return (cipher,)
        me, origin = self._identity, _ORIGIN.pack(sender, incarnation)
        keys = me.keys[:1] if sender == me.node_id else me.keys
        ciphers = [AESGCM(code(key, b"beacon", origin)) for key in keys]
        if sender == me.node_id:
            self._ciphers[sender] = (incarnation, ciphers[0])
        return ciphers


def _parse(header: tuple[Any, ...], body: bytes) -> tuple[Datagram, int, bytes]:
    """Return what was sealed, given the fields of its header: datagram, lease, member list."""
    _, level, newest, _, sender, receiver, *mark = header
    echo_incarnation, echo_sequence, lease_us, promise_us, listed, *view = _BODY.unpack_from(body)
    term, flags, released, successor, promised_term, promised, revision, handicap, *rest = view
    *hears, lively, answered, interfaces = rest
    beacon = Beacon(
        term=term,
        leads=bool(flags & _LEADS),
        asks=bool(flags & _ASKS),
        promise_s=promise_us / 1e6,
        released_term=released,
        successor=successor,
        promised=Promised(promised_term, promised) if flags & _PROMISED else None,
        fit=bool(flags & _FIT),
        complete=bool(flags & _COMPLETE),
        revision=revision,
        refuses=bool(flags & _REFUSES),
        handicap=handicap,
        unsafe=bool(flags & _UNSAFE),
        shut=bool(flags & _SHUT),
        hears=tuple(hears),
        lively=lively,
        answered=answered,
        interfaces=interfaces,
        level=newest,
    )
    echo = Mark(echo_incarnation, echo_sequence)
    datagram = Datagram(sender, receiver, Mark(*mark), echo, beacon, body[_BODY.size :], level)
    return datagram, lease_us, listed
