"""What CI does when its time is over, with stand-ins for what takes the time."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from chaos.lab import record
from chaos.lab.processes import REPOSITORY


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


def test_every_lab_of_a_run_that_took_too_long_is_removed(tmp_path: Path) -> None:
    labs = tmp_path / "labs"
    labs.mkdir()
    (labs / "kept-before.json").touch()
    script = (REPOSITORY / ".ci" / "run").read_text()
    assert str(record.RECORDS) in script
    program(tmp_path / ".ci" / "run", script.replace(str(record.RECORDS), str(labs)))
    program(tmp_path / ".venv" / "bin" / "python", f'echo "$*" >> {tmp_path}/done')
    over = f"touch {labs}/hanat.json {labs}/hanat-t4711.json; exit 124"
    program(
        tmp_path / "bin" / "timeout", f'[[ "$*" == *bounded* ]] && {{ {over}; }}; exec "${{@:2}}"'
    )
    found = subprocess.run(
        [tmp_path / ".ci" / "run"],
        env={**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"},
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert found.returncode == 124
    assert (tmp_path / "done").read_text().splitlines() == [
        "-m chaos down --prefix hanat",
        "-m chaos down --prefix hanat-t4711",
    ]
