"""Memory is locked."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import cast

import pytest

from hanat.config.settings import NodeSettings
from hanat.core.reconcile import Rules
from hanat.daemon import realtime
from hanat.daemon.reconciling import Reconciling
from hanat.daemon.worker_link import WorkerLink
from hanat.kernel.facts import capabilities
from tests.core.examples import EDGE

SETTLED = """
import logging, resource, sys
from hanat.daemon import realtime
logging.basicConfig(format="%(message)s", level=logging.INFO)
resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 20, 1 << 20))
realtime.settle()
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmLck")))
"""


def settled(*, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*prefix, sys.executable, "-c", SETTLED]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


def test_memory_is_locked_when_permitted_and_the_log_says_whether() -> None:
    done = settled()
    if "CAP_IPC_LOCK" in capabilities():
        assert "memory=locked" in done.stderr
        assert int(done.stdout) > 1024
    else:
        assert "memory=unlocked found='RLIMIT_MEMLOCK is 1048576 bytes'" in done.stderr
        assert done.stdout == "0\n"


@pytest.mark.kernel
def test_without_the_permission_nothing_is_locked() -> None:
    done = settled(prefix=("setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"))
    assert "memory=unlocked found='RLIMIT_MEMLOCK is 1048576 bytes'" in done.stderr
    assert done.stdout == "0\n"


def test_thread_that_hurries_goes_back_to_what_it_was_and_collects_again() -> None:
    before = os.sched_getscheduler(0)
    with realtime.hurried(), realtime.uncollected():
        assert not gc.isenabled()
        if "CAP_SYS_NICE" in capabilities():
            assert os.sched_getscheduler(0) == os.SCHED_RR
    assert gc.isenabled()
    assert os.sched_getscheduler(0) == before


def test_rules_are_put_into_words_beneath_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a thread of asyncio's pool, which inherits the priority of the loop."""
    seen: list[int] = []

    def priority(*_: object) -> Rules:
        seen.append(os.sched_getparam(0).sched_priority)
        return Rules()

    settings = cast(
        NodeSettings, SimpleNamespace(myself=SimpleNamespace(addresses=()), interfaces={})
    )
    reconciling = Reconciling(cast(WorkerLink, None), settings, dict)
    monkeypatch.setattr("hanat.daemon.reconciling.rules_of", priority)

    def as_the_loop() -> None:
        if "CAP_SYS_NICE" in capabilities():
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(realtime.PRIORITY))
        reconciling._document(EDGE, {})
        priority()

    thread = threading.Thread(target=as_the_loop)
    thread.start()
    thread.join()
    if "CAP_SYS_NICE" in capabilities():
        assert seen == [realtime.HURRIED, realtime.PRIORITY]


def test_what_is_made_uncollected_is_never_looked_at_again() -> None:
    with realtime.uncollected():
        made = [[number] for number in range(1000)]
    assert not {id(one) for one in made} & {id(one) for one in gc.get_objects()}
    gc.unfreeze()
