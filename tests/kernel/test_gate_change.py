"""A node starts with an older file than its killed predecessor had in force."""

from __future__ import annotations

import socket
from dataclasses import replace
from ipaddress import ip_interface

import pytest

from chaos.lab.netns import entered
from hanat.core.configuration import FloatingAddress
from hanat.core.gate_rules import render_gate
from hanat.daemon.gate_change import GateChange
from hanat.kernel.addresses import KernelAddresses
from tests.core.examples import DEVICES
from tests.gates import grant
from tests.kernel.conftest import gates_of_both_kinds
from tests.kernel.namespaces import run, until
from tests.kernel.network import CONFIGURATION, Network

pytestmark = [pytest.mark.kernel, gates_of_both_kinds]

ADDED = ip_interface("203.0.113.77/24")


def test_address_that_only_the_present_gate_guards_never_answers_without_a_right(
    network: Network,
) -> None:
    newer = replace(
        CONFIGURATION, vips=(*CONFIGURATION.vips, FloatingAddress("added", "public", (ADDED,)))
    )
    with network.r1.entered():
        gate, addresses = network.r1.gate, KernelAddresses()
        gate.install(render_gate(newer, DEVICES, network.r1.by))
        run(f"ip addr add {ADDED} dev eth0", network.r1.namespace)
        grant(gate, DEVICES.values(), answers_s=20.0, carries_s=30.0)
        assert _answers(network)
        gate.shut()  # as the end of the lease does
        assert not _answers(network)

        change = GateChange(gate, addresses, DEVICES.values())
        change.install(render_gate(CONFIGURATION, DEVICES, network.r1.by), CONFIGURATION)

        assert ADDED.ip not in gate.guarded()
        assert not _answers(network)
        addresses.close()


def _answers(network: Network) -> bool:
    """Say whether anybody answers the client's question for the address."""
    client = network.made["client"]
    run("sysctl -qw net.ipv4.neigh.eth0.retrans_time_ms=50", client)
    run("ip neigh flush all", client)
    with entered(client), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"", (str(ADDED.ip), 9))

    def known() -> str:
        return run(f"ip neigh show {ADDED.ip}", client)

    until(lambda: "lladdr" in known() or "FAILED" in known(), "the question to end")
    return "lladdr" in known()
