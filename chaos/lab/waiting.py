"""Wait for a condition with a deadline; the only place that polls."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from chaos.lab.lab_error import LabTimeoutError

T = TypeVar("T")

POLL_S = 0.02


def wait_until(
    condition: Callable[[], T | None],
    timeout_s: float,
    what: str,
    *,
    meanwhile: Callable[[], None] = lambda: None,
    details: Callable[[], str] = lambda: "",
) -> T:
    """Ask until the answer is true, and return it.

    Args:
        condition: Asked every 20 ms, at least once.
        timeout_s: How long it may take.
        what: Completes "waited ... s for", used when it fails.
        meanwhile: Called after every answer that is not true; may raise to give up.
        details: What to add to the message when it fails.

    Raises:
        LabTimeoutError: Not true within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if answer:
            return answer
        meanwhile()
        if time.monotonic() >= deadline:
            raise LabTimeoutError(f"waited {timeout_s:g} s for {what}; {details()}".rstrip("; "))
        time.sleep(POLL_S)
