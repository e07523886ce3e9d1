"""One packet scheduling (``ops = true``) in nftables text: each datagram of UDP by itself.

IPVS calls it that (ipvsadm(8), ``--ops``). A service of single datagrams, DNS or RADIUS or syslog,
has clients that send all of them from one port. By flows all these would go to one server, and each
flow has an entry of the connection tracking. Here a datagram takes the next turn, leaves no entry,
and nobody has to know what went before: a new holder goes on where the old one ended.

Four chains are passed, in this order:

=====================  ============================================================================
``one_packet_raw``     before connection tracking: what is asked of such a service, and what its
                       servers send from its port, is not to be tracked
gate                   `core.gate_rules`: as anything that is forwarded, both need *answers*
``one_packet_in``      behind the gate, before routing: a server's address and port become the
                       destination of what is asked. It is also the policy of what is not tracked,
                       which the chains of NAT, where the policy of flows is, never see.
``one_packet_out``     behind routing: what servers answer gets the floating address and port as
                       its source. Before routing the kernel would take that for forged (a
                       *martian*), since the address is its own.
=====================  ============================================================================

What a server answers must tell what was asked, from the server's address and port alone. So these
belong to one address and one port of one service (`config.one_packet_sources` refuses the rest),
and the way back does not depend on the rotation: a server that drains still answers.

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
from ipaddress import ip_network
from itertools import groupby
from typing import NamedTuple

from hanat.core.configuration import (
    Address,
    Configuration,
    Forward,
    Listen,
    Network,
    Protocol,
    RealServer,
    Sorry,
    VirtualService,
)
from hanat.core.forward_policy import elsewhere, networks_of, own_networks, transit_rules
from hanat.core.notation import FAMILIES, IP, chain, devices_of, quoted
from hanat.core.one_packet_turns import (
    FROM,
    MAP,
    Ports,
    block_of_ports,
    counter_name,
    datagram_listens,
    datagram_services,
    place_name,
    places_of,
    ports_of,
    rewriting,
)
from hanat.core.services import asked_of, block_of, name_of
from hanat.core.steps import GROWING

AFTER_GATE = -130  # which is at -140; the policy of flows is at -110
AFTER_ROUTING = 100  # where sources of flows are translated

_SERVERS, _ANSWERS = GROWING
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
    return [_UNTRACKED] if datagram_services(configuration) else []


# ----------------------------------------------------------------- the way there and back


def one_packet_blocks(configuration: Configuration, devices: Mapping[str, str]) -> list[list[str]]:
    """Return the sets and chains that follow from the configuration alone.

    Args:
        configuration: What is published.
        devices: Kernel name of each logical interface of the configuration.
    """
    if not datagram_services(configuration):
        return []
    asked = _asked(configuration, devices)
    answers = _answers(configuration)
    blocks = [
        block_of_ports("set", f"one_packet_asked_{name}", ports, elements)
        for (name, ports), elements in asked.items()
    ]
    for ports, found in answers.items():
        blocks += {tuple(one.block): one.block for one in found}.values()
        # In this order: an answer that is left untracked is to be translated.
        elements = [f"{one.key} : goto {name_of(one.block)}" for one in found]
        blocks.append(block_of_ports("map", _ANSWERS, ports, elements))
        blocks.append(block_of_ports("set", _SERVERS, ports, [one.key for one in found]))
    ours = f"iifname != {{ {quoted(devices_of(configuration, devices))} }} accept"
    for name in sorted({name for name, _ in asked}):
        # What is forged is left to the policy of flows, which drops it.
        forged = [f"{m} accept" for m in elsewhere(configuration, devices, devices[name])]
        blocks.append(chain(f"one_packet_asked_{name}", [*forged, "notrack"]))
    for ports in sorted({ports for _, ports in asked}):
        rule = f"{IP[ports.version]} {_DPORT} vmap @{ports.name(MAP)}"
        blocks.append(chain(ports.name("one_packet_turn"), [rule]))
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

    place: Listen
    block: list[str]

    @property
    def key(self) -> str:
        return asked_of(self.place)


_Asked = Mapping[tuple[str, Ports], Sequence[str]]
_Answers = Mapping[Ports, Sequence[_Answer]]


class _Request(NamedTuple):
    """What matches datagrams that are asked without a flow."""

    match: str
    name: str
    ports: Ports


def _requests(devices: Mapping[str, str], asked: _Asked) -> Iterator[_Request]:
    for name, ports in asked:
        known = ports.name(f"one_packet_asked_{name}")
        match = f'iifname "{devices[name]}" {IP[ports.version]} {_DPORT} @{known}'
        yield _Request(match, name, ports)


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
            *(f"{one.match} goto {one.ports.name('one_packet_turn')}" for one in requests),
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
    for ports in answers:
        yield f"{IP[ports.version]} {_SPORT} @{ports.name(_SERVERS)}"


def _out(answers: _Answers, before: Iterable[str]) -> list[str]:
    lines = [
        f"type filter hook postrouting priority {AFTER_ROUTING}; policy accept;",
        "ct state != untracked accept",
        *before,
    ]
    lines += [f"{IP[one.version]} {_SPORT} vmap @{one.name(_ANSWERS)}" for one in answers]
    return chain("one_packet_out", lines)


def _errors(configuration: Configuration, devices: Mapping[str, str]) -> Iterator[list[str]]:
    """Yield the chain of what this machine tells a client of a datagram that went to a server."""
    lines = ["type filter hook output priority filter; policy accept;"]
    ports = quoted(devices_of(configuration, devices))
    for version in FAMILIES:
        # Whole networks, so that the rules do not grow with the servers.
        places = {
            network
            for service in datagram_services(configuration)
            if datagram_listens(service, version)
            for place in places_of(service, version)
            for network in _near(configuration, place.address)
        }
        for network in map(ip_network, networks_of(places, version)):
            quoted_in = f"{int(network.netmask):#x} == {int(network.network_address):#x}"
            lines.append(
                f"oifname {{ {ports} }} ct state invalid {_ERRORS[version]} "
                f"{_QUOTED_DADDR[version]} & {quoted_in} counter drop"
            )
    if len(lines) > 1:
        yield chain("one_packet_errors", lines)


def _near(configuration: Configuration, address: Address) -> list[Network]:
    """Return the networks of vips that an address is in, or itself."""
    own = (own_networks(configuration, name) for name in configuration.interfaces)
    return [n for some in own for n in some if address in n] or [ip_network(address)]


def _asked(configuration: Configuration, devices: Mapping[str, str]) -> _Asked:
    """Return what is asked without a flow, by interface and kind of ports."""
    found: dict[tuple[str, Ports], list[str]] = {}
    shared = [devices[name] for name in configuration.interfaces]
    for service in datagram_services(configuration):
        for version in FAMILIES:
            for listen in datagram_listens(service, version):
                for name in _ways(configuration, service, listen):
                    # With two interfaces on a device clients may be beside the servers there.
                    if shared.count(devices[name]) == 1:
                        found.setdefault((name, ports_of(listen)), []).append(asked_of(listen))
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
    places = [place.address for place in places_of(service, listen.address.version)]
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
    """Return where servers answer from; of two that overlap the first."""
    found = [
        _answer(service, listen, place)
        for service in datagram_services(configuration)
        for version in FAMILIES
        for listen in datagram_listens(service, version)
        for place in places_of(service, version)
    ]
    answers: dict[Ports, list[_Answer]] = {}
    for one in _apart(found):
        answers.setdefault(ports_of(one.place), []).append(one)
    return dict(sorted(answers.items()))


def _answer(service: VirtualService, listen: Listen, place: RealServer | Sorry) -> _Answer:
    version = listen.address.version
    if place.port is None:
        first, last, port = listen.first_port, listen.last_port, None
    else:
        first, last, port = place.port, place.port, listen.first_port
    counted = f"counter name {counter_name(FROM, service.name, place)}"
    lines = [counted, *rewriting("s", listen.address, port)]
    block = block_of(FROM, service.name, place_name(place), version=version, lines=lines)
    return _Answer(Listen(place.address, Protocol.UDP, first, last), block)


def _apart(answers: Iterable[_Answer]) -> Iterator[_Answer]:
    def place(one: _Answer) -> tuple[bytes, int, int]:
        return one.place.address.packed, one.place.first_port, one.place.last_port

    for _, some in groupby(sorted(answers, key=place), key=lambda one: one.place.address):
        taken = 0
        for one in some:
            if one.place.first_port > taken:
                taken = one.place.last_port
                yield one
