"""What Linux takes away with an address, and must not: the router's own addresses."""

from __future__ import annotations

from contextlib import closing
from ipaddress import ip_interface

import pytest

from hanat.kernel.addresses import KernelAddresses
from hanat.kernel.ports import Placement
from tests.kernel.namespaces import cable, run

pytestmark = pytest.mark.kernel

OWN = ip_interface("203.0.113.11/24")
FIRST, SECOND = (Placement("eth0", ip_interface(f"203.0.113.{n}/24")) for n in (10, 20))


@pytest.fixture
def device(inside: str) -> str:
    """A device on which the kernel removes later addresses with an earlier one."""
    cable((inside, "eth0"), (inside, "far"))
    for where in ("all", "eth0"):
        run(f"sysctl -qw net.ipv4.conf.{where}.promote_secondaries=0", inside)
    run(f"ip addr add {OWN} dev eth0", inside)
    return inside


def test_own_address_that_was_added_again_stays_when_the_floating_one_goes(device: str) -> None:
    with closing(KernelAddresses()) as addresses:
        addresses.add([FIRST])
        # A restart of the network does this; the own address comes after the floating one now.
        run("sysctl -qw net.ipv4.conf.eth0.promote_secondaries=1", device)
        run(f"ip addr del {OWN} dev eth0", device)
        run(f"ip addr add {OWN} dev eth0", device)
        run("sysctl -qw net.ipv4.conf.eth0.promote_secondaries=0", device)
        run("ip route add default via 203.0.113.1 dev eth0", device)

        addresses.remove([FIRST])

        assert addresses.present("eth0") >= {OWN}
        assert FIRST.address not in addresses.present("eth0")
    assert "default via 203.0.113.1" in run("ip route show", device)
    assert "203.0.113.0/24" in run("ip route show", device)


def test_floating_addresses_do_not_go_with_each_other_or_with_the_own_one(device: str) -> None:
    with closing(KernelAddresses()) as addresses:
        addresses.add([FIRST, SECOND])
        run(f"ip addr del {OWN} dev eth0", device)
        assert addresses.present("eth0") >= {FIRST.address, SECOND.address}

        addresses.remove([FIRST])

        assert SECOND.address in addresses.present("eth0")
