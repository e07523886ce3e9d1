"""The benchmark measures real faults of real daemons, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.lab.processes import environment, marked
from chaos.lab.topology import three_routers

pytestmark = pytest.mark.cluster


def command(prefix: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.failover", "--prefix", prefix, *arguments]


def test_one_trial_of_two_faults_and_never_two_holders(tmp_path: Path) -> None:
    prefix = f"hb{os.getpid()}"
    file = tmp_path / "trials.json"
    done = subprocess.run(
        command(
            prefix, "--profile", "default", "--trials", "1", "--fault", "none", "cut",
            "--json", str(file),
        ),
        env=environment("none", "test"), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    none, cut = (trial["figures"] for trial in json.loads(file.read_text())["trials"])
    assert (none["two_ms"], cut["two_ms"]) == (0, 0)
    assert min(cut["lost"].values()) > 0
    assert cut["changes"] >= 1
    assert cut["tcp_dead"] == {}
    assert done.stdout.count("\n| ") == 3  # two rows below the head and its rule
    assert three_routers(prefix).present() == ()


def test_interrupted_it_removes_its_lab_and_shows_what_it_has() -> None:
    prefix = f"hc{os.getpid()}"
    with subprocess.Popen(
        command(prefix, "--trials", "1", "--fault", "none"),
        env=environment("none", "test"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        while not marked(prefix, "r3"):  # the daemons run, the trial has begun
            assert running.poll() is None
        running.send_signal(signal.SIGTERM)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "interrupted" in said
    assert three_routers(prefix).present() == ()
    assert marked(prefix) == []


def test_steady_state_is_measured_in_one_profile() -> None:
    prefix = f"hs{os.getpid()}"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.steady", "--profile", "calm", "--seconds", "2",
         "--prefix", prefix],
        env=environment("none", "test"), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (row,) = (line for line in done.stdout.splitlines() if line.startswith("| calm |"))
    assert row.endswith("| 0 |")  # changes of holder
    assert three_routers(prefix).present() == ()
