"""Lint, format, types and import contracts, as tests: one command checks all."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.house.tidy import ROOT

PACKAGES = ["hanat", "chaos", "benchmarks", "tests"]
TOOLS = {
    "ruff check": [sys.executable, "-m", "ruff", "check", "--quiet", *PACKAGES],
    "ruff format": [sys.executable, "-m", "ruff", "format", "--quiet", "--diff", *PACKAGES],
    "mypy": [sys.executable, "-m", "mypy", "--no-error-summary", *PACKAGES],
    "import contracts": [str(Path(sys.executable).with_name("lint-imports")), "--no-logo"],
}


@pytest.mark.parametrize("command", TOOLS.values(), ids=TOOLS.keys())
def test_the_tool_has_nothing_to_say(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{done.stdout}{done.stderr}", pytrace=False)


def test_the_lock_pins_every_dependency_and_holds_nothing_but_pins() -> None:
    pins = dict(pinned(line) for line in lock_lines())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    names = {normal(re.split(r"[<>=!~\[; ]", requirement, maxsplit=1)[0]) for requirement in wanted}
    assert names <= pins.keys()


def test_an_exact_dependency_is_locked_at_that_version() -> None:
    pins = dict(pinned(line) for line in lock_lines())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    exact = {
        normal(name): at
        for name, _, at in (text.partition("==") for text in project["dependencies"])
        if at
    }
    assert exact
    assert exact.items() <= pins.items()


def lock_lines() -> list[str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def pinned(line: str) -> tuple[str, str]:
    """Split ``name==version``; anything else in the lock, an address above all, fails."""
    found = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!+]+)", line)
    assert found, f"requirements.lock: {line!r} is not NAME==VERSION"
    return normal(found[1]), found[2]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
