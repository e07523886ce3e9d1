"""``hanat config show``, ``diff`` and ``apply``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hanat.cli.config_command import CHECKED_FIRST_MAX
from hanat.errors import EXIT_CONFIG_INVALID, EXIT_FAILED, EXIT_NO_QUORUM, EXIT_REFUSED
from tests.cli.helpers import REPOSITORY, Node, call

TEXT = (REPOSITORY / "deploy" / "examples" / "three-node" / "cluster.toml").read_text()
NODES = [
    {"node": "r1", "revision": 7, "state": "in force"},
    {"node": "r2", "revision": 7, "state": "in force"},
    {"node": "r3", "revision": None, "state": "not reachable"},
]
SHOWN = {"revision": 7, "profile_in_force": "default", "nodes": NODES, "text": TEXT}
APPLIED: dict[str, Any] = {
    "revision": 8, "changes": ["+ service ssh: x"], "same_text": False, "applied": True,
    "nodes": NODES,
}  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "new.toml"
    path.write_text(TEXT)
    return path


def test_show_prints_the_text_alone_so_that_it_can_be_kept(node: Node) -> None:
    node.answers(SHOWN)

    result = call("config", "show", "--api", node.api)

    assert node.asked == [("GET", "/v1/config", None)]
    assert result.stdout == TEXT
    assert result.stderr == "# revision 7: in force on r1, r2; not reachable: r3\n"


def test_show_as_json_is_the_answer(node: Node) -> None:
    node.answers(SHOWN)

    assert json.loads(call("config", "show", "--json", "--api", node.api).stdout) == SHOWN


def test_show_warns_of_a_profile_that_is_not_in_force(node: Node) -> None:
    node.answers({**SHOWN, "profile_in_force": "calm"})

    result = call("config", "show", "--api", node.api)

    assert 'nodes run with profile "calm"' in result.stderr


def test_diff_asks_for_a_dry_run_based_on_what_there_is(node: Node, file: Path) -> None:
    node.answers(SHOWN)
    node.answers_put({"revision": 7, "changes": ["+ service ssh: x"], "same_text": False})

    result = call("config", "diff", str(file), "--api", node.api)

    assert node.asked[1] == ("PUT", "/v1/config?dry_run=true", TEXT)
    assert node.if_match == ['"7"']
    assert (result.exit_code, result.stdout) == (0, "+ service ssh: x\n")


@pytest.mark.parametrize(
    ("same", "words"), [(True, "is this text already"), (False, "only comments, order")]
)
def test_diff_without_a_difference_says_so(
    node: Node, file: Path, *, same: bool, words: str
) -> None:
    node.answers(SHOWN)
    node.answers_put({"revision": 7, "changes": [], "same_text": same})

    assert words in call("config", "diff", str(file), "--api", node.api).stdout


def test_apply_is_based_on_the_revision_there_is_or_the_one_given(node: Node, file: Path) -> None:
    node.answers(SHOWN)
    node.answers_put(APPLIED)

    result = call("config", "apply", str(file), "--api", node.api)
    assert node.asked[-1] == ("PUT", "/v1/config", TEXT)
    assert result.exit_code == 0
    assert result.stdout == (
        "+ service ssh: x\nrevision 8: in force on r1, r2; not reachable: r3\n"
    )

    call("config", "apply", str(file), "--revision", "5", "--api", node.api)
    assert node.if_match == ['"7"', '"5"']


@pytest.mark.parametrize(
    ("state", "words"), [("refused", "refused by r2"), ("not yet", "not yet in force on r2")]
)
def test_apply_fails_if_a_node_that_can_be_reached_does_not_have_it(
    node: Node, file: Path, state: str, words: str
) -> None:
    node.answers(SHOWN)
    second = {"node": "r2", "revision": 7, "state": state}
    node.answers_put({**APPLIED, "nodes": [NODES[0], second]})

    result = call("config", "apply", str(file), "--api", node.api)

    assert result.exit_code == EXIT_FAILED
    assert words in result.stdout


def test_wrong_file_is_told_with_its_name_and_nobody_is_asked(node: Node, file: Path) -> None:
    file.write_text(TEXT.replace("[[vip]]", "[[vjp]]"))
    node.answers(SHOWN)

    result = call("config", "apply", str(file), "--revision", "7", "--api", node.api)

    assert result.exit_code == EXIT_CONFIG_INVALID
    assert f"hanat: {file}: vjp" in result.stderr
    assert node.asked == []


def test_large_file_is_left_to_the_node_and_told_in_the_same_words(node: Node, file: Path) -> None:
    large = TEXT + "# nothing\n" * CHECKED_FIRST_MAX
    file.write_text(large)
    node.answers_put(APPLIED)
    assert call("config", "apply", str(file), "--revision", "7", "--api", node.api).exit_code == 0

    file.write_text(large.replace("[[vip]]", "[[vjp]]"))
    node.answers_put({"error": "any", "exit_code": EXIT_CONFIG_INVALID}, status=422)
    result = call("config", "apply", str(file), "--revision", "7", "--api", node.api)
    assert result.exit_code == EXIT_CONFIG_INVALID
    assert f"hanat: {file}: vjp" in result.stderr


@pytest.mark.parametrize(
    ("status", "code"),
    [(412, EXIT_REFUSED), (503, EXIT_NO_QUORUM), (422, EXIT_CONFIG_INVALID), (504, EXIT_FAILED)],
)
def test_refusal_ends_with_the_nodes_message_and_exit_code(
    node: Node, file: Path, status: int, code: int
) -> None:
    node.answers(SHOWN)
    node.answers_put({"error": "not now", "exit_code": code}, status=status)

    result = call("config", "apply", str(file), "--api", node.api)

    assert (result.exit_code, result.stderr) == (code, "hanat: not now\n")


def test_what_a_node_finds_wrong_with_a_file_names_that_file(node: Node, file: Path) -> None:
    node.answers(SHOWN)
    found = "cluster.toml: vip: eth9 is not there\nnode.toml of r1: interfaces: no such name"
    node.answers_put({"error": found, "exit_code": EXIT_CONFIG_INVALID}, status=422)

    result = call("config", "apply", str(file), "--api", node.api)

    assert result.stderr == (
        f"hanat: {file}: vip: eth9 is not there\nnode.toml of r1: interfaces: no such name\n"
    )


@pytest.mark.parametrize("answer", [{}, [], {"revision": "7", "text": ""}, {"revision": 7}])
def test_answer_that_is_no_configuration_is_a_failure(node: Node, answer: object) -> None:
    node.answers(answer)

    assert call("config", "show", "--api", node.api).exit_code == EXIT_FAILED
