"""Who reaches what: addresses by ports by protocols, from outside and inside, both families.

The client is on the public network and sets routes as it likes; the server is inside. r1 holds
the addresses, r2 is a backup. Port 80 is the service that both sides may ask, 90 the one of the
public side alone, 8080 is where the servers listen, 22 a port of any machine's own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_network

import pytest

from hanat.core.configuration import Forward, Transit
from tests.kernel.namespaces import run
from tests.kernel.network import CONFIGURATION, Network
from tests.kernel.reach import Reach, Target, give, route

pytestmark = pytest.mark.kernel

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
