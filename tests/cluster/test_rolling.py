"""An upgrade of a running cluster, node by node, as docs/operations.md and the playbook do it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chaos.judge import checkers
from chaos.lab.lab import Lab
from chaos.lab.node_files import cluster_toml
from chaos.lab.topology import floating
from chaos.observe.run_history import Fault, History
from chaos.observe.traffic import TCP, UDP, UDP_V6, Traffic

pytestmark = pytest.mark.cluster

WARM_UP_S = 4.0  # a UDP flow counts as established after two seconds (nf_conntrack_proto_udp.c)
SETTLED_S = 2.0  # what the checkers judge as the end of a window is a second
STEP_S_MAX = 60.0


@pytest.fixture
def calm_lab() -> Iterator[Lab]:
    """A lab whose holder a busy machine does not change; the planned changes are what counts."""
    with Lab(prefix=f"ht{os.getpid()}r", cluster_toml=cluster_toml(profile="calm")) as lab:
        change_key(lab, "add")
        lab.start()
        lab.wait_for_holder()
        yield lab


def status(lab: Lab, name: str) -> dict[str, Any]:
    """Return what ``hanat status --json`` prints on a node, nothing if it does not run."""
    socket = f"unix:{lab.nodes[name].socket}"
    done = lab.exec_in(name, [*lab.hanat, "status", "--json", "--api", socket], 20)
    found: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
    return found


def converged(found: dict[str, Any]) -> bool:
    """Say whether a node may be counted on: the playbook's condition."""
    return bool(
        found
        and found["holder"] is not None
        and found["quorum"]
        and not found["unsafe"] + found["hindrances"]
        and found["flows"]["complete"]
        and all(p["connected"] and p["fit"] and p["complete"] for p in found["peers"])
    )


def await_all(lab: Lab) -> None:
    def everywhere() -> bool:
        return all(converged(status(lab, name)) for name in lab.nodes)

    lab.wait_for(everywhere, STEP_S_MAX, "three nodes that may be counted on")


def restart_all(lab: Lab, settle: Callable[[], None]) -> list[Fault]:
    """Restart the nodes one after the other, the holder last and after a switchover."""
    old = lab.wait_for_holder()
    backups = [name for name in lab.nodes if name != old]
    faults = []
    for name in (*backups, old):
        if name == old:
            await_all(lab)
            faults.append(Fault(time.monotonic_ns(), "switchover", backups[0], moves_holder=True))
            code, answer = lab.switchover(backups[0])
            assert code == 200, answer
        await_all(lab)
        faults.append(Fault(time.monotonic_ns(), "restart", name, moves_holder=False))
        assert lab.stop_node(name) == 0
        lab.start_node(name)  # here a new package would have been installed
        await_all(lab)
        assert lab.holder() == (backups[0] if name == old else old)
        settle()
    return faults


def change_key(lab: Lab, round_: str) -> None:
    """Do what ``hanat key`` does in a round; the lab's nodes have one file."""
    command = [*lab.hanat, "key", round_, str(lab.folder / "cluster.key")]
    done = lab.exec_in("r1", command, 20)
    assert done.returncode == 0, done.stderr


def test_rolling_upgrade_under_traffic_loses_no_connection(calm_lab: Lab) -> None:
    lab = calm_lab
    traffic = Traffic(lab)
    traffic.start()
    traffic.run_for(WARM_UP_S)
    # The round of a change of the cluster key in which nodes use different ones.
    change_key(lab, "use")
    faults = restart_all(lab, lambda: traffic.run_for(SETTLED_S))
    traffic.stop()

    history = History.of([*traffic.facts(), *faults])
    cut = checkers.windows(history, traffic.start_ns, traffic.end_ns)
    for verdict in (
        checkers.one_speaker(history, cut),
        checkers.holder_moved(history, cut, "public"),
        checkers.addresses_together(history, cut, floating()),
        checkers.connections_survived(history, cut, len(TCP)),
    ):
        assert verdict.valid is True, verdict
    found = checkers.outages(history, cut)
    worst = max(found, key=lambda outage: outage.outage_ms)
    where = f"{worst.workload}, {worst.window}"
    sys.stdout.write(f"\nrolling upgrade: worst outage {worst.outage_ms:.0f} ms ({where})\n")
    udp = {w.name for w in (*UDP, *UDP_V6)}
    assert {o.window: o.lost for o in found if o.workload in udp and o.lost} == {}
