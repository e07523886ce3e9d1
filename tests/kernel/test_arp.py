"""Which device answers ARP for which address, on the real kernel."""

from __future__ import annotations

import pytest

from tests.kernel.conftest import gates_of_both_kinds
from tests.kernel.gate_cells import is_neighbour
from tests.kernel.namespaces import run
from tests.kernel.network import INSIDE_VIP, OWN, VIP, Network

pytestmark = [pytest.mark.kernel, gates_of_both_kinds]

PUBLIC_OWN, _, INSIDE_OWN, _ = OWN["r1"]


@pytest.fixture
def asking(network: Network) -> Network:
    """A client that takes the inside network for its own."""
    run("ip addr add 10.11.12.77/24 dev eth0", network.made["client"])
    network.r1.take_over()
    return network


def test_floating_address_of_the_other_side_is_not_answered_for(asking: Network) -> None:
    assert is_neighbour(asking, "client", VIP)
    assert not is_neighbour(asking, "client", INSIDE_VIP)
    assert is_neighbour(asking, "server", INSIDE_VIP)


def test_own_address_of_the_other_side_is_not_answered_for_with_arp_ignore(
    asking: Network,
) -> None:
    assert is_neighbour(asking, "client", INSIDE_OWN)  # what Linux does
    run("sysctl -qw net.ipv4.conf.all.arp_ignore=1", asking.r1.namespace)

    assert not is_neighbour(asking, "client", INSIDE_OWN)
    assert is_neighbour(asking, "client", PUBLIC_OWN)
    assert is_neighbour(asking, "server", INSIDE_OWN)
