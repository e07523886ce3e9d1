"""Connections go on through another router: the thing that matters."""

from __future__ import annotations

import re
import socket
from dataclasses import replace

import pytest

from hanat.core.flows import ChangeKind, Flow
from hanat.core.ruleset import render_ruleset
from hanat.kernel.ports import Capture, Installed
from tests.contract.flows import Change, changes_of
from tests.core.examples import CONVERSATION, DEVICES
from tests.kernel.namespaces import run, until
from tests.kernel.network import (
    CLIENT,
    CLIENT_V6,
    CONFIGURATION,
    INSIDE_VIP,
    SERVER,
    SERVER_PORT,
    SERVER_V6,
    SERVICE_PORT,
    VIP,
    VIP_V6,
    Network,
    answers_echo,
    read_exactly,
    talk,
)

pytestmark = pytest.mark.kernel

OUTSIDE_PORT = 7000


def test_established_connections_go_on_through_the_other_router(network: Network) -> None:
    network.r1.take_over()
    with network.r1.entered() as router:
        capture = router.conntrack.capture()
    pairs = _connections(network)
    puts = _read(capture, len(pairs))
    capture.close()

    with network.r2.entered() as router:
        installed = router.conntrack.install(change.record for change in puts)
    network.pull(network.r1)
    network.r2.take_over()

    assert installed == Installed(created=len(pairs))
    for near, far in pairs:
        talk(near, far)


def test_capture_tells_of_the_end_of_real_connections(network: Network) -> None:
    network.r1.take_over()
    with network.r1.entered() as router:
        capture = router.conntrack.capture()
    listener = network.listener("server", SERVER, SERVER_PORT)
    near, _ = network.connection(listener, "client", (VIP, SERVICE_PORT))
    (put,) = _read(capture, 1)

    # A reset ends the entry's life within the kernel's ten seconds.
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    near.close()
    run("conntrack -D -p tcp", network.r1.namespace)

    changes = _read(capture, 1)
    capture.close()
    original = Flow.from_record(put.record).original
    assert [change.kind for change in changes] == [ChangeKind.DELETE]
    assert Flow.from_record(changes[0].record).original == original


def test_dump_of_one_router_makes_the_other_equal(network: Network) -> None:
    network.r1.take_over()
    _connections(network)
    with network.r1.entered() as router:
        records = router.conntrack.dump()

    with network.r2.entered() as router:
        done = router.conntrack.install(records)
        copies = router.conntrack.dump()

    assert done == Installed(created=len(records))
    assert _sides(copies) == _sides(records)


def test_packet_of_an_unknown_flow_is_not_answered_by_a_reset(network: Network) -> None:
    network.r1.take_over()
    listener = network.listener("client", CLIENT, OUTSIDE_PORT)
    near, far = network.connection(listener, "server", (CLIENT, OUTSIDE_PORT))
    with network.r1.entered() as router:
        records = router.conntrack.dump()
    network.pull(network.r1)
    network.r2.take_over()

    # The flow is not there yet: the packet must vanish, so that it is sent again.
    far.sendall(b"early")
    until(lambda: _dropped(network) > 0, "the packet to be dropped")
    with network.r2.entered() as router:
        router.conntrack.install(records)

    assert read_exactly(near, 5) == b"early"


def test_replaced_ruleset_leaves_established_connections(network: Network) -> None:
    network.r1.take_over()
    pairs = _connections(network)

    for configuration in (CONFIGURATION, replace(CONFIGURATION, services=()), CONFIGURATION):
        with network.r1.entered() as router:
            router.firewall.apply(render_ruleset(configuration, DEVICES, CONVERSATION))
        for near, far in pairs:
            talk(near, far)


@pytest.mark.parametrize(
    ("outside", "vip", "inside"), [(CLIENT, VIP, SERVER), (CLIENT_V6, VIP_V6, SERVER_V6)]
)
def test_outside_sees_the_floating_address(
    network: Network, outside: str, vip: str, inside: str
) -> None:
    network.r1.take_over()
    listener = network.listener("client", outside, OUTSIDE_PORT)

    near, far = network.connection(listener, "server", (outside, OUTSIDE_PORT))

    assert near.getsockname()[0] == inside
    assert far.getpeername()[0] == vip


def test_server_sees_the_client_s_address(network: Network) -> None:
    network.r1.take_over()
    listener = network.listener("server", SERVER, SERVER_PORT)

    _, far = network.connection(listener, "client", (VIP, SERVICE_PORT))

    assert far.getpeername()[0] == CLIENT


def test_client_beside_the_server_reaches_it_by_the_public_address(network: Network) -> None:
    network.r1.take_over()
    listener = network.listener("server", SERVER, SERVER_PORT)

    near, far = network.connection(listener, "server", (VIP, SERVICE_PORT))

    talk(near, far)
    assert far.getpeername()[0] == INSIDE_VIP


def test_port_nobody_listens_on_is_silent(network: Network) -> None:
    network.r1.take_over()
    asking = network.open_socket("client", socket.AF_INET, socket.SOCK_STREAM)
    asking.settimeout(0.3)

    with pytest.raises(TimeoutError):
        asking.connect((VIP, 81))
    assert _dropped(network, "r1") > 0


@pytest.mark.parametrize("vip", [VIP, VIP_V6])
def test_floating_address_answers_echo(network: Network, vip: str) -> None:
    network.r1.take_over()

    assert answers_echo(network, "client", vip)


def _connections(network: Network) -> list[tuple[socket.socket, socket.socket]]:
    """Return both ends of a connection each way and each family, used once."""
    pairs = []
    for server, vip, client in ((SERVER, VIP, CLIENT), (SERVER_V6, VIP_V6, CLIENT_V6)):
        inside = network.listener("server", server, SERVER_PORT)
        outside = network.listener("client", client, OUTSIDE_PORT)
        pairs.append(network.connection(inside, "client", (vip, SERVICE_PORT)))
        pairs.append(network.connection(outside, "server", (client, OUTSIDE_PORT)))
    for near, far in pairs:
        talk(near, far)
    return pairs


def _read(capture: Capture, count: int) -> list[Change]:
    found: list[Change] = []

    def enough() -> bool:
        found.extend(changes_of(capture.read()))
        return len(found) >= count

    until(enough, f"{count} changes")
    return found


def _sides(records: list[bytes]) -> set[tuple[object, object]]:
    return {(flow.original, flow.reply) for flow in map(Flow.from_record, records)}


def _dropped(network: Network, name: str = "r2") -> int:
    """Return how many packets to a floating address the router dropped."""
    listing = run("nft list chain inet hanat floating", network.made[name])
    (found,) = re.findall(r"counter packets (\d+) bytes \d+ drop", listing)
    return int(found)
