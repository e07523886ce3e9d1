"""Other programs change what three real daemons need of their kernels."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from chaos.lab import topology
from chaos.lab.lab import Lab
from hanat.config import load_node
from tests.cluster.conftest import PUBLIC, Echo, hand_over, replicated

pytestmark = pytest.mark.cluster
TABLES = {"table inet hanat", "table inet hanat_gate", "table arp hanat_gate"}
NOTES = "table inet hanat_notes"  # where programs are attached by tcx


def test_tables_that_somebody_flushed_come_back_on_backup_and_holder(
    lab: Lab, inbound: Echo, outbound: Echo
) -> None:
    holder = lab.wait_for_holder()
    lab.wait_for(lambda: replicated(lab), 5, "replicated flows")
    backup = next(name for name in lab.nodes if name != holder)
    for name in (backup, holder):
        wait_for_tables(lab, name)
        assert lab.exec_in(name, ["nft", "flush", "ruleset"]).returncode == 0
        wait_for_tables(lab, name)
        lab.wait_for_holder()
        inbound.exchange()
        outbound.exchange()
        with Echo(lab, topology.CLIENT, PUBLIC, 7) as echo:
            echo.exchange()
    assert "table inet hanat gone" in lab.log(backup)


def test_rules_that_somebody_emptied_come_back_and_the_holder_stays(
    lab: Lab, inbound: Echo
) -> None:
    holder = lab.wait_for_holder()
    wait_for_tables(lab, holder)
    for chain in ("inet hanat prerouting", "inet hanat_gate prerouting"):
        before = repairs(lab, holder)
        assert lab.exec_in(holder, ["nft", "flush", "chain", *chain.split()]).returncode == 0
        lab.wait_for(partial(repaired_since, lab, holder, before), 10, "a repair")
        lab.wait_for(partial(has_rules, lab, holder, chain), 5, "the rules")
        inbound.exchange()
        with Echo(lab, topology.CLIENT, PUBLIC, 7) as echo:
            echo.exchange()
    assert lab.wait_for_holder() == holder


def test_setting_that_was_right_is_put_back_and_counted(lab: Lab) -> None:
    holder = lab.wait_for_holder()
    file = "/proc/sys/net/ipv4/ip_forward"
    assert lab.exec_in(holder, ["cat", file]).stdout == "1\n"
    assert lab.exec_in(holder, ["sh", "-c", f"echo 0 > {file}"]).returncode == 0
    lab.wait_for(lambda: lab.exec_in(holder, ["cat", file]).stdout == "1\n", 10, "forwarding")
    lab.wait_for(lambda: repairs(lab, holder) == {"sysctl": 1}, 5, "the count")
    assert "sysctl=net.ipv4.ip_forward found=0 action=set_to_1" in lab.log(holder)


def test_own_address_that_a_network_restart_takes_away_costs_neither_it_nor_the_path(
    lab: Lab,
) -> None:
    holder = lab.wait_for_holder()
    peer = next(name for name in lab.nodes if name != holder)
    own = str(load_node(lab.folder / holder / "node.toml").myself.addresses[0])
    place = next(
        line.split()
        for line in lab.exec_in(holder, ["ip", "-o", "addr"]).stdout.splitlines()
        if f" {own}/" in line
    )
    change = [place[3], "dev", place[1]]
    assert lab.exec_in(holder, ["ip", "addr", "del", *change]).returncode == 0
    lab.wait_for(lambda: status_of(lab, holder)["missing"] == [own], 5, "the status")
    assert lab.exec_in(holder, ["ip", "addr", "add", *change]).returncode == 0
    lab.wait_for(lambda: status_of(lab, holder)["missing"] == [], 5, "the status")
    lab.wait_for(lambda: f"own_address={own} found=back" in lab.log(holder), 5, "the log")

    def path_works() -> bool:
        paths = next(p for p in status_of(lab, peer)["peers"] if p["name"] == holder)["paths"]
        heard_s = next(p["beacon_s"] for p in paths if p["address"] == own)
        return heard_s is not None and heard_s < 1.0

    lab.wait_for(path_works, 5, "beacons on the path")
    assert lab.wait_for_holder() == holder
    hand_over(lab, peer)
    assert f" {own}/" in lab.exec_in(holder, ["ip", "-o", "addr"]).stdout


def status_of(lab: Lab, node: str) -> dict[str, Any]:
    """Return a node's status, empty lists where it does not answer."""
    status = lab.status(node)
    return {"missing": None, "peers": []} if status is None else dict(status)


def wait_for_tables(lab: Lab, node: str) -> None:
    """Wait until a node has all its tables."""

    def complete() -> bool:
        found = set(lab.exec_in(node, ["nft", "list", "tables"]).stdout.splitlines())
        return found - {NOTES} == TABLES

    lab.wait_for(complete, 10, f"the tables of {node}")


def repaired_since(lab: Lab, node: str, before: dict[str, int]) -> bool:
    """Say whether a node put its tables back once more."""
    return repairs(lab, node).get("ruleset", 0) > before.get("ruleset", 0)


def has_rules(lab: Lab, node: str, chain: str) -> bool:
    """Say whether a chain of a node has the rules it begins with."""
    return "iifname" in lab.exec_in(node, ["nft", "list", "chain", *chain.split()]).stdout


def repairs(lab: Lab, node: str) -> dict[str, int]:
    """Return what a node counts."""
    status = lab.status(node)
    found: dict[str, int] = {} if status is None else status["repairs"]
    return found
