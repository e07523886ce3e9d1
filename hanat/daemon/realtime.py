"""Make the process hard to disturb.

Real-time priority, memory that is never written to swap, a quiet garbage collector.
Each is asked for and the node goes on without, saying so: the lease is safe
anyway, it only lasts less reliably.

Memory is locked as it is touched (MCL_ONFAULT): a start touches all that a takeover
needs but some pages of libraries. Locked whole, as MCL_CURRENT does, a node has 22 MiB
more resident, and with MCL_FUTURE alone 8 MiB more for the stack of each thread.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from hanat.kernel.facts import capabilities

log = logging.getLogger(__name__)

# Above everything ordinary, below whatever an operator made real-time on purpose.
PRIORITY = 2
HURRIED = 1  # of what the loop has to wait for when it is kept from the processor

SWITCH_S = 0.0005  # how long another thread may keep the loop from the interpreter

READ_S_MAX, READ_TRIES = 0.00003, 5  # a thousandth of the span that the rate is judged over
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4  # asm-generic/mman.h; not on alpha, ppc, sparc


def prepare() -> None:
    """Ask for SCHED_RR and short turns; without the permission go on and say so.

    Beneath other nodes' loops, where they share processors: who starts takes over a snapshot and a
    log for 0.2 s, and equal ones take turns of 100 ms. See `prefer`.
    """
    sys.setswitchinterval(SWITCH_S)
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(HURRIED))
    except OSError as error:
        log.warning(
            "scheduler=SCHED_OTHER found=%r to_do=%r",
            error.strerror,
            "grant CAP_SYS_NICE; a busy machine may cost the lease",
        )


def prefer() -> None:
    """Let this thread, which `prepare` was called in, come before what is only hurried."""
    if os.sched_getscheduler(0) == os.SCHED_RR:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))


def step_back() -> None:
    """Let this thread, and the processes it starts, run when nobody urgent wants to."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@contextmanager
def ordinary_children() -> Iterator[None]:
    """Let processes that are started here have no priority."""
    with _instead_of_the_loops(os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_getparam(0)):
        yield


@contextmanager
def _instead_of_the_loops(policy: int, parameter: os.sched_param) -> Iterator[None]:
    """Schedule this thread so for a while, if it has the priority of a loop."""
    was, had = os.sched_getscheduler(0), os.sched_getparam(0)
    if was != os.SCHED_RR:
        yield
        return
    os.sched_setscheduler(0, policy, parameter)
    try:
        yield
    finally:
        os.sched_setscheduler(0, was, had)


@contextmanager
def hurried() -> Iterator[None]:
    """Let nothing ordinary come before this thread, only the loop.

    For as long as it has what the loop needs: the interpreter, or the kernel's rules. Kept from
    the processor by others it would keep the loop from them as well: 0.3 s and 0.1 s were seen
    on a busy machine.
    """
    policy = os.sched_getscheduler(0)
    raised = policy == os.SCHED_OTHER
    with suppress(OSError):  # without the permission the loop has no priority either
        if raised:
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(HURRIED))
    try:
        yield
    finally:
        if raised:
            os.sched_setscheduler(0, policy, os.sched_param(0))


@contextmanager
def beneath_the_loop() -> Iterator[None]:
    """Let this thread, which has inherited the loop's priority, come behind every loop.

    A thread of asyncio's pool has the priority of who made it. Equal ones take turns of 100 ms: of
    three nodes on two cores one loop waited 77 ms for what others put into words in theirs.
    """
    with _instead_of_the_loops(os.SCHED_RR, os.sched_param(HURRIED)):
        yield


@contextmanager
def uncollected() -> Iterator[None]:
    """Make many objects that have no cycles, and let no collection ever look at them.

    It would stop everything for 0.1 s: a configuration of 1,000 services has 50,000 objects.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()


def settle() -> None:
    """Call it when everything is loaded: what lives now is never collected or swapped again."""
    gc.collect()
    gc.freeze()
    found = _lock_memory()
    if found is None:
        log.info("memory=locked")
    else:
        log.warning(
            "memory=unlocked found=%r to_do=%r",
            found,
            "grant CAP_IPC_LOCK; a machine that swaps may cost the lease",
        )


def _lock_memory() -> str | None:
    """Keep what is there, and what will be touched, in memory; return why not or None."""
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit != resource.RLIM_INFINITY and "CAP_IPC_LOCK" not in capabilities():
        # It would succeed here, and later every allocation beyond the limit fail.
        return f"RLIMIT_MEMLOCK is {limit} bytes"
    libc = ctypes.CDLL(None, use_errno=True)
    libc.malloc_trim(0)  # what is free does not go back any more once it is locked: 0.6 MiB
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT):
        return os.strerror(ctypes.get_errno())
    return None


def read_clocks() -> tuple[float, float] | None:
    """Return CLOCK_BOOTTIME and CLOCK_MONOTONIC_RAW of one moment; None: always interrupted."""
    for _ in range(READ_TRIES):
        before = time.clock_gettime(time.CLOCK_BOOTTIME)
        raw = time.clock_gettime(time.CLOCK_MONOTONIC_RAW)
        after = time.clock_gettime(time.CLOCK_BOOTTIME)
        if after - before <= READ_S_MAX:
            return before, raw
    return None
