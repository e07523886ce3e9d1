"""Clients of a service with persistence, while the routers of a cluster come and go."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping

import pytest

from chaos.lab import topology
from chaos.lab.lab import Lab
from chaos.lab.netns import entered
from chaos.lab.node_files import CLUSTER_TOML
from tests.cluster.conftest import PUBLIC, PUBLIC_V6, complete, hand_over
from tests.cluster.test_services import hanat

pytestmark = pytest.mark.cluster

MANY = 12  # of each family
STICKY = 'name = "web"\npersistence = { timeout = "10m" }'


@pytest.fixture
def sticky() -> Iterator[Lab]:
    """A lab whose service web has persistence, and whose nodes have all flows."""
    text = CLUSTER_TOML.replace('name = "web"', STICKY, 1)
    with Lab(prefix=f"hs{os.getpid()}", cluster_toml=text) as lab:
        lab.start()
        lab.wait_for_holder()
        lab.wait_for(lambda: complete(lab), 20, "every node to have all flows")
        yield lab


def clients_of(lab: Lab) -> list[str]:
    """Return more addresses of the client."""
    namespace = lab.topology.namespace(topology.CLIENT)
    found = []
    for number in range(150, 150 + MANY):
        for address, length in ((f"203.0.113.{number}", 24), (f"2001:db8:113::{number}", 64)):
            added = ["addr", "add", f"{address}/{length}", "dev", "eth0", "nodad"]
            topology.run_ip(["-n", namespace, *added])
            found.append(address)
    return found


def who_answers(lab: Lab, clients: list[str]) -> dict[str, str]:
    """Return which server answers a request of each client; its connection ends with that."""
    found = {}
    for client in clients:
        address = PUBLIC_V6 if ":" in client else PUBLIC
        with entered(lab.topology.namespace(topology.CLIENT)):
            sock = socket.create_connection((address, 80), 5, source_address=(client, 0))
        with sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b""
            while data := sock.recv(4096):
                answer += data
        found[client] = answer.rpartition(b"\r\n\r\n")[2].decode().strip()
    return found


def known(lab: Lab) -> Mapping[str, int]:
    """Return how many clients each node that answers knows."""
    statuses = lab.statuses().items()
    return {name: status["flows"]["clients"] for name, status in statuses if status is not None}


def everybody_knows(lab: Lab, count: int) -> bool:
    found = known(lab)
    return len(found) == 3 and set(found.values()) == {count}


def test_clients_reach_their_servers_when_the_holder_dies(sticky: Lab) -> None:
    lab, clients = sticky, clients_of(sticky)
    before = who_answers(lab, clients)
    assert set(before.values()) == {"s1", "s2", "s3"}
    lab.wait_for(lambda: everybody_knows(lab, 2 * MANY), 10, "every node to know the clients")

    first = lab.wait_for_holder()
    lab.kill_node(first)
    lab.wait_for(lambda: lab.holder() not in {None, first}, 10, "a new holder")
    assert who_answers(lab, clients) == before


def test_node_that_was_restarted_keeps_clients_when_it_holds(sticky: Lab) -> None:
    """The clients came while it was away."""
    lab, clients = sticky, clients_of(sticky)
    holder = lab.wait_for_holder()
    away = next(name for name in lab.nodes if name != holder)
    lab.kill_node(away)
    inside = ["netns", "exec", lab.topology.namespace(away), "nft"]
    topology.run_ip([*inside, "flush", "ruleset"])  # the programs stay at the devices
    before = who_answers(lab, clients)
    lab.start_node(away)
    lab.wait_for(lambda: everybody_knows(lab, 2 * MANY), 20, "every node to know the clients")

    hand_over(lab, away)
    assert lab.wait_for_holder() == away
    assert who_answers(lab, clients) == before


def test_drained_server_gets_nobody_back_by_a_takeover(sticky: Lab) -> None:
    lab, clients = sticky, clients_of(sticky)
    before = who_answers(lab, clients)
    first = lab.wait_for_holder()
    for server in ("web/web1", "web/web1-v6"):
        hanat(lab, first, "server", "drain", server)
    lab.wait_for(lambda: everybody_knows(lab, 2 * MANY), 10, "every node to know the clients")

    lab.kill_node(first)
    second = lab.wait_for(
        lambda: holder if (holder := lab.holder()) not in {None, first} else None, 10, "a holder"
    )
    after = who_answers(lab, clients)
    assert "s1" not in after.values()
    stayed = {client for client, server in before.items() if server != "s1"}
    assert {c: after[c] for c in stayed} == {c: before[c] for c in stayed}

    for server in ("web/web1", "web/web1-v6"):
        hanat(lab, second, "server", "ready", server)
    hand_over(lab, next(name for name in lab.nodes if name not in {first, second}))
    assert who_answers(lab, clients) == after
