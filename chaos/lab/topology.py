"""The lab's network: namespaces, two bridges, and who is plugged in where, as data.

::

    c1 .100 ──┐ 203.0.113.0/24                   10.11.12.0/24 ┌── s1 .101
              │ 2001:db8:113::/64                 fd00:12::/64 ├── s2 .102
              br-pub ── eth0 r1 eth1 .11 ── br-priv            │
              br-pub ── eth0 r2 eth1 .12 ── br-priv            ├── s3 .103
              br-pub ── eth0 r3 eth1 .13 ── br-priv ───────────┘
    floating: 203.0.113.10 and 2001:db8:113::10 (public),
              10.11.12.1 and fd00:12::1 (private, default routes of the servers)

s1 and s2 are clients as well: what goes out comes from them. s3 only serves, so its cable can
be pulled without ending anything else.

Every host has an address of each family in each of its networks, with the same last digits.
Both bridges live in one namespace of their own, the switch: observers listen there,
and pulling a cable means setting a port of the switch down, which takes the carrier
from the other end as a real cable does.

Every device is created inside its namespace, so nothing ever appears in the namespace
of the machine and interface names need not differ between two labs. c1 has no
route to the private network: a packet that was not translated is lost, and noticed.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from chaos.lab import modules
from chaos.lab.lab_error import LabError, UsageError
from chaos.lab.netns import NETNS_DIR, empty_connections, write_sysctls

BRIDGES = {"public": "br-pub", "private": "br-priv"}
DEVICES = {"public": "eth0", "private": "eth1"}  # on the routers
PORT_SUFFIX = {"public": "pub", "private": "priv"}
FLOATING = {"public": "203.0.113.10/24", "private": "10.11.12.1/24"}
FLOATING_V6 = {"public": "2001:db8:113::10/64", "private": "fd00:12::1/64"}
SUBNET = {"public": "203.0.113.", "private": "10.11.12."}
SUBNET_V6 = {"public": "2001:db8:113::", "private": "fd00:12::"}
SWITCH = "sw"
CLIENT = "c1"
SERVERS = ("s1", "s2", "s3")
FIRST_SERVER = 101  # the last part of its address; the others follow

QUIET_IPV6 = {  # no duplicate address detection: it costs a second per interface
    "net.ipv6.conf.all.accept_dad": "0",
    "net.ipv6.conf.default.accept_dad": "0",
    "net.ipv6.conf.default.dad_transmits": "0",
}
ROUTER_SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.ipv6.conf.all.forwarding": "1",
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.default.send_redirects": "0",
    "net.ipv4.conf.all.promote_secondaries": "1",
    "net.ipv4.conf.all.arp_ignore": "1",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    # A connection seen from the middle: replicated entries carry no window.
    "net.netfilter.nf_conntrack_tcp_be_liberal": "1",
    "net.netfilter.nf_conntrack_events": "1",
    "net.netfilter.nf_conntrack_acct": "1",
}
SWITCH_SYSCTLS = {
    # A switch says nothing by itself; with IPv6 each port looks for routers, past what is dropped.
    "net.ipv6.conf.all.disable_ipv6": "1",
    "net.ipv6.conf.default.disable_ipv6": "1",
    # Bridged frames must not meet this namespace's conntrack.
    "?net.bridge.bridge-nf-call-iptables": "0",
    "?net.bridge.bridge-nf-call-ip6tables": "0",
    "?net.bridge.bridge-nf-call-arptables": "0",
}


def floating(*networks: str) -> tuple[str, ...]:
    """Return the floating addresses of networks, of all if none is named, without prefix length."""
    return tuple(
        family[network].partition("/")[0]
        for network in networks or FLOATING
        for family in (FLOATING, FLOATING_V6)
    )


def server_addresses(host: str) -> tuple[str, str]:
    """Return a server's addresses, IPv4 and IPv6, without prefix length."""
    number = FIRST_SERVER + SERVERS.index(host)
    return f"{SUBNET['private']}{number}", f"{SUBNET_V6['private']}{number}"


@dataclass(frozen=True, slots=True)
class Port:
    """A cable from a host to a bridge.

    Attributes:
        network: ``public`` or ``private``.
        device: Its name on the host; on the switch it is `port`, ``r1-pub``.
        address, address_v6: With prefix length.
    """

    host: str
    network: str
    device: str
    address: str
    address_v6: str
    mac: str

    @property
    def port(self) -> str:
        """Name of the other end, on the switch."""
        return f"{self.host}-{PORT_SUFFIX[self.network]}"


@dataclass(frozen=True, slots=True)
class Host:
    """A machine of the lab: a namespace, its cables and its default routes."""

    name: str
    ports: tuple[Port, ...]
    gateways: tuple[str, ...] = ()
    is_router: bool = False


@dataclass(frozen=True, slots=True)
class Topology:
    """All hosts of a lab whose namespaces are called ``<prefix>-<host>``."""

    prefix: str
    hosts: tuple[Host, ...]

    def namespace(self, host: str) -> str:
        """Return the name of a host's (or the switch's) network namespace."""
        return f"{self.prefix}-{host}"

    @property
    def namespaces(self) -> tuple[str, ...]:
        """All namespaces of this lab, the switch first."""
        return tuple(self.namespace(h) for h in (SWITCH, *(host.name for host in self.hosts)))

    @property
    def routers(self) -> tuple[Host, ...]:
        """The hosts that run hanat, in order."""
        return tuple(host for host in self.hosts if host.is_router)

    def router(self, name: str) -> Host:
        """Return the router of that name."""
        return next(host for host in self.routers if host.name == name)

    def host(self, name: str) -> Host:
        """Return the host of that name."""
        return next(host for host in self.hosts if host.name == name)

    def present(self) -> tuple[str, ...]:
        """Return which of the namespaces exist at the moment."""
        return tuple(name for name in self.namespaces if (NETNS_DIR / name).exists())


def _port(host: str, network: str, device: str, number: int) -> Port:
    mac = f"02:68:6e:{1 if network == 'public' else 2:02x}:00:{number:02x}"
    own, own_v6 = f"{SUBNET[network]}{number}/24", f"{SUBNET_V6[network]}{number}/64"
    return Port(host, network, device, own, own_v6, mac)


def three_routers(prefix: str = "hanat") -> Topology:
    """Return the lab drawn above.

    Raises:
        UsageError: The prefix cannot be part of a file name.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,39}", prefix):
        raise UsageError(
            f'"{prefix}" cannot be a prefix: a letter, then letters, digits, - and _, '
            "40 characters at most"
        )
    routers = tuple(
        Host(
            name=f"r{i}",
            ports=tuple(_port(f"r{i}", net, dev, 10 + i) for net, dev in DEVICES.items()),
            is_router=True,
        )
        for i in (1, 2, 3)
    )
    client = Host(CLIENT, (_port(CLIENT, "public", "eth0", 100),))
    gateways = floating("private")
    servers = tuple(
        Host(name, (_port(name, "private", "eth0", FIRST_SERVER + i),), gateways)
        for i, name in enumerate(SERVERS)
    )
    return Topology(prefix, (*routers, client, *servers))


def run_ip(arguments: Sequence[str], script: Iterable[str] | None = None) -> str:
    """Run ip(8), with `script` as lines of a batch if given; return what it printed."""
    command = ["ip", *arguments, *(("-batch", "-") if script is not None else ())]
    text = None if script is None else "\n".join(script) + "\n"
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"cannot run {' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def build(topology: Topology) -> None:
    """Create the network; on any failure remove what was there already.

    Raises:
        UsageError: The kernel has no connection tracking, and it could not be loaded.
        LabError: A namespace of that name exists, or the kernel refused something.
    """
    modules.require(modules.listed())
    if present := topology.present():
        raise LabError(
            f"cannot build the lab: network namespace {present[0]} exists; "
            'run "python -m chaos down" and try again'
        )
    try:
        _create(topology)
    except BaseException:
        remove(topology)
        raise


def _create(topology: Topology) -> None:
    for namespace in topology.namespaces:
        run_ip(["netns", "add", namespace])
        write_sysctls(namespace, QUIET_IPV6)
    for router in topology.routers:
        write_sysctls(topology.namespace(router.name), ROUTER_SYSCTLS)
    switch = topology.namespace(SWITCH)
    # The bridges get fixed addresses, otherwise they change with every port plugged in.
    run_ip(
        ["-n", switch],
        [
            f"link add {bridge} address 02:68:6e:{i:02x}:00:fe type bridge mcast_snooping 0"
            for i, bridge in enumerate(BRIDGES.values(), start=1)
        ],
    )
    write_sysctls(switch, SWITCH_SYSCTLS)
    for host in topology.hosts:
        # Made from inside: before Linux 6.15 the kernel looks for another "eth0" in the
        # namespace of the caller, and most machines have one there.
        lines = ["link set lo up"]
        for port in host.ports:
            lines += [
                f"link add {port.device} address {port.mac} "
                f"type veth peer name {port.port} netns {switch}",
                f"addr add {port.address} dev {port.device}",
                f"addr add {port.address_v6} dev {port.device} nodad",
                f"link set {port.device} up",
            ]
        lines += [f"route add default via {gateway}" for gateway in host.gateways]
        run_ip(["-n", topology.namespace(host.name)], lines)
    run_ip(
        ["-n", switch],
        [
            "link set lo up",
            *(f"link set {bridge} up" for bridge in BRIDGES.values()),
            *(
                f"link set {port.port} master {BRIDGES[port.network]} up"
                for host in topology.hosts
                for port in host.ports
            ),
        ],
    )


def remove(topology: Topology) -> None:
    """Delete the namespaces that exist; devices inside go with them.

    A socket that still tries to say goodbye keeps a namespace for minutes, nameless, and with it
    every tracked connection in the table that all namespaces share: the next lab's nodes
    would walk past them.
    """
    routers = {topology.namespace(router.name) for router in topology.routers}
    for namespace in topology.present():
        if namespace in routers:
            with suppress(OSError):  # it goes anyway
                empty_connections(namespace)
        run_ip(["netns", "del", namespace])


def set_carrier(topology: Topology, host: str, network: str, *, up: bool) -> None:
    """Pull a host's cable out of its bridge, or plug it in again."""
    port = next(p for p in topology.host(host).ports if p.network == network)
    run_ip(
        ["-n", topology.namespace(SWITCH), "link", "set", port.port, "up" if up else "down"],
    )
