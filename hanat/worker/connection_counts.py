"""How many connections servers have, on the way from the flow worker to the daemon: in slices.

A thousand services of 20 servers are 20,000 rows. Neither end turns all of them into a message, or
a message into them, in one turn of its loop.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence

from hanat.core.flows import Row, ServerKey

SLICE_ROWS = 500


def encoded(rows: Sequence[Row]) -> Iterator[bytes]:
    """Yield messages of at most `SLICE_ROWS` rows each, which `CountsReader` reads."""
    for first in range(0, len(rows), SLICE_ROWS):
        some = [
            (key.protocol, key.listen.hex(), key.port, key.server.hex(), now, opened)
            for key, now, opened in rows[first : first + SLICE_ROWS]
        ]
        yield json.dumps(some, separators=(",", ":")).encode()


class CountsReader:
    """Reads such messages, one a turn of the loop.

    Attributes:
        counts: The number of flows of each server on each listen that has any.
        opened: How many it had in all, as far as is remembered; see `core.levelling.Load`. Both
            are replaced when all messages of a report are read, and never changed.
    """

    def __init__(self) -> None:
        self.counts: Mapping[ServerKey, int] = {}
        self.opened: Mapping[ServerKey, int] = {}
        self._unread: list[bytes] = []
        self._reading: object = None

    def take(self, message: bytes) -> None:
        """Note a message of the report that is coming."""
        self._unread.append(message)

    def clear(self) -> None:
        """Forget the report that is coming: who sent it is gone."""
        self._unread, self._reading = [], None

    def finish(self, done: Callable[[], None]) -> None:
        """Read the report, and call `done` then: at once if it is short."""
        unread, self._unread = self._unread, []
        self._reading = unread
        self._read(unread, 0, {}, {}, done)

    def _read(
        self,
        unread: list[bytes],
        first: int,
        counts: dict[ServerKey, int],
        opened: dict[ServerKey, int],
        done: Callable[[], None],
    ) -> None:
        if self._reading is not unread:
            return
        for protocol, listen, port, server, now, ever in json.loads(
            unread[first] if unread else "[]"
        ):
            key = ServerKey(protocol, bytes.fromhex(listen), port, bytes.fromhex(server))
            opened[key] = ever
            if now:
                counts[key] = now
        if first + 1 < len(unread):
            loop = asyncio.get_running_loop()
            loop.call_soon(self._read, unread, first + 1, counts, opened, done)
            return
        self.counts, self.opened, self._reading = counts, opened, None
        done()
