"""A chaos run of real daemons is valid, and finds what is broken on purpose."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from chaos.lab import equipment
from chaos.lab.processes import environment, python_module
from chaos.lab.topology import three_routers
from chaos.lab.waiting import wait_until

pytestmark = pytest.mark.cluster

_numbers = count(1)
RUN_S_MAX = 240.0
# A busy machine may fail these.
TIMED = {"outage", "stayed", "announced-last", "http", "history", "undisturbed", "rotation"}


def run(out: Path, *arguments: str) -> tuple[int, dict[str, str]]:
    """Do a run; return its exit code, and by check what was found where it is not valid."""
    prefix = f"hc{os.getpid()}n{next(_numbers)}"
    command = python_module("chaos", "run", "--prefix", prefix, "--out", str(out), *arguments)
    done = subprocess.run(
        command,
        env=environment("none", "test"),
        capture_output=True,
        text=True,
        timeout=RUN_S_MAX,
        check=False,
    )
    assert (out / "report.html").exists(), done.stdout + done.stderr
    sys.stdout.write(done.stdout)
    found = json.loads((out / "result.json").read_text())
    assert found["faults"] > 0
    return done.returncode, {
        v["name"]: v["summary"] for v in found["verdicts"] if v["valid"] is not True
    }


def test_short_run_with_many_nemeses_is_safe_and_recovers(tmp_path: Path) -> None:
    nemeses = "kill,pause,partition,link,cut,switchover,restart,garbage"
    code, bad = run(tmp_path / "run", "--nemesis", nemeses, "--seed", "4", "--time", "40")
    assert {name: found for name, found in bad.items() if name not in TIMED} == {}
    assert code in {1, 3} if bad else code == 0


def test_short_run_of_ordinary_trouble_is_safe_and_recovers(tmp_path: Path) -> None:
    nemeses = "egress-full,silent-network,forward-drop,nft-flush,flood,api-garbage,own-address"
    nemeses += "" if equipment.missing("disk") else ",disk-full"
    code, bad = run(tmp_path / "run", "--nemesis", nemeses, "--seed", "2", "--time", "45")
    assert {name: found for name, found in bad.items() if name not in TIMED} == {}
    assert code in {1, 3} if bad else code == 0


def test_short_run_of_trouble_of_servers_is_safe_and_recovers(tmp_path: Path) -> None:
    nemeses = "server-dead,server-slow,server-flaps,blind-holder"
    code, bad = run(tmp_path / "run", "--nemesis", nemeses, "--seed", "2", "--time", "50")
    assert {name: found for name, found in bad.items() if name not in TIMED} == {}
    assert code in {1, 3} if bad else code == 0


def test_short_run_of_agents_that_speak_is_safe_and_recovers(tmp_path: Path) -> None:
    code, bad = run(tmp_path / "run", "--nemesis", "agent", "--seed", "4", "--time", "30")
    assert {name: found for name, found in bad.items() if name not in {*TIMED, "agent"}} == {}
    assert code in {1, 3} if bad else code == 0


def test_run_that_is_interrupted_again_and_again_reports_what_it_has_seen(tmp_path: Path) -> None:
    out, said = tmp_path / "run", tmp_path / "said"
    prefix = f"hc{os.getpid()}n{next(_numbers)}"
    command = python_module("chaos", "run", "--prefix", prefix, "--out", str(out), "--seed", "3")
    with said.open("w") as file:
        done = subprocess.Popen(command, env=environment("none", "test"), stdout=file)
    try:
        wait_until(lambda: "(holder" in said.read_text(), RUN_S_MAX, "the first fault")
        while done.poll() is None:
            done.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                done.wait(0.1)
    finally:
        done.terminate()
        done.wait(RUN_S_MAX)
    assert done.returncode == 130, said.read_text()
    found = json.loads((out / "result.json").read_text())
    verdicts = {v["name"]: v["valid"] for v in found["verdicts"]}
    assert found["valid"] == "unknown", verdicts
    assert verdicts["one-holder"] is verdicts["carried"] is True
    assert not three_routers(prefix).present()


# The first three plans hit the holder first; the fourth cuts off backups only, which come back
# with a higher term and depose a holder that nothing has hit. In the last no holder goes: what
# backups lack shows in their kernels before anybody misses it.
@pytest.mark.parametrize(
    ("variant", "nemesis", "seed", "check", "report"),
    [
        ("gate-not-enforced", "pause", 1, "one-holder", "two routers at once"),
        ("lease-longer-than-promise", "partition", 1, "one-holder", "two routers at once"),
        ("announce-before-install", "switchover", 1, "announced-last", "before it answered"),
        ("without-pre-vote", "partition", 13991, "stayed", "after heal partition"),
        ("flows-not-installed", "garbage", 1, "tables", "live flows of"),
        ("verdicts-ignored", "server-dead", 1, "dead-server", "new connections on a dead server"),
        ("own-eyes-believed", "blind-holder", 1, "blind-holder", "allowed"),
        ("agents-ignored", "agent", 1, "agent", "as no agent said"),
    ],
)
def test_broken_promise_is_found(
    tmp_path: Path, variant: str, nemesis: str, seed: int, check: str, report: str
) -> None:
    broken = shlex.join([sys.executable, "-m", "tests.chaos.broken", variant])
    arguments = ["--nemesis", nemesis, "--seed", str(seed), "--time", "24", "--hanat", broken]
    code, bad = run(tmp_path / "run", *arguments)
    assert report in bad.get(check, "not found"), bad
    assert code == 1
