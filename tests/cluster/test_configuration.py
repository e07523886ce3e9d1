"""Change the configuration of three real daemons while connections go through them."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from chaos.lab import topology
from chaos.lab.lab import Lab
from chaos.lab.netns import entered
from chaos.lab.node_files import CLUSTER_TOML
from tests.cluster.conftest import BOTH, PUBLIC, Echo, replicated
from tests.cluster.test_takeover import switch

pytestmark = pytest.mark.cluster

EXTRA = "203.0.113.20"
MORE = f"""
[[vip]]
name = "extra"
address = ["{EXTRA}/24"]
interface = "public"

[[service]]
name = "more"
listen = ["vip:extra tcp/8"]
  [[service.server]]
  name = "tcp1"
  address = "10.11.12.101:9000"
"""


def test_services_and_addresses_change_and_connections_survive(
    lab: Lab, inbound: Echo, outbound: Echo, tmp_path: Path
) -> None:
    holder = lab.wait_for_holder()
    added = apply(
        lab, holder, write(tmp_path, CLUSTER_TOML.replace("weight = 2", "weight = 3", 1) + MORE)
    )
    assert (added["revision"], added["applied"]) == (2, True)
    assert {node["state"] for node in added["nodes"]} == {"in force"}
    assert added["changes"] == [
        "~ service web server web1: 10.11.12.101:8080 weight 2 -> 10.11.12.101:8080 weight 3",
        f"+ vip extra: {EXTRA}/24 on public",
        f"+ service more: {EXTRA} tcp/8, wrr",
        "+ service more server tcp1: 10.11.12.101:9000 weight 1",
    ]
    assert with_extra(lab) == [holder]
    with Echo(lab, topology.CLIENT, EXTRA, 8) as more:
        for echo in (more, inbound, outbound):
            echo.exchange()

        backup = next(name for name in lab.nodes if name != holder)
        lab.wait_for(lambda: replicated(lab), 5, "replicated flows")
        lab.wait_for(lambda: tracks(lab, backup, EXTRA), 5, "the flow of the new service")
        switch(lab, backup)  # the new service is in its ruleset, its flows are in its kernel
        assert lab.wait_for_holder() == backup
        assert with_extra(lab) == [backup]
        for echo in (more, inbound, outbound):
            echo.exchange()

        removed = apply(lab, backup, write(tmp_path, CLUSTER_TOML))
        assert removed["revision"] == 3
        assert with_extra(lab) == []
        assert lab.addresses(backup) == BOTH
        for echo in (inbound, outbound):
            echo.exchange()
    assert not answers(lab, EXTRA, 8)
    with Echo(lab, topology.CLIENT, PUBLIC, 7) as echo:
        echo.exchange()


def test_what_show_prints_is_what_was_applied_and_serves_as_the_cluster_file(
    lab: Lab, tmp_path: Path
) -> None:
    holder = lab.wait_for_holder()
    text = "# changed by night\n" + CLUSTER_TOML
    apply(lab, holder, write(tmp_path, text))
    for name in lab.nodes:
        assert config(lab, name, "show").stdout == text
    (lab.folder / "cluster.toml").write_text(text)
    lab.restart_node(holder)
    lab.wait_for_holder()
    assert config(lab, holder, "show").stdout == text


def test_refusals_change_nothing_and_have_their_exit_codes(lab: Lab, tmp_path: Path) -> None:
    holder = lab.wait_for_holder()
    backup = next(name for name in lab.nodes if name != holder)
    good = write(tmp_path, CLUSTER_TOML + MORE)

    other = config(lab, backup, "apply", good)
    assert (other.returncode, f"ask the leader, which is {holder}" in other.stderr) == (4, True)
    assert config(lab, backup, "diff", good).returncode == 0  # reading is for all

    stale = config(lab, holder, "apply", good, "--revision", "7")
    assert stale.returncode == 4
    assert 'based on revision 7, the cluster has 1; run "hanat config show"' in stale.stderr

    calm = CLUSTER_TOML.replace('profile = "default"', 'profile = "calm"')
    elsewhere = calm.replace('name = "lab"', 'name = "other"')
    wrong = config(lab, holder, "apply", write(tmp_path, elsewhere))
    assert wrong.returncode == 5
    assert "cluster.name" in wrong.stderr
    assert "cluster.profile" in wrong.stderr

    taken = MORE.replace(EXTRA, "203.0.113.100")  # the client's
    stranger = config(lab, holder, "apply", write(tmp_path, CLUSTER_TOML + taken))
    assert stranger.returncode == 5
    assert "answers for it and is none of the peers" in stranger.stderr

    dark = MORE.replace('interface = "public"', 'interface = "dmz"')
    unmapped = config(lab, holder, "apply", write(tmp_path, CLUSTER_TOML + dark))
    assert unmapped.returncode == 5
    assert 'a vip on interface "dmz"' in unmapped.stderr

    assert json.loads(config(lab, holder, "show", "--json").stdout)["revision"] == 1
    assert lab.wait_for_holder() == holder


def test_node_that_is_away_is_named_and_catches_up(lab: Lab, inbound: Echo, tmp_path: Path) -> None:
    holder = lab.wait_for_holder()
    away = next(name for name in lab.nodes if name != holder)
    lab.kill_node(away)
    lab.wait_for(lambda: states(lab, holder)[away] == "not reachable", 10, "its silence")
    answer = apply(lab, holder, write(tmp_path, CLUSTER_TOML + MORE))
    assert {n["node"]: n["state"] for n in answer["nodes"]}[away] == "not reachable"
    lab.start_node(away)
    lab.wait_for(lambda: states(lab, holder)[away] == "in force", 10, "the revision on it")
    inbound.exchange()


def test_without_a_majority_nothing_is_applied(lab: Lab, tmp_path: Path) -> None:
    holder = lab.wait_for_holder()
    for name in lab.nodes:
        if name != holder:
            lab.kill_node(name)
    lab.wait_for(lambda: lab.addresses(holder) == set(), 5, "the addresses gone")
    outcome = config(lab, holder, "apply", write(tmp_path, CLUSTER_TOML + MORE))
    assert (outcome.returncode, "no majority" in outcome.stderr) == (3, True)


def write(folder: Path, text: str) -> str:
    """Write a cluster file; return its name."""
    file = folder / "wanted.toml"
    file.write_text(text)
    return str(file)


def config(lab: Lab, node: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``hanat config`` beside a node."""
    api = f"unix:{lab.nodes[node].socket}"
    return lab.exec_in(node, [*lab.hanat, "config", *arguments, "--api", api], 30)


def apply(lab: Lab, node: str, file: str) -> dict[str, Any]:
    """Apply a file that must be taken."""
    done = config(lab, node, "apply", file, "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def states(lab: Lab, node: str) -> dict[str, str]:
    """Return what a node says of each node's configuration."""
    shown = json.loads(config(lab, node, "show", "--json").stdout)
    return {entry["node"]: entry["state"] for entry in shown["nodes"]}


def with_extra(lab: Lab) -> list[str]:
    """Return the nodes that have the additional address."""
    found = {
        name: lab.exec_in(name, ["ip", "-4", "-o", "addr", "show"]).stdout for name in lab.nodes
    }
    return [name for name, text in found.items() if f" {EXTRA}/" in text]


def tracks(lab: Lab, node: str, address: str) -> bool:
    """Say whether a node's kernel has a connection to an address."""
    return " dport=8 " in lab.exec_in(node, ["conntrack", "-L", "-d", address]).stdout


def answers(lab: Lab, address: str, port: int) -> bool:
    """Say whether a new connection of the client is taken."""
    with entered(lab.topology.namespace(topology.CLIENT)):
        probe = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with probe:
        probe.settimeout(1.0)
        return probe.connect_ex((address, port)) == 0


def test_client_that_keeps_sending_leaves_a_removed_server(lab: Lab, tmp_path: Path) -> None:
    holder = lab.wait_for_holder()
    with entered(lab.topology.namespace(topology.CLIENT)):
        asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with asking:
        asking.settimeout(5)
        asking.connect((PUBLIC, 53))
        before = server_asked(lab, holder, asking)
        number = before.removeprefix("10.11.12.10")
        table = f'  [[service.server]]\n  name = "udp{number}"\n  address = "{before}:5353"\n'
        assert table in CLUSTER_TOML

        file = write(tmp_path, CLUSTER_TOML.replace(table, ""))
        done = config(lab, holder, "apply", file)

        assert done.returncode == 0, done.stderr
        assert "1 flow ended: server 1" in done.stdout
        assert server_asked(lab, holder, asking) != before
    status = lab.status(holder)
    assert status is not None
    assert status["flows"]["ended"] == 1


def server_asked(lab: Lab, node: str, asking: socket.socket) -> str:
    """Exchange a datagram; return the address of the server that has the flow."""
    asking.send(b"?")
    assert asking.recv(16) == b"?"
    port = asking.getsockname()[1]
    listing = lab.exec_in(node, ["conntrack", "-L", "-p", "udp", "--sport", str(port)]).stdout
    return listing.split(" src=")[2].split()[0]
