"""Between whom and where the nodes speak: what a ruleset must tell from clients' packets."""

from __future__ import annotations

from dataclasses import dataclass

from hanat.core.configuration import Address


@dataclass(frozen=True, slots=True)
class ClusterPath:
    """One of the ways between this node and its peers.

    Attributes:
        own: This node's address on it.
        device: Kernel name of the device that has this address.
        on_link: The peers' addresses on it that are reached without a router.
        routed: The others.
    """

    own: Address
    device: str
    on_link: tuple[Address, ...]
    routed: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class ControlTraffic:
    """How a node and its peers reach each other.

    Attributes:
        own: This node's own addresses.
        peers: The other nodes' addresses; empty in a cluster of one.
        raft_port: TCP, at the end that was dialled.
        mesh_port: UDP, at the receiver's end at least.
        paths: What this machine knows of them more than the files say; none if nobody looked.
    """

    own: tuple[Address, ...]
    peers: tuple[Address, ...]
    raft_port: int
    mesh_port: int
    paths: tuple[ClusterPath, ...] = ()
