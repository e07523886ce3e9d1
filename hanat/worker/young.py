"""Flows that are not old enough yet to be told of."""

from __future__ import annotations

from collections.abc import Iterator

from hanat.core.flows import keys_of

_Entries = dict[bytes, tuple[float, bytes]]  # by key: when it is old enough, and the record


class Young:
    """Flows by how old they have to become, each kind oldest first."""

    def __init__(self) -> None:
        self._by_age: dict[float, _Entries] = {}
        self._doubtful: _Entries = {}

    def __contains__(self, key: bytes) -> bool:
        return any(key in entries for entries in self._by_age.values())

    @property
    def due(self) -> float | None:
        """When the next one is old enough; None: there is none."""
        firsts = (next(iter(entries.values())) for entries in self._by_age.values() if entries)
        return min((due for due, _ in firsts), default=None)

    def put(self, key: bytes, record: bytes, *, min_age_s: float, now: float) -> None:
        """Note a flow; one that was doubted is as old as before."""
        entries = self._by_age.setdefault(min_age_s, {})
        if key not in entries:
            due, _ = self._doubtful.pop(key, (now + min_age_s, record))
            entries[key] = (min(due, now + min_age_s), record)

    def discard(self, key: bytes) -> bool:
        """Forget a flow; say whether it was here."""
        found = [entries.pop(key, None) for entries in (*self._by_age.values(), self._doubtful)]
        return any(found)

    def grown(self, now: float) -> list[bytes]:
        """Remove and return those that are old enough."""
        found: list[bytes] = []
        for entries in self._by_age.values():
            grown = list(_due(entries, now))
            for key in keys_of(grown):
                del entries[key]
            found += grown
        return found

    def clear(self) -> list[bytes]:
        """Remove and return all."""
        found = [record for entries in self._by_age.values() for _, record in entries.values()]
        self._by_age.clear()
        self._doubtful.clear()
        return found

    def begin(self) -> None:
        """Doubt every flow that is not noted again until `end`."""
        for entries in self._by_age.values():
            self._doubtful |= entries
        self._by_age.clear()

    def end(self) -> None:
        """Forget what is doubted."""
        self._doubtful.clear()
        for min_age_s, entries in self._by_age.items():
            # Those that were noted again came in any order.
            self._by_age[min_age_s] = dict(sorted(entries.items(), key=lambda item: item[1][0]))


def _due(entries: _Entries, now: float) -> Iterator[bytes]:
    for due, record in entries.values():
        if due > now:
            return
        yield record
