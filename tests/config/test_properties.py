"""Whatever a file contains, the answer is values or a ConfigError."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hanat.config import parse_cluster
from hanat.config.node_toml import parse_node
from hanat.errors import ConfigError, Problem
from tests.config.helpers import CLUSTER, EVERYTHING, NODE

VALUES = st.sampled_from(
    [
        "1",
        "-1",
        "0.5",
        "inf",
        "nan",
        "true",
        '""',
        '"x"',
        '"\\u0000"',
        '"vip:public"',
        '"vip:"',
        '"203.0.113.10"',
        '"203.0.113.10/24"',
        '"::/0"',
        '"[::]:1"',
        '"fe80::1%x"',
        '"1:2:3"',
        '"vip:public tcp/1-65535"',
        '"²"',
        '"hex:"',
        '"(?=x)"',
        '"5s"',
        '"30%"',
        '"tcp"',
        '{ timeout = "1m" }',
        '{ A = "b" }',
        "[]",
        "{}",
        "[[]]",
        "[{}]",
        '{ name = "a" }',
        "1979-05-27T07:32:00Z",
        "07:32:00",
        "9" * 50,
        "9" * 5000,
        "[" * 2000,
    ]
)


@st.composite
def mutated(draw: st.DrawFn, text: str) -> str:
    """A file with lines doubled, dropped, moved or given other keys or values."""
    lines = [line for line in text.splitlines() if line.strip()]
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(["value", "key", "drop", "double", "move", "noise"])):
            case "value":
                lines[at] = re.sub(r"=.*", lambda _: "= " + draw(VALUES), lines[at])
            case "key":
                lines[at] = re.sub(
                    r"^\s*\w+ =", lambda _: draw(st.text("abnm-\"'.", max_size=4)) + " =", lines[at]
                )
            case "drop":
                lines[at] = ""
            case "double":
                lines.insert(at, lines[at])
            case "move":
                lines.insert(draw(st.integers(0, len(lines) - 1)), lines.pop(at))
            case _:
                lines[at] += draw(st.text(max_size=5))
    return "\n".join(lines)


def problems(parse: Callable[[str], object], text: str) -> tuple[Problem, ...]:
    try:
        parse(text)
    except ConfigError as error:
        return error.problems
    return ()


def can_be_shown(problem: Problem) -> bool:
    return problem.file == "x.toml" and problem.text != "" and str(problem).isprintable()


@settings(max_examples=300)
@given(mutated(CLUSTER))
@example("[" * 5000)
@example("a = " + "[" * 5000)
@example("a = " + "9" * 5000)
@example(CLUSTER.replace("weight = 2", "weight = " + "9" * 4000))
def test_a_mutated_cluster_file_is_values_or_a_config_error(text: str) -> None:
    found = problems(lambda text: parse_cluster(text, file="x.toml"), text)

    assert all(map(can_be_shown, found))


@settings(max_examples=500)
@given(mutated(EVERYTHING))
def test_a_mutated_service_with_every_key_is_values_or_a_config_error(text: str) -> None:
    found = problems(lambda text: parse_cluster(text, file="x.toml"), text)

    assert all(map(can_be_shown, found))


@settings(max_examples=300)
@given(mutated(NODE))
def test_a_mutated_node_file_is_values_or_a_config_error(text: str) -> None:
    found = problems(lambda text: parse_node(text, file="x.toml", directory=Path("/x")), text)

    assert all(map(can_be_shown, found))


@settings(max_examples=100)
@given(st.text())
def test_any_text_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_cluster(text, file="x.toml")
