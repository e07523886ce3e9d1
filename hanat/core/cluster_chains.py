"""Let the cluster's own packets through, and nobody else's to its ports.

What the nodes say to each other is kept out of connection tracking: with the table
full the kernel drops every packet that would need an entry, and a flood of clients
would cost the lease. Raising ``nf_conntrack_max`` was considered: it moves the limit.

What a stranger says to the same ports is dropped in the same place, before connection
tracking and before it costs a process anything. A peer's packet is known by its address,
by the device that has the path's own address, and, where the peer is reached without a
router, by a TTL or hop limit of 255: a router takes one off, so nobody behind one can
send it (RFC 5082, GTSM). Of TCP only what opens a connection must have it: resets and
answers for closed connections come from the kernel itself, which sends its default.

All this keeps off strangers that forge an address; it proves nothing. Who speaks is told
by the codes in what is said.
"""

from __future__ import annotations

from collections.abc import Iterator

from hanat.core.configuration import Address, Configuration
from hanat.core.control_traffic import ControlTraffic
from hanat.core.notation import FAMILIES, IP, addresses_of, chain

PORT_BITS_MAX = 6  # in which the two ports may differ; 64 ports are looked at more closely then

_HOOK = "type filter hook {} priority raw; policy accept;"


def cluster_chains(configuration: Configuration, conversation: ControlTraffic) -> list[list[str]]:
    """Return the chains of the cluster's own packets; none in a cluster of one.

    Both ends are named: a service may publish the same port, clients may use it as their
    source, and a peer may be a client. Untracked, none of them would be translated.
    """
    incoming, outgoing, asked = [], [], []
    ports = (("tcp", conversation.raft_port), ("udp", conversation.mesh_port))
    for version in FAMILIES:
        floating = {address.ip for address in addresses_of(configuration, version)}
        own, peers = (
            ", ".join(str(a) for a in some if a.version == version and a not in floating)
            for some in (conversation.own, conversation.peers)
        )
        if not own or not conversation.peers:
            continue
        family, name = IP[version], f"cluster_asked_v{version}"
        incoming += [
            f"{family} daddr {{ {own} }} {protocol} dport {port} goto {name}"
            for protocol, port in ports
        ]
        asked.append(chain(name, [*_peers(conversation, version, peers), "counter drop"]))
        if peers:
            incoming.append(f"{family} saddr {{ {peers} }} {family} daddr {{ {own} }} goto cluster")
            outgoing.append(f"{family} saddr {{ {own} }} {family} daddr {{ {peers} }} goto cluster")
    if not incoming:
        return []
    untracked = [
        f"{protocol} {end} {port} notrack" for protocol, port in ports for end in ("dport", "sport")
    ]
    on_link = [
        "ip ttl 255 goto cluster",
        "ip6 hoplimit 255 goto cluster",
        "tcp flags & (syn | ack) != syn goto cluster",
        "counter drop",
    ]
    return [
        chain("cluster", untracked),
        chain("cluster_on_link", on_link),
        *asked,
        chain("cluster_ports", incoming),
        chain("cluster_in", [_HOOK.format("prerouting"), *_of_ports(conversation)]),
        chain("cluster_out", [_HOOK.format("output"), *outgoing]),
    ]


def _of_ports(conversation: ControlTraffic) -> Iterator[str]:
    """Yield the rules that tell what may be the cluster's from what every other packet is.

    Each packet meets them, so they are few and cheap: ports before addresses, and both ports in
    one comparison if they are near each other. That lets some others into the chain, too.
    """
    one, other = sorted((conversation.raft_port, conversation.mesh_port))
    spread = (one ^ other).bit_length()
    for end in ("dport", "sport"):
        if spread <= PORT_BITS_MAX:
            mask = (0xFFFF << spread) & 0xFFFF
            yield f"th {end} & {mask:#06x} == {one & mask:#06x} goto cluster_ports"
        else:
            yield from (f"th {end} {port} goto cluster_ports" for port in (one, other))


def _peers(conversation: ControlTraffic, version: int, peers: str) -> Iterator[str]:
    """Yield the rules that know a peer's packet to this node's ports."""
    family = IP[version]
    paths = [path for path in conversation.paths if path.own.version == version]
    if not conversation.paths:
        if peers:
            yield f"{family} saddr {{ {peers} }} goto cluster"
        return
    for path in paths:
        for addresses, ours, then in (
            (path.on_link, f'iifname "{path.device}" ', "cluster_on_link"),
            (path.routed, "", "cluster"),  # by which device depends on routes
        ):
            if addresses:
                yield (
                    f"{ours}{family} saddr {{ {_listed(addresses)} }} {family} daddr {path.own} "
                    f"goto {then}"
                )


def _listed(addresses: tuple[Address, ...]) -> str:
    return ", ".join(map(str, addresses))
