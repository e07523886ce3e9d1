"""Look which paths are silent here although others hear each other on them.

What beacons say of paths is refreshed at the same time; see `core.paths` for what follows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from hanat.core.inputs import ClaimHeard, Input, SilenceObserved
from hanat.core.paths import LOOK_S, Frames, Paths, Questions, Word, heard_again
from hanat.errors import KernelError
from hanat.kernel.ports import Links
from hanat.raft.guard import Guard

log = logging.getLogger(__name__)


class PathWatch:
    """Tells the core of silent paths, and the peers what is heard on each.

    Args:
        guard: Whose beacons say what is heard.
        heard_at: Returns when a peer was heard last on a path [s], None if never.
        links: The kernel.
        interfaces: Logical name to kernel device.
        paths: Kernel device to path.
        feed: Takes inputs of the core.
    """

    def __init__(
        self,
        guard: Guard,
        heard_at: Callable[[int, int], float | None],
        links: Links,
        *,
        interfaces: Mapping[str, str],
        paths: Mapping[str, int],
        feed: Callable[[Input], None],
    ) -> None:
        self._guard, self._heard_at, self._links = guard, heard_at, links
        self._interfaces, self._on, self._feed = interfaces, paths, feed
        self._paths = Paths(
            guard.node_id,
            guard.nodes,
            # Not their number: two of the own addresses may be on one device.
            paths=max(paths.values(), default=-1) + 1,
            beacon_s=guard.profile.beacon_s,
        )
        self._frames = Frames(paths)
        self._questions: dict[str, Questions] = {}  # of devices whose hosts are asked
        self._silent = dict.fromkeys(interfaces, False)
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look from now on."""
        self._loop = loop
        self._look_again()

    def close(self) -> None:
        """Stop."""
        if self._timer is not None:
            self._timer.cancel()
        for device in self._questions:
            self._links.ask_no_more(device)
        self._questions.clear()

    def _look_again(self) -> None:
        self._timer = self._loop.call_later(LOOK_S, self._look_again)
        self.look(self._guard.clock())

    def look(self, now: float) -> None:
        """Look now; `now` is of the clock of beacons."""
        # At each look: two nodes must not date the same frame far apart.
        self._frames.look(self._counts(), now)
        alive = self._guard.alive()
        heard = {
            (peer, path): at
            for peer in alive
            for path in range(self._paths.count)
            if (at := self._heard_at(peer, path)) is not None
        }
        guard = self._guard
        hears = self._paths.hears(heard)
        if heard_again(guard.hears, hears):  # hosts of that network may have missed who holds
            self._feed(ClaimHeard())
        guard.hears = hears
        guard.lively = self._bits(lambda device: self._frames.lives(device, now))
        told = {peer: Word(b.hears, b.lively, b.answered) for peer, b in alive.items()}
        self._ask(self._paths.asks(guard.hears, told), now)
        asked = self._questions
        guard.answered = self._bits(lambda d: d in asked and asked[d].are_answered(now))
        unanswered = self._bits(lambda d: d in asked and asked[d].are_in_vain(now))
        mine = Word(guard.hears, guard.lively, guard.answered)
        silent = self._paths.silent(mine, unanswered, told, now)
        for name, device in self._interfaces.items():
            path = self._on.get(device)
            if path is not None and path < len(silent):
                self._tell(name, silent=silent[path])

    def _bits(self, holds: Callable[[str], bool]) -> int:
        """Return one bit for each path of whose device something holds."""
        return sum(
            1 << path
            for device, path in self._on.items()
            if path < self._paths.count and holds(device)
        )

    def _ask(self, paths: tuple[int, ...], now: float) -> None:
        for device, path in self._on.items():
            if path not in paths:
                if self._questions.pop(device, None):
                    self._links.ask_no_more(device)
                continue
            questions = self._questions.setdefault(device, Questions(now))
            if self._links.answered(device):
                questions.answered = now
            if questions.due(now) and not self._links.ask(device):
                questions.began = now  # nobody was asked, so nobody refuses to answer

    def _tell(self, name: str, *, silent: bool) -> None:
        if silent is self._silent[name]:
            return
        self._silent[name] = silent
        self._feed(SilenceObserved(name, silent))

    def _counts(self) -> dict[str, int]:
        found = {}
        for device in self._on:
            try:
                found[device] = self._links.received(device)
            except KernelError as error:
                log.debug("device=%s found=%r", device, str(error))
        return found
