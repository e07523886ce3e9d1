"""The checker's end of the channel: it probes what the daemon says, and tells what it sees.

So many probes at most are under way at once: that bounds descriptors, memory and processes. What
is due beyond that stays due, and what is due for longest comes first. The timeout of a probe
begins when it is made. So a checker with too much to do probes everything less often, and makes
no server look slow.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hanat.checker.checker_channel import PIECE, Channel, Topic
from hanat.checker.documents import sighting_to_document, target_from_document
from hanat.checker.probers import Probers
from hanat.core.checks import ScriptCheck, Target
from hanat.core.probing import Operational, Probe, Probes

log = logging.getLogger(__name__)

# With a timeout of 2 s, 1,000 targets a second may be silent. Each takes a socket, and 10 KiB of
# this process, or 20 KiB if it is HTTP.
PROBES_MAX = 2_000
SCRIPTS_MAX = 32  # each is a process or more (TasksMax), and takes three descriptors


@dataclass(slots=True)
class _Lane:
    """Targets whose probes cost alike.

    Attributes:
        probes: When each is probed.
        at_once: So many probes at most.
        under_way: So many are being made.
    """

    probes: Probes
    at_once: int
    under_way: int = 0

    def start(self, now: float) -> tuple[Probe, ...]:
        """Return probes to make; each is under way until it is noted that it is not."""
        started = self.probes.start(now, self.at_once - self.under_way)
        self.under_way += len(started)
        return started

    def due(self) -> float:
        """Return when to start the next one; never while as many as may be are under way."""
        due_at = self.probes.due() if self.under_way < self.at_once else None
        return float("inf") if due_at is None else due_at


class CheckerService:
    """Does what the daemon says, until that is gone.

    Args:
        probers: Make the probes.
        clock: Seconds of CLOCK_BOOTTIME.
        draw: Random numbers in [0, 1).
        probes_max: So many at once, but for scripts.
    """

    def __init__(
        self,
        probers: Probers,
        *,
        clock: Callable[[], float],
        draw: Callable[[], float],
        probes_max: int = PROBES_MAX,
    ) -> None:
        self._probers, self._clock = probers, clock
        self._targets: dict[str, Target] = {}
        self._coming: dict[str, Target] = {}
        self._cheap = _Lane(Probes(draw=draw), probes_max)
        self._scripts = _Lane(Probes(draw=draw), SCRIPTS_MAX)
        self._ended = asyncio.Event()
        self._channel = Channel(self._on_message, self._ended.set)
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = float("inf")
        self._handlers: Mapping[Topic, Callable[[Any], None]] = {
            Topic.CONFIGURE: self._configure,
            Topic.HOLD: self._hold,
            Topic.COMMIT: self._commit,
            Topic.SHOW: self._show,
            Topic.LOOK: lambda _body: self._channel.send(Topic.ALIVE),
        }

    async def run(self, opened: socket.socket) -> None:
        """Serve the daemon at the other end of a socket until it is gone."""
        try:
            async with self._group:
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: self._channel, sock=opened)
                await self._ended.wait()
                if self._timer is not None:
                    self._timer.cancel()
                for task in self._tasks:
                    task.cancel()
        finally:
            await self._probers.close()

    # ---------------------------------------------------------------------- messages

    def _on_message(self, topic: Topic, body: Any) -> None:  # noqa: ANN401 - JSON
        handle = self._handlers.get(topic)
        if handle is None:
            log.error("checker daemon=confused topic=%s", topic)
        else:
            handle(body)

    def _configure(self, body: Mapping[str, Any]) -> None:
        if body["first"]:
            self._coming = {}
        for name, document in body["targets"].items():
            known = self._targets.get(name)
            self._coming[name] = known or target_from_document(document)
        if not body["last"]:
            return
        self._targets, self._coming = self._coming, {}
        self._probers.prepare(self._targets.values())
        now = self._clock()
        for lane in (self._cheap, self._scripts):
            checks = {
                name: target.timing
                for name, target in self._targets.items()
                if self._lane_of(target) is lane
            }
            lane.probes.configure(checks, now)
        self._turn()

    def _lane_of(self, target: Target) -> _Lane:
        return self._scripts if isinstance(target.kind, ScriptCheck) else self._cheap

    def _hold(self, tenure: int | None) -> None:
        self._cheap.probes.hold(tenure)
        self._scripts.probes.hold(tenure)

    def _commit(self, body: Mapping[str, str]) -> None:
        for name, state in body.items():
            target = self._targets.get(name)
            if target is not None:
                self._lane_of(target).probes.commit(name, Operational(state))

    def _show(self, number: int) -> None:
        seen = [self._lane_of(t).probes.sighting(name) for name, t in self._targets.items()]
        documents = [sighting_to_document(sighting) for sighting in seen if sighting is not None]
        for start in range(0, max(len(documents), 1), PIECE):
            last = start + PIECE >= len(documents)
            self._channel.send(Topic.SHOWN, [number, last, documents[start : start + PIECE]])

    # ------------------------------------------------------------------------ probes

    def _turn(self) -> None:
        """Make the probes that are due, and wake when the next one is."""
        now = self._clock()
        for lane in (self._cheap, self._scripts):
            for probe in lane.start(now):
                task = self._group.create_task(self._make(probe, lane))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        due_at = min(self._cheap.due(), self._scripts.due())
        if due_at < self._wakes_at:
            if self._timer is not None:
                self._timer.cancel()
            self._wakes_at = due_at
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, due_at - now), self._wake)

    def _wake(self) -> None:
        self._timer, self._wakes_at = None, float("inf")
        self._turn()

    async def _make(self, probe: Probe, lane: _Lane) -> None:
        try:
            target = self._targets.get(probe.target)
            if target is not None:  # else it went before its task began
                reply = await self._probers.probe(target, probe.timeout_s)
                sighting = lane.probes.finish(probe, reply, self._clock())
                if sighting is not None and sighting.news:
                    self._channel.send(Topic.SIGHTING, sighting_to_document(sighting))
        finally:
            lane.under_way -= 1
        self._turn()
