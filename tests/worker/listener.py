"""The daemon's end of a flow worker, and what stands in for the worker's process."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Callable
from subprocess import Popen

from hanat.daemon.worker_link import WorkerLink
from hanat.worker.worker_channel import Channel, Kind

TURNS = 50
RESTART_S_MAX = 10.0


class Listener:
    """Takes what the daemon says to its flow worker.

    Attributes:
        refusing: The machine cannot start a process.
        heard: Kind and body of each frame but those of every start and look.
        channels: The worker's end, one for each start.
    """

    def __init__(
        self, propose: Callable[[int, bytes, Callable[[bool], None]], bool] = lambda *_: True
    ) -> None:
        self.refusing = False
        self.heard: list[tuple[Kind, bytes]] = []
        self.complete: list[bool] = []
        self.channels: list[Channel] = []
        self._tasks: list[asyncio.Task[object]] = []
        self._processes: list[Popen[bytes]] = []
        self.client = WorkerLink(self._spawn, propose=propose, completed=self.complete.append)

    def _spawn(self, theirs: socket.socket) -> Popen[bytes]:
        if self.refusing:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        opened = theirs.dup()
        opened.setblocking(False)  # noqa: FBT003 - the library's signature
        channel, task = self._begin(opened)
        self.channels.append(channel)
        self._tasks.append(task)
        self._processes.append(subprocess.Popen(["sleep", "60"]))
        return self._processes[-1]

    def _begin(self, opened: socket.socket) -> tuple[Channel, asyncio.Task[object]]:
        """Return the worker's end of a channel, and what runs it."""
        loop, channel = asyncio.get_running_loop(), Channel(self._on_frame, lambda: None)
        return channel, loop.create_task(loop.create_connection(lambda: channel, sock=opened))

    def _on_frame(self, kind: Kind, body: bytes) -> None:
        if kind not in {Kind.SCOPE, Kind.LEVEL, Kind.REPORT}:
            self.heard.append((kind, body))

    async def settle(self) -> list[tuple[Kind, bytes]]:
        """Let everything happen; return what was heard since the last time."""
        for _ in range(TURNS):
            await asyncio.sleep(0)
        heard, self.heard = self.heard, []
        return heard

    async def restarted(self) -> None:
        """Let the worker die, and wait for the next."""
        count = len(self.channels)
        self.channels[-1].abort()
        async with asyncio.timeout(RESTART_S_MAX):
            while len(self.channels) == count:  # noqa: ASYNC110 - started by a timer
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        self.client.close()
        for channel in self.channels:
            channel.abort()
        for process in self._processes:
            process.kill()
            process.wait()
        for _ in range(TURNS):
            await asyncio.sleep(0)
