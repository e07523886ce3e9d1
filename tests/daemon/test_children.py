"""Waiting for children: nothing of it sleeps."""

from __future__ import annotations

import errno
import sys
import time
from subprocess import PIPE, Popen
from typing import TYPE_CHECKING

import pytest

from hanat.daemon.children import ends_within

if TYPE_CHECKING:
    from collections.abc import Iterator

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(); time.sleep(60)"


@pytest.fixture(autouse=True)
def sleepless(monkeypatch: pytest.MonkeyPatch) -> None:
    """sleep() fails, as it does under libraries that change the clock of a process."""

    def refuse(_seconds: float) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(time, "sleep", refuse)


@pytest.fixture
def deaf() -> Iterator[Popen[bytes]]:
    """A child that SIGTERM does not end."""
    with Popen([sys.executable, "-c", DEAF], stdout=PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_a_child_that_does_not_listen_is_waited_for_only_so_long(deaf: Popen[bytes]) -> None:
    deaf.terminate()
    assert not ends_within(deaf, 0.05)
    deaf.kill()
    assert ends_within(deaf, 60)


def test_a_child_that_was_reaped_has_ended() -> None:
    with Popen(["true"]) as process:
        assert ends_within(process, 60)
        assert ends_within(process, 60)
        assert process.returncode == 0
