"""Flows that no longer fit the rules, in a real kernel: they end, and what comes next fits."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest

from hanat.core.configuration import FloatingAddress, Forward, RealServer
from hanat.core.placements import Placement
from tests.kernel.holders import Holder, holding
from tests.kernel.namespaces import run
from tests.kernel.network import (
    CLIENT,
    CLIENT_V6,
    CONFIGURATION,
    INSIDE_VIP,
    SERVER,
    SERVER_V6,
    SERVICE_PORT,
    VIP,
    VIP_V6,
    Network,
    family_of,
    talk,
)

pytestmark = pytest.mark.kernel

OUTSIDE_PORT = 7000
OTHER_PORT = 8082
OTHER_VIP = "203.0.113.20"


@pytest.fixture
async def holder(network: Network) -> AsyncIterator[Holder]:
    with holding(network, network.r1) as made:
        yield made


def datagram(network: Network, place: str, address: str, port: int = 0) -> socket.socket:
    opened = network.open_socket(place, family_of(address), socket.SOCK_DGRAM)
    opened.bind((address, port))
    return opened


def arrives_from(near: socket.socket, far: socket.socket, to: tuple[str, int]) -> str:
    """Send one datagram; return the source address that the other end sees."""
    near.sendto(b"?", to)
    return str(far.recvfrom(16)[1][0])


@pytest.mark.parametrize(
    ("inside", "outside", "vip"), [(SERVER, CLIENT, VIP), (SERVER_V6, CLIENT_V6, VIP_V6)]
)
async def test_masquerade_is_added_while_a_flow_sends(
    holder: Holder, inside: str, outside: str, vip: str
) -> None:
    holder.install(replace(CONFIGURATION, masquerades=(), forward=Forward.OPEN))
    near = datagram(holder.network, "server", inside)
    far = datagram(holder.network, "client", outside, OUTSIDE_PORT)
    to = (outside, OUTSIDE_PORT)
    assert arrives_from(near, far, to) == inside

    holder.install(CONFIGURATION)
    near.sendto(b"dropped", to)  # rather than to show the inside: nobody has answered it

    assert await holder.reconcile(CONFIGURATION) == {"untranslated": 1}
    assert arrives_from(near, far, to) == vip
    assert await holder.reconcile(CONFIGURATION) == {}


async def test_flows_that_came_while_the_ruleset_was_gone(holder: Holder) -> None:
    far = datagram(holder.network, "client", CLIENT, OUTSIDE_PORT)
    senders = [datagram(holder.network, "server", SERVER) for _ in range(50)]
    asking = datagram(holder.network, "client", CLIENT)
    echo = datagram(holder.network, "server", SERVER, 8080)
    holder.network.r1.firewall.apply("delete table inet hanat")
    for near in senders:
        assert arrives_from(near, far, (CLIENT, OUTSIDE_PORT)) == SERVER
    asking.sendto(b"?", (VIP, SERVICE_PORT))

    holder.install(CONFIGURATION)

    assert await holder.reconcile(CONFIGURATION) == {"untranslated": 51}
    for near in senders:
        assert arrives_from(near, far, (CLIENT, OUTSIDE_PORT)) == VIP
    assert arrives_from(asking, echo, (VIP, SERVICE_PORT)) == CLIENT


async def test_vip_is_removed(holder: Holder) -> None:
    far = datagram(holder.network, "client", CLIENT, OUTSIDE_PORT)
    near = datagram(holder.network, "server", SERVER)
    echo = datagram(holder.network, "server", SERVER, 8080)
    asking = datagram(holder.network, "client", CLIENT)
    to = (CLIENT, OUTSIDE_PORT)
    await holder.reconcile(CONFIGURATION)
    assert arrives_from(near, far, to) == VIP
    assert arrives_from(asking, echo, (VIP, SERVICE_PORT)) == CLIENT

    public = FloatingAddress("public", "public", (ip_interface(f"{OTHER_VIP}/24"),))
    masquerade = replace(CONFIGURATION.masquerades[0], sources=(ip_address(OTHER_VIP),))
    changed = replace(
        CONFIGURATION,
        vips=(public, CONFIGURATION.vips[1]),
        masquerades=(masquerade,),
        services=(),
    )
    holder.install(changed)
    holder.network.r1.addresses.add([Placement("eth0", ip_interface(f"{OTHER_VIP}/24"), "eth0:1")])
    assert arrives_from(near, far, to) == VIP  # as long as it sends

    assert await holder.reconcile(changed) == {"address": 2}
    assert arrives_from(near, far, to) == OTHER_VIP


@pytest.mark.parametrize("removed", [False, True], ids=["weight 0", "removed"])
async def test_server_leaves_while_a_client_sends(holder: Holder, removed: bool) -> None:  # noqa: FBT001 - a parameter of the test
    service, closing = CONFIGURATION.services
    one = service.servers[0]
    other = RealServer("other", ip_address(SERVER), OTHER_PORT, weight=1)
    sockets = {
        port: datagram(holder.network, "server", SERVER, port) for port in (8080, OTHER_PORT)
    }
    listener = holder.network.listener("server", SERVER, 8080)
    near, far = holder.network.connection(listener, "client", (VIP, SERVICE_PORT))
    talk(near, far)
    asking = datagram(holder.network, "client", CLIENT)
    arrives_from(asking, sockets[8080], (VIP, SERVICE_PORT))

    left = () if removed else (replace(one, weight=0),)
    servers = (*left, other, *service.servers[1:])
    changed = replace(CONFIGURATION, services=(replace(service, servers=servers), closing))
    holder.install(changed)
    arrives_from(asking, sockets[8080], (VIP, SERVICE_PORT))  # as long as it sends

    wanted = {"server": 1, "reset": 1} if removed else {"server": 1}
    assert await holder.reconcile(changed) == wanted
    arrives_from(asking, sockets[OTHER_PORT], (VIP, SERVICE_PORT))
    if removed:
        near.sendall(b"?")
        with pytest.raises(ConnectionResetError):
            near.recv(1)
        far.sendall(b"!")
        with pytest.raises(ConnectionResetError):
            far.recv(1)
    else:
        talk(near, far)  # a connection drains


async def test_flows_that_nothing_lets_pass_end(holder: Holder) -> None:
    """What an open router let in before."""
    holder.install(replace(CONFIGURATION, forward=Forward.OPEN))
    asking = datagram(holder.network, "client", CLIENT)
    far = datagram(holder.network, "server", SERVER, 9999)
    with_route = holder.network.made["client"]
    run(f"ip route add {SERVER}/32 via {VIP}", with_route)
    arrives_from(asking, far, (SERVER, 9999))
    own = datagram(holder.network, "server", SERVER)
    own.sendto(b"?", ("10.11.12.11", 22))
    own.sendto(b"?", (INSIDE_VIP, 22))
    holder.install(CONFIGURATION)

    assert await holder.reconcile(CONFIGURATION) == {"forbidden": 1}
