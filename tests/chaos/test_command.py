"""``python -m chaos``: what it prints, how it exits, and that it cleans up after itself."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chaos.campaign import Settings
from chaos.faults.nemeses import select
from chaos.lab.processes import environment, python_module
from chaos.lab.removal import default_folder
from chaos.lab.topology import three_routers
from chaos.lab.waiting import wait_until
from chaos.running import replay
from tests.chaos.test_lab import STAND_IN, run_chaos, traces

HANAT = ["--hanat", shlex.join(STAND_IN)]


@contextmanager
def running(*arguments: str, prefix: str) -> Iterator[subprocess.Popen[str]]:
    """A chaos command under way; killed at the end if need be."""
    command = python_module("chaos", arguments[0], "--prefix", prefix, *arguments[1:])
    with subprocess.Popen(
        command,
        env=environment("none", "test"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def test_replay_names_what_was_left_of_all() -> None:
    options = argparse.Namespace(nemesis="all", hanat=None, prefix="hanat")
    every = select("all")
    assert "--nemesis all " in replay(options, Settings(7, every, 60, "fast"))
    kept = tuple(nemesis for nemesis in every if nemesis.needs != "clock")
    command = replay(options, Settings(7, kept, 60, "fast"))
    assert "--nemesis " + ",".join(nemesis.name for nemesis in kept) in command
    away = replay(options, Settings(7, every, 60, "fast", lasting=True))
    assert away.endswith(" --profile fast --away")
    assert "--nemesis none " in replay(options, Settings(7, (), 60, "fast"))


def test_unknown_command_is_a_usage_error() -> None:
    done = subprocess.run(
        python_module("chaos", "explode"),
        env=environment("none", "test"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "explode" in done.stderr


@pytest.mark.kernel
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_demo_removes_everything(prefix: str, number: signal.Signals) -> None:
    with running("demo", *HANAT, prefix=prefix) as demo:
        started = default_folder(prefix) / "r3" / "started"
        wait_until(started.exists, 20, "the daemons")
        os.killpg(demo.pid, number)
        out, _ = demo.communicate(timeout=30)
    assert out.splitlines()[-1] == "demo: FAILED interrupted"
    assert demo.returncode == 1
    assert not traces(prefix)


@pytest.mark.kernel
def test_up_interrupted_while_building_removes_everything(prefix: str) -> None:
    with running("up", *HANAT, prefix=prefix) as up:
        wait_until(three_routers(prefix).present, 20, "a namespace")
        os.killpg(up.pid, signal.SIGINT)
        up.communicate(timeout=30)
    assert up.returncode == 130
    assert not traces(prefix)


@pytest.mark.kernel
def test_demo_without_a_working_daemon_fails_in_its_last_line(prefix: str) -> None:
    command = f"{sys.executable} -c 'import sys; sys.exit(sys.argv[1] != \"keygen\")'"
    done = run_chaos("demo", "--hanat", command, prefix=prefix)
    assert done.returncode == 1
    last = done.stdout.splitlines()[-1]
    assert last.startswith("demo: FAILED r")
    assert "ended with exit code 1" in last
    assert not traces(prefix)


@pytest.mark.kernel
def test_demo_does_not_begin_what_it_cannot_write_down(prefix: str, tmp_path: Path) -> None:
    for option in (["--json", "/nonexistent/x.json"], ["--save", str(tmp_path)]):
        done = run_chaos("demo", *HANAT, *option, prefix=prefix)
        assert done.returncode == 2
        assert done.stderr.startswith("chaos: cannot")
    assert not traces(prefix)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nemesis", "kil"], 'did you mean "kill"?'),
        (["--nemesis", "none,kill"], "contradict"),
        (["--time", "5"], "--time 5 is not possible: from 20"),
        (["--hanat", "/nonexistent/hanat run"], "no program /nonexistent/hanat"),
    ],
)
def test_run_that_makes_no_sense_is_a_usage_error(arguments: list[str], message: str) -> None:
    done = subprocess.run(
        python_module("chaos", "run", *arguments),
        env=environment("none", "test"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""


@pytest.mark.kernel
def test_interrupted_run_removes_everything_and_still_reports(prefix: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with running("run", "--seed", "5", "--out", str(out), *HANAT, prefix=prefix) as run:
        started = default_folder(prefix) / "r3" / "started"
        wait_until(started.exists, 20, "the daemons")
        os.killpg(run.pid, signal.SIGINT)
        told, _ = run.communicate(timeout=60)
    assert run.returncode == 130
    first, *_, last = told.splitlines()
    assert first.startswith("chaos: seed=5 replay: python -m chaos run --nemesis ")
    assert " --seed 5 " in first
    assert last.startswith("chaos: unknown (procedure")
    assert json.loads((out / "result.json").read_text())["problem"] == "interrupted"
    assert not traces(prefix)


@pytest.mark.kernel
def test_run_does_not_write_into_a_folder_that_is_there(prefix: str, tmp_path: Path) -> None:
    done = run_chaos("run", *HANAT, "--out", str(tmp_path), prefix=prefix)
    assert done.returncode == 2
    assert "choose a new folder" in done.stderr
    assert not traces(prefix)
