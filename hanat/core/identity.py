"""Who a node is to others, and how what it says is authenticated.

Source: RFC 7693 (BLAKE2), section 2.9 (keyed hashing).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b

from hanat.core.members import Members, named
from hanat.errors import WireError

CODE_BYTES = 16


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a node is to others.

    Attributes:
        key: The cluster key, 32 bytes: what this node says is sealed with it.
        cluster: The cluster's name; nodes of another cluster are refused by it.
        lease_s: Of the cluster's profile, whatever this node makes of it; a peer with another
            profile is refused.
        node_id: This node.
        members: All nodes, ids ascending; a peer that counts others is refused, or there
            could be two majorities.
        accepted: A second key that a peer may use, while the key is changed; empty for none.
    """

    key: bytes = field(repr=False)  # no log, no traceback tells it
    cluster: str
    lease_s: float
    node_id: int
    members: Members = ()
    accepted: bytes = field(default=b"", repr=False)

    @property
    def keys(self) -> tuple[bytes, ...]:
        """What peers may use, the own key first."""
        return (self.key, self.accepted) if self.accepted else (self.key,)

    @property
    def cluster_id(self) -> bytes:
        """Eight bytes that stand for the cluster's name."""
        return blake2b(self.cluster.encode(), digest_size=8).digest()

    def check_members(self, sender: int, members: Members) -> None:
        """Refuse a peer that has another member list.

        Raises:
            WireError: It has.
        """
        if members != self.members:
            raise WireError(
                f"node {sender} has nodes {named(members)} in its node file, this node has "
                f"{named(self.members)}; the list of peers must be the same on all nodes: "
                "stop all, correct it, start all"
            )


def code(key: bytes, purpose: bytes, content: bytes) -> bytes:
    """Return the code that authenticates `content` for one purpose."""
    return blake2b(content, digest_size=CODE_BYTES, key=key, person=purpose).digest()


def fingerprint(key: bytes) -> str:
    """Return what tells a key from others without telling the key: eight hexadecimal digits."""
    return blake2b(key, digest_size=4, person=b"fingerprint").hexdigest()
