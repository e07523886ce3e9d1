"""What Linux takes away with an address, and must not: the router's own addresses."""

from __future__ import annotations

import socket
from contextlib import closing
from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest

from hanat.core.flow_scope import scope_of
from hanat.core.flows import FlowTable
from hanat.core.placements import Placement
from hanat.core.ruleset import render_ruleset
from hanat.kernel.addresses import KernelAddresses
from hanat.worker.backup import BackupSide
from hanat.worker.flow_batch import Changes, encode
from tests.core.examples import CONVERSATION, DEVICES
from tests.kernel.namespaces import cable, run, until
from tests.kernel.network import (
    CONFIGURATION,
    INSIDE_VIP,
    OWN,
    SERVER,
    SERVER_PORT,
    SERVER_V6,
    SERVICE_PORT,
    VIP,
    VIP_V6,
    Network,
    talk,
)

pytestmark = pytest.mark.kernel

MINE = ip_interface("203.0.113.11/24")
FIRST, SECOND = (Placement("eth0", ip_interface(f"203.0.113.{n}/24")) for n in (10, 20))


@pytest.fixture
def device(inside: str) -> str:
    """A device on which the kernel removes later addresses with an earlier one."""
    cable((inside, "eth0"), (inside, "far"))
    for where in ("all", "eth0"):
        run(f"sysctl -qw net.ipv4.conf.{where}.promote_secondaries=0", inside)
    run(f"ip addr add {MINE} dev eth0", inside)
    return inside


def test_own_address_that_was_added_again_stays_when_the_floating_one_goes(device: str) -> None:
    with closing(KernelAddresses()) as addresses:
        addresses.add([FIRST])
        # A restart of the network does this; the own address comes after the floating one now.
        run("sysctl -qw net.ipv4.conf.eth0.promote_secondaries=1", device)
        run(f"ip addr del {MINE} dev eth0", device)
        run(f"ip addr add {MINE} dev eth0", device)
        run("sysctl -qw net.ipv4.conf.eth0.promote_secondaries=0", device)
        run("ip route add default via 203.0.113.1 dev eth0", device)

        addresses.remove([FIRST])

        assert addresses.present("eth0") >= {MINE}
        assert FIRST.address not in addresses.present("eth0")
    assert "default via 203.0.113.1" in run("ip route show", device)
    assert "203.0.113.0/24" in run("ip route show", device)


def test_floating_addresses_do_not_go_with_each_other_or_with_the_own_one(device: str) -> None:
    with closing(KernelAddresses()) as addresses:
        addresses.add([FIRST, SECOND])
        run(f"ip addr del {MINE} dev eth0", device)
        assert addresses.present("eth0") >= {FIRST.address, SECOND.address}

        addresses.remove([FIRST])

        assert SECOND.address in addresses.present("eth0")


# ------------------------------------------------------- programs of the routers themselves


@pytest.mark.parametrize(("server", "vip"), [(SERVER, VIP), (SERVER_V6, VIP_V6)])
def test_program_on_the_holder_reaches_a_service_as_any_other(
    network: Network, server: str, vip: str
) -> None:
    network.r1.take_over()
    listener = network.listener("server", server, SERVER_PORT)
    talk(*network.connection(listener, "r1", (vip, SERVICE_PORT)))


@pytest.mark.parametrize(("server", "vip"), [(SERVER, VIP), (SERVER_V6, VIP_V6)])
def test_program_on_a_backup_keeps_its_connection_when_it_is_replicated(
    network: Network, server: str, vip: str
) -> None:
    network.r1.take_over()
    listener = network.listener("server", server, SERVER_PORT)
    near, far = network.connection(listener, "r2", (vip, SERVICE_PORT))
    talk(near, far)
    with network.r1.entered() as router:
        records = router.conntrack.dump()
    assert len(records) == 1
    with network.r2.entered() as router:
        backup = BackupSide(router.conntrack, FlowTable(), lambda _complete: None)
        backup.scope = scope_of(CONFIGURATION, map(ip_address, OWN["r2"]))
        backup.install(encode(Changes(records, [])))
        assert (backup.installed, backup.clashed, backup.failed) == (0, 0, 0)
    talk(near, far)


def test_client_outside_the_network_of_the_floating_address_reaches_a_server_beside_it(
    network: Network,
) -> None:
    # The address has a prefix of 32, and the servers' network is another one than the client's.
    narrow = replace(
        CONFIGURATION,
        vips=tuple(
            replace(vip, addresses=tuple(ip_interface(a.ip) for a in vip.addresses))
            for vip in CONFIGURATION.vips
        ),
    )
    with network.r1.entered() as router:
        router.firewall.apply(render_ruleset(narrow, DEVICES, CONVERSATION))
    network.r1.take_over()
    run("ip addr add 10.99.0.7/32 dev eth0", network.made["server"])
    run("ip route add 10.99.0.7 dev eth1", network.r1.namespace)
    listener = network.listener("server", SERVER, SERVER_PORT)
    near = network.open_socket("server", socket.AF_INET, socket.SOCK_STREAM)
    near.bind(("10.99.0.7", 0))
    near.connect((VIP, SERVICE_PORT))
    far, (peer, _) = listener.accept()
    network.keep(far)
    talk(near, far)
    assert peer == INSIDE_VIP


def test_ipv6_address_is_local_when_the_addition_has_ended(network: Network) -> None:
    with network.r1.entered(), closing(KernelAddresses()) as addresses:
        # The acknowledgement does not say that it is; on a busy machine it comes some ms before.
        for number in range(20):
            placement = Placement("eth0", ip_interface(f"2001:db8:1::a{number:x}/64"))
            assert not addresses.local(placement)
            addresses.add([placement])
            until(lambda p=placement: addresses.local(p), "the local route")  # type: ignore[misc]
