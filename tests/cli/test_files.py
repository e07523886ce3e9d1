"""``hanat config check``, ``hanat keygen`` and what ``hanat run`` says about wrong files."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from hanat.cli.fence_command import fence
from hanat.cli.run_command import run
from hanat.errors import EXIT_CONFIG_INVALID, EXIT_REFUSED, EXIT_USAGE
from tests.cli.helpers import REPOSITORY, call, run_process

EXAMPLES = REPOSITORY / "deploy" / "examples" / "three-node"


@pytest.fixture
def node_file(tmp_path: Path) -> Path:
    """A sound node file beside a sound cluster file; the key is absent."""
    text = (EXAMPLES / "r1" / "node.toml").read_text()
    text = text.replace("/etc/hanat/", "")
    (tmp_path / "node.toml").write_text(text)
    (tmp_path / "cluster.toml").write_text((EXAMPLES / "cluster.toml").read_text())
    return tmp_path / "node.toml"


def test_sound_files_are_ok() -> None:
    files = [str(EXAMPLES / "cluster.toml"), str(EXAMPLES / "r1" / "node.toml")]

    result = call("config", "check", *files)

    assert (result.exit_code, result.stdout) == (0, "".join(f"{file}: ok\n" for file in files))


def test_every_problem_is_printed_and_the_exit_code_is_5(node_file: Path) -> None:
    node_file.write_text(
        node_file.read_text().replace("id = 2", "id = 0").replace("[api]", "[apj]")
    )

    result = call("config", "check", str(node_file), str(EXAMPLES / "cluster.toml"))

    assert result.exit_code == EXIT_CONFIG_INVALID
    assert result.stdout == (
        f'{node_file}: apj: unknown key; did you mean "api"?\n'
        f"{node_file}: peer[1].id: must be from 1 to 255, found 0\n"
        f"{EXAMPLES / 'cluster.toml'}: ok\n"
    )


def test_problems_can_be_read_by_programs(node_file: Path) -> None:
    node_file.write_text(node_file.read_text().replace("id = 2", "id = 0"))

    result = call("config", "check", "--json", str(node_file))

    assert result.exit_code == EXIT_CONFIG_INVALID
    assert json.loads(result.stdout) == {
        "ok": False,
        "problems": [
            {
                "file": str(node_file),
                "path": "peer[1].id",
                "text": "must be from 1 to 255, found 0",
            }
        ],
        "warnings": [],
    }


def test_warning_is_told_and_changes_no_exit_code(node_file: Path) -> None:
    node_file.write_text(node_file.read_text().replace("127.0.0.1:7480", "0.0.0.0:7480"))

    result = call("config", "check", str(node_file))

    assert result.exit_code == 0
    assert "warning:" in result.output
    assert "0.0.0.0 is every address of the machine" in result.output


def test_check_needs_a_file() -> None:
    assert call("config", "check").exit_code == EXIT_USAGE


def test_keygen_writes_a_key_once(tmp_path: Path) -> None:
    path = tmp_path / "cluster.key"

    first, second = call("keygen", str(path)), call("keygen", str(path))

    assert first.exit_code == 0
    assert path.read_text().strip() not in first.stdout
    assert second.exit_code == EXIT_REFUSED
    assert "exists" in second.stderr


def test_run_refuses_wrong_files_without_a_traceback(node_file: Path) -> None:
    node_file.write_text(node_file.read_text().replace("id = 2", "id = 0"))

    result = run_process("run", "--config", str(node_file))

    assert result.returncode == EXIT_CONFIG_INVALID
    assert result.stderr == f"hanat: {node_file}: peer[1].id: must be from 1 to 255, found 0\n"


def test_run_refuses_files_that_do_not_fit_together(node_file: Path) -> None:
    node_file.write_text(node_file.read_text().replace('private = "eth1"', ""))

    result = run_process("run", "--config", str(node_file))

    assert result.returncode == EXIT_CONFIG_INVALID
    assert "this node maps it to no device" in result.stderr


def test_run_refuses_an_absent_or_open_key(node_file: Path) -> None:
    absent = run_process("run", "--config", str(node_file))
    key = node_file.with_name("cluster.key")
    call("keygen", str(key))
    key.chmod(0o644)
    readable = run_process("run", "--config", str(node_file))

    assert (absent.returncode, readable.returncode) == (EXIT_CONFIG_INVALID, EXIT_CONFIG_INVALID)
    assert f"cannot read the cluster key {key}: No such file" in absent.stderr
    assert f'run "chmod 600 {key}"' in readable.stderr


@pytest.mark.parametrize(("name", "command"), [("run", run), ("fence", fence)])
def test_without_a_file_the_option_is_named(
    name: str, command: click.Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (option,) = (each for each in command.params if each.name == "node_file")
    monkeypatch.setattr(option, "default", tmp_path / "node.toml")
    result = call(name)
    assert result.exit_code == EXIT_CONFIG_INVALID
    assert "node.toml is not there; name this node's file" in result.stderr
    assert f"{name} --config FILE" in result.stderr
