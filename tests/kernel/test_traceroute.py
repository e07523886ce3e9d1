"""Probes that count hops by UDP, into the holder and through it, in both families.

A probe with one hop left is one at its last hop; it is known by that, not by its port.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass

import pytest

from tests.kernel.namespaces import run, until
from tests.kernel.network import (
    CLIENT,
    CLIENT_V6,
    INSIDE_VIP,
    INSIDE_VIP_V6,
    OWN,
    PLACEMENTS,
    SERVER,
    SERVER_V6,
    SERVICE_PORT,
    VIP,
    VIP_V6,
    Network,
    family_of,
)

pytestmark = pytest.mark.kernel

PORT = 33434  # the first that traceroute(8) asks; nobody listens there
REFUSED, EXCEEDED = errno.ECONNREFUSED, errno.EHOSTUNREACH
IPV6_RECVERR, IP_RECVERR = 25, 11  # Python has no name for them


@dataclass(frozen=True)
class Plan:
    """The addresses of one family."""

    client: str
    server: str
    vip: str
    inside_vip: str
    outer: str
    inner: str


V4 = Plan(CLIENT, SERVER, VIP, INSIDE_VIP, OWN["r1"][0], OWN["r1"][2])
V6 = Plan(CLIENT_V6, SERVER_V6, VIP_V6, INSIDE_VIP_V6, OWN["r1"][1], OWN["r1"][3])
PLANS = pytest.mark.parametrize("plan", [V4, V6], ids=["v4", "v6"])


class Tracer:
    """A UDP socket that is told who answered with an error."""

    def __init__(self, network: Network, place: str, to: str, port: int = PORT) -> None:
        self._v6 = ":" in to
        self._socket = network.open_socket(place, family_of(to), socket.SOCK_DGRAM)
        self._socket.setblocking(False)  # noqa: FBT003 - the library's signature
        level, option = self._level(IPV6_RECVERR, IP_RECVERR)
        self._socket.setsockopt(level, option, 1)
        self._socket.connect((to, port))
        self._errors: list[tuple[int, str]] = []

    def _level(self, v6: int, v4: int) -> tuple[int, int]:
        return (socket.IPPROTO_IPV6, v6) if self._v6 else (socket.IPPROTO_IP, v4)

    def send(self, hops: int) -> None:
        """Send a probe that lives for so many hops."""
        self._socket.setsockopt(*self._level(socket.IPV6_UNICAST_HOPS, socket.IP_TTL), hops)
        self._socket.send(b"hanat")

    def probe(self, hops: int) -> tuple[int, str]:
        """Send a probe; return the error that came first, and from whom."""
        self.send(hops)
        until(self._told, "an answer")
        return self._errors.pop(0)

    @property
    def told(self) -> list[tuple[int, str]]:
        """The errors beyond those that were returned."""
        while self._told():
            pass
        return self._errors

    def _told(self) -> bool:
        try:
            _, controls, _, _ = self._socket.recvmsg(64, 512, socket.MSG_ERRQUEUE)
        except BlockingIOError:
            return False
        self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # told once is enough
        ((_, _, found),) = [c for c in controls if c[1] in {IPV6_RECVERR, IP_RECVERR}]
        (number,) = struct.unpack_from("=I", found)
        # struct sock_extended_err has 16 bytes; then comes the address of who sent it.
        family = socket.AF_INET6 if self._v6 else socket.AF_INET
        packed = found[24:40] if self._v6 else found[20:24]
        self._errors.append((number, socket.inet_ntop(family, packed)))
        return True


def entries(network: Network, plan: Plan) -> str:
    family = "ipv6" if ":" in plan.vip else "ipv4"
    return run(f"conntrack -L -p udp -f {family} --orig-dst {plan.vip}", network.made["r1"])


@PLANS
def test_probe_at_its_last_hop_is_refused_by_the_floating_address(
    network: Network, plan: Plan
) -> None:
    network.r1.take_over()

    assert Tracer(network, "client", plan.vip).probe(1) == (REFUSED, plan.vip)
    assert Tracer(network, "server", plan.inside_vip).probe(1) == (REFUSED, plan.inside_vip)
    assert f"dport={PORT}" not in entries(network, plan)


@PLANS
def test_packet_with_hops_left_may_be_of_a_flow_and_vanishes(network: Network, plan: Plan) -> None:
    network.r1.take_over()
    tracer = Tracer(network, "client", plan.vip)

    for hops in (2, 64, 255):
        tracer.send(hops)

    # That of the fourth is the only answer; packets and answers are in order here.
    assert tracer.probe(1) == (REFUSED, plan.vip)
    assert tracer.told == []


@PLANS
def test_router_without_a_right_refuses_nothing(network: Network, plan: Plan) -> None:
    with network.r1.entered() as router:
        router.addresses.add(PLACEMENTS)
    mac = run("cat /sys/class/net/eth0/address", network.made["r1"]).strip()
    # It answers neither ARP nor ND for the address, so the client is told where it is.
    run(f"ip neigh replace {plan.vip} lladdr {mac} dev eth0", network.made["client"])
    tracer = Tracer(network, "client", plan.vip)

    tracer.send(1)

    # The kernel answers for the own address, behind that packet.
    assert Tracer(network, "client", plan.outer).probe(1) == (REFUSED, plan.outer)
    assert tracer.told == []


@PLANS
def test_way_of_a_server_to_the_outside_is_seen(network: Network, plan: Plan) -> None:
    network.r1.take_over()
    tracer = Tracer(network, "server", plan.client)

    assert tracer.probe(1) == (EXCEEDED, plan.inner)
    assert tracer.probe(2) == (REFUSED, plan.client)


@PLANS
def test_way_of_a_client_to_a_service_shows_nothing_of_the_inside(
    network: Network, plan: Plan
) -> None:
    network.r1.take_over()
    tracer = Tracer(network, "client", plan.vip, SERVICE_PORT)

    assert tracer.probe(1) == (EXCEEDED, plan.vip)
    assert tracer.probe(2) == (REFUSED, plan.vip)  # the server has no such socket
