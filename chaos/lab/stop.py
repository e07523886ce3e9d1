"""When a client stops: told by SIGTERM, or at its own deadline, whichever comes first."""

from __future__ import annotations

import signal
import time


class Stop:
    """True once the client is to stop; bounds every client in time."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._told = False
        signal.signal(signal.SIGTERM, self._tell)

    def _tell(self, _number: int, _frame: object) -> None:
        self._told = True

    def __bool__(self) -> bool:
        return self._told or time.monotonic() >= self._deadline
