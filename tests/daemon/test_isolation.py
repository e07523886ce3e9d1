"""No process of a node imports what lies where it was started, or what a variable names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hanat.daemon.flow_replication import FLOW_WORKER
from hanat.supervisor.supervisor import DAEMON, SUPERVISOR, python_command

REPOSITORY = Path(__file__).parents[2]
READER = "hanat.daemon.configuration_reader"
TRAPS = ("json", "logging", "struct", "hanat", "click", "socket", "asyncio")


@pytest.fixture
def trapped(tmp_path: Path) -> dict[str, str]:
    """Return an environment, of a folder where nearly everything is a trap."""
    for name in (*TRAPS, "usercustomize", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text('open("trapped", "a").close()\nraise SystemExit(99)\n')
    return os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": "json.py", "PYTHONHOME": "/"}


@pytest.mark.parametrize("module", [SUPERVISOR, DAEMON, READER, FLOW_WORKER])
def test_process_of_a_node_starts_isolated(
    module: str, tmp_path: Path, trapped: dict[str, str]
) -> None:
    done = subprocess.run(
        [*python_command(module), "--help"],
        cwd=tmp_path, env=trapped, capture_output=True, text=True, check=False, timeout=60,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert not (tmp_path / "trapped").exists(), done.stderr
    assert done.returncode != 99


def test_command_line_heeds_no_file_of_the_folder_it_is_used_in(tmp_path: Path) -> None:
    for name in TRAPS:
        if name != "hanat":
            (tmp_path / f"{name}.py").write_text("raise SystemExit(99)\n")
    done = subprocess.run(
        [sys.executable, "-m", "hanat", "--help"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_hanat_in_a_folder_of_its_own_starts_itself(tmp_path: Path) -> None:
    """Also where another one is installed."""
    shutil.copytree(REPOSITORY / "hanat", tmp_path / "other" / "hanat")
    script = (
        "import json, sys; sys.path.insert(0, sys.argv[1]);"
        "from hanat.supervisor.supervisor import python_command as command;"
        "print(json.dumps(command('m')))"
    )
    other = str(tmp_path / "other")
    found = subprocess.run(
        [sys.executable, "-c", script, other], capture_output=True, text=True, check=True
    )
    command = json.loads(found.stdout)
    (tmp_path / "other" / "m.py").write_text("import hanat; print(hanat.__file__)")
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{other}/hanat/__init__.py"
