"""Ending processes of the lab: what has ended already is no trouble."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

import pytest

from chaos.lab import processes
from chaos.lab.processes import Identity, identify, kill_all, send_signal, wait_gone

LEADER = """
import os, sys
if os.fork() == 0:
    sys.stdin.read()
    os._exit(0)
sys.stdin.readline()
"""


def test_process_whose_group_outlives_it_has_ended() -> None:
    """Linux 6.1 says "invalid argument" of its pid then, 6.18 "no such process"."""
    with subprocess.Popen(
        [sys.executable, "-c", LEADER], stdin=subprocess.PIPE, start_new_session=True
    ) as leader:
        assert leader.stdin is not None
        identity = identify(leader.pid)
        assert identity is not None
        leader.stdin.write(b"end\n")
        leader.stdin.flush()
        leader.wait()
        os.killpg(leader.pid, 0)  # its child lives
        assert not send_signal(identity, signal.SIGKILL)
        assert wait_gone([identity], timeout_s=0.0)


PARENT = """
import os, signal, sys, time
child = os.fork()
if child == 0:
    os.setpgid(0, 0)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGCONT, lambda *_: os.write(1, b"woken"))
    print(os.getpid(), flush=True)
    while True:
        signal.pause()
os.waitpid(child, 0)
"""


def test_no_child_is_woken_by_the_death_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    # seed 808: a stopped daemon was woken so when its supervisor died, and told of it
    def slowly(identity: Identity, number: signal.Signals) -> bool:
        sent = send_signal(identity, number)
        if number is signal.SIGKILL and identity.pid == parent.pid:
            assert parent.stdout is not None
            select.select([parent.stdout], [], [], 5.0)  # what the child says, or its end
        return sent

    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        both = [found for found in (identify(parent.pid), identify(child)) if found is not None]
        assert len(both) == 2
        monkeypatch.setattr(processes, "send_signal", slowly)
        kill_all(both)
        assert parent.stdout.read() == b""
