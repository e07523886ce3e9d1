"""``hanat`` itself: its commands, its exit codes, and how little it imports."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import click
import pytest

from hanat import __version__
from hanat.cli.entry import COMMANDS
from hanat.errors import EXIT_USAGE
from tests.cli.helpers import REPOSITORY, call, run_process


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_list_of_commands_says_what_each_says_itself(name: str) -> None:
    module, _, attribute = COMMANDS[name][0].partition(":")
    command = getattr(import_module(module), attribute)

    assert isinstance(command, click.Command)
    assert command.name == name
    assert COMMANDS[name][1] in call("--help").stdout
    assert call(name, "--help").exit_code == 0


def test_the_version_is_shown() -> None:
    assert call("--version").stdout == f"hanat {__version__}\n"


@pytest.mark.parametrize("arguments", [("nonsense",), ("status", "--nonsense"), ("config", "chek")])
def test_wrong_usage_ends_with_2(arguments: tuple[str, ...]) -> None:
    assert run_process(*arguments).returncode == EXIT_USAGE


def test_status_imports_neither_models_nor_daemon() -> None:
    program = (
        "import sys, hanat.cli.status_command, hanat.cli.switchover_command, hanat.cli.entry\n"
        "import hanat.cli.server_command, hanat.cli.service_command\n"
        "print(*sorted(sys.modules))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )

    heavy = {"pydantic", "aiohttp", "pysyncobj", "pyroute2", "hanat.config", "hanat.daemon"}
    assert heavy.isdisjoint(done.stdout.split())
