"""Put a configuration into nftables text: what to translate.

The *ruleset* is table ``inet hanat``. The script replaces it as a whole; what to do when a part of
it changed is in `core.steps`. Established flows do not notice: their translation lives in the
connection-tracking table. Only the first packet of a flow meets these rules. Its services are in
`core.services`, those without flows in `core.one_packet`; the gate before it is in
`core.gate_rules`.

The same configuration always gives the same text, so comparing two texts tells
whether there is anything to apply.

Source addresses are translated by ``snat to`` the floating address, never by
masquerade: masquerade takes the device's first address, and its entries are
destroyed when an address leaves the device, which is what a takeover does.

Everything applies only to packets that enter by a device of hanat, since only
those pass the gate: a node without rights must not translate what comes to it
by another way.

What the nodes say to each other has chains of its own: `core.cluster_chains`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain as chained
from typing import NamedTuple

from hanat.core.cluster_chains import cluster_chains
from hanat.core.configuration import Address, Configuration, VirtualService
from hanat.core.control_traffic import ControlTraffic
from hanat.core.forward_policy import masqueraded, policy_blocks, transit_rules
from hanat.core.notation import (
    FAMILIES,
    IP,
    TABLE,
    addresses_of,
    chain,
    devices_of,
    quoted,
)
from hanat.core.one_packet import one_packet_blocks
from hanat.core.one_packet_turns import TURNS, turn_blocks, turn_maps
from hanat.core.services import (
    REFUSED,
    Levels,
    Rotations,
    Turns,
    dispatch_maps,
    is_dispatched,
    listens_of,
    refused_sets,
    service_chains,
)

EVERY_EVENT = "new,reply,assured,destroy,protoinfo"  # that has a say in what a flow is

# Errors belong to paths and sizes of connections; echo is how operators look
# whether the address lives. RFC 4890 section 4.4.1 for IPv6.
ICMP_ACCEPTED = "echo-request, destination-unreachable, time-exceeded, parameter-problem"
ICMPV6_ACCEPTED = (
    "echo-request, destination-unreachable, packet-too-big, time-exceeded, "
    "parameter-problem, nd-neighbor-solicit, nd-neighbor-advert"
)
# Of UDP: a probe that counts hops. No answer of a flow comes from so near its end.
LAST_HOP = ("ip ttl 1", "ip6 hoplimit 1")


class Known(NamedTuple):
    """What was rendered before, for the same devices and peers, and of what."""

    configuration: Configuration
    script: str
    turns: Turns = Turns()


_OPENING = "table inet {} {{\n"
_ENTRY = "    chain service/"
_TURN_ENTRY = f"    chain {TURNS}"
BETWEEN = "\n\n"


def render_ruleset(
    configuration: Configuration,
    devices: Mapping[str, str],
    conversation: ControlTraffic,
    *,
    rotations: Rotations | None = None,
    levels: Levels | None = None,
    known: Known | None = None,
) -> str:
    """Return the script that replaces the translation rules.

    Args:
        configuration: What to publish and to translate.
        devices: Kernel name of each logical interface of the configuration.
        conversation: What not to track.
        rotations: Who gets new clients, by service; of one without an entry all servers do.
        levels: Tables of services by counts; one that does not fit the rotation is left out.
        known: What was rendered before; spares the services that are in both configurations
            (the same objects, not only equal ones) and have equal rotations. The script is the
            same with it and without.
    """
    turns = Turns(rotations or {}, levels or {})
    ports = devices_of(configuration, devices)
    blocks = [
        _prerouting_chain(configuration, ports),
        _output_chain(configuration),
        _postrouting_chain(configuration, devices, ports),
        *_input_chains(configuration),
        *policy_blocks(configuration, devices),
        *one_packet_blocks(configuration, devices),
        *cluster_chains(configuration, conversation),
    ]
    body = [
        *_services(configuration, turns, known),
        *_texts(block for block in blocks if block),
    ]
    return (
        f"# hanat: ruleset of cluster {configuration.name}\n"
        f"add table inet {TABLE}\ndelete table inet {TABLE}\n{_table(body)}"
    )


def render_rotations(configuration: Configuration, before: Turns, after: Turns) -> tuple[str, str]:
    """Return what rotations change, as two scripts for `core.steps.steps`.

    They have nothing but the services that differ, and the elements that lead to them. So this
    takes as long as those services take, however many others there are.
    """
    changed = tuple(s for s in configuration.services if before.differ(after, s))
    part = replace(configuration, services=changed)
    old, new = (f"\n{_table(_services(part, some, None))}" for some in (before, after))
    return old, new


def _services(configuration: Configuration, turns: Turns, known: Known | None) -> Iterator[str]:
    """Yield the blocks of the services, then those that lead to them."""
    had = _services_in(known) if known is not None else {}
    targets: dict[tuple[str, int], str] = {}
    turned: dict[tuple[str, int], str] = {}
    for service in configuration.services:
        found = had.get(id(service))
        if found is None or (known and known.turns.differ(turns, service)):
            found = {
                version: _texts(chains)
                for version in FAMILIES
                if (chains := _chains_of(service, version, turns))
            }
        for version, made in found.items():
            yield from made
            targets[service.name, version] = made[-1].split(maxsplit=2)[1]
            for text in made if service.ops else ():
                if text.startswith(_TURN_ENTRY):
                    turned[service.name, version] = text.split(maxsplit=2)[1]
    yield from _texts(dispatch_maps(configuration, targets))
    yield from _texts(turn_maps(configuration, turned))
    yield from _texts(refused_sets(configuration, turns.rotations))


def _chains_of(service: VirtualService, version: int, turns: Turns) -> list[list[str]]:
    """Return the blocks of a service; those of datagrams refer to its limits, which come first."""
    rotation = turns.rotation(service)
    chains = service_chains(service, version, rotation, turns.levelled(service, version))
    if service.ops:
        chains[-1:-1] = turn_blocks(service, version, rotation)
    return chains


def _table(texts: Iterable[str]) -> str:
    return f"{_OPENING.format(TABLE)}{BETWEEN.join(texts)}\n}}\n"


def _texts(blocks: Iterable[list[str]]) -> list[str]:
    return ["\n".join(f"    {line}" for line in block) for block in blocks]


def _services_in(known: Known) -> Mapping[int, Mapping[int, list[str]]]:
    """Return the blocks of each service in a script: by its id, and by IP version.

    They come first, in the order of the services; the last block of a service and version is the
    chain that maps lead to.
    """
    blocks = iter(known.script.partition(_OPENING.format(TABLE))[2].split(BETWEEN))
    found: dict[int, dict[int, list[str]]] = {}
    for service in known.configuration.services:
        versions = {listen.address.version for listen in service.listens}
        for version in (v for v in FAMILIES if v in versions):
            chains = [next(blocks)]
            while not chains[-1].startswith(_ENTRY):
                chains.append(next(blocks))
            found.setdefault(id(service), {})[version] = chains
    return found


def _prerouting_chain(configuration: Configuration, ports: Sequence[str]) -> list[str]:
    lines = ["type nat hook prerouting priority dstnat; policy accept;"]
    if ports:
        lines.append(f"iifname != {{ {quoted(ports)} }} accept")
        lines += _event_rules(configuration)
    return chain("prerouting", [*lines, *_dispatch_rules(configuration)])


def _dispatch_rules(configuration: Configuration) -> Iterator[str]:
    for version in FAMILIES:
        key = f"{IP[version]} daddr . meta l4proto . th dport"
        # A single port is more specific than a range around it.
        for name, ranges in (("listens", False), ("ranges", True)):
            if is_dispatched(configuration, version, ranges=ranges):
                yield f"{key} vmap @{name}_v{version}"


def _output_chain(configuration: Configuration) -> list[str]:
    """Let programs of the holder reach services as those of any other machine do."""
    rules = list(_dispatch_rules(configuration))
    if not rules:
        return []
    hook = "type nat hook output priority -100; policy accept;"
    return chain("output", [hook, "fib daddr type != local accept", *rules])


def _postrouting_chain(
    configuration: Configuration, devices: Mapping[str, str], ports: Sequence[str]
) -> list[str]:
    lines = ["type nat hook postrouting priority srcnat; policy accept;"]
    towards = _first_addresses(configuration, devices)
    lines.append("# a program of this machine: servers know the way to the address beside them")
    lines += [
        f'oifname "{device}" fib saddr type local {to_server} snat {family} to {address}'
        for device, family, to_server, address in towards
    ]
    if ports:
        lines.append(f"iifname != {{ {quoted(ports)} }} accept")
    lines.append("# a client beside the server: the answer has to come back through here")
    lines += [
        f'iifname "{device}" oifname "{device}" {to_server} snat {family} to {address}'
        for device, family, to_server, address in towards
    ]
    lines.append("ct status dnat accept")
    lines += transit_rules(configuration, "accept")
    for match, source in masqueraded(configuration, devices):
        lines.append(f"{match} snat {IP[source.version]} to {source}")
    return chain("postrouting", lines)


def _first_addresses(
    configuration: Configuration, devices: Mapping[str, str]
) -> list[tuple[str, str, str, Address]]:
    """Return a floating address of each device and version, with what matches there."""
    found: dict[tuple[str, int], Address] = {}
    for vip in configuration.vips:
        for address in vip.addresses:
            found.setdefault((devices[vip.interface], address.version), address.ip)
    return [
        (device, IP[version], f"meta nfproto ipv{version} ct status dnat", address)
        for (device, version), address in sorted(found.items(), key=lambda item: item[0])
    ]


def _event_rules(configuration: Configuration) -> Iterator[str]:
    """Spare the kernel to build events nobody reads: of four a short TCP flow, one is left.

    When TCP says goodbye its state is of interest, too; the gate asks for that then.
    """
    yield "ct event set assured,destroy"
    wanted = (s.listens for s in configuration.services if s.replicate.unassured)
    for listen in chained.from_iterable(wanted):
        asked = f"{IP[listen.address.version]} daddr {listen.address} {listen.protocol.value}"
        port = f"{listen.first_port}-{listen.last_port}"
        yield f"{asked} dport {port} ct event set {EVERY_EVENT}"


def _input_chains(configuration: Configuration) -> list[list[str]]:
    """Return what may be delivered to a floating address itself.

    A packet of a flow this node does not know must vanish: answered, it would be
    answered by a reset, and the flow be lost that the next retransmission finds.
    A UDP packet at its last hop is refused, so that traceroute(8) ends here: it is a probe of
    that hop. The kernel limits how many it answers.

    What asks for a service that has no server is refused, but only by what begins a connection.
    An unknown packet of UDP is taken for one that does.
    """
    refusing = [version for version in FAMILIES if listens_of(configuration, version)]
    floating = [
        "ct state established,related accept",
        f"icmp type {{ {ICMP_ACCEPTED} }} accept",
        f"icmpv6 type {{ {ICMPV6_ACCEPTED} }} accept",
        *(
            f"{IP[version]} daddr . meta l4proto . th dport @{REFUSED}_v{version} goto {REFUSED}"
            for version in refusing
        ),
        *(f"meta l4proto udp {last} counter reject" for last in LAST_HOP),
        "counter drop",
    ]
    refused = [
        "tcp flags & (fin | syn | rst | ack) == syn counter reject with tcp reset",
        "meta l4proto udp counter reject",
        "counter drop",
    ]
    entry = ["type filter hook input priority filter; policy accept;"]
    for version in FAMILIES:
        addresses = ", ".join(str(a.ip) for a in addresses_of(configuration, version))
        if addresses:
            entry.append(f"{IP[version]} daddr {{ {addresses} }} goto floating")
    return [
        *([chain(REFUSED, refused)] if refusing else []),
        chain("floating", floating),
        chain("input", entry),
    ]
