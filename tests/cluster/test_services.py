"""What ``hanat service`` and ``hanat server`` say of three real daemons."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chaos.lab import node_api
from chaos.lab.lab import Lab
from hanat.errors import EXIT_REFUSED
from tests.cluster.conftest import Echo

pytestmark = pytest.mark.cluster


def test_every_node_shows_services_servers_and_their_connections(lab: Lab, inbound: Echo) -> None:
    holder = lab.wait_for_holder()
    inbound.exchange()

    def used() -> dict[str, Any] | None:
        servers = json.loads(hanat(lab, holder, "server", "list", "--json"))["servers"]
        return next((server for server in servers if server["connections"]), None)

    server = lab.wait_for(used, 5, "a server with a connection")
    name = f"{server['service']}/{server['name']}"
    shown = json.loads(hanat(lab, holder, "server", "show", name, "--json"))
    assert shown["connections"] == 1
    assert (shown["condition"], shown["administrative"]["mode"]) == ("serving", "ready")

    for node in lab.nodes:
        page = hanat(lab, node, "service", "list")
        code, document = node_api.request(lab.nodes[node].socket, "GET", "/v1/services")
        assert code == 200
        assert [line.split()[:2] for line in page.splitlines()[1:]] == [
            [service["name"], service["state"]] for service in document["services"]
        ]
        for service in document["services"]:
            share = sum(s["share_percent"] for s in service["servers"])
            versions = {"[" in listen or "::" in listen for listen in service["listen"]}
            assert share == pytest.approx(100 * len(versions), abs=0.1)


def test_server_that_is_not_there_is_refused_with_the_nearest(lab: Lab) -> None:
    node = next(iter(lab.nodes))
    for order in (["show"], ["drain"]):
        asked = ["server", *order, "web/web9", "--api", f"unix:{lab.nodes[node].socket}"]
        done = lab.exec_in(node, [*lab.hanat, *asked])
        assert (done.returncode, done.stdout) == (EXIT_REFUSED, "")
        assert done.stderr.startswith("hanat: no server of web 'web9'; the nearest name is web")


def hanat(lab: Lab, node: str, *arguments: str) -> str:
    """Run a command that ends well; return what it prints."""
    where = ["--api", f"unix:{lab.nodes[node].socket}"]
    done = lab.exec_in(node, [*lab.hanat, *arguments, *where])
    assert done.returncode == 0, done.stderr
    return done.stdout
