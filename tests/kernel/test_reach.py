"""Who reaches what: addresses by ports by protocols, from outside and inside, both families.

The client is on the public network and sets routes as it likes; the server is inside. r1 holds
the addresses, r2 is a backup. Port 80 is the service that both sides may ask, 90 the one of the
public side alone, 8080 is where the servers listen, 22 a port of any machine's own.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_network

import pytest

from hanat.core.configuration import Forward, Transit
from tests.kernel.conftest import gates_of_both_kinds
from tests.kernel.namespaces import run, until
from tests.kernel.network import CONFIGURATION, MESH_PORT, Network, family_of
from tests.kernel.reach import Reach, Target, give, route

pytestmark = [pytest.mark.kernel, gates_of_both_kinds]

PORTS = (22, 80, 90, 8080)
LISTENED = (*PORTS, 8090)


@dataclass(frozen=True)
class Plan:
    """The addresses of one family.

    Attributes:
        behind: Of the server too, routed by the client over the backup.
        strange: Of a machine inside that nothing masquerades, or of one outside.
        forged: An inside address that the client takes as its own.
    """

    width: int
    inside: str
    client: str
    vip: str
    inside_vip: str
    server: str
    behind: str
    strange: str
    forged: str
    r1: tuple[str, str]
    r2: tuple[str, str]


V4 = Plan(
    32, "10.11.12.0/24", "203.0.113.2", "203.0.113.10", "10.11.12.1", "10.11.12.101",
    "10.11.12.102", "10.44.0.5", "10.11.12.77",
    ("203.0.113.11", "10.11.12.11"), ("203.0.113.12", "10.11.12.12"),
)  # fmt: skip
V6 = Plan(
    128, "fd00:12::/64", "2001:db8:1::2", "2001:db8:1::10", "fd00:12::1", "fd00:12::101",
    "fd00:12::102", "fd00:44::5", "fd00:12::77",
    ("2001:db8:1::11", "fd00:12::11"), ("2001:db8:1::12", "fd00:12::12"),
)  # fmt: skip
PLANS = pytest.mark.parametrize("plan", [V4, V6], ids=["v4", "v6"])

NOTHING = ""
OWN = "echo tcp/22 tcp/80 tcp/8080 tcp/90 udp/22 udp/80 udp/8080 udp/90"

OUTSIDE = {
    "vip": "echo tcp/80 tcp/90 udp/80 udp/90",
    "inside vip": NOTHING,
    "server": NOTHING,
    "server by the backup": NOTHING,
    "holder's own": OWN,
    "holder's inside address": NOTHING,
    "backup's own": OWN,
    "backup's inside address": NOTHING,
    "server, from a forged address": NOTHING,
    "vip, from a forged address": NOTHING,
    "outside, from a forged address": NOTHING,
}
INSIDE = {
    "outside": OWN,
    "outside by the backup": NOTHING,
    "outside, from an address nobody masquerades": NOTHING,
    "vip": "tcp/80 udp/80",
    "inside vip": "echo",
    "holder's own": OWN,
    "holder's outside address": NOTHING,
    "backup's own": OWN,
}


def outside_targets(network: Network, plan: Plan) -> dict[str, Target]:
    """Route as a stranger would, and return what to ask."""
    give(network, "server", f"{plan.behind}/{plan.width}")
    give(network, "client", f"{plan.forged}/{plan.width}", "lo")
    (r1, r1_inside), (r2, r2_inside) = plan.r1, plan.r2
    route(network, "client", plan.inside, plan.vip)
    route(network, "client", f"{plan.behind}/{plan.width}", r2)
    route(network, "client", f"{r1_inside}/{plan.width}", r1)
    route(network, "client", f"{r2_inside}/{plan.width}", r2)
    # A third machine outside, which the client reaches over the holder.
    route(network, "client", f"{plan.strange}/{plan.width}", plan.vip)
    route(network, "r1", f"{plan.strange}/{plan.width}", plan.client)
    return {
        "vip": Target(plan.vip, PORTS),
        "inside vip": Target(plan.inside_vip, PORTS),
        "server": Target(plan.server, PORTS),
        "server by the backup": Target(plan.behind, PORTS),
        "holder's own": Target(r1, PORTS),
        "holder's inside address": Target(r1_inside, PORTS),
        "backup's own": Target(r2, PORTS),
        "backup's inside address": Target(r2_inside, PORTS),
        "server, from a forged address": Target(plan.server, PORTS, plan.forged),
        "vip, from a forged address": Target(plan.vip, PORTS, plan.forged),
        "outside, from a forged address": Target(plan.strange, PORTS, plan.forged),
    }


def inside_targets(network: Network, plan: Plan) -> dict[str, Target]:
    """Return what a server asks."""
    (r1, r1_inside), (_, r2_inside) = plan.r1, plan.r2
    give(network, "server", f"{plan.strange}/{plan.width}")
    give(network, "client", f"{plan.behind}/{plan.width}")  # a second machine outside
    route(network, "r1", f"{plan.strange}/{plan.width}", plan.server)
    route(network, "r2", f"{plan.behind}/{plan.width}", plan.client)
    route(network, "server", f"{plan.behind}/{plan.width}", r2_inside)
    return {
        "outside": Target(plan.client, PORTS),
        "outside by the backup": Target(plan.behind, PORTS),
        "outside, from an address nobody masquerades": Target(plan.client, PORTS, plan.strange),
        "vip": Target(plan.vip, PORTS),
        "inside vip": Target(plan.inside_vip, PORTS),
        "holder's own": Target(r1_inside, PORTS),
        "holder's outside address": Target(r1, PORTS),
        "backup's own": Target(r2_inside, PORTS),
    }


@PLANS
def test_what_the_public_side_reaches(network: Network, plan: Plan) -> None:
    network.r1.take_over()
    reach = Reach(network, LISTENED)

    assert reach.reached("client", outside_targets(network, plan)) == OUTSIDE


@PLANS
def test_what_a_server_reaches(network: Network, plan: Plan) -> None:
    network.r1.take_over()
    reach = Reach(network, LISTENED)

    assert reach.reached("server", inside_targets(network, plan)) == INSIDE


@PLANS
def test_an_open_router_forwards_and_still_believes_no_forged_address(
    network: Network, plan: Plan
) -> None:
    for router in (network.r1, network.r2):
        router.prepare(replace(CONFIGURATION, forward=Forward.OPEN))
    network.r1.take_over()
    reach = Reach(network, LISTENED)

    assert reach.reached("client", outside_targets(network, plan)) == OUTSIDE | {"server": OWN}


@PLANS
def test_transit_passes_every_router_as_it_is(network: Network, plan: Plan) -> None:
    """A network behind the backup: VPN."""
    transit = Transit("vpn", (ip_network(f"{plan.strange}/{plan.width}"),))
    for router in (network.r1, network.r2):
        router.prepare(replace(CONFIGURATION, transits=(transit,)))
    network.r1.take_over()
    (_, _), (r2, r2_inside) = plan.r1, plan.r2
    give(network, "client", f"{plan.strange}/{plan.width}")
    run(f"ip route replace {plan.server}/{plan.width} via {r2}", network.made["client"])
    route(network, "r2", f"{plan.strange}/{plan.width}", plan.client)
    route(network, "server", f"{plan.strange}/{plan.width}", r2_inside)
    reach = Reach(network, LISTENED)

    assert reach.reached("server", {"vpn": Target(plan.strange, PORTS)}) == {"vpn": OWN}
    assert reach.reached("client", {"server": Target(plan.server, PORTS, plan.strange)}) == {
        "server": OWN.removeprefix("echo ")
    }


@PLANS
def test_what_is_not_tracked_does_not_leave_untranslated(network: Network, plan: Plan) -> None:
    """Chains of NAT do not see it: it would show the inside to the outside."""
    network.r1.take_over()
    leave_untracked(network, 8080)
    asked = {"outside": Target(plan.client, (22, 8080))}

    assert Reach(network, LISTENED).reached("server", asked) == {
        "outside": "echo tcp/22 tcp/8080 udp/22"
    }


@PLANS
def test_what_is_invalid_reaches_an_own_address_by_its_own_device_only(
    network: Network, plan: Plan
) -> None:
    """Chains of NAT do not see it."""
    own, inside = plan.r1
    word = "ip6" if ":" in own else "ip"
    route(network, "client", f"{inside}/{plan.width}", own)
    with network.r1.entered() as router:
        router.firewall.apply(
            "add table inet other\n"
            "add chain inet other late { type filter hook input priority 10; }\n"
            + "".join(
                f"add rule inet other late {word} daddr {address} tcp dport 22 counter\n"
                for address in (own, inside)
            )
        )
    opened = network.open_socket("client", family_of(own), socket.SOCK_RAW, socket.IPPROTO_TCP)
    flags, words = 0x03, 5  # FIN and SYN
    header = struct.pack("!HHIIBBHHH", 40_000, 22, 1, 0, words << 4, flags, 1024, 0, 0)

    for address in (inside, own):  # in this order: what is counted last shows that both came
        opened.sendto(header, (address, 0))

    def counts() -> list[int]:
        listing = run("nft list chain inet other late", network.r1.namespace)
        return [int(n) for n in re.findall(r"counter packets (\d+)", listing)]

    until(lambda: counts()[0] == 1, "the packet to the address of this side")
    assert counts() == [1, 0]


@PLANS
def test_flow_that_is_older_than_the_policy_is_not_carried_on(network: Network, plan: Plan) -> None:
    network.r1.prepare(replace(CONFIGURATION, forward=Forward.OPEN))
    network.r1.take_over()
    route(network, "client", plan.inside, plan.vip)
    far = network.open_socket("server", family_of(plan.server), socket.SOCK_DGRAM)
    far.bind((plan.server, 8080))
    near = network.open_socket("client", family_of(plan.server), socket.SOCK_DGRAM)
    near.connect((plan.server, 8080))
    near.send(b"before")
    assert far.recv(100) == b"before"

    network.r1.prepare()
    near.send(b"after")

    other = network.open_socket("client", family_of(plan.vip), socket.SOCK_DGRAM)
    other.sendto(b"by the service", (plan.vip, 80))  # the same way, and later
    assert far.recv(100) == b"by the service"


@PLANS
def test_who_forges_a_peer_s_address_and_port_reaches_nothing(network: Network, plan: Plan) -> None:
    """What peers say is not tracked, so that no chain of NAT sees it."""
    network.r1.take_over()
    (own, inside), (_, peer) = plan.r1, plan.r2
    route(network, "client", f"{inside}/{plan.width}", own)
    give(network, "client", f"{peer}/{plan.width}", "lo")

    with datagrams(network, "r1", own) as arriving:
        for source, to in ((peer, inside), (plan.client, own)):
            near = network.open_socket("client", family_of(own), socket.SOCK_DGRAM)
            near.bind((source, MESH_PORT))
            near.sendto(source.encode(), (to, PORTS[0]))
        assert arriving.recv(100) == plan.client.encode()


@PLANS
def test_transit_that_is_not_tracked_passes(network: Network, plan: Plan) -> None:
    transit = Transit("vpn", (ip_network(f"{plan.strange}/{plan.width}"),))
    network.r1.prepare(replace(CONFIGURATION, transits=(transit,)))
    network.r1.take_over()
    leave_untracked(network, 8080)
    targets = inside_targets(network, plan)
    route(network, "client", f"{plan.strange}/{plan.width}", plan.vip)
    name = "outside, from an address nobody masquerades"

    found = Reach(network, LISTENED).reached("server", {name: targets[name]})

    assert "udp/8080" in found[name].split()


@PLANS
def test_flow_that_is_older_than_the_policy_reaches_no_address_of_the_other_side(
    network: Network, plan: Plan
) -> None:
    own, inside = plan.r1
    with network.r1.entered() as router:
        router.firewall.apply(
            "delete table inet hanat\n"
            "add table inet other\n"
            "add chain inet other early { type nat hook prerouting priority -100; }\n"
        )
    network.r1.take_over()
    route(network, "client", f"{inside}/{plan.width}", own)
    near = network.open_socket("client", family_of(own), socket.SOCK_DGRAM)
    near.connect((inside, PORTS[0]))

    with datagrams(network, "r1", own) as arriving:
        near.send(b"before")
        assert arriving.recv(100) == b"before"
        network.r1.prepare()
        near.send(b"after")
        other = network.open_socket("client", family_of(own), socket.SOCK_DGRAM)
        other.sendto(b"by its own device", (own, PORTS[0]))
        assert arriving.recv(100) == b"by its own device"


@contextmanager
def datagrams(network: Network, place: str, address: str) -> Iterator[socket.socket]:
    """Receive what comes to the first port of a machine, whatever address of its was asked."""
    opened = network.open_socket(place, family_of(address), socket.SOCK_DGRAM)
    opened.bind(("::" if ":" in address else "0.0.0.0", PORTS[0]))  # noqa: S104 - a namespace
    yield opened


def leave_untracked(network: Network, port: int) -> None:
    """Do what another program of the holder does that tracks no datagrams to a port."""
    with network.r1.entered() as router:
        router.firewall.apply(
            "add table inet other\n"
            "add chain inet other early { type filter hook prerouting priority raw; }\n"
            f"add rule inet other early udp dport {port} notrack\n"
        )
