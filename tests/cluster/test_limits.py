"""Limits of a service with three real daemons: struck, seen, and there again after a takeover."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from chaos.lab import node_api
from chaos.lab.lab import Lab
from chaos.lab.netns import entered
from chaos.lab.node_files import cluster_toml
from tests.cluster.conftest import PUBLIC, Echo, hand_over
from tests.cluster.test_services import hanat

pytestmark = pytest.mark.cluster

FULL, CLIENT, DENIED = 9100, 9101, 9102
ECHO = 9000  # what a server of the lab answers on
SILENCE_S = 0.5
SERVICES = f"""
[[service]]
name = "full"
listen = ["vip:public tcp/{FULL}"]
sorry = "10.11.12.103:{ECHO}"
  [[service.server]]
  name = "one"
  address = "10.11.12.101:{ECHO}"
  max_conn = 2

[[service]]
name = "client"
listen = ["vip:public tcp/{CLIENT}"]
limits = {{ connections_per_client = 2 }}
  [[service.server]]
  name = "one"
  address = "10.11.12.101:{ECHO}"

[[service]]
name = "denied"
listen = ["vip:public tcp/{DENIED}"]
deny = ["203.0.113.0/24"]
  [[service.server]]
  name = "one"
  address = "10.11.12.101:{ECHO}"
"""


@pytest.fixture
def limited() -> Iterator[Lab]:
    text = cluster_toml(profile="calm", checked=False) + SERVICES
    with Lab(prefix=f"ht{os.getpid()}l", cluster_toml=text) as lab:
        lab.start()
        lab.wait_for_holder()
        yield lab


def connects(lab: Lab, port: int) -> bool:
    """Say whether a new connection comes through."""
    with entered(lab.topology.namespace("c1")):
        asking = socket.socket()
    with asking:
        asking.settimeout(SILENCE_S)
        try:
            asking.connect((PUBLIC, port))
        except TimeoutError:
            return False
    return True


def service(lab: Lab, name: str) -> dict[str, Any]:
    """Return what the holder says of a service."""
    holder = lab.wait_for_holder()
    code, document = node_api.request(lab.nodes[holder].socket, "GET", f"/v1/services/{name}")
    assert code == 200
    return dict(document)


def is_full(lab: Lab) -> bool:
    (server,) = service(lab, "full")["servers"]
    return bool(server["condition"] == "full" and server["connections"] == 2)


def crowd(lab: Lab) -> str:
    """Return what the holder's kernel has been told of clients with too many connections."""
    done = lab.exec_in(lab.wait_for_holder(), ["nft", "list", "sets", "inet"])
    blocks = done.stdout.split("set limits/client/crowd/v4/")[1:]
    assert len(blocks) == 1, done.stdout
    return blocks[0].partition("}\n\n")[0]


def test_limits_strike_are_seen_and_hold_again_after_a_takeover(limited: Lab) -> None:
    lab = limited
    assert not connects(lab, DENIED)
    with ExitStack() as opened:
        ports = (FULL, FULL, CLIENT, CLIENT)
        kept = [opened.enter_context(Echo(lab, "c1", PUBLIC, port)) for port in ports]
        assert not connects(lab, CLIENT)
        lab.wait_for(lambda: is_full(lab), 5, "the server to be full")
        holder = lab.wait_for_holder()
        page = hanat(lab, holder, "service", "show", "client")
        assert "\nrefused     1 connections_per_client (by this node)\n" in page
        assert service(lab, "denied")["refused"] == {"deny": 1}
        assert service(lab, "full")["state"] == "down"
        assert "the sorry server 10.11.12.103 does" in service(lab, "full")["why"]
        kept.append(opened.enter_context(Echo(lab, "c1", PUBLIC, FULL)))
        assert is_full(lab)  # that one is at the sorry server
        for echo in kept:
            echo.exchange()

        other = next(name for name in lab.nodes if name != holder)
        hand_over(lab, other)

        lab.wait_for(lambda: lab.wait_for_holder() == other, 5, "the new holder")
        lab.wait_for(lambda: is_full(lab), 5, "the server to be full for it, too")
        lab.wait_for(lambda: "203.0.113.100" in crowd(lab), 5, "the client to have too many")
        assert not connects(lab, CLIENT)
        for echo in kept:
            echo.exchange()
