"""Waiting for the end of processes that this one started."""

from __future__ import annotations

import os
import select
from subprocess import Popen


def ends_within(process: Popen[bytes], seconds: float) -> bool:
    """Wait for the end of a child, and reap it.

    `Popen.wait` with a timeout looks again and again and sleeps between; this waits for the
    child itself (pidfd_open(2)).

    Args:
        process: Whom to wait for.
        seconds: For how long at most.

    Returns:
        Whether it ended.
    """
    if process.poll() is None:
        ended = os.pidfd_open(process.pid)
        try:
            poll = select.poll()
            poll.register(ended, select.POLLIN)
            poll.poll(seconds * 1000)
        finally:
            os.close(ended)
    return process.poll() is not None
