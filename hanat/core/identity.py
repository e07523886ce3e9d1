"""Who a node is to others, and how what it says is authenticated.

Source: RFC 7693 (BLAKE2), section 2.9 (keyed hashing).
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

CODE_BYTES = 16


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a node is to others.

    Attributes:
        key: The cluster key, 32 bytes.
        cluster: The cluster's name; nodes of another cluster are refused by it.
        lease_s: Length of the promises this node gives; a peer that counts on another
            length is refused, or two nodes could believe in a lease.
        node_id: This node.
    """

    key: bytes
    cluster: str
    lease_s: float
    node_id: int

    @property
    def cluster_id(self) -> bytes:
        """Eight bytes that stand for the cluster's name."""
        return blake2b(self.cluster.encode(), digest_size=8).digest()


def code(key: bytes, purpose: bytes, content: bytes) -> bytes:
    """Return the code that authenticates `content` for one purpose."""
    return blake2b(content, digest_size=CODE_BYTES, key=key, person=purpose).digest()
