"""The daemon's end of the checker: starts it, talks to it, starts it again.

What the daemon wants is kept here. A checker that starts is told all of it: the targets in
pieces, one a turn of the daemon's loop, then the tenure and the verdicts. There is no checker
while there is no target.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice
from subprocess import Popen
from typing import Any

from hanat.checker.checker_channel import PIECE, Channel, Topic
from hanat.checker.documents import sighting_from_document, target_to_document
from hanat.core.checks import Target
from hanat.core.probing import Operational, Sighting

log = logging.getLogger(__name__)

LOOK_S = 1.0
HUNG_S = 10.0  # a checker that says nothing for so long starts anew
# What the daemon takes in at once: some 150 sightings, or 2 ms. If thousands of servers fail in one
# moment, the rest waits in the checker.
SOCKET_BYTES = 16 << 10
RESTART_S_MIN, RESTART_S_MAX = 0.1, 10.0
HEALTHY_S = 60.0

Shown = Callable[[tuple[Sighting, ...]], None]
_Message = tuple[Topic, Callable[[], object]]


class CheckerLink:
    """Speaks to the checker of this node.

    Args:
        spawn: Starts a checker that serves the other end of a socket.
        sighted: Takes each sighting with news.
        lost: Called when a checker ended by itself: what it saw is not known any more.

    Attributes:
        restarts: How often one was started after another had ended by itself.
    """

    def __init__(
        self,
        spawn: Callable[[socket.socket], Popen[bytes]],
        *,
        sighted: Callable[[Sighting], None],
        lost: Callable[[], None],
    ) -> None:
        self._spawn, self._sighted, self._on_lost = spawn, sighted, lost
        self.restarts = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process: Popen[bytes] | None = None
        self._dying: Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._connecting: asyncio.Task[object] | None = None
        self._restart: asyncio.TimerHandle | None = None
        self._restart_s = RESTART_S_MIN
        self._started_at = 0.0
        # What the daemon wants.
        self._targets: Mapping[str, Target] = {}
        self._tenure: int | None = None
        self._committed: dict[str, Operational] = {}
        # What the checker has still to be told of it.
        self._untold: deque[_Message] = deque()
        self._telling: asyncio.Handle | None = None
        self._shows: dict[int, tuple[Shown, list[Sighting]]] = {}
        self._number = 0
        self._looked_at = self._called_at = 0.0
        self._answered = True

    # ----------------------------------------------------------------------- process

    def start(self) -> None:
        """Begin: there is a checker from now on, whenever there are targets."""
        self._loop = asyncio.get_running_loop()
        if self._targets:
            self._begin()

    def close(self) -> None:
        """End the checker, and wait for that."""
        self._stop()
        self._loop = None
        if self._dying is not None:
            self._dying.wait()

    def _begin(self) -> None:
        assert self._loop is not None, "start() comes first"
        self._restart = None
        if self._dying is not None and self._dying.poll() is None:
            self._restart = self._loop.call_later(RESTART_S_MIN, self._begin)
            return
        self._dying = None
        self._started_at = self._loop.time()
        try:
            ours = self._open()
        except OSError as error:
            log.error("checker op=start found=%r", str(error))  # noqa: TRY400 - the text says it all
            self._begin_later()
            return
        channel = self._channel = Channel(self._on_message, lambda: self._lost(channel))
        self._answered = True
        self._connecting = self._loop.create_task(
            self._loop.create_connection(lambda: channel, sock=ours)
        )
        self._tell_all()

    def _open(self) -> socket.socket:
        """Start the process; return our end of the pair."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
                self._process = self._spawn(theirs)
            except OSError:
                ours.close()
                raise
        ours.setblocking(False)  # noqa: FBT003 - the library's signature
        return ours

    def _begin_later(self) -> None:
        assert self._loop is not None, "only a client that was started gets here"
        if self._loop.time() - self._started_at >= HEALTHY_S:
            self._restart_s = RESTART_S_MIN
        log.error("checker process=ended restart_s=%.1f", self._restart_s)
        self._restart = self._loop.call_later(self._restart_s, self._begin_again)
        self._restart_s = min(2 * self._restart_s, RESTART_S_MAX)

    def _begin_again(self) -> None:
        self.restarts += 1
        self._begin()

    def _stop(self) -> None:
        """End the checker and what was planned for it."""
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        self._untold.clear()
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.abort()
        process, self._process = self._process, None
        if process is not None:
            # It may be stopped, or hang: what comes next must not meet it.
            process.kill()
            self._dying = process
        shows, self._shows = self._shows, {}
        for done, _ in shows.values():
            done(())

    def _lost(self, channel: Channel) -> None:
        if channel is not self._channel:
            return
        self._stop()
        self._begin_later()
        self._on_lost()

    # ------------------------------------------------------------------------ wanted

    def configure(self, targets: Mapping[str, Target]) -> None:
        """Probe these targets, by name, and no others."""
        self._targets = dict(targets)
        self._committed = {n: state for n, state in self._committed.items() if n in targets}
        if self._loop is None:
            return
        if not targets:
            self._stop()
        elif self._channel is not None:
            self._tell_all()
        elif self._restart is None:
            self._begin()

    def hold(self, tenure: int | None) -> None:
        """Say that this node holds the addresses in this tenure; None: it does not."""
        self._tenure = tenure
        self._tell(Topic.HOLD, lambda: tenure)

    def commit(self, target: str, state: Operational) -> None:
        """Say what the log has of a target; one that is no target is forgotten."""
        if target in self._targets:
            self._committed[target] = state
            self._tell(Topic.COMMIT, lambda: {target: state.value})

    def show(self, done: Shown) -> None:
        """Ask for how this node sees all targets; `done` takes nothing if there is no checker."""
        if self._channel is None:
            done(())
            return
        self._number += 1
        number = self._number
        self._shows[number] = (done, [])
        self._tell(Topic.SHOW, lambda: number)

    def look(self) -> None:
        """See whether the checker lives; call it often.

        One that is busy answers late, one that hangs does not: it starts anew. If this daemon
        itself stood still, an answer may lie unread, and the checker gets its time again.
        """
        if self._channel is None or self._loop is None:
            return
        now = self._loop.time()
        if now >= self._called_at + HUNG_S / 2:
            self._looked_at = now
        self._called_at = now
        if not self._answered:
            if now >= self._looked_at + HUNG_S:
                log.error("checker process=silent action=restart")
                self._lost(self._channel)
        elif now >= self._looked_at + LOOK_S:
            self._looked_at, self._answered = now, False
            self._tell(Topic.LOOK, lambda: None)

    # ---------------------------------------------------------------------- messages

    def _tell(self, topic: Topic, body: Callable[[], object]) -> None:
        """Say something after all that is still to be said."""
        if self._channel is None:
            return
        self._untold.append((topic, body))
        if self._telling is None:
            self._tell_next()

    def _tell_all(self) -> None:
        """Say everything, from the beginning."""
        self._untold = deque(m for m in self._untold if m[0] in {Topic.SHOW, Topic.LOOK})
        targets = iter(self._targets.items())
        pieces = [dict(islice(targets, PIECE)) for _ in range(0, len(self._targets), PIECE)]
        for index, piece in enumerate(pieces):
            self._untold.append((Topic.CONFIGURE, _piece(piece, index, len(pieces))))
        tenure, committed = self._tenure, iter(list(self._committed.items()))
        self._untold.append((Topic.HOLD, lambda: tenure))
        while states := {name: state.value for name, state in islice(committed, PIECE)}:
            self._untold.append((Topic.COMMIT, _constant(states)))
        if self._telling is None:
            self._tell_next()

    def _tell_next(self) -> None:
        """Say one thing, and let the loop turn before the next one."""
        self._telling = None
        if self._untold and self._channel is not None and self._loop is not None:
            topic, body = self._untold.popleft()
            self._channel.send(topic, body())
            if self._untold:
                self._telling = self._loop.call_soon(self._tell_next)

    def _on_message(self, topic: Topic, body: Any) -> None:  # noqa: ANN401 - JSON
        match topic:
            case Topic.SIGHTING:
                self._sighted(sighting_from_document(body))
            case Topic.ALIVE:
                self._answered = True
            case Topic.SHOWN:
                self._on_shown(*body)
            case _:
                log.error("checker process=confused topic=%s", topic)

    def _on_shown(self, number: int, last: bool, documents: list[Mapping[str, Any]]) -> None:  # noqa: FBT001 - JSON
        waiting = self._shows.get(number)
        if waiting is None:
            return
        done, seen = waiting
        seen.extend(map(sighting_from_document, documents))
        if last:
            del self._shows[number]
            done(tuple(seen))


def _piece(targets: Mapping[str, Target], index: int, count: int) -> Callable[[], object]:
    """Return what makes a message of some of the targets."""
    return lambda: {
        "first": index == 0,
        "last": index == count - 1,
        "targets": {name: target_to_document(target) for name, target in targets.items()},
    }


def _constant(value: object) -> Callable[[], object]:
    return lambda: value
