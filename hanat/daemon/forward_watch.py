"""Look whether other programs' chains drop what this node forwards.

The kernel tells of changed rules; chains are listed then, off the loop, and now and then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from hanat.core.inputs import ForwardObserved, Input
from hanat.errors import KernelError
from hanat.kernel.ports import Forwarding, RulesetWatch

log = logging.getLogger(__name__)

PERIOD_S, GAP_S = 10.0, 0.4


class ForwardWatch:
    """Tells the core of chains that drop by default.

    Args:
        watch: Becomes readable when rules changed.
        forwarding: Lists chains.
        feed: Takes inputs of the core.
    """

    def __init__(
        self, watch: RulesetWatch, forwarding: Forwarding, feed: Callable[[Input], None]
    ) -> None:
        self._watch, self._forwarding, self._feed = watch, forwarding, feed
        self._found: tuple[str, ...] = ()
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look from now on."""
        self._loop = loop
        loop.add_reader(self._watch.fileno(), self._read)
        self._task = loop.create_task(self._run())

    def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
        self._loop.remove_reader(self._watch.fileno())
        self._watch.close()

    def _read(self) -> None:
        if self._watch.read():
            self._changed.set()

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
            except KernelError as error:
                log.debug("chains found=%r", str(error))
            await asyncio.sleep(GAP_S)  # however often rules change
            try:
                async with asyncio.timeout(PERIOD_S):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()

    async def look(self) -> None:
        """Look now."""
        found = await asyncio.to_thread(self._forwarding.droppers)
        if found == self._found:
            return
        self._found = found
        names = ", ".join(found)
        self._feed(ForwardObserved(f"forward: chain {names} drops by default" if found else ""))
