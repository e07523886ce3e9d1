"""The process of the flow worker: ``python -m hanat.worker DESCRIPTOR``.

Started by the daemon, and gone with it. It loads a tenth of what the daemon loads.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import signal
import socket
import sys
import time
from functools import partial

from hanat.kernel.client_sets import KernelClientSets
from hanat.kernel.conntrack import KernelConntrack
from hanat.kernel.route_lookup import KernelRoutes
from hanat.stderr_log import to_stderr
from hanat.worker.flow_service import FlowService

PR_SET_PDEATHSIG = 1  # prctl(2)
GENERATION_0 = 50_000  # flows are no cycles: look for those less often


def main() -> int:
    """Serve the daemon at the other end of a descriptor."""
    to_stderr()
    # Also when that is killed, and also if this is stopped: two must not write into one table.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # Whoever ends the daemon ends this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.set_threshold(GENERATION_0, 20, 20)
    with socket.socket(fileno=int(sys.argv[1])) as opened:
        opened.setblocking(False)  # noqa: FBT003 - the library's signature
        asyncio.run(_serve(opened))
    return 0


async def _serve(opened: socket.socket) -> None:
    clock = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    sets = KernelClientSets()
    await FlowService(KernelConntrack(), KernelRoutes(), sets, clock=clock).run(opened)


if __name__ == "__main__":
    sys.exit(main())
