"""The member list: the ids of all nodes of the cluster, as a node's own file has them.

A majority means something only if all nodes count the same ones: with three nodes in one
file and five in another there are two majorities, and two holders. So each node tells its
list in every hello and beacon, a peer with another list is refused, and the journal keeps
the list under which its node last took part (`hanat.raft.durability`).

Only the ids matter: they say who counts, and how many are a majority. Addresses may change
node by node. The list itself travels, not a digest: it takes no more room, and the refusal
can say which list is meant.
"""

from __future__ import annotations

from collections.abc import Iterable

Members = tuple[int, ...]  # ids, ascending; empty if not known

BYTES = 8  # a cluster has at most five nodes, an id is one byte


def members_of(node_ids: Iterable[int]) -> Members:
    """Return the member list of these nodes."""
    members = tuple(sorted(set(node_ids)))
    assert len(members) <= BYTES, members
    return members


def pack(members: Members) -> bytes:
    """Return a list in `BYTES` bytes, for files and datagrams."""
    return bytes(members).ljust(BYTES, b"\0")


def unpack(packed: bytes) -> Members:
    """Return what was packed."""
    return tuple(packed.rstrip(b"\0"))


def named(members: Members) -> str:
    """Return a list for people."""
    return ", ".join(map(str, members)) or "nobody"


def drops_majority(old: Members, new: Members) -> bool:
    """Say whether a change leaves out a majority of the nodes that there were.

    What is committed is on a majority of the old nodes. If less than that leaves, one that
    knows of it is left, and no majority of the old nodes can go on without the new ones.
    """
    return 2 * len(set(old) - set(new)) > len(old)
