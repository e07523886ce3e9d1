"""Tell the peers that a daemon is dead and its node has stopped answering.

A peer that promised its lease to a dead daemon would wait until the promise ends.
Whoever watched the daemon die, and saw the kernel confirm that this node answers
no longer, says so: peers forget what they promised to that incarnation at once.

The statement is true for ever, as an incarnation is drawn anew at each start and
never returns. So a datagram may be repeated, delayed or replayed without harm, it
needs neither number nor time, and it may be sealed before it is needed. That is how
it is used: the daemon, which knows the cluster key, seals the release of itself and
leaves it with its supervisor, which needs no key.

Layout: magic, version, cluster id, sender, incarnation, code. The code is a keyed
BLAKE2 under a key derived from the cluster key for nothing but releases.
"""

from __future__ import annotations

from hmac import compare_digest
from struct import Struct

from hanat.core.feature_level import OLDEST, is_readable, readable
from hanat.core.identity import CODE_BYTES, Identity, code
from hanat.errors import WireError

MAGIC = b"hanat/R\n"

_FACT = Struct(f"!{len(MAGIC)}sB8sBQ")
DATAGRAM_BYTES = _FACT.size + CODE_BYTES


def seal_release(identity: Identity, incarnation: int, level: int = OLDEST) -> bytes:
    """Return the datagram that says this incarnation of this node is dead and silent.

    Args:
        identity: The node that died.
        incarnation: The 64 bits its daemon drew at its start.
        level: The feature level to write (`core.feature_level`).
    """
    fact = _FACT.pack(MAGIC, level, identity.cluster_id, identity.node_id, incarnation)
    return fact + _code(identity.key, fact)


def is_release(datagram: bytes) -> bool:
    """Say whether a datagram claims to be a release, of whatever version."""
    return datagram.startswith(MAGIC)


def open_release(identity: Identity, datagram: bytes) -> tuple[int, int]:
    """Return who is dead: the sender's node id, and the incarnation.

    Args:
        identity: The node that received it.
        datagram: What came.

    Raises:
        WireError: Not a release, of another version, cluster or key, or damaged.
    """
    if not is_release(datagram) or len(datagram) <= len(MAGIC):
        raise WireError("no release of a hanat node")
    level = datagram[len(MAGIC)]
    if not is_readable(level):
        raise WireError(f"a release of feature level {level}, this node reads {readable()}")
    if len(datagram) != DATAGRAM_BYTES:
        raise WireError(f"a release of {len(datagram)} bytes, it has {DATAGRAM_BYTES}")
    fact, given = datagram[: _FACT.size], datagram[_FACT.size :]
    _, _, cluster_id, sender, incarnation = _FACT.unpack(fact)
    if cluster_id != identity.cluster_id:
        raise WireError(f"a release of node {sender} of another cluster")
    if not any(compare_digest(given, _code(key, fact)) for key in identity.keys):
        raise WireError(
            f"a release of node {sender} with a wrong code: another cluster key, damaged or forged"
        )
    return sender, incarnation


def _code(key: bytes, fact: bytes) -> bytes:
    derived = code(key, b"release key", b"")
    return code(derived, b"release", fact)
