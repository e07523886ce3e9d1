"""What the holder proposed about servers, and proposes again until the log has it.

A log that is too long does not take a proposal, and a hand-over may lose it. Verdicts are not among
these: `core.verdicts` repeats its own.
"""

from __future__ import annotations

import math

from hanat.core.server_records import Record

AGAIN_S = 1.0
AT_ONCE_MAX = 500  # records that are proposed again in one call


class Proposals:
    """The records that were proposed and are not in the log yet."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, tuple[Record, float]] = {}
        self._due = math.inf

    def clear(self) -> None:
        """Forget all: another tenure begins."""
        self._waiting.clear()
        self._due = math.inf

    def put(self, record: Record, now: float) -> bool:
        """Note a proposal; say whether it is to be made, since it is not under way already."""
        known = self._waiting.get(record.key)
        if known is not None and known[0] == record:
            return False
        self._waiting[record.key] = record, now + AGAIN_S
        self._due = min(self._due, now + AGAIN_S)
        return True

    def applied(self, key: bytes) -> None:
        """Note that the log has a record of this key, this one or a newer one."""
        self._waiting.pop(key, None)

    def due(self) -> float | None:
        """Return when to call `again`; None: nothing waits."""
        return self._due if self._waiting else None

    def again(self, now: float) -> list[Record]:
        """Return what is to be proposed once more."""
        if now < self._due:
            return []
        late = [record for record, at in self._waiting.values() if at <= now][:AT_ONCE_MAX]
        for record in late:
            self._waiting[record.key] = record, now + AGAIN_S
        self._due = min((at for _, at in self._waiting.values()), default=math.inf)
        return late
