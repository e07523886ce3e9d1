"""A death is known before the process is gone."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from hanat.supervisor.death_watch import DeathWatch

REPOSITORY = Path(__file__).parents[2]

PF_EXITING = 0x4  # include/linux/sched.h

HOLDER = """
import signal, sys
from hanat.supervisor.death_watch import hold
hold(int(sys.argv[1]))
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
print("held", flush=True)
signal.pause()
"""


def holder(pulse: DeathWatch) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(pulse.descriptor)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        pass_fds=[pulse.descriptor],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_pulse_that_nobody_holds_says_nothing() -> None:
    with closing(DeathWatch()) as pulse:
        assert not pulse.ended()


def test_pulse_ends_with_an_interpreter_that_ends_by_itself() -> None:
    with closing(DeathWatch()) as pulse, holder(pulse) as process:
        process.send_signal(signal.SIGINT)  # an exception, then the interpreter tidies up
        assert pulse.ended()
        assert process.wait(30) == -signal.SIGINT


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT])
def test_pulse_ends_with_the_process_however_that_ends(number: signal.Signals) -> None:
    with closing(DeathWatch()) as pulse, holder(pulse) as process:
        process.send_signal(number)
        assert pulse.ended()
        assert not pulse.ended()


def test_process_whose_pulse_ended_is_dead_or_dying() -> None:
    with closing(DeathWatch()) as pulse, holder(pulse) as process:
        process.kill()
        assert pulse.ended()
        stat = Path("/proc", str(process.pid), "stat").read_text()
        flags = int(stat.rpartition(")")[2].split()[6])  # proc(5)
        assert flags & PF_EXITING
