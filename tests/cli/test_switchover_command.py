"""``hanat switchover``."""

from __future__ import annotations

import json

import pytest

from hanat.errors import EXIT_FAILED, EXIT_NO_QUORUM, EXIT_REFUSED
from tests.cli.helpers import Node, call


@pytest.mark.parametrize(("options", "to"), [((), None), (("--to", "r2"), "r2")])
def test_a_switchover_is_asked_for_and_the_new_holder_shown(
    node: Node, options: tuple[str, ...], to: str | None
) -> None:
    node.answers({"holder": "r2"})

    result = call("switchover", *options, "--api", node.api)

    assert node.asked == [("POST", "/v1/switchover", {"to": to})]
    assert (result.exit_code, result.stdout) == (0, "holder: r2\n")


def test_json_is_the_answer(node: Node) -> None:
    node.answers({"holder": "r2"})

    assert json.loads(call("switchover", "--json", "--api", node.api).stdout) == {"holder": "r2"}


@pytest.mark.parametrize(("code", "status"), [(EXIT_REFUSED, 409), (EXIT_NO_QUORUM, 503)])
def test_a_refusal_ends_with_the_nodes_message_and_exit_code(
    node: Node, code: int, status: int
) -> None:
    node.answers({"error": "this node is not the holder; ask r3", "exit_code": code}, status=status)

    result = call("switchover", "--api", node.api)

    assert result.exit_code == code
    assert result.stderr == "hanat: this node is not the holder; ask r3\n"
    assert result.stdout == ""


@pytest.mark.parametrize("answer", [{}, [], {"holder": None}])
def test_an_answer_without_a_holder_is_a_failure(node: Node, answer: object) -> None:
    node.answers(answer)

    assert call("switchover", "--api", node.api).exit_code == EXIT_FAILED
