"""Whatever ends a run, faults are undone and what was seen is judged."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

import pytest

from chaos.campaign import WORKLOADS, Campaign, Runner, Settings, attempt
from chaos.faults.attack import Attack
from chaos.faults.nemeses import NEMESES
from chaos.lab.lab import Lab
from chaos.lab.lab_error import LabError


@dataclass
class Stubborn:
    """A fault whose undoing fails some times first."""

    failures: list[BaseException]
    undone: int = 0

    def start(self) -> int:
        return 1

    def stop(self) -> int:
        if self.failures:
            raise self.failures.pop(0)
        self.undone += 1
        return 2


def test_web_service_gets_200_new_connections_a_second() -> None:
    per_second = sum(
        1000 / workload.period_ms
        for workload in WORKLOADS
        if workload.kind in {"http", "syn"} and workload.target.endswith(":80")
    )
    assert per_second >= 200


def campaign() -> Campaign:
    return Campaign(Settings(1, (), 60, "default"), say=lambda _: None)


ERRORS = [
    LabError("x"),
    OSError(28, "x"),
    subprocess.TimeoutExpired("nft", 5),
    subprocess.CalledProcessError(1, "nft"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_goes_wrong_is_the_problem_of_the_run_and_no_crash(error: Exception) -> None:
    done = campaign()

    def fail() -> None:
        raise error

    attempt(done, fail)
    assert done.problem == str(error)
    attempt(done, lambda: Stubborn([LabError("later")]).stop())
    assert done.problem == str(error)
    assert not done.interrupted
    attempt(done, lambda: Stubborn([KeyboardInterrupt()]).stop())
    assert done.interrupted


@pytest.mark.parametrize("error", [*ERRORS, KeyboardInterrupt()], ids=lambda e: type(e).__name__)
def test_undoing_that_fails_is_tried_again_and_others_are_undone(
    prefix: str, error: BaseException
) -> None:
    done = campaign()
    runner = Runner(Lab(prefix), done)
    first, second = Stubborn([]), Stubborn([error])
    for fault in (first, second):
        runner.begin(NEMESES["cut"], "one", Attack(fault, "r1", ("r1",)), "r1")
    attempt(done, runner.heal)
    assert (first.undone, second.undone) == (0, 0)
    runner.heal_everything()
    assert (first.undone, second.undone) == (1, 1)
    assert all(i.heal_ns is not None for i in done.injections)


def test_undoing_that_never_works_does_not_keep_others_in_force(prefix: str) -> None:
    done = campaign()
    runner = Runner(Lab(prefix), done)
    first, second = Stubborn([]), Stubborn([OSError(28, "x")] * 9)
    for fault in (first, second):
        runner.begin(NEMESES["cut"], "one", Attack(fault, "r1", ("r1",)), "r1")
    runner.heal_everything()
    assert (first.undone, second.undone) == (1, 0)
