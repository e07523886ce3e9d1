"""One packet scheduling on three real nodes: one socket goes on, whoever holds."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from chaos.lab import topology
from chaos.lab.lab import Lab
from chaos.lab.netns import entered
from chaos.lab.node_files import CLUSTER_TOML
from tests.cluster.conftest import PUBLIC, PUBLIC_V6, hand_over
from tests.cluster.test_servers import all_up, show
from tests.cluster.test_services import hanat

pytestmark = pytest.mark.cluster

SERVICE, PORT = "udp-echo", 53
TIMEOUT_S = 0.2  # a question or its answer may meet a takeover
TRIES = 50


@pytest.fixture
def with_ops() -> Iterator[Lab]:
    """A lab whose service of UDP sends each datagram by itself, and whose servers are up."""
    name = f'name = "{SERVICE}"'
    assert name in CLUSTER_TOML
    text = CLUSTER_TOML.replace(name, f"{name}\nops = true", 1)
    with Lab(prefix=f"ho{os.getpid()}", cluster_toml=text) as lab:
        lab.start()
        lab.wait_for_holder()
        lab.wait_for(lambda: all_up(lab), 10, "every node to have found all servers up")
        yield lab


class Asking:
    """One socket that asks the service, again if nothing came back."""

    def __init__(self, lab: Lab, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with entered(lab.topology.namespace(topology.CLIENT)):
            self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.settimeout(TIMEOUT_S)
        self._socket.connect((address, PORT))  # answers of others are not heard
        self._asked = 0

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, times: int) -> None:
        """Ask, and have each question answered."""
        for _ in range(times):
            self._asked += 1
            text = b"%d" % self._asked
            assert any(self._answered(text) for _ in range(TRIES)), f"{text!r} was not answered"

    def _answered(self, text: bytes) -> bool:
        try:
            self._socket.send(text)
            while self._socket.recv(100) != text:
                pass  # an answer to an earlier try
        except TimeoutError:
            return False
        return True


def datagrams(lab: Lab, node: str) -> dict[str, int]:
    """Return how many datagrams a node sent to each server."""
    return {s["name"]: s["datagrams"]["to_server"] for s in show(lab, node, SERVICE)["servers"]}


@pytest.mark.parametrize("address", [PUBLIC, PUBLIC_V6])
def test_one_socket_is_answered_by_all_servers_whoever_holds(with_ops: Lab, address: str) -> None:
    lab = with_ops
    first = lab.wait_for_holder()
    second, third = (name for name in lab.nodes if name != first)
    mine = {name for name in datagrams(lab, first) if name.endswith("-v6") is (":" in address)}
    with Asking(lab, address) as asking:
        asking.ask(30)
        before = datagrams(lab, first)
        assert all(before[name] >= 10 for name in mine), before
        assert not any(before[name] for name in before.keys() - mine)
        assert f"dport={PORT} " not in _tracked(lab, first)

        hand_over(lab, second)
        asking.ask(30)
        assert all(datagrams(lab, second)[name] >= 10 for name in mine)

        drained = min(mine)
        hanat(lab, second, "server", "drain", f"{SERVICE}/{drained}")
        there = datagrams(lab, second)[drained]
        asking.ask(30)
        assert datagrams(lab, second)[drained] == there

        lab.kill_node(second)
        lab.wait_for(lambda: lab.holder() in {first, third}, 10, "a new holder")
        asking.ask(30)
        holder = lab.wait_for_holder()
        assert datagrams(lab, holder)[drained] <= before.get(drained, 0)
        assert f"dport={PORT} " not in _tracked(lab, holder)


def _tracked(lab: Lab, node: str) -> str:
    """Return the connections of UDP that a node's kernel tracks from the client."""
    found = ""
    for family in ("ipv4", "ipv6"):
        listing = ["conntrack", "-L", "-p", "udp", "-f", family]
        found += topology.run_ip(["netns", "exec", lab.topology.namespace(node), *listing])
    return found
