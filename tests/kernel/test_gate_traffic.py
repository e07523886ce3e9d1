"""The gate on real packets: what passes with which right, and that the kernel ends it."""

from __future__ import annotations

import socket
import time

import pytest

from hanat.core.gate_rules import render_gate
from tests.core.examples import DEVICES
from tests.gates import grant
from tests.kernel.conftest import gates_of_both_kinds
from tests.kernel.namespaces import run, until
from tests.kernel.network import (
    CLIENT,
    CONFIGURATION,
    PLACEMENTS,
    SERVER,
    SERVER_V6,
    VIP,
    VIP_V6,
    Network,
    Probe,
    answers_echo,
    echo_socket,
)

pytestmark = [pytest.mark.kernel, gates_of_both_kinds]

VERSIONS = pytest.mark.parametrize(("vip", "server"), [(VIP, SERVER), (VIP_V6, SERVER_V6)])


@VERSIONS
def test_without_rights_nothing_is_answered(network: Network, vip: str, server: str) -> None:
    echo = echo_socket(network, server)
    with network.r1.entered() as router:
        router.addresses.add(PLACEMENTS)

    assert not any(Probe(network, echo, vip).answers() for _ in range(5))
    assert "lladdr" not in run(f"ip neigh show {vip}", network.made["client"])


@VERSIONS
def test_without_rights_nothing_is_forwarded(network: Network, vip: str, server: str) -> None:
    echo = echo_socket(network, server)
    with network.r1.entered() as router:
        router.addresses.add(PLACEMENTS)
    _know_neighbour(network, vip)

    assert not any(Probe(network, echo, vip).answers() for _ in range(5))


def test_without_answers_no_new_flow_leaves_for_the_outside(network: Network) -> None:
    network.r1.take_over()
    outside = network.open_socket("client", socket.AF_INET, socket.SOCK_DGRAM)
    outside.bind((CLIENT, 7000))
    # The first makes the server know its gateway's link-layer address.
    assert _arrives(network, outside)

    with network.r1.entered() as router:
        router.gate.withdraw()

    assert not any(_arrives(network, outside) for _ in range(5))


def test_without_rights_the_node_s_own_address_answers(network: Network) -> None:
    assert answers_echo(network, "client", "203.0.113.11")
    assert answers_echo(network, "client", "2001:db8:1::11")


@VERSIONS
def test_with_answers_new_flows_pass(network: Network, vip: str, server: str) -> None:
    echo = echo_socket(network, server)

    network.r1.take_over()

    until(lambda: Probe(network, echo, vip).answers(), "the first answer")
    assert all(Probe(network, echo, vip).answers() for _ in range(20))


@VERSIONS
def test_without_answers_only_established_flows_pass(
    network: Network, vip: str, server: str
) -> None:
    echo = echo_socket(network, server)
    network.r1.take_over()
    established = Probe(network, echo, vip)
    until(established.answers, "the first answer")

    with network.r1.entered() as router:
        router.gate.withdraw()

    assert established.answers()
    assert not any(Probe(network, echo, vip).answers() for _ in range(5))


@VERSIONS
def test_shut_gate_stops_established_flows(network: Network, vip: str, server: str) -> None:
    echo = echo_socket(network, server)
    network.r1.take_over()
    established = Probe(network, echo, vip)
    until(established.answers, "the first answer")

    with network.r1.entered() as router:
        router.gate.shut()

    assert not any(established.answers() for _ in range(5))


def test_kernel_ends_answers_then_carries_without_any_process(network: Network) -> None:
    echo = echo_socket(network)
    network.r1.take_over()
    established = Probe(network, echo)
    until(established.answers, "the first answer")

    with network.r1.entered() as router:
        grant(router.gate, DEVICES.values(), answers_s=0.4, carries_s=0.8)
    granted_at = time.monotonic()

    new_s = established_s = 0.0
    while (asked_s := time.monotonic() - granted_at) < 1.2:
        if Probe(network, echo).answers():
            new_s = asked_s
        asked_s = time.monotonic() - granted_at
        if established.answers():
            established_s = asked_s
    assert 0.2 < new_s <= 0.4
    assert 0.6 < established_s <= 0.8


def test_arming_again_loses_no_packet(network: Network) -> None:
    echo = echo_socket(network)
    network.r1.take_over()
    established = Probe(network, echo)
    until(established.answers, "the first answer")

    # As in service: again and again, and far from the end of what was granted.
    for _ in range(200):
        with network.r1.entered() as router:
            grant(router.gate, DEVICES.values(), answers_s=10.0, carries_s=20.0)
        assert established.answers()
        assert Probe(network, echo).answers()


def test_installing_again_loses_no_packet(network: Network) -> None:
    echo = echo_socket(network)
    network.r1.take_over()
    until(Probe(network, echo).answers, "the first answer")

    for _ in range(20):
        with network.r1.entered() as router:
            router.gate.install(render_gate(CONFIGURATION, DEVICES, router.by))
        assert Probe(network, echo).answers()


def test_node_without_rights_learns_where_the_address_went(network: Network) -> None:
    network.r1.take_over()
    assert answers_echo(network, "r2", VIP)
    before = run(f"ip neigh show {VIP}", network.r2.namespace)

    with network.r1.entered():
        run("ip link set eth0 address 02:00:00:00:00:77", network.r1.namespace)
    network.r1.take_over()

    until(
        lambda: "02:00:00:00:00:77" in run(f"ip neigh show {VIP}", network.r2.namespace),
        f"another neighbour than {before}",
    )


def _arrives(network: Network, outside: socket.socket) -> bool:
    """Send one datagram from the server by a new flow; say whether it came out."""
    inside = network.open_socket("server", socket.AF_INET, socket.SOCK_DGRAM)
    inside.sendto(b"out", outside.getsockname())
    outside.settimeout(0.05)
    try:
        return outside.recv(16) == b"out"
    except TimeoutError:
        return False


def _know_neighbour(network: Network, vip: str) -> None:
    """Give the client what ARP or neighbour discovery would have told it."""
    address = run("cat /sys/class/net/eth0/address", network.r1.namespace).strip()
    run(f"ip neigh replace {vip} lladdr {address} dev eth0 nud permanent", network.made["client"])
