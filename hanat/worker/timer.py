"""A timer that several reasons set: the earliest counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Timer:
    """Calls once, at the earliest time that was asked for since it called last.

    Args:
        call: What.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._handle: asyncio.TimerHandle | None = None

    def is_due_within(self, after_s: float) -> bool:
        """Say whether it calls by then."""
        now = asyncio.get_running_loop().time()
        return self._handle is not None and self._handle.when() <= now + after_s

    def call_within(self, after_s: float) -> None:
        """Call after that time, if not earlier."""
        if not self.is_due_within(after_s):
            self.cancel()
            self._handle = asyncio.get_running_loop().call_later(after_s, self._run)

    def cancel(self) -> None:
        """Do not call."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _run(self) -> None:
        self._handle = None
        self._call()
