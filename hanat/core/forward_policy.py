"""What may pass the devices of hanat, as chains of the ruleset.

A router whose kernel forwards is open to whoever finds a route to it: a host of the public
network reaches the servers' unpublished ports, the services of the private vip, the routers'
private addresses. Two chains close that. They are of NAT's kind: only the first packet of a flow
meets them. What no such chain sees (packets that are invalid or not tracked) the gate looks at.
Packets of established flows are let through by either, whoever sent them.

*arrival*, before translation, looks at where a packet comes in:

- A source address that lives behind another device of hanat is forged (RFC 3704). What the network
  of a vip says of that the gate looks at (`forged_rules`), here it is what the routing table says;
  not where that names a device that masqueraded traffic leaves by: that is where the default route
  leads, and of two ways to the outside a client may come by either.
- An address of this machine is reached by its own device only (RFC 1122 section 3.3.4.2 calls it
  the strong end system model). Services may name other devices, ``from`` in the file.

*forward*, before the source is translated, lets pass what the ruleset translated to a server, and
the masqueraded networks from their own device to that of the vip. Everything else that enters by a
device of hanat is dropped and counted.

What an operator declares as transit is left alone in both, and by the gate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, collapse_addresses

from hanat.core.configuration import Address, Configuration, Forward, Masquerade, Network
from hanat.core.notation import ADDRESS_TYPE, FAMILIES, IP, addresses_of, chain, quoted

# Before what translates, of hanat and of others: that ends the way through these chains.
ARRIVAL_PRIORITY, FORWARD_PRIORITY = -110, 90
UNTRANSLATED = "ct status ! snat,dnat"

# Sources without a place: of hosts that ask for an address, and of neighbour discovery.
PLACED = ("ip saddr != 0.0.0.0", "ip6 saddr != { ::, fe80::/10 }")
# What the kernel delivers to this machine; multicast is of a device anyway.
DELIVERED = "{ local, broadcast, anycast }"


def policy_blocks(configuration: Configuration, devices: Mapping[str, str]) -> list[list[str]]:
    """Return the sets and chains of the policy.

    Args:
        configuration: What is published and masqueraded.
        devices: Kernel name of each logical interface of the configuration.
    """
    if not configuration.vips:
        return []
    blocks: list[list[str]] = []
    for name, ports in asked_by(configuration, devices).items():
        blocks += _port_sets(f"asked_{name}", ports)
    for name, ports in denied_by(configuration, devices).items():
        blocks += _port_sets(f"denied_{name}", ports)
    places = _places(configuration, devices)
    for device, name in places.items():
        blocks.append(_arrival_of(configuration, devices, device, name))
    blocks.append(_arrival(configuration, places))
    if configuration.forward is not Forward.OPEN:
        blocks.append(_forward(configuration, devices))
    return blocks


def transit_rules(
    configuration: Configuration, verdict: str, *, ends: Iterable[str] = ("saddr", "daddr")
) -> list[str]:
    """Return a rule for each end and version that may be in a network that is left alone."""
    networks = [network for transit in configuration.transits for network in transit.networks]
    return [
        f"{IP[version]} {end} {{ {', '.join(found)} }} {verdict}"
        for version in FAMILIES
        if (found := networks_of(networks, version))
        for end in ends
    ]


def masqueraded(
    configuration: Configuration, devices: Mapping[str, str]
) -> Iterator[tuple[str, Address]]:
    """Yield what matches masqueraded packets, and the address that becomes their source."""
    for masquerade in configuration.masquerades:
        entry = quoted(entry_devices(configuration, masquerade, devices))
        for source in sorted(masquerade.sources, key=lambda a: a.version):
            if networks := networks_of(masquerade.networks, source.version):
                yield (
                    f'iifname {{ {entry} }} oifname "{devices[masquerade.interface]}" '
                    f"{IP[source.version]} saddr {{ {', '.join(networks)} }}",
                    source,
                )


def networks_of(networks: Iterable[Network], version: int) -> list[str]:
    """Return the networks of one version without overlaps, which nft refuses."""
    if version == 4:
        v4 = [network for network in networks if isinstance(network, IPv4Network)]
        return [str(network) for network in collapse_addresses(v4)]
    v6 = [network for network in networks if isinstance(network, IPv6Network)]
    return [str(network) for network in collapse_addresses(v6)]


def entry_devices(
    configuration: Configuration, masquerade: Masquerade, devices: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the devices by which masqueraded traffic comes in, sorted.

    Those whose vip is in one of its networks; if there is none, the network is behind a
    router: all but the device that it leaves by. With one device, that.
    """
    others = [name for name in configuration.interfaces if name != masquerade.interface]
    near = [name for name in others if _is_near(configuration, masquerade, name)]
    return tuple(sorted({devices[name] for name in near or others or [masquerade.interface]}))


def _is_near(configuration: Configuration, masquerade: Masquerade, interface: str) -> bool:
    own = own_networks(configuration, interface)
    return any(_overlap(network, wanted) for network in own for wanted in masquerade.networks)


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)


def own_networks(configuration: Configuration, interface: str) -> list[Network]:
    """Return the networks of the floating addresses of an interface."""
    return [
        address.network
        for vip in configuration.vips
        if vip.interface == interface
        for address in vip.addresses
    ]


Ports = list[tuple[Address, str]]  # address, and protocol and ports as nft has them


def asked_by(configuration: Configuration, devices: Mapping[str, str]) -> dict[str, Ports]:
    """Return, by logical interface, what may be asked there although its vip is elsewhere."""
    return _listens_by(configuration, devices, denied=False)


def denied_by(configuration: Configuration, devices: Mapping[str, str]) -> dict[str, Ports]:
    """Return, by logical interface, what must not be asked there although its vip is there."""
    return _listens_by(configuration, devices, denied=True)


def _listens_by(
    configuration: Configuration, devices: Mapping[str, str], *, denied: bool
) -> dict[str, Ports]:
    homes = {
        address.ip: devices[vip.interface]
        for vip in configuration.vips
        for address in vip.addresses
    }
    places = _places(configuration, devices)
    found: dict[str, Ports] = {}
    for service in configuration.services:
        wanted = {devices[name] for name in service.sources}
        if not wanted:
            continue
        for listen in service.listens:
            home = homes[listen.address]
            ports = str(listen.first_port)
            if listen.last_port != listen.first_port:
                ports += f"-{listen.last_port}"
            one = (listen.address, f"{listen.protocol.value} . {ports}")
            for device in {home} - wanted if denied else sorted(wanted - {home}):
                found.setdefault(places[device], []).append(one)
    return found


def _places(configuration: Configuration, devices: Mapping[str, str]) -> dict[str, str]:
    """Return the devices, and a logical name of each that chains and sets can have."""
    found: dict[str, str] = {}
    for name in configuration.interfaces:
        found.setdefault(devices[name], name)
    return found


def _port_sets(name: str, ports: Ports) -> Iterator[list[str]]:
    for version in FAMILIES:
        elements = [f"{a} . {asked}" for a, asked in ports if a.version == version]
        if elements:
            yield [
                f"set {_set_name(name, version)} {{",
                f"    type {ADDRESS_TYPE[version]} . inet_proto . inet_service",
                "    flags interval",
                "    elements = {",
                *(f"        {element}," for element in elements),
                "    }",
                "}",
            ]


def _set_name(name: str, version: int) -> str:
    return f"{name}_v{version}"


def _arrival(configuration: Configuration, places: Mapping[str, str]) -> list[str]:
    lines = [f"type nat hook prerouting priority {ARRIVAL_PRIORITY}; policy accept;"]
    lines += transit_rules(configuration, "accept", ends=("saddr",))
    jumps = ", ".join(f'"{device}" : goto arrival/{name}' for device, name in places.items())
    return chain("arrival", [*lines, f"iifname vmap {{ {jumps} }}"])


def _arrival_of(
    configuration: Configuration, devices: Mapping[str, str], device: str, name: str
) -> list[str]:
    """Return what is looked at where a packet comes in by one device."""
    lines = ["ct state related accept"]
    lines += [f"{match} counter drop" for match in elsewhere(configuration, devices, device)]
    lines += _asked(configuration, devices, name)
    # Most ask for these, which are here by definition: two questions about routes are spared.
    lines += [
        f"{IP[version]} daddr {{ {', '.join(here)} }} accept"
        for version in FAMILIES
        if (here := _addresses_by(configuration, devices, device, version))
    ]
    lines.append(f"fib daddr type {DELIVERED} fib daddr . iif type != {DELIVERED} counter drop")
    return chain(f"arrival/{name}", lines)


def elsewhere(configuration: Configuration, devices: Mapping[str, str], device: str) -> list[str]:
    """Return what matches a source that the routing table has behind another device."""
    outside = {devices[masquerade.interface] for masquerade in configuration.masquerades}
    others = sorted({devices[n] for n in configuration.interfaces} - {device} - outside)
    if not others:
        return []
    return [f"{placed} fib saddr oifname {{ {quoted(others)} }}" for placed in PLACED]


def _addresses_by(
    configuration: Configuration, devices: Mapping[str, str], device: str, version: int
) -> list[str]:
    """Return the floating addresses that a device has."""
    addresses = {
        address.ip
        for vip in configuration.vips
        if devices[vip.interface] == device
        for address in vip.addresses
        if address.version == version
    }
    return [str(address) for address in sorted(addresses)]


def forged_rules(configuration: Configuration, devices: Mapping[str, str]) -> list[str]:
    """Return rules that drop what has a source of a network that is behind another device."""
    rules = []
    for device in _places(configuration, devices):
        here = [name for name in configuration.interfaces if devices[name] == device]
        own = [network for name in here for network in own_networks(configuration, name)]
        forged = [
            network
            for name in configuration.interfaces
            if name not in here
            for network in own_networks(configuration, name)
            if not any(_overlap(network, mine) for mine in own)
        ]
        rules += [
            f'iifname "{device}" {IP[version]} saddr {{ {", ".join(networks)} }} counter drop'
            for version in FAMILIES
            if (networks := networks_of(forged, version))
        ]
    return rules


def _asked(configuration: Configuration, devices: Mapping[str, str], name: str) -> Iterator[str]:
    for kind, found, verdict in (
        ("denied", denied_by(configuration, devices), "counter drop"),
        ("asked", asked_by(configuration, devices), "accept"),
    ):
        for version in FAMILIES:
            if any(address.version == version for address, _ in found.get(name, ())):
                key = f"{IP[version]} daddr . meta l4proto . th dport"
                yield f"{key} @{_set_name(f'{kind}_{name}', version)} {verdict}"


def _forward(configuration: Configuration, devices: Mapping[str, str]) -> list[str]:
    ports = sorted({devices[name] for name in configuration.interfaces})
    lines = [
        f"type nat hook postrouting priority {FORWARD_PRIORITY}; policy accept;",
        f"iifname != {{ {quoted(ports)} }} accept",
        "ct state related accept",
    ]
    for version in FAMILIES:
        vips = [str(address.ip) for address in addresses_of(configuration, version)]
        if vips:
            family = IP[version]
            lines.append(
                f"ct status dnat ct original {family} daddr {{ {', '.join(vips)} }} accept"
            )
    lines += transit_rules(configuration, "accept")
    lines += [f"{match} accept" for match, _ in masqueraded(configuration, devices)]
    return chain("forward", [*lines, "counter drop"])
