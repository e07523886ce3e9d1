"""What this machine knows of the paths to the peers, more than the files say."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

from hanat.core.control_traffic import ClusterPath
from hanat.core.placements import Placement
from hanat.doctor.preflight import conversation_of
from tests.daemon.test_supervisor_link import settings
from tests.fakes.kernel import FakeAddresses, FakeKernel, FakeLinks

R1, R2, R3 = (ip_address(f"203.0.113.{number}") for number in (11, 12, 13))
PRIVATE_R1, PRIVATE_R2 = ip_address("10.11.12.11"), ip_address("10.11.12.12")


def _paths(public: str, private: str) -> tuple[ClusterPath, ...]:
    """Return the paths of a machine whose devices have these addresses."""
    kernel = FakeKernel(("eth0", "eth1"), now=lambda: 0.0)
    addresses = FakeAddresses(kernel)
    addresses.add([Placement("eth0", ip_interface(public))])
    addresses.add([Placement("eth1", ip_interface(private))])
    found = conversation_of(settings(), links=FakeLinks(kernel), addresses=addresses)
    assert (found.own, found.peers) == ((R1, PRIVATE_R1), (R2, PRIVATE_R2, R3))
    return found.paths


def test_peers_in_the_network_of_the_own_address_are_on_its_link() -> None:
    assert _paths("203.0.113.11/24", "10.11.12.11/24") == (
        ClusterPath(R1, "eth0", (R2, R3)),
        ClusterPath(PRIVATE_R1, "eth1", (PRIVATE_R2,)),  # the third has no such address
    )


def test_peers_behind_a_router_may_come_by_any_device_with_any_ttl() -> None:
    public, private = _paths("203.0.113.11/32", "10.11.12.11/31")
    assert public == ClusterPath(R1, "eth0", (), (R2, R3))
    assert private == ClusterPath(PRIVATE_R1, "eth1", (), (PRIVATE_R2,))


def test_the_length_of_the_prefix_decides() -> None:
    public, _ = _paths("203.0.113.11/30", "10.11.12.11/24")  # .8 to .11
    assert (public.on_link, public.routed) == ((), (R2, R3))
    public, _ = _paths("203.0.113.11/29", "10.11.12.11/24")  # .8 to .15
    assert (public.on_link, public.routed) == ((R2, R3), ())
