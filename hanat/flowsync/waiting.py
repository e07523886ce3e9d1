"""Changes that wait to be told: of each flow the newest, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from hanat.flowsync.batch import Changes


class Waiting:
    """Flows that are there or gone, by key."""

    def __init__(self) -> None:
        self._put: dict[bytes, bytes] = {}
        self._gone: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        return len(self._put) + len(self._gone)

    def __contains__(self, key: bytes) -> bool:
        return key in self._put or key in self._gone

    def put(self, keys: Sequence[bytes], records: Sequence[bytes]) -> None:
        """Note flows that are there."""
        for waiting in (self._put, self._gone):
            if not waiting.keys().isdisjoint(keys):  # the newer one goes to the end
                for key in keys:
                    waiting.pop(key, None)
        self._put.update(zip(keys, records, strict=True))

    def gone(self, key: bytes, record: bytes) -> None:
        """Note a flow that is gone."""
        self.discard(key)
        self._gone[key] = record

    def discard(self, key: bytes) -> None:
        """Forget what waits of a flow."""
        self._put.pop(key, None)
        self._gone.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._put.clear()
        self._gone.clear()

    def take(self, count: int) -> Changes:
        """Remove and return the oldest, at most `count`; some of both kinds."""
        total = len(self)
        if total <= count:
            taken = Changes(list(self._put.values()), list(self._gone.values()))
            self.clear()
            return taken
        gone = len(self._gone) * count // total
        return Changes(_taken(self._put, count - gone), _taken(self._gone, gone))


def _taken(waiting: dict[bytes, bytes], count: int) -> list[bytes]:
    return [waiting.pop(key) for key in list(islice(waiting, count))]
