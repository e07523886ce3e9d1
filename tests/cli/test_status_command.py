"""``hanat status``."""

from __future__ import annotations

import json
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hanat.cli.status_text import PEER_HEAD, duration, status_lines
from hanat.errors import EXIT_FAILED, EXIT_NO_QUORUM, EXIT_USAGE
from tests.cli.helpers import HOLDER, Node, call


def test_status_is_one_readable_screen(node: Node) -> None:
    node.answers(HOLDER.to_document())

    result = call("status", "--api", node.api)

    assert result.exit_code == 0
    assert node.asked == [("GET", "/v1/status", None)]
    assert result.stdout == (
        """\
r1 (id 1) of cluster edge1   hanat 0.1.0   up 2 h 1 min
role       ACTIVE for 12.5 s, elected
term       7
leader     r1
holder     r1
lease      75 ms left, profile default
quorum     yes
revision   3

VIP     ADDRESS          DEVICE  HELD
public  203.0.113.10/24  eth0    yes

PEER  ID  ADDRESS      CONNECTED  FIT  COMPLETE  HEARD      BEACONS           HINDERED
r2    2   10.11.12.12  yes        yes  yes       12 ms ago  5 ms ago / never  1 path broken
r3    3   -            no         no   no        never      -                 -

SERVICE  LISTEN               SCHEDULER  CHECKS      FLOWS
web      203.0.113.10 tcp/80  wrr        http, ping  5

SERVER  SERVICE  ADDRESS            WEIGHT  FLOWS
web1    web      10.11.12.101:8080  2       3

flows      5, complete yes, told anew 1 times, as of 2 ms ago
flows out  captured 100, committed 90, pending 10, lag 3 ms
flows in   received 0, installed 0, deleted 0
conntrack  123 entries, limit 1000
log        commit 55, applied 54, last 56
"""
    )


def test_the_readme_shows_a_screen_of_today() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    sample = readme.partition("```\nr1 (id 1)")[2].partition("```")[0]
    begins = {line.split()[0] for line in status_lines(HOLDER.to_document())[1:] if line}
    heads = [line.split() for line in sample.splitlines() if line.isupper()]

    assert begins - {line.split()[0] for line in sample.splitlines() if line} == set()
    assert list(PEER_HEAD) in heads


def test_alarms_of_the_connection_table_are_trouble(node: Node) -> None:
    alarms = ("connection table 93 % full (930 of 1000)",)
    node.answers(replace(HOLDER, flows=replace(HOLDER.flows, alarms=alarms)).to_document())

    result = call("status", "--api", node.api)

    assert "trouble    connection table 93 % full (930 of 1000)\n" in result.stdout


def test_json_is_the_document_as_the_node_gave_it(node: Node) -> None:
    node.answers(HOLDER.to_document())

    result = call("status", "--json", "--api", node.api)

    assert json.loads(result.stdout) == json.loads(json.dumps(HOLDER.to_document()))


def test_the_api_can_be_named_in_the_environment(node: Node) -> None:
    node.answers(HOLDER.to_document())

    assert call("status", environment={"HANAT_API": node.api}).exit_code == 0


def test_trouble_with_flows_is_shown_only_when_there_is_some() -> None:
    document = HOLDER.to_document()
    assert not any("clashed" in line for line in status_lines(document))

    document["flows"]["clashed"] = 4

    assert "trouble    clashed 4" in status_lines(document)


def test_trouble_names_lateness_and_what_other_programs_changed() -> None:
    document = HOLDER.to_document()
    document["late"]["max_s"], document["lease_s"] = 0.029, 0.12
    assert not any("trouble" in line for line in status_lines(document))

    document["late"]["max_s"] = 0.031
    document["repairs"], document["restored"] = {"ruleset": 2, "sysctl": 0}, 3

    assert (
        "trouble    loop late by up to 31 ms, ruleset repaired 2, addresses put back 3"
        in status_lines(document)
    )


def test_own_address_that_is_gone_is_shown() -> None:
    document = HOLDER.to_document() | {"missing": ["203.0.113.11"]}
    assert "missing    own address 203.0.113.11" in status_lines(document)


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        (
            {"level": 5, "levels": {"r1": 6, "r2": 5}},
            "upgrade    not finished: feature level 5 in force; reached: r1 6, r2 5",
        ),
        ({"level": 6, "levels": {"r1": 6, "r2": 6}}, ""),
        ({"level": 6, "levels": {"r1": [6]}}, "upgrade    not finished: "),
        ({"keys": ["0badcafe", "12345678"]}, "keys       0badcafe is used, 12345678 is accepted"),
        ({"keys": ["0badcafe"]}, ""),
    ],
)
def test_what_is_half_done_is_shown(facts: dict[str, Any], line: str) -> None:
    shown = status_lines(HOLDER.to_document() | facts)
    found = [text for text in shown if text.startswith(("upgrade", "keys"))]
    assert "".join(found).startswith(line)
    assert bool(found) == bool(line)


def test_peer_that_is_refused_is_shown_with_the_reason() -> None:
    document = HOLDER.to_document()
    document["peers"][1]["refused"] = "node 3 has nodes 1, 2, 3, 4, 5"
    assert "refused    r3: node 3 has nodes 1, 2, 3, 4, 5" in status_lines(document)


def test_a_document_of_another_version_still_makes_a_page() -> None:
    lines = status_lines({"node": "r1", "vips": [{"name": "public"}, 5], "services": {}, "log": 1})

    assert lines[0].startswith("r1 (id -) of cluster -")
    assert "public  -        -       -" in lines


def test_control_characters_from_the_network_do_not_reach_the_terminal() -> None:
    document = HOLDER.to_document()
    document["reason"] = "\x1b]0;owned\x07"

    assert not any("\x07" in line or "\x1b]" in line for line in status_lines(document))


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 ms"),
        (0.0123, "12 ms"),
        (59.94, "59.9 s"),
        (60, "1 min 0 s"),
        (3600, "1 h 0 min"),
        (200000, "2 d 7 h"),
        (-1, "-1"),
        (float("nan"), "nan"),
        (None, "-"),
        ("x", "-"),
    ],
)
def test_durations_are_shown_in_their_largest_units(seconds: object, expected: str) -> None:
    assert duration(seconds) == expected


def test_a_missing_socket_is_named_and_asks_whether_hanat_runs(tmp_path: Path) -> None:
    result = call("status", "--api", f"unix:{tmp_path}/none.sock")

    assert result.exit_code == EXIT_FAILED
    assert f"cannot connect to unix:{tmp_path}/none.sock: No such file" in result.stderr
    assert "is hanat running?" in result.stderr
    assert result.stdout == ""


def test_a_socket_nobody_listens_on_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))

    result = call("status", "--api", f"unix:{tmp_path}/dead.sock")

    assert result.exit_code == EXIT_FAILED
    assert "nobody listens there" in result.stderr


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"7", b"[" * 100_000])
def test_an_answer_that_is_no_status_is_one_line(node: Node, body: bytes) -> None:
    node.body = body

    result = call("status", "--api", node.api)

    assert result.exit_code == EXIT_FAILED
    assert len(result.stderr.splitlines()) == 1


def test_an_error_of_the_api_becomes_message_and_exit_code(node: Node) -> None:
    node.answers({"error": "no majority", "exit_code": 3}, status=503)

    result = call("status", "--api", node.api)

    assert result.exit_code == EXIT_NO_QUORUM
    assert result.stderr == "hanat: no majority\n"


@pytest.mark.parametrize("code", [None, "3", 0, -1, 300, True])
def test_a_senseless_exit_code_becomes_failed(node: Node, code: object) -> None:
    node.answers({"error": "no", "exit_code": code}, status=500)

    assert call("status", "--api", node.api).exit_code == EXIT_FAILED


def test_what_is_not_http_is_reported(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "x.sock"))
        server.listen()

        def babble() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"hello\r\n\r\n")

        thread = threading.Thread(target=babble)
        thread.start()
        result = call("status", "--api", f"unix:{tmp_path}/x.sock")
        thread.join()

    assert result.exit_code == EXIT_FAILED
    assert "the answer is not HTTP" in result.stderr


@pytest.mark.parametrize("api", ["nonsense", "host:", ":80", "host:port", "::1:80", "host:99999"])
def test_an_api_address_that_is_none_is_a_usage_error(api: str) -> None:
    result = call("status", "--api", api)

    assert result.exit_code == EXIT_USAGE
    assert "--api" in result.stderr


def test_a_node_can_be_asked_over_tcp() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        thread = threading.Thread(target=answer)
        thread.start()
        result = call("status", "--json", "--api", f"{host}:{port}")
        thread.join()

    assert (result.exit_code, result.stdout) == (0, "{}\n")
