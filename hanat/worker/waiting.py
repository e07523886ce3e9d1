"""Changes that wait to be told: of each flow the newest, nothing else.

Flows that are gone go first: another one may have their translated tuple by now, and two of
those cannot be installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from hanat.worker.flow_batch import Changes


class Waiting:
    """Flows that are there or gone, by key."""

    def __init__(self) -> None:
        self._put: dict[bytes, bytes] = {}
        self._gone: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        return len(self._put) + len(self._gone)

    def __contains__(self, key: bytes) -> bool:
        return key in self._put or key in self._gone

    @property
    def there(self) -> list[bytes]:
        """Flows that are there."""
        return list(self._put.values())

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
        """Remove and return the oldest, at most `count`."""
        gone = _taken(self._gone, count)
        return Changes(_taken(self._put, count - len(gone)), gone)


def _taken(waiting: dict[bytes, bytes], count: int) -> list[bytes]:
    if len(waiting) <= count:
        taken = list(waiting.values())
        waiting.clear()
        return taken
    return [waiting.pop(key) for key in list(islice(waiting, count))]
