"""A device has no own address and the default route: what the kernel makes of it, and who tells."""

from __future__ import annotations

from contextlib import closing
from ipaddress import ip_interface
from pathlib import Path

import pytest

from hanat.config import load_cluster, load_node
from hanat.core.placements import Placement
from hanat.doctor.examine import Site, examine, sysctl_names
from hanat.doctor.findings import Finding, Level
from hanat.doctor.preflight import check
from hanat.kernel.addresses import KernelAddresses
from hanat.kernel.facts import gather
from hanat.kernel.links import KernelLinks
from tests.kernel.namespaces import cable, run, until

pytestmark = pytest.mark.kernel

CLUSTER = """\
schema = 1
[cluster]
name = "edge1"
[[vip]]
name = "public"
address = ["203.0.113.10/24", "2001:db8:1::10/64"]
interface = "public"
[[vip]]
name = "private"
address = ["10.11.12.1/24", "fd00:12::1/64"]
interface = "private"
"""
NODE = """\
schema = 1
node = "r1"
cluster_file = "cluster.toml"
data_dir = "data"
key_file = "key"
[interfaces]
public = "eth0"
private = "eth1"
[[peer]]
name = "r1"
id = 1
addresses = ["10.11.12.11", "fd00:12::11"]
[[peer]]
name = "r2"
id = 2
addresses = ["10.11.12.12", "fd00:12::12"]
[[peer]]
name = "r3"
id = 3
addresses = ["10.11.12.13", "fd00:12::13"]
"""
FLOATING = [
    Placement("eth0", ip_interface(text)) for text in ("203.0.113.10/24", "2001:db8:1::10/64")
]
OWN = {4: "203.0.113.11/24", 6: "2001:db8:1::11/64"}
DEFAULT = {4: "default via 203.0.113.1 dev eth0", 6: "default via 2001:db8:1::1 dev eth0"}
FAR = {4: "198.51.100.1", 6: "2001:db8:2::1"}


@pytest.fixture
def router(inside: str) -> str:
    """A router that holds, on whose public device only the floating addresses are."""
    for device in ("eth0", "eth1"):
        cable((inside, device), (inside, f"{device}-far"))
    run("ip addr add 10.11.12.11/24 dev eth1", inside)
    run("ip addr add fd00:12::11/64 dev eth1 nodad", inside)
    with closing(KernelAddresses()) as addresses:
        addresses.add(FLOATING)
        until(lambda: all(map(addresses.local, FLOATING)), "the local routes")
    for version, route in DEFAULT.items():
        run(f"ip -{version} route add {route}", inside)
    return inside


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """What the router is told to be."""
    for name, text in (("node.toml", NODE), ("cluster.toml", CLUSTER)):
        (tmp_path / name).write_text(text)
    return Site(load_node(tmp_path / "node.toml"), load_cluster(tmp_path / "cluster.toml"))


def give_up_and_hold_again() -> None:
    with closing(KernelAddresses()) as addresses:
        addresses.remove(FLOATING)
        addresses.add(FLOATING)
        until(lambda: all(map(addresses.local, FLOATING)), "the local routes")


def way_out(router: str, version: int) -> bool:
    """Say whether the kernel knows where to send what is for the world."""
    known = DEFAULT[version] in run(f"ip -{version} route show default", router)
    if known:
        assert " dev eth0 " in run(f"ip -{version} route get {FAR[version]}", router)
    return known


def told_by_the_doctor(site: Site) -> list[Finding]:
    found = examine(gather(sysctls=sysctl_names(site.devices)), site)
    return [finding for finding in found if finding.check == "default route over eth0"]


def told_at_the_start(site: Site, caplog: pytest.LogCaptureFixture) -> list[str]:
    assert site.settings is not None
    assert site.configuration is not None
    caplog.clear()
    with closing(KernelLinks()) as links, closing(KernelAddresses()) as addresses:
        check(site.settings, site.configuration, links=links, addresses=addresses)
    return [record.getMessage() for record in caplog.records]


def test_default_route_that_goes_with_the_floating_address_is_told_before(
    router: str, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    run(f"ip addr add {OWN[6]} dev eth0 nodad", router)  # it does not help IPv4

    (finding,) = told_by_the_doctor(site)
    (warning,) = told_at_the_start(site, caplog)

    assert finding.level is Level.FAIL
    assert "ip address add" in finding.fix
    assert "device=eth0 found='default route, and no IPv4 address of its own'" in warning
    give_up_and_hold_again()
    assert not way_out(router, 4)
    # What is told is for IPv4 only; the next test has IPv6 without an own address.
    assert way_out(router, 6)


def test_default_route_of_ipv6_stays_without_an_own_address_and_nobody_is_told(
    router: str, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    run(f"ip addr add {OWN[4]} dev eth0", router)
    run("ip link set dev eth0 addrgenmode none", router)
    run("ip -6 addr flush dev eth0 scope link", router)  # not even such an address is left

    assert told_by_the_doctor(site) == []
    assert told_at_the_start(site, caplog) == []

    give_up_and_hold_again()
    assert way_out(router, 4)
    assert way_out(router, 6)


@pytest.mark.parametrize("version", [4, 6])
def test_default_route_outlives_the_floating_address_beside_an_own_one(
    router: str, version: int
) -> None:
    run(f"ip addr add {OWN[version]} dev eth0 {'nodad' if version == 6 else ''}", router)
    with closing(KernelAddresses()) as addresses:
        addresses.remove(FLOATING)
        assert ip_interface(OWN[version]) in addresses.present("eth0")
    assert way_out(router, version)
    give_up_and_hold_again()
    assert way_out(router, version)
