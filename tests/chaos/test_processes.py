"""Ending processes of the lab: what has ended already is no trouble."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from chaos.processes import identify, send_signal, wait_gone

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
