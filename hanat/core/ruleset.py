"""Put a configuration into nftables text: what to translate, and the gate before it.

Two scripts, each one transaction for `Firewall.apply` or `Gate.install`:

- The *ruleset*, table ``inet hanat``, is replaced as a whole. Established flows
  do not notice: their translation lives in the connection-tracking table. Only
  the first packet of a flow meets these rules.
- The *gate*, tables ``inet hanat_gate`` and ``arp hanat_gate``, is brought up to
  date in place, because its sets hold the rights granted at this moment. What it
  means is told in docs/lease.md.

The same configuration always gives the same text, so comparing two texts tells
whether there is anything to apply.

Source addresses are translated by ``snat to`` the floating address, never by
masquerade: masquerade takes the device's first address, and its entries are
destroyed when an address leaves the device, which is what a takeover does.

Everything applies only to packets that enter by a device of hanat, since only
those pass the gate: a node without rights must not translate what comes to it
by another way.

What the nodes say to each other is kept out of connection tracking: with the table
full the kernel drops every packet that would need an entry, and a flood of clients
would cost the lease. Raising ``nf_conntrack_max`` was considered: it moves the limit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from itertools import chain, groupby

from hanat.core.configuration import (
    Configuration,
    Interface,
    Listen,
    Network,
    RealServer,
    Scheduler,
    VirtualService,
)
from hanat.core.conversation import Conversation

TABLE = "hanat"
GATE_TABLE = "hanat_gate"

# Between conntrack (-200), whose state the gate asks for, and nat (-100), which
# would hide that a packet was meant for a floating address.
GATE_PRIORITY = -140

# Any fixed number: all nodes must send one client to the same server.
HASH_SEED = 0x68616E61

# Up to here the turns of a weighted service are interleaved, one map element a
# turn; above, each server gets one contiguous range. An element costs nft 15 us.
SLOTS_INTERLEAVED_MAX = 64

EVERY_EVENT = "new,reply,assured,destroy,protoinfo"  # that has a say in what a flow is
FAMILIES = (4, 6)
IP = {4: "ip", 6: "ip6"}
ADDRESS_TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}

# Errors belong to paths and sizes of connections; echo is how operators look
# whether the address lives. RFC 4890 section 4.4.1 for IPv6.
ICMP_ACCEPTED = "echo-request, destination-unreachable, time-exceeded, parameter-problem"
ICMPV6_ACCEPTED = (
    "echo-request, destination-unreachable, packet-too-big, time-exceeded, "
    "parameter-problem, nd-neighbor-solicit, nd-neighbor-advert"
)


@dataclass(frozen=True, slots=True)
class Share:
    """A server's part of the turns `first` to `last`, both included."""

    first: int
    last: int
    server: RealServer

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def shares(scheduler: Scheduler, servers: Iterable[RealServer]) -> tuple[Share, ...]:
    """Divide the turns of a service among its servers.

    Returns:
        Shares in order, without gaps from turn 0 on; empty if no server has a weight.

    Source: the interleaving is nginx's smooth weighted round robin
    (``ngx_http_upstream_round_robin.c``).
    """
    rotation = [server for server in servers if server.weight > 0]
    weights = [1 if scheduler is Scheduler.RR else server.weight for server in rotation]
    divisor = math.gcd(*weights) or 1
    weights = [weight // divisor for weight in weights]
    if scheduler is Scheduler.WRR and sum(weights) <= SLOTS_INTERLEAVED_MAX:
        runs = [(index, len(list(run))) for index, run in groupby(_smooth(tuple(weights)))]
    else:
        runs = list(enumerate(weights))
    found, first = [], 0
    for index, length in runs:
        found.append(Share(first, first + length - 1, rotation[index]))
        first += length
    return tuple(found)


@lru_cache(maxsize=1024)
def _smooth(weights: tuple[int, ...]) -> tuple[int, ...]:
    total, credit, turns = sum(weights), [0] * len(weights), []
    for _ in range(total):
        credit = [have + weight for have, weight in zip(credit, weights, strict=True)]
        chosen = max(range(len(credit)), key=credit.__getitem__)
        credit[chosen] -= total
        turns.append(chosen)
    return tuple(turns)


def render_ruleset(
    configuration: Configuration, devices: Mapping[str, str], conversation: Conversation
) -> str:
    """Return the script that replaces the translation rules.

    Args:
        configuration: What to publish and to translate.
        devices: Kernel name of each logical interface of the configuration.
        conversation: What not to track.
    """
    ports = _devices_of(configuration, devices)
    blocks: list[list[str]] = []
    for service in configuration.services:
        for version in FAMILIES:
            blocks += _service_chains(service, version)
    blocks += _dispatch_maps(configuration)
    blocks += [
        _prerouting_chain(configuration, ports),
        _postrouting_chain(configuration, devices, ports),
        _events_chain(configuration, ports),
        *_input_chains(configuration),
        *_untracked_chains(configuration, conversation),
    ]
    body = "\n\n".join("\n".join(f"    {line}" for line in block) for block in blocks if block)
    return (
        f"# hanat: ruleset of cluster {configuration.name}\n"
        f"add table inet {TABLE}\ndelete table inet {TABLE}\n"
        f"table inet {TABLE} {{\n{body}\n}}\n"
    )


def _devices_of(configuration: Configuration, devices: Mapping[str, str]) -> tuple[str, ...]:
    missing = [name for name in configuration.interfaces if name not in devices]
    assert not missing, f"no device for the interfaces {missing}; devices are {dict(devices)}"
    return tuple(sorted(devices[name] for name in configuration.interfaces))


def _addresses_of(configuration: Configuration, version: int) -> list[Interface]:
    return sorted(
        address
        for vip in configuration.vips
        for address in vip.addresses
        if address.version == version
    )


def _chain(name: str, lines: Iterable[str]) -> list[str]:
    return [f"chain {name} {{", *(f"    {line}" for line in lines), "}"]


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _chain_name(kind: str, *names: str, version: int) -> str:
    """Return e.g. ``service/web/v4``; the slash cannot be part of a name."""
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name), f"{name!r} cannot be part of a chain's name"
    return "/".join((kind, *names, f"v{version}"))


def _service_chains(service: VirtualService, version: int) -> list[list[str]]:
    listens = [listen for listen in service.listens if listen.address.version == version]
    if not listens:
        return []
    servers = [server for server in service.servers if server.address.version == version]
    name = _chain_name("service", service.name, version=version)
    about = f"# {service.scheduler.value}: " + (
        ", ".join(f"{server.name} weight {server.weight}" for server in servers) or "no server"
    )
    parts = shares(service.scheduler, servers)
    if not parts:
        return [_chain(name, [about, "counter drop"])]
    protocols = _protocols(listens)
    rotation = list(dict.fromkeys(part.server for part in parts))
    if len(rotation) == 1:
        return [_chain(name, [about, _dnat(rotation[0], version, protocols)])]
    turns = _turns(service.scheduler, parts[-1].last + 1, version)
    if len({server.port is None for server in rotation}) == 1:
        wanted = ", ".join(f"{part} : {_target(part.server)}" for part in parts)
        rule = f"{protocols} dnat {IP[version]} to {turns} map {{ {wanted} }}"
        return [_chain(name, [about, rule])]
    # One map holds addresses with a port or addresses without, never both.
    chains = {
        server.name: _chain_name("server", service.name, server.name, version=version)
        for server in rotation
    }
    wanted = ", ".join(f"{part} : goto {chains[part.server.name]}" for part in parts)
    return [
        *(_chain(chains[s.name], [_dnat(s, version, protocols)]) for s in rotation),
        _chain(name, [about, f"{turns} vmap {{ {wanted} }}"]),
    ]


def _protocols(listens: Iterable[Listen]) -> str:
    """Return the match nft demands before it accepts a port to translate to."""
    names = sorted({listen.protocol.value for listen in listens})
    return f"meta l4proto {names[0]}" if len(names) == 1 else "meta l4proto { tcp, udp }"


def _turns(scheduler: Scheduler, count: int, version: int) -> str:
    if scheduler is Scheduler.SH:
        return f"jhash {IP[version]} saddr mod {count} seed {HASH_SEED:#x}"
    return f"numgen inc mod {count}"


def _target(server: RealServer) -> str:
    return str(server.address) + (f" . {server.port}" if server.port is not None else "")


def _dnat(server: RealServer, version: int, protocols: str) -> str:
    target = str(server.address)
    if server.port is not None:
        target = f"[{target}]:{server.port}" if version == 6 else f"{target}:{server.port}"
    return f"{protocols} dnat {IP[version]} to {target}"


def _dispatch_maps(configuration: Configuration) -> list[list[str]]:
    """Return the maps from what a packet asks for to the chain of its service."""
    blocks = []
    for version in FAMILIES:
        for name, ranges in (("listens", False), ("ranges", True)):
            elements = _dispatch_elements(configuration, version, ranges=ranges)
            if not elements:
                continue
            kind = f"{ADDRESS_TYPE[version]} . inet_proto . inet_service : verdict"
            blocks.append([
                f"map {name}_v{version} {{",
                f"    type {kind}",
                *(["    flags interval"] if ranges else []),
                "    elements = {",
                *(f"        {element}," for element in elements),
                "    }",
                "}",
            ])  # fmt: skip
    return blocks


def _dispatch_elements(configuration: Configuration, version: int, *, ranges: bool) -> list[str]:
    found = []
    for service in configuration.services:
        chain = _chain_name("service", service.name, version=version)
        for listen in service.listens:
            is_range = listen.first_port != listen.last_port
            if listen.address.version == version and is_range is ranges:
                port = f"{listen.first_port}-{listen.last_port}" if ranges else listen.first_port
                wanted = f"{listen.address} . {listen.protocol.value} . {port}"
                found.append(f"{wanted} : goto {chain}")
    return found


def _prerouting_chain(configuration: Configuration, ports: Sequence[str]) -> list[str]:
    lines = ["type nat hook prerouting priority dstnat; policy accept;"]
    if ports:
        lines.append(f"iifname != {{ {_quoted(ports)} }} accept")
    for version in FAMILIES:
        key = f"{IP[version]} daddr . meta l4proto . th dport"
        # A single port is more specific than a range around it.
        for name, ranges in (("listens", False), ("ranges", True)):
            if _dispatch_elements(configuration, version, ranges=ranges):
                lines.append(f"{key} vmap @{name}_v{version}")
    return _chain("prerouting", lines)


def _postrouting_chain(
    configuration: Configuration, devices: Mapping[str, str], ports: Sequence[str]
) -> list[str]:
    lines = ["type nat hook postrouting priority srcnat; policy accept;"]
    if ports:
        lines.append(f"iifname != {{ {_quoted(ports)} }} accept")
    lines.append("# a client beside the server: the answer has to come back through here")
    for vip in configuration.vips:
        device = devices[vip.interface]
        for address in sorted(vip.addresses, key=lambda a: a.version):
            family = IP[address.version]
            lines.append(
                f'iifname "{device}" oifname "{device}" {family} saddr {address.network} '
                f"ct status dnat snat {family} to {address.ip}"
            )
    lines.append("ct status dnat accept")
    for masquerade in configuration.masquerades:
        device = devices[masquerade.interface]
        for source in sorted(masquerade.sources, key=lambda a: a.version):
            networks = _networks(masquerade.networks, source.version)
            if networks:
                family = IP[source.version]
                lines.append(
                    f'oifname "{device}" {family} saddr {{ {", ".join(networks)} }} '
                    f"snat {family} to {source}"
                )
    return _chain("postrouting", lines)


def _networks(networks: Iterable[Network], version: int) -> list[str]:
    """Return the networks of one version without overlaps, which nft refuses."""
    if version == 4:
        v4 = [network for network in networks if isinstance(network, IPv4Network)]
        return [str(network) for network in collapse_addresses(v4)]
    v6 = [network for network in networks if isinstance(network, IPv6Network)]
    return [str(network) for network in collapse_addresses(v6)]


def _events_chain(configuration: Configuration, ports: Sequence[str]) -> list[str]:
    """Spare the kernel to build events nobody reads: of four a short TCP flow, one is left.

    When TCP says goodbye its state is of interest, too: the entry itself ends minutes later.
    """
    if not ports:
        return []
    ours = f"iifname {{ {_quoted(ports)} }}"
    lines = [
        "type filter hook prerouting priority -150; policy accept;",
        f"{ours} ct state new ct event set assured,destroy",
        f"{ours} tcp flags & (fin | rst) != 0 ct event set assured,destroy,protoinfo",
    ]
    wanted = (s.listens for s in configuration.services if s.replicate.unassured)
    for listen in chain.from_iterable(wanted):
        asked = f"{IP[listen.address.version]} daddr {listen.address} {listen.protocol.value}"
        port = f"{listen.first_port}-{listen.last_port}"
        lines.append(f"{ours} {asked} dport {port} ct state new ct event set {EVERY_EVENT}")
    return _chain("events", lines)


def _input_chains(configuration: Configuration) -> list[list[str]]:
    """Return what may be delivered to a floating address itself.

    A packet of a flow this node does not know must vanish: answered, it would be
    answered by a reset, and the flow be lost that the next retransmission finds.
    """
    floating = [
        "ct state established,related accept",
        f"icmp type {{ {ICMP_ACCEPTED} }} accept",
        f"icmpv6 type {{ {ICMPV6_ACCEPTED} }} accept",
        "counter drop",
    ]
    entry = ["type filter hook input priority filter; policy accept;"]
    for version in FAMILIES:
        addresses = ", ".join(str(a.ip) for a in _addresses_of(configuration, version))
        if addresses:
            entry.append(f"{IP[version]} daddr {{ {addresses} }} goto floating")
    return [_chain("floating", floating), _chain("input", entry)]


def _untracked_chains(configuration: Configuration, conversation: Conversation) -> list[list[str]]:
    """Return what spares the cluster's own packets an entry in the connection tracking.

    Both ends are named: a service may publish the same port, clients may use it as their
    source, and a peer may be a client. Untracked, none of them would be translated.
    """
    incoming, outgoing = [], []
    for version in FAMILIES:
        floating = {address.ip for address in _addresses_of(configuration, version)}
        own, peers = (
            ", ".join(str(a) for a in some if a.version == version and a not in floating)
            for some in (conversation.own, conversation.peers)
        )
        if own and peers:
            family = IP[version]
            incoming.append(f"{family} saddr {{ {peers} }} {family} daddr {{ {own} }} goto cluster")
            outgoing.append(f"{family} saddr {{ {own} }} {family} daddr {{ {peers} }} goto cluster")
    if not incoming:
        return []
    ports = (("tcp", conversation.raft_port), ("udp", conversation.mesh_port))
    untracked = [
        f"{protocol} {end} {port} notrack" for protocol, port in ports for end in ("dport", "sport")
    ]
    hook = "type filter hook {} priority raw; policy accept;"
    return [
        _chain("cluster", untracked),
        _chain("cluster_in", [hook.format("prerouting"), *incoming]),
        _chain("cluster_out", [hook.format("output"), *outgoing]),
    ]


def render_gate(configuration: Configuration, devices: Mapping[str, str]) -> str:
    """Return the script that puts the gate in place or brings it up to date.

    The sets `answers` and `carries` hold kernel names of devices, `permit` whether they may be
    filled (docs/lease.md); they are never emptied here. The node's own addresses are reachable
    whatever they hold.
    """
    ports = _devices_of(configuration, devices)
    vips = {version: _addresses_of(configuration, version) for version in FAMILIES}
    lines = [f"# hanat: gate of cluster {configuration.name}"]
    lines += _gate_inet(ports, vips)
    lines += _gate_arp(vips[4])
    return "\n".join(lines) + "\n"


def _gate_inet(ports: Sequence[str], vips: Mapping[int, Sequence[Interface]]) -> list[str]:
    table = f"inet {GATE_TABLE}"
    hook = f"hook prerouting priority {GATE_PRIORITY}; policy accept;"
    targets = ", ".join(f"0x{int(a.ip):032x}" for a in vips[6])
    guarded = [
        # NAT leaves these as they are: they would show the inside to the outside.
        "ct state invalid counter drop",
        "iifname @answers accept",
        "ct state established,related iifname @carries accept",
        "counter drop",
    ]
    prerouting = [
        "iifname != @ports accept",
        "ip daddr @vips_v4 goto guarded",
        "ip6 daddr @vips_v6 goto guarded",
        "fib daddr type != { local, broadcast, multicast, anycast } goto guarded",
    ]
    # After NAT: what is still meant for a floating address is meant for this node.
    entry = [
        "iifname != @ports accept",
        "iifname @answers accept",
        "ip daddr @vips_v4 counter drop",
        "ip6 daddr @vips_v6 counter drop",
    ]
    output = [
        "oifname != @ports accept",
        "oifname @answers accept",
        # Also what neighbour discovery answers and asks; it would carry our MAC address.
        "ip saddr @vips_v4 counter drop",
        "ip6 saddr @vips_v6 counter drop",
    ]
    if targets:
        # nft 1.0.6 has no word for the target address: 64 bits into the message.
        output.append(f"icmpv6 type nd-neighbor-advert @th,64,128 {{ {targets} }} counter drop")
    return [
        f"add table {table}",
        f"add set {table} ports {{ type ifname; }}",
        f"add set {table} answers {{ type ifname; flags timeout; }}",
        f"add set {table} carries {{ type ifname; flags timeout; }}",
        f"add set {table} permit {{ type ifname; flags timeout; }}",
        f"add set {table} vips_v4 {{ type ipv4_addr; }}",
        f"add set {table} vips_v6 {{ type ipv6_addr; }}",
        f"add chain {table} guarded",
        f"add chain {table} prerouting {{ type filter {hook} }}",
        f"add chain {table} input {{ type filter hook input priority filter; policy accept; }}",
        f"add chain {table} output {{ type filter hook output priority filter; policy accept; }}",
        *_refilled_set(table, "ports", _quoted(ports)),
        *_refilled_set(table, "vips_v4", ", ".join(str(a.ip) for a in vips[4])),
        *_refilled_set(table, "vips_v6", ", ".join(str(a.ip) for a in vips[6])),
        *_refilled_chain(table, "guarded", guarded),
        *_refilled_chain(table, "prerouting", prerouting),
        *_refilled_chain(table, "input", entry),
        *_refilled_chain(table, "output", output),
    ]


def _gate_arp(vips: Sequence[Interface]) -> list[str]:
    """Return the rules for ARP, where Linux answers on any device for any address.

    Requests come in: whoever gave up an address learns from them where it went.
    """
    table = f"arp {GATE_TABLE}"
    output = [
        "oifname @answers accept",
        "arp saddr ip @vips counter drop",
    ]
    return [
        f"add table {table}",
        f"add set {table} answers {{ type ifname; flags timeout; }}",
        f"add set {table} vips {{ type ipv4_addr; }}",
        f"add chain {table} output {{ type filter hook output priority filter; policy accept; }}",
        *_refilled_set(table, "vips", ", ".join(str(a.ip) for a in vips)),
        *_refilled_chain(table, "output", output),
    ]


def _refilled_set(table: str, name: str, elements: str) -> list[str]:
    flush = [f"flush set {table} {name}"]
    return [*flush, f"add element {table} {name} {{ {elements} }}"] if elements else flush


def _refilled_chain(table: str, name: str, rules: Iterable[str]) -> list[str]:
    return [
        f"flush chain {table} {name}",
        *(f"add rule {table} {name} {rule}" for rule in rules),
    ]
