"""After rules were installed, let the flow worker end what no longer fits them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping

from hanat.config.settings import NodeSettings
from hanat.core.actions import InstallRuleset
from hanat.core.configuration import Configuration
from hanat.core.inputs import ActionDone, Input
from hanat.core.reconcile import rules_of
from hanat.core.services import Rotation
from hanat.daemon.realtime import beneath_the_loop
from hanat.daemon.worker_link import WorkerLink

log = logging.getLogger(__name__)

IDLE_S_MAX = 5.0  # half a million flows take two seconds


class Reconciling:
    """Tells the flow worker which rules are in force.

    A revision that is read, and a ruleset that is put back, both end with an installed
    ruleset; from then on no new flow is decided by what was before.

    Args:
        worker: The flow worker.
        settings: Of this node.
        rotations: Returns those in force, by name of the service.

    Attributes:
        ended: How many flows ended since the start, by reason.
    """

    def __init__(
        self,
        worker: WorkerLink,
        settings: NodeSettings,
        rotations: Callable[[], Mapping[str, Rotation]],
    ) -> None:
        self._worker, self._settings, self._rotations = worker, settings, rotations
        self._newest: Configuration | None = None
        self._task: asyncio.Task[None] | None = None
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.ended: Counter[str] = Counter()

    def watching(self, feed: Callable[[Input], None]) -> Callable[[Input], None]:
        """Return `feed`, and look at what it is fed."""

        def look(item: Input) -> None:
            if isinstance(item, ActionDone) and isinstance(item.action, InstallRuleset):
                self._installed(item.action.configuration)
            feed(item)

        return look

    async def settled(self) -> None:
        """Wait until what was installed so far is reconciled, for some seconds at most."""
        try:
            async with asyncio.timeout(IDLE_S_MAX):
                await self._idle.wait()
        except TimeoutError:
            log.warning("reconcile behind=true waited_s=%g", IDLE_S_MAX)

    def _installed(self, configuration: Configuration) -> None:
        self._newest = configuration
        self._idle.clear()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._send())
            self._task.add_done_callback(self._sent)

    async def _send(self) -> None:
        """Send the newest rules; large ones are put into words beside the loop."""
        while self._newest is not None:
            configuration, self._newest = self._newest, None
            rules = await asyncio.to_thread(self._document, configuration, self._rotations())
            self._under_way += 1
            self._worker.reconcile(rules, self._reconciled)

    def _document(self, configuration: Configuration, rotations: Mapping[str, Rotation]) -> bytes:
        own = self._settings.myself.addresses
        with beneath_the_loop():  # a thousand services take 35 ms
            rules = rules_of(configuration, self._settings.interfaces, own, rotations)
            return json.dumps(rules.to_document()).encode()

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("reconcile found=%r", str(error))
        self._look()

    def _reconciled(self, counts: Mapping[str, int]) -> None:
        self._under_way -= 1
        self.ended.update(counts)
        self._look()

    def _look(self) -> None:
        if not self._under_way and self._task is None:
            self._idle.set()
