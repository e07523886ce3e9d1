"""``hanat server``."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from hanat.cli import server_command as command
from hanat.core.check_view import CheckView, ProbeView
from hanat.core.probing import Operational
from hanat.core.server_facts import Administrative, Mode
from hanat.core.service_view import Condition
from hanat.errors import EXIT_FAILED, EXIT_NO_QUORUM, EXIT_REFUSED, EXIT_USAGE
from tests.api.helpers import WEB, WEB1
from tests.cli.helpers import Node, call

UNKNOWN = Operational.UNKNOWN
PATH = "/v1/services/web/servers/web1"
SHOWN = {"service": "web", **WEB1.to_document()}
DRAINED = replace(
    WEB1,
    condition=Condition.DRAIN,
    share_percent=0.0,
    administrative=Administrative(Mode.DRAIN, "alice on r1", "new kernel", 60.0, 3600.0),
    why="web/web1 gets no clients: it is drained by alice on r1 (new kernel)",
)


@pytest.fixture(autouse=True)
def _alice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Call as a user of a known name, and wait no second."""
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setenv("USER", "alice")
    monkeypatch.setattr(command, "LOOK_S", 0.0)


def drained(connections: int) -> dict[str, Any]:
    return {"service": "web", **replace(DRAINED, connections=connections).to_document()}


# ------------------------------------------------------------------------------ showing


def test_list_names_servers_with_their_service(node: Node) -> None:
    node.answers({"services": [WEB.to_document(checks=False)]})

    result = call("server", "list", "--api", node.api)

    assert node.asked == [("GET", "/v1/services", None)]
    assert (result.exit_code, result.stdout) == (
        0,
        """\
SERVER    ADDRESS            CHECKS  MODE   WEIGHT  SHARE  CONNECTIONS  NEW/S  TOTAL  IN       OUT     NEW CLIENTS
web/web1  10.11.12.101:8080  up      ready  2       100 %  3            0.5    5      5.00 kB  100 kB  yes
web/web2  10.11.12.102:8080  down    ready  1       0 %    2            0      0      0 B      0 B     no: down
""",  # noqa: E501 - what is printed
    )


def test_list_of_one_service_asks_for_that_alone(node: Node) -> None:
    node.answers(WEB.to_document())

    result = call("server", "list", "web", "--json", "--api", node.api)

    assert node.asked == [("GET", "/v1/services/web", None)]
    servers = json.loads(result.stdout)["servers"]
    assert [(s["service"], s["name"]) for s in servers] == [("web", "web1"), ("web", "web2")]


def test_show_begins_with_the_answer_and_has_all_that_is_known(node: Node) -> None:
    check = CheckView(
        "http 10.11.12.101:8080 3f2a9c01",
        Operational.DOWN,
        for_s=12.0,
        answer="503 Busy",
        in_a_row=3,
        latency_s=0.02,
        decided_by="r1",
        nodes=(("r1", Operational.DOWN), ("r2", Operational.UP)),
        probe=ProbeView(ok=False, answer="no route", in_a_row=9, latency_s=0.5, ago_s=0.25),
        note="it fell too often",
    )
    server = replace(
        DRAINED, factor=0.5, effective_weight=1, checks=(check, CheckView("t2", UNKNOWN))
    )
    node.answers({"service": "web", **server.to_document()})

    result = call("server", "show", "web/web1", "--api", node.api)

    assert node.asked == [("GET", PATH, None)]
    assert (result.exit_code, result.stdout) == (
        0,
        """\
web/web1 gets no clients: it is drained by alice on r1 (new kernel)
address     10.11.12.101:8080
mode        drain by alice on r1 since 1970-01-01T00:01:00+00:00 until 1970-01-01T01:00:00+00:00 (new kernel)
weight      1: 2 x 0.5, 0 % of the new clients
connections 3
new         0.5 a second; 5 since 2027-01-15T08:00:00+00:00
traffic     in 5.00 kB in 50 packets, out 100 kB in 40 packets
checks      up

http 10.11.12.101:8080 3f2a9c01
  verdict  down for 12.0 s: 503 Busy, 3 in a row, 20 ms; by r1
  seen     r1 down, r2 up
  here     failed 250 ms ago: no route, 9 in a row, 500 ms
  note     it fell too often

t2
  verdict  none yet
""",  # noqa: E501 - what is printed
    )


def test_show_of_a_server_that_is_well_says_its_share(node: Node) -> None:
    node.answers(SHOWN | {"share_percent": 66.666, "why": ""})

    result = call("server", "show", "web/web1", "--api", node.api)

    assert result.stdout.startswith("web/web1 gets 66.67 % of the new clients\n")
    assert "\nmode        ready\n" in result.stdout
    assert "\nweight      2, 66.67 % of the new clients\n" in result.stdout


def test_json_is_the_answer(node: Node) -> None:
    node.answers(SHOWN)

    result = call("server", "show", "web/web1", "--json", "--api", node.api)

    assert json.loads(result.stdout) == json.loads(json.dumps(SHOWN))


@pytest.mark.parametrize("server", ["web", "web/", "/web1", "a/b/c", ""])
def test_what_is_no_server_is_a_usage_error(node: Node, server: str) -> None:
    result = call("server", "show", server, "--api", node.api)

    assert result.exit_code == EXIT_USAGE
    assert "is not SERVICE/SERVER, such as web/web1" in result.stderr
    assert node.asked == []


@pytest.mark.parametrize("answer", [[], {}, 7, None])
@pytest.mark.parametrize("arguments", [("show",), ("drain", "--wait"), ("ready",)])
def test_an_answer_that_makes_no_sense_is_a_failure(
    node: Node, answer: object, arguments: tuple[str, ...]
) -> None:
    node.answers(answer)

    result = call("server", arguments[0], "web/web1", *arguments[1:], "--api", node.api)

    assert (result.exit_code, len(result.stderr.splitlines())) == (EXIT_FAILED, 1)


# ------------------------------------------------------------------------------- orders


@pytest.mark.parametrize(
    ("arguments", "body"),
    [
        (("ready", "web/web1"), {"mode": "ready"}),
        (("ready", "web/web1", "--reason", "done"), {"mode": "ready", "reason": "done"}),
        (
            ("drain", "web/web1", "--for", "30m", "--reason", "new kernel"),
            {"mode": "drain", "reason": "new kernel", "for": "1800s"},
        ),
        (("drain", "web/web1"), {"mode": "drain"}),
        (("maint", "web/web1", "--for", "1.5h"), {"mode": "maint", "for": "5400s"}),
        (("weight", "web/web1", "50%"), {"weight": 0.5}),
        (("weight", "web/web1", "0.5"), {"weight": 0.5}),
        (("weight", "web/web1", "0"), {"weight": 0.0}),
    ],
)
def test_order_is_sent_with_the_name_of_the_user(
    node: Node, arguments: tuple[str, ...], body: dict[str, Any]
) -> None:
    node.answers(drained(3))

    result = call("server", *arguments, "--api", node.api)

    assert node.asked == [("POST", PATH, {**body, "by": "alice"})]
    assert (result.exit_code, result.stdout) == (
        0,
        "web/web1 gets no clients: it is drained by alice on r1 (new kernel); connections: 3\n",
    )


@pytest.mark.parametrize(
    ("environment", "by"),
    [
        ({"SUDO_USER": "bob", "USER": "root"}, "bob"),
        ({"SUDO_USER": "", "USER": "root"}, "root"),
        ({"USER": "x\n" * 100}, "x" * 63),
    ],
)
def test_user_is_the_one_who_called_sudo(node: Node, environment: dict[str, str], by: str) -> None:
    node.answers(SHOWN)

    call("server", "ready", "web/web1", "--api", node.api, environment=environment)

    assert node.asked[0][2]["by"] == by


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("drain", "web/web1", "--for", "soon"), "is not a duration, such as 30s, 10m or 2h"),
        (("drain", "web/web1", "--for", "10"), "is not a duration"),
        (("drain", "web/web1", "--timeout", "1d"), "is not a duration"),
        (("ready", "web/web1", "--for", "1m"), "No such option"),
        (("maint", "web/web1", "--wait"), "No such option"),
        (("weight", "web/web1", "50"), "is more than 10 times the weight; half of it is 50%"),
        (("weight", "web/web1", "half"), "is not a part of a weight, such as 50% or 0.5"),
        (("weight", "web/web1"), "Missing argument"),
    ],
)
def test_wrong_options_are_usage_errors(node: Node, arguments: tuple[str, ...], found: str) -> None:
    result = call("server", *arguments, "--api", node.api)

    assert result.exit_code == EXIT_USAGE
    assert found in result.stderr
    assert node.asked == []


@pytest.mark.parametrize(("code", "status"), [(EXIT_REFUSED, 409), (EXIT_NO_QUORUM, 503)])
@pytest.mark.parametrize("arguments", [("drain",), ("weight", "1")])
def test_a_refusal_ends_with_the_nodes_message_and_exit_code(
    node: Node, code: int, status: int, arguments: tuple[str, ...]
) -> None:
    node.answers({"error": "ask the leader, which is r2", "exit_code": code}, status=status)

    result = call("server", arguments[0], "web/web1", *arguments[1:], "--api", node.api)

    assert (result.exit_code, result.stderr) == (code, "hanat: ask the leader, which is r2\n")
    assert result.stdout == ""


# ------------------------------------------------------------------------------ waiting


def test_wait_says_how_many_connections_are_left_until_none_is(node: Node) -> None:
    node.answers_first(drained(2), drained(2), drained(1))
    node.answers(drained(0))

    result = call("server", "drain", "web/web1", "--wait", "--api", node.api)

    assert [method for method, _, _ in node.asked] == ["POST", "GET", "GET", "GET"]
    assert result.stderr == "web/web1: 2 connections left\nweb/web1: 1 connection left\n"
    assert result.stdout.endswith("; connections: 0\n")
    assert result.exit_code == 0


def test_wait_prints_one_document(node: Node) -> None:
    node.answers_first(drained(2))
    node.answers(drained(0))

    result = call("server", "drain", "web/web1", "--wait", "--json", "--api", node.api)

    assert json.loads(result.stdout)["connections"] == 0


def test_without_wait_nobody_looks_again(node: Node) -> None:
    node.answers(drained(2))

    call("server", "drain", "web/web1", "--api", node.api)

    assert len(node.asked) == 1


def test_wait_ends_at_its_timeout_and_leaves_the_server_in_drain(node: Node) -> None:
    node.answers(drained(1))

    result = call("server", "drain", "web/web1", "--wait", "--timeout", "0s", "--api", node.api)

    assert (result.exit_code, result.stdout) == (EXIT_FAILED, "")
    assert result.stderr.splitlines()[-1] == (
        "hanat: drain: web/web1 has 1 connection left after 0 ms and stays in drain; "
        '"hanat conn list --service web" has them, "hanat server maint web/web1" ends them'
    )


def test_wait_ends_when_the_server_is_ready_again(node: Node) -> None:
    node.answers_first(drained(2))
    node.answers(SHOWN)

    result = call("server", "drain", "web/web1", "--wait", "--api", node.api)

    assert result.exit_code == EXIT_FAILED
    assert result.stderr.endswith(
        "hanat: drain: web/web1 is ready again, with 2 connections left\n"
    )


def test_wait_ends_with_the_node_it_asked(node: Node) -> None:
    node.answers_first(drained(2))
    node.body = b"<html>"

    result = call("server", "drain", "web/web1", "--wait", "--api", node.api)

    assert result.exit_code == EXIT_FAILED
    assert "is not JSON" in result.stderr


@pytest.mark.parametrize("name", ["list", "show", "ready", "drain", "maint", "weight"])
def test_each_command_has_its_help(name: str) -> None:
    result = call("server", name, "--help")

    assert result.exit_code == 0
    assert f" server {name} [OPTIONS] " in result.stdout


def test_server_with_a_bound_says_how_far_it_is(node: Node) -> None:
    server = replace(DRAINED, max_conn=5, times_full=2)
    node.answers({"service": "web", **server.to_document()})

    page = call("server", "show", "web/web1", "--api", node.api).stdout

    assert "\nconnections 3 of at most 5; had all of them 2 times (by this node)\n" in page
