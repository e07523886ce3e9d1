"""The checker's end of the channel: it probes what the daemon says, and tells what it sees.

So many probes at most are under way at once: that bounds descriptors, memory and processes. A
probe that is due beyond that waits. Its own timeout begins when it is made, so a busy checker
makes no server look slow. If it waits for longer than `core.probing.RESULT_S_MAX`, its result
would be late: then it is not made, and counts as lost. It says nothing about the server.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from hanat.checker.channel import PIECE, Channel, Topic
from hanat.checker.documents import sighting_to_document, target_from_document
from hanat.checker.probers import Probers
from hanat.core.checks import ScriptCheck, Target
from hanat.core.probing import RESULT_S_MAX, Operational, Probe, Probes

log = logging.getLogger(__name__)

# With a timeout of 2 s: 500 targets a second may all be silent. Each takes a socket, and of this
# process some 10 KiB.
PROBES_MAX = 1_000
SCRIPTS_MAX = 32  # each is a process or more (TasksMax), and takes three descriptors


class _Lane:
    """Probes of one kind of cost: some under way, the others waiting in order."""

    def __init__(self, at_once: int) -> None:
        self._at_once, self._under_way = at_once, 0
        self._waiting: deque[tuple[Probe, float]] = deque()

    def add(self, probe: Probe, now: float) -> None:
        """Let a probe wait for its turn."""
        self._waiting.append((probe, now))

    def next(self, now: float) -> Probe | None:
        """Return a probe to make, which is under way until `finish`."""
        while self._waiting and self._under_way < self._at_once:
            probe, due_at = self._waiting.popleft()
            if now <= due_at + RESULT_S_MAX:
                self._under_way += 1
                return probe
        return None

    def finish(self) -> None:
        """Note that a probe is not under way any more."""
        self._under_way -= 1


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
        self._probes = Probes(draw=draw)
        self._targets: dict[str, Target] = {}
        self._coming: dict[str, Target] = {}
        self._lanes = {False: _Lane(probes_max), True: _Lane(SCRIPTS_MAX)}
        self._ended = asyncio.Event()
        self._channel = Channel(self._on_message, self._ended.set)
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = float("inf")
        self._handlers: Mapping[Topic, Callable[[Any], None]] = {
            Topic.CONFIGURE: self._configure,
            Topic.HOLD: self._probes.hold,
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
        checks = {name: target.timing for name, target in self._targets.items()}
        self._probes.configure(checks, self._clock())
        self._arm()

    def _commit(self, body: Mapping[str, str]) -> None:
        for target, state in body.items():
            self._probes.commit(target, Operational(state))

    def _show(self, number: int) -> None:
        seen = [self._probes.sighting(name) for name in self._targets]
        documents = [sighting_to_document(sighting) for sighting in seen if sighting is not None]
        for start in range(0, max(len(documents), 1), PIECE):
            last = start + PIECE >= len(documents)
            self._channel.send(Topic.SHOWN, [number, last, documents[start : start + PIECE]])

    # ------------------------------------------------------------------------ probes

    def _arm(self) -> None:
        """Wake when the next probe is due."""
        due_at = self._probes.due()
        if due_at is None or due_at >= self._wakes_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._wakes_at = due_at
        delay_s = max(0.0, due_at - self._clock())
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._wake)

    def _wake(self) -> None:
        self._timer, self._wakes_at = None, float("inf")
        now = self._clock()
        for probe in self._probes.start(now):
            self._lane_of(probe.target).add(probe, now)
        self._begin()
        self._arm()

    def _lane_of(self, name: str) -> _Lane:
        return self._lanes[isinstance(self._targets[name].kind, ScriptCheck)]

    def _begin(self) -> None:
        """Make the probes whose turn it is."""
        now = self._clock()
        for lane in self._lanes.values():
            while (probe := lane.next(now)) is not None:
                task = self._group.create_task(self._make(probe, lane))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _make(self, probe: Probe, lane: _Lane) -> None:
        try:
            target = self._targets.get(probe.target)
            if target is not None:  # else it waited, and is no target any more
                reply = await self._probers.probe(target, probe.timeout_s)
                sighting = self._probes.finish(probe, reply, self._clock())
                if sighting is not None and sighting.news:
                    self._channel.send(Topic.SIGHTING, sighting_to_document(sighting))
        finally:
            lane.finish()
        self._begin()
        self._arm()
