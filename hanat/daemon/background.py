"""Slow work off the loop: one thread a kind of work, results back on the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Background:
    """One thread that does what it is given, in order.

    Args:
        name: Of the thread, as tools show it.
        after: Called behind each `done`: something may go on now.
        begin: Called in the thread before anything else.
    """

    def __init__(
        self, name: str, *, after: Callable[[], None], begin: Callable[[], None] | None = None
    ) -> None:
        self._after = after
        self._threads = ThreadPoolExecutor(1, thread_name_prefix=name, initializer=begin)

    def __call__(
        self, work: Callable[[], None], done: Callable[[BaseException | None], None]
    ) -> None:
        """Do `work` in the thread, then call `done` on the loop with what it raised."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)

        def ended(future: asyncio.Future[None]) -> None:
            if not future.cancelled():
                done(future.exception())
                self._after()

        future.add_done_callback(ended)

    def close(self) -> None:
        """Wait for the work at hand; what waits behind it is not done."""
        self._threads.shutdown(cancel_futures=True)
