"""``hanat history`` and ``hanat vip who``."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import click
import pytest

from hanat.cli.history_command import parse_time
from hanat.errors import EXIT_FAILED, EXIT_USAGE
from tests.cli.helpers import Node, call

NOON = datetime(2026, 11, 28, 12, 0, 0).astimezone()
NOON_S = NOON.timestamp()


def event(what: str, node_id: int, term: int, at_s: float) -> dict[str, Any]:
    return {
        "at_s": at_s, "term": term, "node": f"r{node_id}", "node_id": node_id, "what": what,
        "why": "silence", "without_s": None, "text": f"{what}: because",
    }  # fmt: skip


EVENTS = [event("took over", 1, 1, NOON_S - 600), event("gave up", 1, 1, NOON_S - 60)]


def test_history_is_a_table_in_local_time(node: Node) -> None:
    node.answers({"events": EVENTS})

    result = call("history", "--limit", "7", "--api", node.api)

    assert node.asked == [("GET", "/v1/history?limit=7", None)]
    head, first, second = result.stdout.splitlines()
    assert head.split() == ["AT", "TERM", "NODE", "WHAT"]
    local = (NOON - timedelta(seconds=600)).isoformat(sep=" ", timespec="milliseconds")
    assert first.startswith(f"{local}  1     r1    took over: because")
    assert "gave up" in second


def test_history_as_json_is_the_answer(node: Node) -> None:
    node.answers({"events": EVENTS})

    result = call("history", "--json", "--api", node.api)

    assert json.loads(result.stdout) == {"events": EVENTS}


def test_history_of_servers_says_which_fact_changed_and_who_decided(node: Node) -> None:
    change = {
        "at_s": NOON_S, "what": "verdict", "servers": ["web/web1"], "node": "r1",
        "text": "http 10.11.12.101:8080 3c9a86c7 (web/web1) is down: HTTP status 503, says r1",
    }  # fmt: skip
    node.answers({"events": EVENTS, "servers": [change]})

    result = call("history", "--servers", "--api", node.api)

    head, line = result.stdout.splitlines()
    assert head.split() == ["AT", "FACT", "NODE", "WHAT"]
    assert line.split()[-1] == "r1"
    assert "verdict  r1    http 10.11.12.101:8080" in line
    as_json = call("history", "--servers", "--json", "--api", node.api)
    assert json.loads(as_json.stdout) == {"servers": [change]}


def test_empty_history_says_so(node: Node) -> None:
    node.answers({"events": []})

    assert call("history", "--api", node.api).stdout == "nothing has happened\n"


def test_who_without_a_time_is_the_holder_of_now(node: Node) -> None:
    node.answers({"holder": "r2", "term": 4})

    assert call("vip", "who", "--api", node.api).stdout == "r2\n"
    assert node.asked[0][1] == "/v1/status"


@pytest.mark.parametrize(("at_s", "holder"), [(NOON_S - 300, "r1"), (NOON_S - 30, "nobody")])
def test_who_at_a_time_is_looked_up_in_the_history(node: Node, at_s: float, holder: str) -> None:
    node.answers({"events": EVENTS})
    at = datetime.fromtimestamp(at_s).astimezone().isoformat()

    result = call("vip", "who", "--at", at, "--api", node.api)

    assert (result.exit_code, result.stdout) == (0, f"{holder}\n")
    assert "because" in result.stderr


def test_who_before_the_history_is_unknown(node: Node) -> None:
    node.answers({"events": EVENTS})

    result = call("vip", "who", "--at", "2001-01-01T00:00:00Z", "--api", node.api)

    assert result.exit_code == EXIT_FAILED
    assert "nothing is known of 200" in result.stderr


@pytest.mark.parametrize("answer", [{}, [], {"events": [1]}, {"events": {}}])
def test_answer_that_is_no_history_is_a_failure(node: Node, answer: object) -> None:
    node.answers(answer)

    assert call("history", "--api", node.api).exit_code == EXIT_FAILED
    assert call("vip", "who", "--at", "-5m", "--api", node.api).exit_code == EXIT_FAILED


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("-30s", NOON_S - 30),
        ("-5m", NOON_S - 300),
        ("-1.5h", NOON_S - 5400),
        ("-2d", NOON_S - 172_800),
        ("11:59", NOON_S - 60),
        ("11:59:30.250", NOON_S - 29.75),
        ("2026-11-28T12:00:01" + NOON.strftime("%z"), NOON_S + 1),
        ("2026-11-28 11:00:00", NOON_S - 3600),
    ],
)
def test_times_are_understood_as_people_write_them(given: str, wanted: float) -> None:
    assert parse_time(given, now_s=NOON_S) == pytest.approx(wanted)


@pytest.mark.parametrize("given", ["", "5m", "-5", "25:00", "12:60", "yesterday", "-5y"])
def test_other_times_are_refused(given: str, node: Node) -> None:
    with pytest.raises(click.BadParameter):
        parse_time(given, now_s=NOON_S)
    assert call("vip", "who", f"--at={given}", "--api", node.api).exit_code == EXIT_USAGE
