"""Servers ail, serve again, and it is written down; a blind router forwards all the same."""

from __future__ import annotations

import random
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from chaos.faults.attack import Aim, Site
from chaos.faults.nemeses import NEMESES
from chaos.faults.outages import HOW, Blind, ServerAils, ServerFlaps
from chaos.lab.lab import Lab
from chaos.lab.netns import entered
from chaos.lab.servers import HTTP_PORT, SLOW_S, UDP_PORT
from chaos.lab.switch import Net
from chaos.lab.topology import SERVERS, server_addresses
from chaos.lab.waiting import wait_until
from chaos.observe import run_history
from chaos.observe.observed import ServerOutage
from tests.chaos.test_nemesis import heard

STAND_IN = [sys.executable, str(Path(__file__).with_name("stand_in.py"))]
SHORT_S = SLOW_S / 2


@pytest.fixture
def lab(prefix: str) -> Iterator[Lab]:
    with Lab(prefix, hanat=STAND_IN) as lab:
        yield lab


def answers(lab: Lab, host: str, *, seen_from: str = "r1", version: int = 4) -> bool:
    """Say whether a server answers over HTTP, before its checks would call it dead."""
    address = server_addresses(host)[version == 6]
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with entered(lab.topology.namespace(seen_from)):
        asking = socket.socket(family, socket.SOCK_STREAM)
    with asking:
        asking.settimeout(SHORT_S)
        try:
            asking.connect((address, HTTP_PORT))
            asking.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            return asking.recv(4096).startswith(b"HTTP/1.1 200")
        except OSError:
            return False


def outages(file: Path) -> list[ServerOutage]:
    return [fact for fact in run_history.read(file) if isinstance(fact, ServerOutage)]


@pytest.mark.kernel
@pytest.mark.parametrize("how", HOW)
def test_server_ails_alone_and_serves_again(lab: Lab, tmp_path: Path, how: str) -> None:
    fault = ServerAils(lab, "s3", how, tmp_path / "server.jsonl")
    assert answers(lab, "s3")
    began_ns = fault.start()
    wait_until(lambda: not answers(lab, "s3"), 5, f"s3 to be {how}")
    assert answers(lab, "s1")
    assert answers(lab, "s2", version=6)
    ended_ns = fault.stop()
    assert answers(lab, "s3")
    (found,) = outages(tmp_path / "server.jsonl")
    assert (found.t_ns, found.end_ns, found.server, found.how) == (began_ns, ended_ns, "s3", how)
    assert found.back_ns > found.end_ns
    fault.stop()  # as at the end of a run that was interrupted
    assert len(outages(tmp_path / "server.jsonl")) == 1


@pytest.mark.kernel
def test_server_that_flaps_is_down_several_times_and_serves_at_last(
    lab: Lab, tmp_path: Path
) -> None:
    file = tmp_path / "server.jsonl"
    fault = ServerFlaps(ServerAils(lab, "s2", "stopped", file), 0.05, 0.05)
    fault.start()
    wait_until(lambda: file.exists() and len(outages(file)) >= 3, 5, "three outages")
    fault.stop()
    assert answers(lab, "s2")
    times = outages(file)
    assert all(a.back_ns <= b.t_ns for a, b in pairwise(times))


@pytest.mark.kernel
def test_blind_router_reaches_no_server_and_forwards(lab: Lab) -> None:
    fault = Blind(Net(lab.topology, "chaos1"), "r1")
    fault.start()
    for host in SERVERS:
        for version in (4, 6):
            assert not answers(lab, host, version=version)
            assert answers(lab, host, seen_from="r2", version=version)
    # A packet that it forwards has another source address, here one of the public network.
    with entered(lab.topology.namespace("s1")):
        hearing = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with entered(lab.topology.namespace("r1")):
        sending = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with hearing, sending:
        hearing.settimeout(5)
        hearing.bind(("10.11.12.101", UDP_PORT + 1))
        sending.bind(("203.0.113.11", 0))
        sending.sendto(b"forwarded", ("10.11.12.101", UDP_PORT + 1))
        assert hearing.recv(16) == b"forwarded"
    assert heard(lab, "r1", "r2", "private")
    fault.stop()
    assert answers(lab, "s1")


def test_only_the_server_that_is_no_client_loses_its_cable() -> None:
    site = Site(Lab("none"))
    came: Counter[tuple[str, str]] = Counter()
    for seed in range(200):
        attack = NEMESES["server-dead"].attack(Aim(site, (), random.Random(seed)))
        assert isinstance(attack.fault, ServerAils)
        assert attack.servers == (attack.fault.host,)
        assert attack.nodes == ()
        came[attack.fault.host, attack.fault.how] += 1
    unplugged = {host for host, how in came if how == "unplugged"}
    assert (unplugged, len(came)) == ({"s3"}, 7)
