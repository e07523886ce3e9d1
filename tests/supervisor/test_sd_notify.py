"""What a service manager hears, and who may say it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hanat.supervisor.sd_notify import Notifier
from tests.supervisor.manager import Manager

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


def test_ready_is_said_once_and_the_status_when_it_changes(manager: Manager) -> None:
    environment = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "30000000", "A": "1"}
    notifier = Notifier(environment)
    assert environment == {"A": "1"}
    for status in ("BACKUP", "BACKUP", "ACTIVE"):
        notifier.alive(status)
    assert manager.waiting() == [
        {"READY=1", "WATCHDOG=1", "STATUS=BACKUP"},
        {"WATCHDOG=1"},
        {"WATCHDOG=1", "STATUS=ACTIVE"},
    ]


@pytest.mark.parametrize(
    "watchdog", [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}]
)
def test_no_watchdog_is_fed_that_does_not_watch_this_process(
    manager: Manager, watchdog: dict[str, str]
) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(manager.path), **watchdog})
    notifier.alive("BACKUP")
    notifier.alive("BACKUP")
    assert manager.waiting() == [{"READY=1", "STATUS=BACKUP"}]


def test_socket_may_have_an_abstract_name() -> None:
    name = f"hanat-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).stopping()
        assert manager.recv(100) == b"STOPPING=1"


def test_nobody_or_a_dead_manager_to_tell_is_no_trouble(tmp_path: Path) -> None:
    for environment in ({}, {"NOTIFY_SOCKET": str(tmp_path / "nobody")}):
        notifier = Notifier(environment)
        notifier.alive("BACKUP")
        notifier.stopping()


def test_supervisor_tells_what_its_daemon_does(manager: Manager, tmp_path: Path) -> None:
    # The daemon dies once in service; its second is told to end.
    (tmp_path / "plan").write_text("will beat die\nwill beat obey wait\n")
    environment = os.environ | {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "9000000"}
    command = [sys.executable, "-m", "tests.supervisor.supervised", "supervisor", str(tmp_path)]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert manager.hear() == {"READY=1", "WATCHDOG=1", "STATUS=plays"}
            dead = manager.hear()
            assert any(line.startswith("STATUS=the daemon died") for line in dead)
            assert "WATCHDOG=1" in dead
            assert manager.hear() == {"WATCHDOG=1", "STATUS=plays"}
            assert process.stdout is not None
            assert "waiting\n" in process.stdout
            process.send_signal(signal.SIGTERM)
            assert manager.hear() == {"STOPPING=1"}
            assert process.wait(30) == 0
        finally:
            process.kill()


def test_no_daemon_that_does_not_beat_is_called_ready(manager: Manager, tmp_path: Path) -> None:
    (tmp_path / "plan").write_text("will 0\n")
    environment = os.environ | {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "9000000"}
    command = [sys.executable, "-m", "tests.supervisor.supervised", "supervisor", str(tmp_path)]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0
    assert manager.waiting() == []
