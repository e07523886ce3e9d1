"""One packet scheduling (``ops = true``) in nftables text: each datagram of UDP by itself.

IPVS calls it that (ipvsadm(8), ``--ops``). A service of single datagrams, DNS or RADIUS or syslog,
has clients that send all of them from one port. By flows all these would go to one server, and each
flow has an entry of the connection tracking. Here a datagram takes the next turn, leaves no entry,
and nobody has to know what went before: a new holder goes on where the old one ended.

Four chains are passed, in this order:

=====================  ============================================================================
``one_packet_raw``     before connection tracking: what is asked of such a service, and what its
                       servers send from its port, is not to be tracked
gate                   `core.gate`: as anything that is forwarded, both need *answers*
``one_packet_in``      behind the gate, before routing: a server's address and port become the
                       destination of what is asked. It is also the policy of what is not tracked,
                       which the chains of NAT, where the policy of flows is, never see.
``one_packet_out``     behind routing: what servers answer gets the floating address and port as
                       its source. Before routing the kernel would take that for forged (a
                       *martian*), since the address is its own.
=====================  ============================================================================

What a server answers must tell what was asked, from the server's address and port alone. So these
belong to one address and one port of one service (`hanat.config.one_packet` refuses the rest), and
the way back does not depend on the rotation: a server that drains still answers.

Clients go by flows as before, each new flow taking the next turn, where the answer would not come
back through here by itself, or would be for this machine: a client beside a server, a program of
the holder. Their answers are for an address of this machine, and are tracked. So do networks in
transit, which may ask a server by its own address.

An ICMP error about a datagram without an entry belongs to nothing: from outside and from servers
the gate drops it, as invalid. Those of this machine would show the address of the server;
``one_packet_errors`` drops them.

The kernel puts datagrams together before these chains see them, and fragments them again; that is
the connection tracking's work, at priority -400.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from hanat.core.configuration import (
    Address,
    Configuration,
    Forward,
    Listen,
    Protocol,
    RealServer,
    Sorry,
    Unavailable,
    VirtualService,
)
from hanat.core.forward_policy import elsewhere, own_networks, transit_rules
from hanat.core.notation import ADDRESS_TYPE, FAMILIES, IP, chain, chain_name, devices_of, quoted
from hanat.core.schedulers import key_of
from hanat.core.service_limits import limit_blocks
from hanat.core.services import (
    Rotation,
    asked_of,
    block_of,
    choice_of,
    elements_of,
    match_of,
    members_of,
    name_of,
    shares_of,
    slots_of,
    sorry_of,
)

AFTER_GATE = -130  # which is at -140; the policy of flows is at -110
AFTER_ROUTING = 100  # where sources of flows are translated

_TURN, _TO, _FROM = "one_packet", "one_packet_to", "one_packet_from"
TURNS = f"{_TURN}/"  # chains that maps lead to
_UNTRACKED = "meta l4proto udp ct state untracked"
_DPORT, _SPORT = "daddr . meta l4proto . th dport", "saddr . meta l4proto . th sport"

# Bits from the beginning of an ICMP error to the destination of the packet it tells of.
_QUOTED_DADDR = {4: "@th,192,32", 6: "@th,256,128"}
_ERRORS = {
    4: "icmp type { destination-unreachable, time-exceeded, parameter-problem }",
    6: "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem }",
}


def passing_rules(configuration: Configuration) -> list[str]:
    """Return what the gate lets pass with *answers* that it would drop, as matches.

    It leaves to ``one_packet_in``, behind it, which of these are datagrams of a service.
    """
    return [_UNTRACKED] if _services(configuration) else []


# ------------------------------------------------------------------- which server gets it


def turn_blocks(service: VirtualService, version: int, rotation: Rotation) -> list[list[str]]:
    """Return the blocks that send a datagram to a server of the rotation.

    Slots and limits are those of `services.service_chains`; the chain of limits is there, too.

    Returns:
        Lines of each block, the chain that maps lead to last; none if the service has no such
        datagrams of that IP version.
    """
    if not _listens(service, version):
        return []
    table = slots_of(service, tuple(members_of(service, version, rotation)))
    first = [f"# {service.scheduler.value}: {shares_of(table) or 'no server'}"]
    first += [f"jump {name_of(block)}" for block in limit_blocks(service, version)[-1:]]
    blocks = [[f"counter {name} {{", "}"] for name in _counters(service, version)]
    if not table:
        blocks += (to := _without_servers(service, version))[:-1]
        first += to[-1]
        return [*blocks, block_of(_TURN, service.name, version=version, lines=first)]
    servers = {s.name: s for s in service.servers if s.address.version == version}
    targets = {}
    for name in sorted(set(table)):
        blocks.append(_block_to(service, servers[name]))
        targets[name] = f"goto {name_of(blocks[-1])}"
    if len(targets) == 1:
        first += targets.values()
    else:
        key = key_of(service.scheduler, Protocol.UDP, source_port=service.hash_port, in_turn=True)
        choice = choice_of(service.scheduler, key, len(table), version)
        elements = elements_of(table, tuple(targets.items()))
        first.append(f"{match_of([Protocol.UDP])} {choice} vmap {{ {elements} }}")
    return [*blocks, block_of(_TURN, service.name, version=version, lines=first)]


def _without_servers(service: VirtualService, version: int) -> list[list[str]]:
    """Return the blocks that are needed, and behind them the rules of the service."""
    sorry = sorry_of(service, version)
    if sorry is not None:
        block = _block_to(service, sorry)
        return [block, [f"goto {name_of(block)}"]]
    # It is refused where it is delivered, as what asks for other services without servers.
    rejects = service.unavailable is Unavailable.REJECT
    return [["counter accept" if rejects else "counter drop"]]


def _block_to(service: VirtualService, place: RealServer | Sorry) -> list[str]:
    """Return the block of the chain that sends a datagram to a server."""
    version = place.address.version
    counted = f"counter name {_counter(_TO, service.name, place)}"
    lines = [counted, *_rewriting("d", place.address, place.port)]
    return block_of(_TO, service.name, _name(place), version=version, lines=lines)


# ---------------------------------------------------------------------- what was counted


def counters_of(service: VirtualService, server: RealServer) -> tuple[str, str]:
    """Return the names of what counts the datagrams to a server, and its answers."""
    to, back = (_counter(kind, service.name, server) for kind in (_TO, _FROM))
    return to, back


def is_counted(service: VirtualService, server: RealServer) -> bool:
    """Say whether a service sends single datagrams to a server."""
    return service.ops and bool(_listens(service, server.address.version))


def _counters(service: VirtualService, version: int) -> list[str]:
    places = _places(service, version)
    return [_counter(kind, service.name, place) for place in places for kind in (_TO, _FROM)]


def _counter(kind: str, service: str, place: RealServer | Sorry) -> str:
    return chain_name(kind, service, _name(place), version=place.address.version)


def _name(place: RealServer | Sorry) -> str:
    return place.name if isinstance(place, RealServer) else ".sorry"  # which no server is named


def turn_maps(
    configuration: Configuration, targets: Mapping[tuple[str, int], str]
) -> list[list[str]]:
    """Return the maps from what a datagram asks for to the chain of its service.

    Args:
        configuration: With the services of `targets`.
        targets: The chain of each service and IP version, the last of `turn_blocks`.
    """
    blocks = []
    for version in FAMILIES:
        elements = [
            f"{asked_of(listen)} : goto {targets[service.name, version]}"
            for service in _services(configuration)
            for listen in _listens(service, version)
        ]
        if elements:
            blocks.append(_block_of_ports(f"map one_packet_turns_v{version}", version, elements))
    return blocks


# ----------------------------------------------------------------- the way there and back


def one_packet_blocks(configuration: Configuration, devices: Mapping[str, str]) -> list[list[str]]:
    """Return the sets and chains that follow from the configuration alone.

    Args:
        configuration: What is published.
        devices: Kernel name of each logical interface of the configuration.
    """
    if not _services(configuration):
        return []
    asked = _asked(configuration, devices)
    answers = _answers(configuration)
    blocks = [
        _block_of_ports(f"set one_packet_asked_{name}_v{version}", version, elements)
        for (name, version), elements in asked.items()
    ]
    for version, found in answers.items():
        blocks += {tuple(one.block): one.block for one in found}.values()
        keys = [one.key for one in found]
        blocks.append(_block_of_ports(f"set one_packet_servers_v{version}", version, keys))
        elements = [f"{one.key} : goto {name_of(one.block)}" for one in found]
        blocks.append(_block_of_ports(f"map one_packet_answers_v{version}", version, elements))
    ours = f"iifname != {{ {quoted(devices_of(configuration, devices))} }} accept"
    for name in sorted({name for name, _ in asked}):
        # What is forged is left to the policy of flows, which drops it.
        forged = [f"{m} accept" for m in elsewhere(configuration, devices, devices[name])]
        blocks.append(chain(f"one_packet_asked_{name}", [*forged, "notrack"]))
    for version in sorted({version for _, version in asked}):
        rule = f"{IP[version]} {_DPORT} vmap @one_packet_turns_v{version}"
        blocks.append(chain(f"one_packet_turn_v{version}", [rule]))
    transit = transit_rules(configuration, "accept")
    requests = list(_requests(devices, asked))
    return [
        *blocks,
        _raw(requests, answers, [ours, *transit]),
        _in(requests, [ours], _policy(configuration, answers, transit)),
        _out(answers, [ours, *transit]),
        *_errors(configuration, devices),
    ]


class _Answer(NamedTuple):
    """Where servers answer from, and the chain that makes that the floating address."""

    address: Address
    first: int
    last: int
    block: list[str]

    @property
    def key(self) -> str:
        return asked_of(Listen(self.address, Protocol.UDP, self.first, self.last))


_Asked = Mapping[tuple[str, int], Sequence[str]]
_Answers = Mapping[int, Sequence[_Answer]]


class _Request(NamedTuple):
    """What matches datagrams that are asked without a flow."""

    match: str
    name: str
    version: int


def _requests(devices: Mapping[str, str], asked: _Asked) -> Iterator[_Request]:
    for name, version in asked:
        match = (
            f'iifname "{devices[name]}" {IP[version]} {_DPORT} @one_packet_asked_{name}_v{version}'
        )
        yield _Request(match, name, version)


def _raw(requests: Iterable[_Request], answers: _Answers, before: Iterable[str]) -> list[str]:
    return chain(
        "one_packet_raw",
        [
            "type filter hook prerouting priority raw; policy accept;",
            "meta l4proto != udp accept",
            *before,
            *(f"{one.match} goto one_packet_asked_{one.name}" for one in requests),
            # What is for this machine is of a flow: of a client beside a server, of a probe.
            *(f"{match} fib daddr type unicast notrack" for match in _from_servers(answers)),
        ],
    )


def _in(requests: Iterable[_Request], before: Iterable[str], policy: Iterable[str]) -> list[str]:
    return chain(
        "one_packet_in",
        [
            f"type filter hook prerouting priority {AFTER_GATE}; policy accept;",
            "ct state != untracked accept",
            "meta l4proto != udp accept",
            *before,
            *(f"{one.match} goto one_packet_turn_v{one.version}" for one in requests),
            *policy,
        ],
    )


def _policy(
    configuration: Configuration, answers: _Answers, transit: Iterable[str]
) -> Iterator[str]:
    """Yield the rules of what is not tracked and not asked of a service.

    Servers answer from where the routing table has them (RFC 3704); anybody else forges that.
    """
    forwarded = "fib daddr type unicast"
    if configuration.forward is Forward.OPEN:
        yield from transit
        for match in _from_servers(answers):
            yield f"{match} {forwarded} fib saddr . iif oif missing counter drop"
        return
    for match in _from_servers(answers):
        yield f"{match} {forwarded} fib saddr . iif oif exists accept"
    yield from transit
    yield f"{forwarded} counter drop"


def _from_servers(answers: _Answers) -> Iterator[str]:
    for version in answers:
        yield f"{IP[version]} {_SPORT} @one_packet_servers_v{version}"


def _out(answers: _Answers, before: Iterable[str]) -> list[str]:
    lines = [
        f"type filter hook postrouting priority {AFTER_ROUTING}; policy accept;",
        "ct state != untracked accept",
        *before,
    ]
    lines += [f"{IP[version]} {_SPORT} vmap @one_packet_answers_v{version}" for version in answers]
    return chain("one_packet_out", lines)


def _errors(configuration: Configuration, devices: Mapping[str, str]) -> Iterator[list[str]]:
    """Yield the chain of what this machine tells a client of a datagram that went to a server."""
    lines = ["type filter hook output priority filter; policy accept;"]
    ports = quoted(devices_of(configuration, devices))
    for version in FAMILIES:
        places = sorted({
            place.address
            for service in _services(configuration)
            if _listens(service, version)
            for place in _places(service, version)
        })  # fmt: skip
        width = {4: 8, 6: 32}[version]
        if places:
            quotes = ", ".join(f"0x{int(address):0{width}x}" for address in places)
            lines.append(
                f"oifname {{ {ports} }} ct state invalid {_ERRORS[version]} "
                f"{_QUOTED_DADDR[version]} {{ {quotes} }} counter drop"
            )
    if len(lines) > 1:
        yield chain("one_packet_errors", lines)


def _asked(configuration: Configuration, devices: Mapping[str, str]) -> _Asked:
    """Return what is asked without a flow, by interface and IP version."""
    found: dict[tuple[str, int], list[str]] = {}
    shared = [devices[name] for name in configuration.interfaces]
    for service in _services(configuration):
        for version in FAMILIES:
            for listen in _listens(service, version):
                for name in _ways(configuration, service, listen):
                    # With two interfaces on a device clients may be beside the servers there.
                    if shared.count(devices[name]) == 1:
                        found.setdefault((name, version), []).append(asked_of(listen))
    return dict(sorted(found.items()))


def _ways(configuration: Configuration, service: VirtualService, listen: Listen) -> list[str]:
    """Return the interfaces by which clients come whose answers come back through here."""
    if len(configuration.interfaces) == 1:
        return []  # of servers and clients alike
    homes = [
        vip.interface
        for vip in configuration.vips
        if any(address.ip == listen.address for address in vip.addresses)
    ]
    places = [place.address for place in _places(service, listen.address.version)]
    beside: set[str] = set()
    for address in places:
        near = {
            name
            for name in configuration.interfaces
            if any(address in network for network in own_networks(configuration, name))
        }
        # Behind a router on whatever side, but hardly on that of the floating address.
        beside |= near or set(configuration.interfaces) - set(homes)
    return sorted(set(service.sources or homes) - beside)


def _answers(configuration: Configuration) -> _Answers:
    """Return where servers answer from, by IP version; of two that overlap the first."""
    found: dict[int, list[_Answer]] = {}
    for service in _services(configuration):
        for version in FAMILIES:
            for listen in _listens(service, version):
                for place in _places(service, version):
                    answer = _answer(service, listen, place)
                    found.setdefault(version, []).append(answer)
    return {version: list(_apart(answers)) for version, answers in sorted(found.items())}


def _answer(service: VirtualService, listen: Listen, place: RealServer | Sorry) -> _Answer:
    version = listen.address.version
    if place.port is None:
        first, last, port = listen.first_port, listen.last_port, None
    else:
        first, last, port = place.port, place.port, listen.first_port
    counted = f"counter name {_counter(_FROM, service.name, place)}"
    lines = [counted, *_rewriting("s", listen.address, port)]
    block = block_of(_FROM, service.name, _name(place), version=version, lines=lines)
    return _Answer(place.address, first, last, block)


def _apart(answers: Iterable[_Answer]) -> Iterator[_Answer]:
    by_place = sorted(answers, key=lambda one: (one.address, one.first, one.last))
    for _, some in groupby(by_place, key=lambda one: one.address):
        taken = 0
        for one in some:
            if one.first > taken:
                taken = one.last
                yield one


def _rewriting(end: str, address: Address, port: int | None) -> list[str]:
    """Return the rules that make an address and a port the source or destination of a datagram.

    Args:
        end: ``s`` or ``d``.
        address: The new one.
        port: None: it stays as it is.
    """
    family = IP[address.version]
    if port is None:
        return [f"{family} {end}addr set {address} accept"]
    lines = [f"{family} {end}addr set {address}"]
    if address.version == FAMILIES[0]:
        # No checksum (RFC 768). The kernel knows that of addresses, and would mend it for ports.
        lines.append(f"udp checksum 0 @th,{16 if end == 'd' else 0},16 set {port} accept")
    return [*lines, f"udp {end}port set {port} accept"]


def _services(configuration: Configuration) -> list[VirtualService]:
    return [
        service
        for service in configuration.services
        if service.ops and any(_listens(service, version) for version in FAMILIES)
    ]


def _listens(service: VirtualService, version: int) -> list[Listen]:
    return [
        listen
        for listen in service.listens
        if listen.protocol is Protocol.UDP and listen.address.version == version
    ]


def _places(service: VirtualService, version: int) -> list[RealServer | Sorry]:
    places: list[RealServer | Sorry] = [*service.servers, *service.sorry]
    return [place for place in places if place.address.version == version]


def _block_of_ports(head: str, version: int, elements: Iterable[str]) -> list[str]:
    """Return the block of a set or map by address, protocol and range of ports."""
    target = " : verdict" if head.startswith("map ") else ""
    return [
        f"{head} {{",
        f"    type {ADDRESS_TYPE[version]} . inet_proto . inet_service{target}",
        "    flags interval",
        "    elements = {",
        *(f"        {element}," for element in elements),
        "    }",
        "}",
    ]
