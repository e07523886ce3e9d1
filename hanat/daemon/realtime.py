"""Make the process hard to disturb: real-time priority, a quiet garbage collector."""

from __future__ import annotations

import gc
import logging
import os

log = logging.getLogger(__name__)

PRIORITY = 1  # above everything ordinary, below whatever an operator made real-time on purpose


def prepare() -> None:
    """Ask for SCHED_RR; without the permission go on and say so."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
    except OSError as error:
        log.warning(
            "scheduler=SCHED_OTHER found=%r to_do=%r",
            error.strerror,
            "grant CAP_SYS_NICE; a busy machine may cost the lease",
        )


def settle() -> None:
    """Call it when everything is loaded: what lives now is never collected again."""
    gc.collect()
    gc.freeze()
