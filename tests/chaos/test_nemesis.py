"""Every fault does what its name says to packets, carriers and processes, and is undone."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.faults.faults import (
    CutOff,
    DaemonKilled,
    Frozen,
    HandedOver,
    Killed,
    Partitioned,
    PoweredOff,
    Unplugged,
)
from chaos.lab import topology
from chaos.lab.lab import Lab
from chaos.lab.lab_error import LabError
from chaos.lab.netns import entered
from chaos.lab.processes import Identity, marked
from chaos.lab.switch import Net, complete_grudge

STAND_IN = [sys.executable, str(Path(__file__).with_name("stand_in.py"))]
NEVER_S = 0.1  # to hear nothing for so long; a frame takes some 50 microseconds
PUBLIC, PRIVATE = ("public", "private")


def test_a_complete_grudge_is_borne_against_everybody_outside_the_own_component() -> None:
    assert complete_grudge([["a"], ["b", "c"]]) == {"a": ["b", "c"], "b": ["a"], "c": ["a"]}


@pytest.fixture
def lab(prefix: str) -> Iterator[Lab]:
    with Lab(prefix, hanat=STAND_IN) as lab:
        yield lab


@pytest.fixture
def net(lab: Lab) -> Net:
    return Net(lab.topology)


def heard(lab: Lab, sender: str, receiver: str, network: str = PUBLIC) -> bool:
    """Whether a broadcast arrives, which needs no address to be resolved first."""
    broadcast = topology.SUBNET[network] + "255"
    with entered(lab.topology.namespace(receiver)):
        ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with entered(lab.topology.namespace(sender)):
        mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with ear, mouth:
        ear.bind((broadcast, 9999))
        ear.settimeout(NEVER_S)
        mouth.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        mouth.sendto(b"?", (broadcast, 9999))
        try:
            return ear.recv(1) == b"?"
        except TimeoutError:
            return False


def carrier(lab: Lab, router: str, network: str) -> bool:
    device = topology.DEVICES[network]
    return "NO-CARRIER" not in lab.exec_in(router, ["ip", "link", "show", device]).stdout


def states(lab: Lab, router: str) -> set[str]:
    """Return the states of a node's processes, letters as in proc(5)."""
    found = set()
    for process in marked(lab.prefix, router):
        stat = Path(f"/proc/{process.pid}/stat").read_text()
        found.add(stat.rpartition(")")[2].split()[0])
    return found


def assert_all_is_well(lab: Lab) -> None:
    for network in (PUBLIC, PRIVATE):
        assert carrier(lab, "r1", network)
        for sender, receiver in [("r1", "r2"), ("r2", "r1")]:
            assert heard(lab, sender, receiver, network)


@pytest.mark.kernel
def test_cut_off_nothing_passes_and_the_carrier_stays(lab: Lab, net: Net) -> None:
    fault = CutOff(net, "r1")
    fault.start()
    for network in (PUBLIC, PRIVATE):
        assert carrier(lab, "r1", network)
        assert not heard(lab, "r1", "r2", network)
        assert not heard(lab, "r2", "r1", network)
        assert heard(lab, "r2", "r3", network)
    fault.stop()
    assert_all_is_well(lab)


@pytest.mark.kernel
def test_cut_off_one_way_the_other_way_passes(lab: Lab, net: Net) -> None:
    deaf = CutOff(net, "r1", "in")
    deaf.start()
    for network in (PUBLIC, PRIVATE):
        assert (heard(lab, "r1", "r2", network), heard(lab, "r2", "r1", network)) == (True, False)
    deaf.stop()
    assert_all_is_well(lab)
    mute = CutOff(net, "r1", "out")
    mute.start()
    for network in (PUBLIC, PRIVATE):
        assert carrier(lab, "r1", network)
        assert (heard(lab, "r1", "r2", network), heard(lab, "r2", "r1", network)) == (False, True)
    mute.stop()
    assert_all_is_well(lab)


@pytest.mark.kernel
def test_partitioned_routers_hear_the_client_but_not_each_other(lab: Lab, net: Net) -> None:
    fault = Partitioned(net, complete_grudge([["r1"], ["r2", "r3"]]))
    fault.start()
    assert not heard(lab, "r1", "r2", PRIVATE)
    assert not heard(lab, "r3", "r1")
    assert heard(lab, "r2", "r3")
    assert heard(lab, "c1", "r1")
    assert heard(lab, "r1", "c1")
    fault.stop()
    assert_all_is_well(lab)


@pytest.mark.kernel
def test_a_grudge_may_be_one_sided(lab: Lab, net: Net) -> None:
    fault = Partitioned(net, {"r1": ["r2"]})
    fault.start()
    assert (heard(lab, "r1", "r2"), heard(lab, "r2", "r1")) == (True, False)
    fault.stop()
    assert_all_is_well(lab)


@pytest.mark.kernel
def test_healing_a_whole_network_is_harmless(lab: Lab, net: Net) -> None:
    net.heal()
    assert_all_is_well(lab)


@pytest.mark.kernel
@pytest.mark.parametrize("network", [PUBLIC, PRIVATE])
def test_unplugged_loses_the_carrier_of_that_network_alone(lab: Lab, network: str) -> None:
    other = PRIVATE if network == PUBLIC else PUBLIC
    fault = Unplugged(lab.topology, "r1", network)
    fault.start()
    assert (carrier(lab, "r1", network), carrier(lab, "r1", other)) == (False, True)
    fault.stop()
    lab.wait_for(lambda: carrier(lab, "r1", network), 5, "the carrier")
    lab.wait_for(lambda: heard(lab, "r2", "r1", network), 5, "the port to forward")
    assert_all_is_well(lab)


@pytest.fixture
def processes(lab: Lab) -> list[Identity]:
    """A node of two processes, the supervisor first."""
    return started(lab)


def started(lab: Lab) -> list[Identity]:
    if not lab.nodes["r1"].running:
        lab.start_node("r1")
    lab.wait_for(lambda: len(marked(lab.prefix, "r1")) == 2, 10, "both processes")
    lab.wait_for(lambda: answers(lab), 10, "the daemon to listen")
    return sorted(marked(lab.prefix, "r1"), key=lambda p: (p.started, p.pid))


def answers(lab: Lab) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        return sock.connect_ex(str(lab.nodes["r1"].socket)) == 0


@pytest.mark.kernel
def test_frozen_processes_are_all_stopped_and_go_on(lab: Lab, processes: list[Identity]) -> None:
    fault = Frozen(lab.nodes["r1"])
    fault.start()
    lab.wait_for(lambda: states(lab, "r1") == {"T"}, 5, "all processes to be stopped")
    fault.stop()
    lab.wait_for(lambda: "T" not in states(lab, "r1"), 5, "all processes to go on")
    assert set(marked(lab.prefix, "r1")) == set(processes)


@pytest.mark.kernel
def test_killed_leaves_no_process_and_is_undone_by_a_start(
    lab: Lab, processes: list[Identity]
) -> None:
    fault = Killed(lab.nodes["r1"])
    fault.start()
    assert marked(lab.prefix, "r1") == []
    fault.stop()
    assert not set(started(lab)) & set(processes)


@pytest.mark.kernel
def test_killing_the_daemon_leaves_its_supervisor(lab: Lab, processes: list[Identity]) -> None:
    supervisor, daemon = processes
    fault = DaemonKilled(lab.nodes["r1"])
    fault.start()
    lab.wait_for(lambda: daemon not in marked(lab.prefix, "r1"), 5, "the daemon to be dead")
    assert marked(lab.prefix, "r1") == [supervisor]
    assert not lab.nodes["r1"].died
    fault.stop()
    assert marked(lab.prefix, "r1") == [supervisor]  # to start another is its own business


@pytest.mark.kernel
def test_killing_the_daemon_of_a_node_that_does_not_run_is_refused(lab: Lab) -> None:
    with pytest.raises(LabError, match="cannot find the daemon of r1"):
        DaemonKilled(lab.nodes["r1"]).start()


@pytest.mark.kernel
def test_powered_off_is_silent_and_boots_with_an_empty_kernel(
    lab: Lab, net: Net, processes: list[Identity]
) -> None:
    floating = topology.FLOATING[PUBLIC]
    lab.exec_in("r1", ["ip", "addr", "add", floating, "dev", "eth0"])
    lab.exec_in("r1", ["nft", TRACK])
    heard(lab, "r2", "r1")
    assert tracked(lab, "r1") > 0
    fault = PoweredOff(lab.topology, net, "r1", lab.nodes["r1"])
    fault.start()
    assert marked(lab.prefix, "r1") == []
    assert not heard(lab, "r1", "r2")
    assert not heard(lab, "r2", "r1")
    assert carrier(lab, "r1", PUBLIC)
    fault.stop()
    assert_all_is_well(lab)
    assert not set(started(lab)) & set(processes)
    assert lab.addresses("r1") == set()
    assert lab.exec_in("r1", ["nft", "list", "ruleset"]).stdout == ""
    assert tracked(lab, "r1") == 0


TRACK = (
    "add table t; add chain t c { type filter hook input priority 0; }; add rule t c ct state new"
)


def tracked(lab: Lab, router: str) -> int:
    """Return how many connections a router's kernel knows."""
    count = lab.exec_in(router, ["cat", "/proc/sys/net/netfilter/nf_conntrack_count"])
    return int(count.stdout)


def test_switchover_that_names_another_node_is_refused(prefix: str) -> None:
    class Elsewhere(Lab):
        """Its holder says that another one holds now."""

        def switchover(self, to: str, timeout_s: float = 10.0) -> tuple[int, object]:
            del to, timeout_s
            return 200, {"holder": "r3"}

    other = Elsewhere(prefix)
    assert HandedOver(other, "r3").start() > 0
    with pytest.raises(LabError, match="r3"):
        HandedOver(other, "r2").start()
