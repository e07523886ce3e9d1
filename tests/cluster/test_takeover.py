"""Three real daemons: who holds the addresses, and do connections survive."""

from __future__ import annotations

import json
import re
from functools import partial

import pytest

from chaos.lab import topology
from chaos.lab.lab import Lab
from tests.cluster.conftest import BOTH, PUBLIC, Echo, replicated

pytestmark = pytest.mark.cluster


def test_one_node_has_both_addresses_and_the_others_none(lab: Lab) -> None:
    holder = lab.wait_for_holder()
    for name in lab.nodes:
        assert lab.addresses(name) == (BOTH if name == holder else set())
        status = lab.status(name)
        assert status is not None
        assert (status["leader"], status["holder"]) == (holder, holder)


def test_doctor_knows_a_node_that_runs(lab: Lab) -> None:
    holder = lab.wait_for_holder()
    command = [*lab.hanat, "doctor", "--json", "--config", str(lab.folder / holder / "node.toml")]
    done = lab.exec_in(holder, command, 30)
    assert done.returncode == 0, done.stdout  # a lab is a machine on which hanat works
    checks = {check["check"]: check for check in json.loads(done.stdout)["checks"]}
    for address in BOTH:
        assert checks[f"floating address {address}"]["found"].endswith("held by this node")
    for port in ("raft port 7411/tcp", "mesh port 7412/udp"):
        assert checks[port]["found"] == "in use, and hanat runs"


def test_profile_changes_when_all_nodes_were_stopped_and_the_file_was_edited(lab: Lab) -> None:
    for name in lab.nodes:
        lab.stop_node(name)
    file = lab.folder / "cluster.toml"
    file.write_text(file.read_text().replace('profile = "default"', 'profile = "calm"'))
    lab.start()
    holder = lab.wait_for_holder()
    assert lab.addresses(holder) == BOTH
    for name in lab.nodes:
        status = lab.status(name)
        assert status is not None
        assert (status["profile"], status["lease_s"]) == ("calm", 0.5)
        assert lab.log(name).count("profile=default in_force=calm") == 1


def test_connections_survive_the_death_of_the_holder(
    lab: Lab, inbound: Echo, outbound: Echo
) -> None:
    first = lab.wait_for_holder()
    lab.wait_for(lambda: replicated(lab), 5, "replicated flows")
    lab.kill_node(first)
    second = lab.wait_for(lambda: _other_holder(lab, first), 10, "another holder")
    inbound.exchange()
    outbound.exchange()
    assert lab.addresses(second) == BOTH


def test_restarted_node_cleans_what_it_left_before_it_joins(lab: Lab) -> None:
    first = lab.wait_for_holder()
    lab.kill_node(first)
    lab.wait_for(lambda: _other_holder(lab, first), 10, "another holder")
    assert lab.addresses(first) == BOTH  # nobody was there to remove them; the gate is shut
    lab.start_node(first)
    lab.wait_for_holder()
    assert lab.addresses(first) == set()


def test_connections_survive_a_switchover_and_the_way_back(
    lab: Lab, inbound: Echo, outbound: Echo
) -> None:
    first = lab.wait_for_holder()
    target = next(name for name in lab.nodes if name != first)
    for to in (target, first):
        lab.wait_for(lambda: replicated(lab), 5, "replicated flows")
        switch(lab, to)
        inbound.exchange()
        outbound.exchange()
        assert lab.wait_for_holder() == to
        assert lab.addresses(to) == BOTH


def test_connections_survive_the_death_and_the_return_to_a_restarted_node(
    lab: Lab, inbound: Echo, outbound: Echo
) -> None:
    first = lab.wait_for_holder()
    lab.wait_for(lambda: replicated(lab), 5, "replicated flows")
    lab.kill_node(first)
    lab.wait_for(lambda: _other_holder(lab, first), 10, "another holder")
    for _ in range(50):  # the windows move on, so what the dead node remembers is stale
        inbound.exchange()
        outbound.exchange()
    lab.start_node(first)
    lab.wait_for_holder()
    lab.wait_for(lambda: replicated(lab), 5, "replicated flows")
    switch(lab, first)
    inbound.exchange()
    outbound.exchange()


def test_holder_puts_back_what_another_program_took_off_its_devices(
    lab: Lab, inbound: Echo
) -> None:
    holder = lab.wait_for_holder()
    fence = [*lab.hanat, "fence", "--force", "--config", str(lab.folder / holder / "node.toml")]
    for count, command in ((1, ["ip", "addr", "flush", "to", PUBLIC]), (3, fence)):
        assert lab.exec_in(holder, command, 20).returncode == 0
        lab.wait_for(lambda: lab.addresses(holder) == BOTH, 10, "both addresses")
        inbound.exchange()
        status = lab.status(holder)
        assert status is not None
        assert (status["role"], status["restored"]) == ("ACTIVE", count)


@pytest.mark.parametrize("interface", ["public", "private"])
def test_holder_that_loses_a_carrier_hands_both_addresses_on(
    lab: Lab, inbound: Echo, interface: str
) -> None:
    first = lab.wait_for_holder()
    lab.wait_for(lambda: replicated(lab), 5, "replicated flows")
    lab.set_carrier(first, interface, up=False)
    second = lab.wait_for(lambda: _other_holder(lab, first), 10, "another holder")
    lab.wait_for(lambda: lab.addresses(first) == set(), 5, "both addresses gone")
    assert lab.addresses(second) == BOTH
    inbound.exchange()
    status = lab.status(first)
    assert status is not None
    assert f"{interface}: no carrier" in status["hindrances"]
    lab.set_carrier(first, interface, up=True)
    lab.wait_for(lambda: (lab.status(first) or {}).get("hindrances") == [], 5, "unhindered again")
    assert lab.wait_for_holder() == second


def test_stopped_holder_ends_well_and_keeps_nothing(lab: Lab, inbound: Echo) -> None:
    first = lab.wait_for_holder()
    lab.wait_for(lambda: replicated(lab), 5, "replicated flows")
    assert lab.stop_node(first) == 0
    assert lab.addresses(first) == set()
    assert _other_holder(lab, first)
    inbound.exchange()


def test_backup_that_dies_changes_nothing(lab: Lab, inbound: Echo) -> None:
    holder = lab.wait_for_holder()
    term = (lab.status(holder) or {})["term"]
    backup = next(name for name in lab.nodes if name != holder)
    lab.kill_node(backup)
    inbound.exchange()
    lab.start_node(backup)
    lab.wait_for_holder()
    status = lab.status(holder)
    assert status is not None
    assert (status["role"], status["term"]) == ("ACTIVE", term)


def test_kernel_tracks_nothing_of_what_nodes_say_to_each_other(lab: Lab) -> None:
    holder = lab.wait_for_holder()
    backup = next(name for name in lab.nodes if name != holder)
    # What came before the first ruleset is tracked; it outlives the daemons.
    for name in lab.nodes:
        lab.wait_for(partial(_knows_its_peers, lab, name), 10, f"the ruleset of {name}")
        assert lab.exec_in(name, ["conntrack", "-F"]).returncode == 0
    lab.restart_node(backup)
    lab.wait_for(lambda: _connected(lab) == len(lab.nodes), 10, "all connections")
    client = Echo(lab, topology.CLIENT, PUBLIC, 7)
    client.exchange()
    for name in lab.nodes:
        tracked = lab.exec_in(name, ["conntrack", "-L"]).stdout
        assert not re.findall(r".*port=741[12] .*", tracked)
        assert name != holder or "dport=7 " in tracked
    client.close()


def _knows_its_peers(lab: Lab, name: str) -> bool:
    return "notrack" in lab.exec_in(name, ["nft", "list table inet hanat"]).stdout


def _connected(lab: Lab) -> int:
    """Return how many nodes are connected to all others."""
    statuses = [status for status in lab.statuses().values() if status is not None]
    return sum(all(peer["connected"] for peer in s["peers"]) for s in statuses)


def test_majority_lost_means_nobody_answers(lab: Lab) -> None:
    holder = lab.wait_for_holder()
    for name in lab.nodes:
        if name != holder:
            lab.kill_node(name)
    lab.wait_for(lambda: lab.addresses(holder) == set(), 5, "the addresses gone")
    assert (lab.status(holder) or {})["role"] != "ACTIVE"


def _other_holder(lab: Lab, first: str) -> str | None:
    holder = lab.holder()
    return holder if holder not in {None, first} else None


def switch(lab: Lab, to: str) -> None:
    """Switch over; a node that started just now is refused at first."""
    answer = lab.wait_for(lambda: _accepted(lab.switchover(to)), 5, f"a switchover to {to}")
    assert answer == {"holder": to}


def _accepted(response: tuple[int, dict[str, str]]) -> dict[str, str] | None:
    status, answer = response
    assert status in {200, 409}, answer
    return answer if status == 200 else None


def test_filter_that_drops_beacons_is_told_by_the_node_behind_it(lab: Lab) -> None:
    deaf = lab.wait_for_holder()
    for command in (
        "add table inet blocked",
        "add chain inet blocked in { type filter hook input priority 0; }",
        "add rule inet blocked in udp dport 7412 drop",
    ):
        assert lab.exec_in(deaf, ["nft", command]).returncode == 0
    logged(lab, deaf, "beacons=missing to_do=")
    assert lab.wait_for(lambda: _other_holder(lab, deaf), 10, "another holder")
    assert lab.exec_in(deaf, ["nft", "delete table inet blocked"]).returncode == 0
    logged(lab, deaf, "beacons=heard")
    lab.wait_for_holder()


def logged(lab: Lab, node: str, text: str) -> None:
    """Wait until a node has said something of both peers."""
    words = [f"peer={peer.removeprefix('r')} {text}" for peer in lab.nodes if peer != node]
    lab.wait_for(lambda: all(w in lab.log(node) for w in words), 20, f"{node} to say {text}")
