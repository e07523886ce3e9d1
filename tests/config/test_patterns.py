"""Regular expressions: whatever is taken compiles in RE2, and what only Python knows is refused."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from hanat.config import patterns
from hanat.config.patterns import REGEX_CHARS_MAX, problem_with_regex

Judge = Callable[[str], str | None]
# With the package both are tried, without it the one that is then in force.
JUDGES = [patterns._by_python, *([patterns._by_re2] if patterns.HAS_RE2 else [])]


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize(
    "text",
    [
        "ok",
        "^(ok|fine)$",
        r"role:(master|active)\r\n",
        r"(?i)\bpong\b",
        "(?:a|b)*?[^c-e]{2,5}",
        r"(?P<name>\w+)=\d{1,3}\.\x41",
        "ü+",
        "(?s:.*)",
        "[*]{1000}",
    ],
)
def test_expressions_of_everyday_are_taken(text: str, judge: Judge) -> None:
    assert judge(text) is None


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize(
    "text",
    [
        "(",
        ")",
        "[",
        "*",
        "a**",
        "(?=a)",
        "(?!a)",
        "(?<=a)",
        "(?<!a)",
        r"(a)\1",
        "(?P<n>a)(?P=n)",
        "(a)?(?(1)b|c)",
        "(?>a)",
        "a++",
        "a?+",
        "a{2}+",
        "(?#x)",
        "(?x)a",
        "(?a)b",
        r"a\Z",
        r"\u0041",
        r"\N{DIGIT ONE}",
        "a{1001}",
        "((a{100}){100})",
        r"[\b]",
        "a\\",
    ],
)
def test_what_re2_does_not_know_is_refused_with_a_reason(text: str, judge: Judge) -> None:
    assert judge(text)


def test_an_expression_is_not_too_long() -> None:
    assert problem_with_regex("x" * REGEX_CHARS_MAX) is None
    assert problem_with_regex("x" * (REGEX_CHARS_MAX + 1)) == (
        "has 513 characters, at most 512 are possible"
    )


def test_what_is_deep_or_large_is_told_and_raises_nothing() -> None:
    for text in (
        "(" * 512,
        "(" * 256 + ")" * 256,
        "a{99999999999999999999}",
        "\\" * 511,
        "[" * 512,
    ):
        assert problem_with_regex(text) is None or problem_with_regex(text)


def test_any_text_is_judged_and_what_is_taken_is_taken_by_re2() -> None:
    atoms = [*"ab01.*+?|()[]{}^$\\-,:<=!PimsxZ_é", "(?:", "(?P<n>", "(?i)", r"\d", "{2}", "[^a]"]
    rng = random.Random(20431)
    for _ in range(20_000):
        text = "".join(rng.choice(atoms) for _ in range(rng.randint(1, 7)))
        answers = [judge(text) for judge in JUDGES]
        assert answers[0] is not None or answers[-1] is None, text
