"""``hanat cluster``."""

from __future__ import annotations

import json

import pytest

from hanat.errors import EXIT_FAILED, EXIT_REFUSED
from tests.cli.helpers import Node, call


def test_finished_upgrade_is_said(node: Node) -> None:
    node.answers({"level": 6})
    result = call("cluster", "finish-upgrade", "--api", node.api)
    assert node.asked == [("POST", "/v1/cluster/finish-upgrade", {})]
    assert result.stdout == "upgrade finished: feature level 6 is in force\n"
    assert json.loads(call("cluster", "finish-upgrade", "--json", "--api", node.api).stdout) == {
        "level": 6
    }


def test_refusal_ends_with_the_nodes_message_and_exit_code(node: Node) -> None:
    said = "upgrade not finished: r3 can do feature level 5, others 6; upgrade r3 first"
    node.answers({"error": said, "exit_code": EXIT_REFUSED}, status=409)
    result = call("cluster", "finish-upgrade", "--api", node.api)
    assert (result.exit_code, result.stderr) == (EXIT_REFUSED, f"hanat: {said}\n")


@pytest.mark.parametrize("answer", [{}, [], {"level": "6"}])
def test_answer_without_a_level_is_a_failure(node: Node, answer: object) -> None:
    node.answers(answer)
    assert call("cluster", "finish-upgrade", "--api", node.api).exit_code == EXIT_FAILED
