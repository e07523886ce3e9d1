"""Servers that die, are drained and come back, behind three real daemons that probe them."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from chaos.lab import topology
from chaos.lab.lab import Lab
from chaos.lab.netns import entered
from chaos.lab.node_files import CHECK_INTERVAL_MS, FALL, cluster_toml
from hanat.core.flows import RESET_MARK
from tests.cluster.conftest import PUBLIC, PUBLIC_V6, Echo
from tests.cluster.test_configuration import apply, write
from tests.cluster.test_services import hanat

pytestmark = pytest.mark.cluster


@pytest.fixture
def checked(lab: Lab) -> Lab:
    """A lab whose nodes have found all servers up."""
    lab.wait_for(lambda: all_up(lab), 10, "every node to have found all servers up")
    return lab


def all_up(lab: Lab) -> bool:
    """Say whether every node knows the servers of web, and that they are up."""
    return {state(lab, name, "web") for name in lab.nodes} == {"up"}


def show(lab: Lab, node: str, service: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(hanat(lab, node, "service", "show", service, "--json"))
    return found


def state(lab: Lab, node: str, service: str) -> str:
    return str(show(lab, node, service).get("state"))


def shown(lab: Lab, node: str, service: str, server: str) -> dict[str, Any]:
    (found,) = (s for s in show(lab, node, service)["servers"] if s["name"] == server)
    return dict(found)


def gets_clients(lab: Lab, service: str, server: str) -> bool:
    """Say whether a server is in rotation on every node that runs."""
    return all(
        shown(lab, name, service, server)["gets_clients"]
        for name, node in lab.nodes.items()
        if node.running
    )


def who_answers(lab: Lab, address: str, times: int = 20) -> set[str]:
    """Return the servers that answer so many requests."""
    found = set()
    for _ in range(times):
        with entered(lab.topology.namespace(topology.CLIENT)):
            sock = socket.create_connection((address, 80), timeout=2)
        with sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b""
            while data := sock.recv(4096):
                answer += data
        found.add(answer.rpartition(b"\r\n\r\n")[2].decode().strip())
    return found


def freeze(lab: Lab, host: str) -> None:
    """Let a server accept connections and say nothing."""
    os.kill(lab.server(host).identity.pid, signal.SIGSTOP)


def thaw(lab: Lab, host: str) -> None:
    os.kill(lab.server(host).identity.pid, signal.SIGCONT)


def test_server_whose_process_ends_gets_no_clients_until_it_is_back(checked: Lab) -> None:
    lab = checked
    assert who_answers(lab, PUBLIC) == who_answers(lab, PUBLIC_V6) == {"s1", "s2", "s3"}
    freeze(lab, "s1")
    lab.wait_for(lambda: not gets_clients(lab, "web", "web1"), 5, "web1 to be out of rotation")
    lab.wait_for(lambda: not gets_clients(lab, "web", "web1-v6"), 5, "web1-v6 to be out, too")
    assert who_answers(lab, PUBLIC) == who_answers(lab, PUBLIC_V6) == {"s2", "s3"}
    holder = lab.wait_for_holder()
    why = shown(lab, holder, "web", "web1")["why"]
    assert "web/web1 gets no clients" in why
    assert state(lab, holder, "web") == "degraded"
    thaw(lab, "s1")
    lab.wait_for(lambda: gets_clients(lab, "web", "web1"), 5, "web1 to be back")
    assert who_answers(lab, PUBLIC) == {"s1", "s2", "s3"}
    for name in lab.nodes:
        page = hanat(lab, name, "history", "--servers")
        assert "(web/web1) is down: " in page
        assert page.splitlines()[-1].endswith(f"is up, says {holder}")


def test_takeover_amid_an_outage_knows_who_is_dead(checked: Lab) -> None:
    lab = checked
    freeze(lab, "s2")
    lab.wait_for(lambda: not gets_clients(lab, "web", "web2"), 5, "web2 to be out of rotation")
    before = lab.wait_for_holder()
    lab.kill_node(before)
    lab.wait_for(lambda: lab.holder() not in {None, before}, 10, "a new holder")
    for _ in range(10):
        assert who_answers(lab, PUBLIC, 3) <= {"s1", "s3"}
    thaw(lab, "s2")


def test_connection_to_a_server_that_went_down_is_reset_at_its_next_packet(checked: Lab) -> None:
    lab = checked
    with ExitStack() as stack:
        echoes = [
            stack.enter_context(Echo(lab, topology.CLIENT, PUBLIC, 7)) for _ in topology.SERVERS
        ]
        for echo in echoes:
            echo.exchange()
        holder = lab.wait_for_holder()
        before = to_be_reset(lab, holder)
        freeze(lab, "s1")
        lab.wait_for(lambda: not gets_clients(lab, "tcp-echo", "tcp1"), 5, "tcp1 to be out")
        lab.wait_for(lambda: to_be_reset(lab, holder) > before, 5, "its connection's mark")
        reset = []
        for echo in echoes:
            try:
                echo.exchange()
            except OSError as error:
                reset.append(error.errno)
        assert reset == [errno.ECONNRESET]
        thaw(lab, "s1")


def test_drained_server_gets_no_new_clients_and_keeps_those_it_has(checked: Lab) -> None:
    lab = checked
    holder = lab.wait_for_holder()
    backup = next(name for name in lab.nodes if name != holder)
    with Echo(lab, topology.CLIENT, PUBLIC, 7) as one, Echo(lab, topology.CLIENT, PUBLIC, 7) as two:
        for server in ("tcp-echo/tcp1", "web/web1"):
            hanat(lab, backup, "server", "drain", server, "--reason", "new disk")
        assert who_answers(lab, PUBLIC) == {"s2", "s3"}
        for echo in (one, two):
            echo.exchange()
        found = shown(lab, holder, "web", "web1")
        assert found["administrative"]["mode"] == "drain"
        assert "new disk" in found["why"]
        lab.restart_node(backup)
        lab.wait_for(lambda: lab.status(backup) is not None, 10, "the node that restarts")
        lab.wait_for(lambda: state(lab, backup, "web") == "up", 10, "the configuration")
        assert shown(lab, backup, "web", "web1")["administrative"]["mode"] == "drain"
        hanat(lab, backup, "server", "ready", "web/web1")
        assert who_answers(lab, PUBLIC) == {"s1", "s2", "s3"}


def test_new_connections_go_where_fewer_are_with_least_connections(
    checked: Lab, tmp_path: Path
) -> None:
    lab = checked
    before, name, echo = cluster_toml(profile="default").partition('name = "tcp-echo"')
    least = before + name + echo.replace('scheduler = "rr"', 'scheduler = "lc"', 1)
    holder = lab.wait_for_holder()
    with ExitStack() as stack:
        for other in ("tcp2", "tcp3"):
            hanat(lab, holder, "server", "drain", f"tcp-echo/{other}")
        full = [stack.enter_context(Echo(lab, topology.CLIENT, PUBLIC, 7)) for _ in range(12)]
        apply(lab, holder, write(tmp_path, least))
        for other in ("tcp2", "tcp3"):
            hanat(lab, holder, "server", "ready", f"tcp-echo/{other}")
        lab.wait_for(lambda: connections(lab, "tcp1") == len(full), 5, "the connections to count")
        lab.wait_for(lambda: share_of_next(lab, stack) == 1, 10, "the empty ones to be filled")


def connections(lab: Lab, server: str) -> int:
    return int(shown(lab, lab.wait_for_holder(), "tcp-echo", server)["connections"])


def share_of_next(lab: Lab, stack: ExitStack) -> float:
    """Return which part of five more connections goes to another server than the first."""
    before = connections(lab, "tcp1")
    for _ in range(5):
        stack.enter_context(Echo(lab, topology.CLIENT, PUBLIC, 7)).exchange()
    return 1 - (connections(lab, "tcp1") - before) / 5


def test_server_that_passes_one_check_and_not_the_other_gets_no_clients(
    checked: Lab, tmp_path: Path
) -> None:
    lab = checked
    another = '  [[service.check]]\n  kind = "http"\n  interval = "400ms"\n  body = "s1"\n'
    check = "  [[service.check]]\n"
    text = cluster_toml(profile="default").replace(check, another + check, 1)
    holder = lab.wait_for_holder()
    assert who_answers(lab, PUBLIC) == {"s1", "s2", "s3"}

    apply(lab, holder, write(tmp_path, text))

    lab.wait_for(lambda: not gets_clients(lab, "web", "web2"), 10, "web2 to be out")
    lab.wait_for(lambda: not gets_clients(lab, "web", "web3"), 10, "web3 to be out")
    assert who_answers(lab, PUBLIC) == {"s1"}


UDP_S_MAX = FALL * CHECK_INTERVAL_MS / 1000 + 1.0
TRIES = 3  # a checker may want for a core; one that never moves the client is red all the same


def test_udp_client_that_sends_from_one_port_reaches_a_living_server_in_time(checked: Lab) -> None:
    lab = checked
    holder = lab.wait_for_holder()
    with entered(lab.topology.namespace(topology.CLIENT)):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    took = []
    with client:
        client.settimeout(0.02)
        client.bind(("203.0.113.100", 40_321))
        lab.wait_for(lambda: answered(client), 5, "an answer")
        for _ in range(TRIES):
            host = server_of(lab, holder, 40_321)
            freeze(lab, host)
            died = time.monotonic()
            try:
                lab.wait_for(lambda: not answered(client), 5, "the server to be silent")
                lab.wait_for(lambda: answered(client), 10, "another server to answer")
                took.append(time.monotonic() - died)
                assert server_of(lab, holder, 40_321) != host
            finally:
                thaw(lab, host)
            if took[-1] <= UDP_S_MAX:
                break
            lab.wait_for(lambda: all_up(lab), 10, "all servers up")
    assert min(took) <= UDP_S_MAX, took


def answered(client: socket.socket) -> bool:
    """Send a datagram, as every 20 ms; say whether its answer comes, or that of one before."""
    client.sendto(b"hanat", (PUBLIC, 53))
    try:
        return client.recv(16) == b"hanat"
    except TimeoutError:
        return False


def to_be_reset(lab: Lab, holder: str) -> int:
    """Return how many connections the holder's rules reset at their next packet."""
    marked = ["conntrack", "-L", "-p", "tcp", "-m", f"{RESET_MARK}/{RESET_MARK}"]
    return lab.exec_in(holder, marked).stdout.count(" dport=7 ")


def server_of(lab: Lab, holder: str, port: int) -> str:
    """Return where the holder's kernel leads the client of that port."""
    listed = lab.exec_in(holder, ["conntrack", "-L", "-p", "udp", "--orig-port-src", str(port)])
    (address,) = set(re.findall(r"src=(10\.11\.12\.\d+) ", listed.stdout))
    return next(host for host in topology.SERVERS if address in topology.server_addresses(host))
