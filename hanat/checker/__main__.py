"""The process of the checker: ``python -m hanat.checker DESCRIPTOR``.

Started by the daemon, and gone with it. It has none of the daemon's priority.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import logging
import random  # noqa: TID251 - the one place of this process where randomness comes from outside
import resource
import signal
import socket
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hanat.checker.capabilities import keep_rights
from hanat.checker.probe_service import PROBES_MAX, SCRIPTS_MAX, CheckerService
from hanat.checker.probers import Probers
from hanat.checker.scripts import ScriptProber
from hanat.core.complaints import Complaints

log = logging.getLogger(__name__)

# capabilities(7): CAP_NET_RAW for ping where unprivileged ping is off, and for marks; CAP_SETUID,
# CAP_SETGID and CAP_KILL for scripts of another user. Of these, what the daemon has.
KEPT_RIGHTS = frozenset({5, 6, 7, 13})
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)
FORMAT = "%(asctime)s.%(msecs)03d %(levelname)-5s %(message)s"  # as the other processes of a node
DESCRIPTORS_KEPT = 100  # for libraries, the loop, and what a script takes while it is started


def main() -> int:
    """Serve the daemon at the other end of a descriptor."""
    parser = argparse.ArgumentParser(prog="python -m hanat.checker")
    parser.add_argument("descriptor", type=int, help="a socket to the daemon")
    parser.add_argument("--scripts", type=Path, help="the folder of the scripts that may run")
    parser.add_argument("--user", default="nobody", help="runs the scripts")
    options = parser.parse_args()
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format=FORMAT, datefmt="%Y-%m-%dT%H:%M:%S"
    )
    libc = ctypes.CDLL(None)
    # Also when the daemon is killed, and also if this is stopped.
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    takes_orphans = libc.prctl(PR_SET_CHILD_SUBREAPER, 1) == 0
    # Whoever ends the daemon ends this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        keep_rights(KEPT_RIGHTS)
    except OSError as error:
        log.warning(
            "checker rights=kept found=%r to_do=%r",
            error.strerror,
            "allow capset(2) in the SystemCallFilter: the checker needs fewer than the daemon",
        )
    scripts = ScriptProber(options.scripts, options.user, takes_orphans=takes_orphans)
    with socket.socket(fileno=options.descriptor) as opened:
        opened.setblocking(False)  # noqa: FBT003 - the library's signature
        asyncio.run(_serve(opened, scripts))
    return 0


async def _serve(opened: socket.socket, scripts: ScriptProber) -> None:
    complaints = Complaints()
    asyncio.get_running_loop().set_exception_handler(partial(_complain, complaints))
    service = CheckerService(
        Probers(scripts),
        clock=partial(time.clock_gettime, time.CLOCK_BOOTTIME),
        draw=random.SystemRandom().random,
        probes_max=probes_max(),
    )
    await service.run(opened)


def probes_max() -> int:
    """Raise this process's limit of descriptors, and return how many probes fit into it."""
    needed = PROBES_MAX + 3 * SCRIPTS_MAX + DESCRIPTORS_KEPT
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    found = PROBES_MAX if soft == resource.RLIM_INFINITY else soft - (needed - PROBES_MAX)
    if found < PROBES_MAX:
        log.warning(
            "checker descriptors=%d to_do=%r", soft, f"raise the limit (LimitNOFILE) to {needed}"
        )
    return max(1, min(PROBES_MAX, found))


def _complain(
    complaints: Complaints, _loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]
) -> None:
    """Write what failed in a callback of a library: what a server sent must end nothing."""
    error = context.get("exception")
    text = f"{context.get('message')}: {error!r}"
    left_out = complaints.admit(text, time.monotonic())
    if left_out is not None:
        log.warning("checker library=failed found=%r left_out=%d", text, left_out)


if __name__ == "__main__":
    sys.exit(main())
