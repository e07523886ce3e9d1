"""The flow worker dies, hangs, or comes late: connections are complete again, nobody moves."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from chaos.lab import topology
from chaos.lab.lab import Lab
from tests.cluster.conftest import PUBLIC_V6, Echo, complete

pytestmark = pytest.mark.cluster


def flows(lab: Lab, name: str) -> dict[str, Any]:
    status = lab.status(name)
    assert status is not None
    found = status["flows"]
    assert isinstance(found, dict)
    return found


def backups(lab: Lab, holder: str) -> list[str]:
    return [name for name in lab.nodes if name != holder]


def have(lab: Lab, count: int) -> bool:
    return complete(lab) and all(flows(lab, name)["flows"] == count for name in lab.nodes)


def open_echo(lab: Lab) -> Echo:
    echo = Echo(lab, topology.CLIENT, PUBLIC_V6, 7)
    echo.exchange()
    return echo


def take_over(lab: Lab, first: str) -> None:
    lab.kill_node(first)
    lab.wait_for(lambda: lab.holder() not in {None, first}, 10, "another holder")


@pytest.mark.parametrize("whose", ["holder", "backup"])
def test_killed_worker_is_replaced_and_has_all_flows_again(
    lab: Lab, inbound: Echo, outbound: Echo, whose: str
) -> None:
    first = lab.wait_for_holder()
    lab.wait_for(lambda: have(lab, 2), 5, "two flows everywhere")
    hurt = first if whose == "holder" else backups(lab, first)[0]
    lab.nodes[hurt].signal_flow_worker(signal.SIGKILL)
    with open_echo(lab) as third:
        lab.wait_for(lambda: flows(lab, hurt)["restarts"] == 1, 10, "another worker")
        lab.wait_for(lambda: have(lab, 3), 10, "three flows everywhere")
        assert lab.holder() == first
        assert "worker=ended" in lab.log(hurt)
        # Only now: who is elected has lost its worker, or got all from one that was lost.
        if whose == "backup":
            lab.kill_node(next(name for name in backups(lab, first) if name != hurt))
            lab.start_node(next(name for name in backups(lab, first) if name != hurt))
        take_over(lab, first)
        for echo in (inbound, outbound, third):
            echo.exchange()


@pytest.mark.parametrize("whose", ["holder", "backup"])
def test_frozen_worker_is_noticed_and_catches_up(lab: Lab, inbound: Echo, whose: str) -> None:
    first = lab.wait_for_holder()
    lab.wait_for(lambda: have(lab, 1), 5, "a flow everywhere")
    hurt = first if whose == "holder" else backups(lab, first)[0]
    lab.nodes[hurt].signal_flow_worker(signal.SIGSTOP)
    second = open_echo(lab)
    lab.wait_for(lambda: not flows(lab, hurt)["complete"], 5, "the silence to be noticed")
    assert lab.holder() == first
    lab.nodes[hurt].signal_flow_worker(signal.SIGCONT)
    lab.wait_for(lambda: have(lab, 2), 10, "two flows everywhere")
    assert flows(lab, hurt)["restarts"] == 0
    take_over(lab, first)
    for echo in (inbound, second):
        echo.exchange()
        echo.close()


def test_worker_that_hangs_for_long_is_replaced(lab: Lab, inbound: Echo) -> None:
    first = lab.wait_for_holder()
    lab.wait_for(lambda: have(lab, 1), 5, "a flow everywhere")
    lab.nodes[first].signal_flow_worker(signal.SIGSTOP)
    lab.wait_for(lambda: flows(lab, first)["restarts"] == 1, 20, "another worker")
    lab.wait_for(lambda: have(lab, 1), 10, "a flow everywhere")
    assert lab.holder() == first
    inbound.exchange()


def test_node_that_is_back_has_all_flows_and_may_be_switched_to(
    lab: Lab, inbound: Echo, outbound: Echo
) -> None:
    first = lab.wait_for_holder()
    back = backups(lab, first)[0]
    lab.kill_node(back)
    with open_echo(lab) as third:
        lab.start_node(back)
        lab.wait_for(lambda: have(lab, 3), 20, "three flows everywhere")
        code, answer = lab.switchover(back)
        assert (code, answer) == (200, {"holder": back})
        for echo in (inbound, outbound, third):
            echo.exchange()


def test_connection_that_was_closed_is_soon_gone_from_all_tables(lab: Lab, inbound: Echo) -> None:
    """Not only minutes later, when its entry ends: a takeover would keep it for days."""
    lab.wait_for_holder()
    lab.wait_for(lambda: have(lab, 1), 5, "a flow everywhere")
    with open_echo(lab):
        lab.wait_for(lambda: have(lab, 2), 5, "two flows everywhere")
    lab.wait_for(lambda: have(lab, 1), 5, "a flow everywhere")
    inbound.exchange()


def conn(lab: Lab, name: str, *arguments: str) -> str:
    command = [*lab.hanat, "conn", *arguments, "--api", f"unix:{lab.nodes[name].socket}"]
    done = lab.exec_in(name, command, 30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_connections_are_listed_and_ended(lab: Lab, inbound: Echo, outbound: Echo) -> None:
    first = lab.wait_for_holder()
    lab.wait_for(lambda: have(lab, 2), 5, "two flows everywhere")
    for name in lab.nodes:
        assert conn(lab, name, "count") == "2\n"
        assert "tcp-echo" in conn(lab, name, "list", "--service", "tcp-echo")
    assert conn(lab, first, "kill", "--service", "tcp-echo") == "killed: 1\n"
    lab.wait_for(lambda: have(lab, 1), 5, "a flow everywhere")
    for name in lab.nodes:
        assert conn(lab, name, "count", "--service", "tcp-echo") == "0\n"
    outbound.exchange()
    inbound.close()
    backup = backups(lab, first)[0]
    command = [*lab.hanat, "conn", "kill", "--all", "--api", f"unix:{lab.nodes[backup].socket}"]
    done = lab.exec_in(backup, command, 30)
    assert done.returncode == 4
    assert f"ask the holder, which is {first}" in done.stderr
