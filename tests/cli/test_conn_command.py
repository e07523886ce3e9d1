"""``hanat conn``."""

from __future__ import annotations

import json

import pytest

from hanat.errors import EXIT_FAILED, EXIT_REFUSED, EXIT_USAGE
from tests.cli.helpers import Node, call

FOUND = {
    "service": "web", "protocol": "tcp", "client": "198.51.100.7:40000",
    "asked": "203.0.113.10:80", "server": "10.11.12.101:8080", "answered": "198.51.100.7:40000",
    "state": "ESTABLISHED", "timeout_s": 431990,
}  # fmt: skip


def test_list_is_a_table_and_says_what_it_left_out(node: Node) -> None:
    node.answers({"count": 3, "connections": [FOUND, {**FOUND, "service": None, "state": None}]})

    result = call("conn", "list", "--service", "web", "--limit", "2", "--api", node.api)

    assert node.asked == [("GET", "/v1/connections?service=web&limit=2", None)]
    assert result.exit_code == 0
    head, first, second = result.stdout.splitlines()
    assert head.split() == [
        "PROTOCOL", "SERVICE", "CLIENT", "ASKED", "SERVER", "ANSWERED", "STATE", "TIMEOUT",
    ]  # fmt: skip
    assert first.split()[:3] == ["tcp", "web", "198.51.100.7:40000"]
    assert second.split()[1] == "-"
    assert result.stderr == "2 of 3; --limit shows more\n"


def test_empty_list_still_has_its_head(node: Node) -> None:
    node.answers({"count": 0, "connections": []})

    assert call("conn", "list", "--api", node.api).stdout.split()[0] == "PROTOCOL"


def test_count_is_a_number(node: Node) -> None:
    node.answers({"count": 12345, "connections": []})

    result = call("conn", "count", "--client", "198.51.100.7", "--api", node.api)

    assert node.asked == [("GET", "/v1/connections?client=198.51.100.7&limit=0", None)]
    assert (result.exit_code, result.stdout) == (0, "12345\n")


def test_kill_says_how_many(node: Node) -> None:
    node.answers({"killed": 2})

    result = call("conn", "kill", "--server", "10.11.12.101", "--api", node.api)

    assert node.asked == [("DELETE", "/v1/connections?server=10.11.12.101", None)]
    assert (result.exit_code, result.stdout) == (0, "killed: 2\n")


def test_kill_all_must_be_said(node: Node) -> None:
    node.answers({"killed": 9})

    assert call("conn", "kill", "--api", node.api).exit_code == EXIT_USAGE
    assert (
        call("conn", "kill", "--all", "--service", "a", "--api", node.api).exit_code == EXIT_USAGE
    )
    assert node.asked == []
    assert call("conn", "kill", "--all", "--api", node.api).stdout == "killed: 9\n"
    assert node.asked == [("DELETE", "/v1/connections", None)]


@pytest.mark.parametrize("command", ["list", "count"])
def test_json_is_the_answer(node: Node, command: str) -> None:
    node.answers({"count": 1, "connections": [FOUND]})

    assert json.loads(call("conn", command, "--json", "--api", node.api).stdout)["count"] == 1


@pytest.mark.parametrize("answer", [[], {}, {"count": None}])
def test_an_answer_that_makes_no_sense_is_a_failure(node: Node, answer: object) -> None:
    node.answers(answer)

    for command in (["list"], ["count"], ["kill", "--all"]):
        assert call("conn", *command, "--api", node.api).exit_code == EXIT_FAILED


def test_a_refusal_ends_with_the_nodes_message(node: Node) -> None:
    node.answers({"error": "ask the holder, which is r2", "exit_code": EXIT_REFUSED}, status=409)

    result = call("conn", "kill", "--all", "--api", node.api)

    assert (result.exit_code, result.stderr) == (
        EXIT_REFUSED,
        "hanat: ask the holder, which is r2\n",
    )
