"""An event loop in virtual time: what an operator waits for takes as long as the nodes take."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

from tests.sim.world import World

STEP_S = 0.001


class _Selector(selectors.SelectSelector):
    """Lets virtual time pass where another one waits."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            self._world.run(STEP_S if timeout is None else min(timeout, STEP_S))
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock is that of a world; it does at once what others give to threads."""

    def __init__(self, world: World) -> None:
        super().__init__(_Selector(world))
        self._world = world

    def time(self) -> float:
        """Return seconds of true time."""
        return self._world.now

    def run_in_executor(
        self,
        _executor: object,
        func: Callable[..., Any],
        *args: object,
    ) -> asyncio.Future[Any]:
        """Call a function now."""
        future: asyncio.Future[Any] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - whoever awaits it gets it
            future.set_exception(error)
        return future
