"""What the supervisor does when its daemon dies, and when it is told to end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hanat.supervisor.death_watch import DeathWatch
from hanat.supervisor.last_will import BEAT
from hanat.supervisor.supervisor import HEALTHY_S, SILENCES_MAX, Backoff, Child
from tests.kernel.namespaces import until

REPOSITORY = Path(__file__).parents[2]
REMOVE = "remove 203.0.113.10/24@eth0"


@contextmanager
def started(
    folder: Path, *plan: str, options: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[str]]:
    """Start a supervisor whose daemon does at each start what the next line says."""
    (folder / "plan").write_text("".join(f"{line}\n" for line in plan))
    command = [
        sys.executable,
        "-m",
        "tests.supervisor.supervised",
        "supervisor",
        str(folder),
        *options,
    ]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def outcome(folder: Path, *plan: str, options: tuple[str, ...] = ()) -> tuple[int, list[str]]:
    """Return exit code and what happened."""
    with started(folder, *plan, options=options) as process:
        output, _ = process.communicate(timeout=60)
    return process.returncode, output.splitlines()


def read_until(process: subprocess.Popen[str], wanted: str) -> list[str]:
    """Return what happens up to a line."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip())
        if lines[-1] == wanted:
            return lines
    raise AssertionError(f"{wanted!r} never came: {lines}")


@pytest.mark.parametrize(
    "death", ["will die", "will beat 1", "will 5", "hold will beat die", "hold will 1"]
)
def test_any_death_withdraws_then_releases_then_removes_then_starts_again(
    tmp_path: Path, death: str
) -> None:
    code, lines = outcome(tmp_path, death, "will 0")
    assert lines[:5] == [
        f"daemon {death}",
        "withdraw after=0",
        f"{REMOVE} after=3",
        "daemon will 0",
        "withdraw after=0",
    ]
    assert code == 0


def test_dead_daemon_is_released_before_the_kernel_has_taken_it_apart(tmp_path: Path) -> None:
    with started(tmp_path, "hold will linger") as process:
        read_until(process, "withdraw after=0")
        assert process.stdin is not None
        process.stdin.close()
        assert read_until(process, f"{REMOVE} after=3") == [f"{REMOVE} after=3"]
        assert process.wait(30) == 0


def test_without_the_kernels_word_nothing_is_released(tmp_path: Path) -> None:
    _, lines = outcome(tmp_path, "will die", "will 0", options=("refuse",))
    assert lines[1:4] == ["withdraw after=0", f"{REMOVE} after=0", f"{REMOVE} after=0"]


def test_daemon_that_left_no_will_touched_nothing_and_ends_the_supervisor(tmp_path: Path) -> None:
    assert outcome(tmp_path, "5") == (5, ["daemon 5"])
    assert outcome(tmp_path, "die") == (1, ["daemon die"])


def test_daemon_that_was_in_service_is_started_until_it_can(tmp_path: Path) -> None:
    code, lines = outcome(tmp_path, "will die", "5", "1", "die", "will 0")
    starts = [line for line in lines if line.startswith("daemon")]
    assert starts == ["daemon will die", "daemon 5", "daemon 1", "daemon die", "daemon will 0"]
    assert code == 0


def test_newest_will_counts(tmp_path: Path) -> None:
    _, lines = outcome(tmp_path, "will will will die", "will 0")
    assert lines[2] == f"{REMOVE} after=3"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_daemon_is_told_to_end_and_its_exit_code_is_ours(
    tmp_path: Path, number: signal.Signals
) -> None:
    with started(tmp_path, "will beat obey wait") as process:
        read_until(process, "waiting")
        process.send_signal(number)
        assert process.wait(30) == 0


def test_daemon_that_was_still_loading_is_ended_without_a_complaint(tmp_path: Path) -> None:
    with started(tmp_path, "wait") as process:
        read_until(process, "waiting")
        process.send_signal(signal.SIGTERM)
        _, complaints = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "ERROR" not in complaints


def test_supervisor_can_be_ended_between_two_daemons(tmp_path: Path) -> None:
    with started(tmp_path, "will die", *["1"] * 100) as process:
        for _ in range(5):
            read_until(process, "daemon 1")  # the pauses double
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        until(lambda: not children.read_text(), "the end of the fifth daemon")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_daemon_whose_loop_stands_still_is_killed(tmp_path: Path) -> None:
    code, lines = outcome(tmp_path, "will beat wait", "will 0")
    assert "waiting" in lines
    assert "daemon will 0" in lines
    assert code == 0


@contextmanager
def child_of(pid: int) -> Iterator[tuple[Child, socket.socket]]:
    """Take a process for a daemon; yields it and the daemon's end of the line."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)  # noqa: FBT003
    child = Child(pid, os.pidfd_open(pid), ours, DeathWatch())
    with theirs:
        yield child, theirs
    child.close()


def test_daemon_that_somebody_stopped_is_not_killed() -> None:
    program = [sys.executable, "-c", "input()"]
    with (
        subprocess.Popen(program, stdin=subprocess.PIPE) as process,
        child_of(process.pid) as (child, _),
    ):
        child.silences = 0
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        assert not any(child.missed() for _ in range(3 * SILENCES_MAX))
        process.send_signal(signal.SIGCONT)
        os.waitid(os.P_PID, process.pid, os.WCONTINUED)
        assert [child.missed() for _ in range(SILENCES_MAX)] == [
            *[False] * (SILENCES_MAX - 1),
            True,
        ]
        process.kill()


def test_beat_ends_the_silence() -> None:
    with child_of(os.getpid()) as (child, line):
        child.silences = SILENCES_MAX - 1
        line.send(BEAT)
        assert child.listen()
        assert child.silences == 0


def test_daemon_that_never_said_a_word_is_not_hurried() -> None:
    # Loading a long log takes its time; it holds nothing yet.
    with child_of(os.getpid()) as (child, _):
        assert not any(child.missed() for _ in range(3 * SILENCES_MAX))


def test_end_of_the_line_is_no_word() -> None:
    with child_of(os.getpid()) as (child, line):
        line.close()
        assert not child.listen()


def test_pauses_double_up_to_half_a_minute_and_health_forgives() -> None:
    backoff = Backoff()
    assert [backoff.after(1.0) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert [backoff.after(age) for age in (HEALTHY_S, 0.0, HEALTHY_S - 1)] == [0.5, 1, 2]


def test_supervisor_loads_the_standard_library_only() -> None:
    script = "import sys; import hanat.supervisor.supervisor; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    found = {name.partition(".")[0] for name in done.stdout.split()}
    preloaded = {"_distutils_hack", "sitecustomize", "usercustomize", "__main__", "hanat"}
    foreign = {n for n in found - preloaded - sys.stdlib_module_names if "editable" not in n}
    assert foreign == set()
    assert "asyncio" not in found
