"""What a node does about the death of its daemon, of its supervisor, and a crash loop."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from chaos.judge import checkers
from chaos.lab.lab import Lab
from chaos.lab.netns import entered
from chaos.lab.topology import SWITCH, floating
from chaos.observe.run_history import Fault, History
from chaos.observe.traffic import TCP, UDP, UDP_V6, Traffic
from hanat.config import load_node, parse_cluster, read_keys
from hanat.core.identity import Identity
from hanat.net.death_notice import DATAGRAM_BYTES, MAGIC, open_release
from tests.cluster.conftest import BOTH, Echo, replicated

pytestmark = pytest.mark.cluster

ETH_P_ALL = 0x0003
WARM_UP_S = 4.0  # a UDP flow counts as established after two seconds (nf_conntrack_proto_udp.c)
SETTLED_S = 2.0  # what the checkers judge as the end of a window is a second


def other_holder(lab: Lab, first: str) -> str | None:
    holder = lab.holder()
    return holder if holder not in {None, first} else None


def follows(lab: Lab, name: str, holder: str) -> bool:
    status = lab.status(name)
    return status is not None and (status["role"], status["leader"]) == ("BACKUP", holder)


def test_daemon_killed_alone_loses_no_flow_and_its_node_comes_back(lab: Lab) -> None:
    first = lab.wait_for_holder()
    traffic = Traffic(lab)
    traffic.start()
    traffic.run_for(WARM_UP_S)
    instant_ns = lab.kill_daemon(first)
    second = lab.wait_for(lambda: other_holder(lab, first), 10, "another holder")
    lab.wait_for(lambda: follows(lab, first, second), 10, "the first node as a backup")
    traffic.run_for(SETTLED_S)
    traffic.stop()

    assert lab.nodes[first].running
    assert {name: lab.addresses(name) for name in (first, second)} == {first: set(), second: BOTH}
    history = History.of([*traffic.facts(), Fault(instant_ns, "kill", first, moves_holder=True)])
    cut = checkers.windows(history, traffic.start_ns, traffic.end_ns)
    for verdict in (
        checkers.one_speaker(history, cut),
        checkers.holder_moved(history, cut, "public"),
        checkers.addresses_together(history, cut, floating()),
        checkers.connections_survived(history, cut, len(TCP)),
    ):
        assert verdict.valid is True, verdict
    lost = {o.workload: o.lost for o in checkers.outages(history, cut)}
    names = [w.name for w in (*UDP, *UDP_V6)]
    assert {name: lost[name] for name in names} == dict.fromkeys(names, 0)


@contextmanager
def frames_of(lab: Lab) -> Iterator[socket.socket]:
    """Take every IPv4 frame that crosses the switch."""
    with entered(lab.topology.namespace(SWITCH)):
        capture = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    capture.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    capture.setblocking(False)  # noqa: FBT003
    with capture:
        yield capture


def test_supervisor_tells_every_peer_on_every_path_who_is_dead(lab: Lab) -> None:
    first = lab.wait_for_holder()
    file = lab.folder / first / "node.toml"
    settings = load_node(file)
    cluster = parse_cluster(settings.cluster_file.read_text(), file="cluster.toml")
    identity = Identity(read_keys(settings.key_file).used, cluster.name, 0.1, settings.node_id)
    own = {str(address) for address in settings.myself.addresses}
    peers = {str(a) for p in settings.peers for a in p.addresses} - own
    told: set[str] = set()

    def all_told() -> bool:
        with suppress(BlockingIOError):
            while True:
                told.update(released_to(capture.recv(2048)))
        return told == peers

    def released_to(frame: bytes) -> Iterator[str]:
        at = frame.find(MAGIC)
        if at < 0 or frame[23] != socket.IPPROTO_UDP:  # ICMP quotes what it is about
            return
        sender, _ = open_release(identity, frame[at : at + DATAGRAM_BYTES])
        assert sender == settings.node_id
        assert socket.inet_ntoa(frame[26:30]) in own
        assert int.from_bytes(frame[36:38], "big") == settings.mesh_port
        yield socket.inet_ntoa(frame[30:34])

    with frames_of(lab) as capture:
        lab.kill_daemon(first)
        lab.wait_for(all_told, 10, "a release to every address of every peer")


def test_supervisor_killed_alone_takes_the_node_out_of_service_in_good_order(
    lab: Lab, inbound: Echo, outbound: Echo
) -> None:
    first = lab.wait_for_holder()
    lab.wait_for(lambda: replicated(lab), 5, "replicated flows")
    lab.kill_supervisor(first)
    lab.wait_for(lambda: not lab.nodes[first].processes, 10, "the daemon to end")
    assert "supervisor=dead action=shutdown" in lab.log(first)
    assert "reason=shutdown" in lab.log(first)
    assert lab.addresses(first) == set()
    lab.wait_for(lambda: other_holder(lab, first), 10, "another holder")
    inbound.exchange()
    outbound.exchange()
    lab.start_node(first)
    lab.wait_for_holder()


def test_both_killed_at_once_is_left_to_the_kernel(lab: Lab, inbound: Echo) -> None:
    first = lab.wait_for_holder()
    lab.wait_for(lambda: replicated(lab), 5, "replicated flows")
    lab.kill_node(first)
    assert lab.nodes[first].processes == []
    lab.wait_for(lambda: other_holder(lab, first), 10, "another holder")
    inbound.exchange()
    assert lab.addresses(first) == BOTH  # nobody was there to remove them; the gate is shut
    assert "released_on" not in lab.log(first)


def test_node_in_a_crash_loop_waits_longer_each_time_and_recovers(lab: Lab) -> None:
    name = next(name for name in lab.nodes if name != lab.wait_for_holder())
    file = lab.folder / name / "node.toml"
    sound = file.read_text()
    file.write_text(sound.replace("data_dir", "datadir"))
    lab.kill_daemon(name)
    log = lab.nodes[name].log_file
    lab.wait_for(lambda: len(waits(log.read_text())) >= 3, 20, "three attempts")
    assert waits(log.read_text())[:3] == ["0.5", "1.0", "2.0"]
    assert lab.nodes[name].running
    file.write_text(sound)
    lab.wait_for_holder(30)


def waits(log: str) -> list[str]:
    return re.findall(r"restart_in_s=(\S+)", log)


def test_node_that_cannot_start_at_all_is_not_retried(lab: Lab) -> None:
    name = next(name for name in lab.nodes if name != lab.wait_for_holder())
    assert lab.stop_node(name) == 0
    file = lab.folder / name / "node.toml"
    file.write_text(file.read_text().replace("data_dir", "datadir"))
    done = lab.exec_in(name, [*lab.hanat, "run", "--config", str(file)], 20)
    assert done.returncode == 5
    assert waits(done.stderr) == []


def test_fence_refuses_a_node_that_runs_and_silences_one_that_was_killed(lab: Lab) -> None:
    first = lab.wait_for_holder()
    command = [*lab.hanat, "fence", "--config", str(lab.folder / first / "node.toml")]
    refused = lab.exec_in(first, command, 20)
    assert refused.returncode == 4
    assert "its daemon runs" in refused.stderr
    assert lab.wait_for_holder() == first
    lab.kill_node(first)
    assert lab.addresses(first) == BOTH
    assert lab.exec_in(first, command, 20).returncode == 0
    assert lab.addresses(first) == set()
    lab.wait_for(lambda: other_holder(lab, first), 10, "another holder")
    lab.start_node(first)
    lab.wait_for_holder()
