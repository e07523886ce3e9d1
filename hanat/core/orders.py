"""Operators' orders: an older one never undoes a newer one.

A node that does not lead sends an order to the leader, over a connection that may hang; what comes
through later must not undo what an operator did meanwhile by another node. Wall clocks of nodes
differ, so an order does not say when it was given but what it *follows*: the record of the same
key that its node knew. The leader appends it only to that.

An order that met another one on its way is given again, if that came at once: two commands one
after the other, by two nodes, of which the second did not know the first yet. Later it is refused,
and the operator is told.

The leader alone decides, before it appends: what is in the log counts, on nodes of all versions.
An order of a version that does not say what it follows is appended as it comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum

from hanat.core.server_records import Kind, Record, following, follows, kind_of

BY_OPERATORS = frozenset({Kind.MODE, Kind.WEIGHT})
AT_ONCE_S = 1.0  # a node is behind the leader by milliseconds
UNDER_WAY_S = 0.5  # what was appended is not appended again before
LOST_S = 5.0  # what was appended and is not committed by then may be in no log any more


class Outcome(Enum):
    """What became of an order."""

    DONE = "done"
    OVERTAKEN = "overtaken"  # by another one


class Order:
    """One that waits for the log.

    Args:
        record: What is wanted.
        now: When it was given, seconds of the node's clock.
    """

    def __init__(self, record: Record, now: float) -> None:
        self._record, self._given_at = record, now
        self._asked: set[bytes] = set()
        self._present = b""

    def ask(self, in_log: Mapping[bytes, bytes]) -> Record:
        """Return what is to be proposed, as what follows what the log has."""
        self._present = in_log.get(self._record.key, b"")
        asked = following(self._record, self._present)
        self._asked.add(asked.value)
        return asked

    def applied(self, records: Iterable[Record]) -> Outcome | None:
        """Return what became of it by records that came into the log; None: nothing yet."""
        values = [value for key, value in records if key == self._record.key]
        if self._asked.intersection(values):
            return Outcome.DONE
        return Outcome.OVERTAKEN if values else None

    def restored(self, in_log: Mapping[bytes, bytes]) -> Outcome | None:
        """Return what became of it by another state."""
        value = in_log.get(self._record.key, b"")
        return None if value == self._present else self.applied([Record(self._record.key, value)])

    def may_be_repeated(self, now: float) -> bool:
        """Say whether what overtook it was given before it, for all that its operator knows."""
        return now - self._given_at <= AT_ONCE_S


class Appended:
    """What a leader appended of operators' orders and has not applied yet."""

    def __init__(self) -> None:
        self._values: dict[bytes, tuple[bytes, float]] = {}

    def clear(self) -> None:
        """Forget all: another term begins."""
        self._values.clear()

    def admits(self, record: Record, in_log: Mapping[bytes, bytes], now: float) -> bool:
        """Say whether a record is to be appended: it follows the newest, and is not it.

        What was appended a while ago and is in no log yet may have been lost.
        """
        if kind_of(record.key) not in BY_OPERATORS:
            return True
        value, at = self._values.get(record.key, (b"", -LOST_S))
        if record.value == value:
            return now - at >= UNDER_WAY_S
        newest = value if now - at < LOST_S else in_log.get(record.key, b"")
        return record.value != newest and follows(record, newest)

    def note(self, record: Record, now: float) -> None:
        """Note that a record was appended."""
        if kind_of(record.key) in BY_OPERATORS:
            self._values[record.key] = record.value, now

    def applied(self, records: Iterable[Record]) -> None:
        """Note that these are in the log."""
        for key, value in records:
            if self._values.get(key, (None, 0.0))[0] == value:
                del self._values[key]
