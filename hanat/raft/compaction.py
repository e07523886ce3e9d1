"""Snapshots of the state instead of an ever longer log: when, and how the library hears.

The library decides nothing of this. It is told to compact (`Replica.tick`), hands over the
last two entries that are applied, and is told by and by that the snapshot is written;
then it cuts the log. The state is frozen at once, a thread makes bytes of it: no fork,
whose child would keep every socket open, and nothing slow on the loop.

A crash may come between the snapshot and the cut. So at a start the log is first cut to
the snapshot; the library would find that they do not fit and throw the log away, with
entries that were acknowledged. A log whose beginning is in no snapshot is worth nothing:
the node starts with what it has, as one that forgot.

Nodes compact at different lengths of the log, the leader last, so that they do not all
write at once; some entries before the cut are kept for followers that are a little late.

Source: Ongaro, "Consensus: Bridging Theory and Practice", 2014, section 5.1.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from hanat.core.feature_level import OLDEST
from hanat.raft import snapshot
from hanat.raft.library import SERIALIZER_STATE
from hanat.raft.messages import level_of
from hanat.raft.slow_work import Background, at_once
from hanat.raft.snapshot import Snapshot

if TYPE_CHECKING:
    from hanat.raft.durability import Durability
    from hanat.raft.messages import Entry
    from hanat.raft.state import State

log = logging.getLogger(__name__)

# The log is in memory, too. An entry of flows has some kilobytes, another 300 bytes.
LOG_BYTES_MAX = 12 << 20
LOG_ENTRIES_MAX = 50_000
STAGGER = 0.125  # of these, for each node before this one in the order of their ids
LEADER_LAST = 0.25  # of these, for the leader: what writes should not be what holds
LEVEL_WAIT_S = 2.0  # for each node before this one, when the feature level rose, and
LEADER_RANKS = 3  # the leader last
CHECK_S = 1.0
RETRY_S = 60.0


class Readable(Protocol):
    """A snapshot open for sending; see `snapshot_store.Reader`."""

    @property
    def size(self) -> int:
        """Return how many bytes it has."""
        ...

    @property
    def digest(self) -> bytes:
        """Return what names it."""
        ...

    def read(self, offset: int, size: int) -> bytes:
        """Return a piece of it."""
        ...

    def close(self) -> None:
        """End reading."""
        ...


class Store(Protocol):
    """Where snapshots are; see `snapshot_store.SnapshotStore`."""

    cluster: str

    @property
    def trigger(self) -> str:
        """A path that is a file if there is a snapshot."""
        ...

    def load(self) -> Snapshot | None:
        """Return the current snapshot."""
        ...

    def write(self, parts: Iterable[bytes]) -> None:
        """Make a snapshot the current one, in memory at least."""
        ...

    def flush(self) -> None:
        """Make sure that it is on disk."""
        ...

    def open(self) -> Readable | None:
        """Return the current snapshot for sending."""
        ...

    def receive(self, data: bytes, offset: int) -> None:
        """Store a piece of what the leader sends."""
        ...

    def received(self) -> Snapshot:
        """Return what was received, checked."""
        ...

    def adopt(self) -> None:
        """Make what was received the current snapshot."""
        ...


class Snapshots:
    """The library's "serializer": writes snapshots, restores them, keeps the log short.

    Args:
        store: Where they are.
        durability: The log they replace.
        state: Returns the state machine.

    Attributes:
        background: Where they are written; set before the first tick.
        restored: Called when the state has become that of a snapshot.
        receiving: Says whether the leader is sending one.
        current: Last index and term of the newest one.
        spoiled: It is damaged: it is not sent, and soon replaced.
        failure: What was raised when the state should have become that of a snapshot.
    """

    def __init__(self, store: Store, durability: Durability, state: Callable[[], State]) -> None:
        self.store = store
        self._durability, self._state = durability, state
        durability.before_cut(store.flush)
        self.background: Background = at_once
        self.restored: Callable[[], None] = lambda: None
        self.receiving: Callable[[], bool] = lambda: False
        self.current: tuple[int, int] | None = None
        self.spoiled = False
        self.failure: BaseException | None = None
        self._loaded: Snapshot | None = None
        self._written = SERIALIZER_STATE.NOT_SERIALIZING
        self._cut_index = 0
        self._level = OLDEST  # of the newest one
        # Something may be of an older feature level than is written now; from when on to look.
        self._is_old, self._old_due = True, 0.0
        self._check_at = 0.0

    # ------------------------------------------------------------------- at the start

    def open(self) -> None:
        """Read the snapshot and make the log fit; call it before the library starts.

        Raises:
            StartupError: The snapshot is somebody else's, or cannot be read.
            JournalError: The log cannot be changed.
        """
        found, log_ = self.store.load(), self._durability
        first = log_[0][1] if len(log_) else 1
        if found is None:
            if first > 1:
                self._start_without(f"the log begins with entry {first}, and no snapshot")
                log_.clear()
            return
        self._loaded = found
        previous, last = found.previous, found.last
        if first > previous[1]:
            self._start_without(f"the log begins with entry {first}, the snapshot ends before")
        if holds(log_, *previous[1:]) and holds(log_, *last[1:]):
            log_.deleteEntriesTo(previous[1] - first, keep=0)
        else:
            log_.clear()
            log_.add(*previous)
            log_.add(*last)
        self.current, self._level = last[1:], found.level

    def _start_without(self, found: str) -> None:
        log.warning("journal recovering found=%r", found)
        self._durability.forget()

    # ------------------------------------------------------------------------- when

    @property
    def busy(self) -> bool:
        """Whether one is written or received; there is one at a time."""
        return self._written is not SERIALIZER_STATE.NOT_SERIALIZING or self.receiving()

    def wanted(self, *, now: float, rank: int, leading: bool) -> bool:
        """Say whether the log should be compacted now; asked often.

        Args:
            now: Seconds of CLOCK_BOOTTIME.
            rank: How many nodes have a lower id than this one.
            leading: Whether this node is the leader.
        """
        if now < self._check_at or self.busy:
            return False
        self._check_at = now + CHECK_S
        if self.spoiled or self._outgrown(now, rank + LEADER_RANKS * leading):
            return True
        share = 1 + STAGGER * rank + LEADER_LAST * leading
        too_many = len(self._durability) > share * LOG_ENTRIES_MAX
        return too_many or self._durability.log_bytes > share * LOG_BYTES_MAX

    def level_rose(self) -> None:
        """Write the feature level that is in force from now on, and nothing older behind it."""
        self._durability.write_level(self._state().written_level)
        self._is_old, self._old_due = True, 0.0

    @property
    def outgrown(self) -> bool:
        """Whether a snapshot is wanted that is of the feature level that is written now."""
        return self._is_old and self._old_due > 0.0

    def _outgrown(self, now: float, rank: int) -> bool:
        """Say whether what a start has to read is of an older level, which a later version may not.

        Not all nodes write at once: each waits for those of a lower rank.
        """
        if not self._is_old:
            return False
        if not self._has_old():
            self._is_old = False
            if self._old_due:
                log.info("snapshot level=%d", self._level)
        elif not self._old_due:
            self._old_due = now + LEVEL_WAIT_S * (1 + rank)
        return self._is_old and now >= self._old_due

    def _has_old(self) -> bool:
        level, log_ = self._state().written_level, self._durability
        if self.current is not None and self._level < level:
            return True
        if len(log_) == 0:
            return False
        covered = 0 if self.current is None else self.current[0]
        behind = log_[max(0, covered + 1 - log_[0][1]) :]
        return any(OLDEST <= level_of(command) < level for command, _, _ in behind)

    # -------------------------------------------------------- under the library's names

    def checkSerializing(self) -> tuple[int, int | None]:  # noqa: N802 - the library's name
        """Return how far the snapshot is, and before which entry the log may be cut."""
        found = self._written
        if found in (SERIALIZER_STATE.SUCCESS, SERIALIZER_STATE.FAILED):
            self._written = SERIALIZER_STATE.NOT_SERIALIZING
        return found, self._cut_index

    def serialize(self, data: tuple[Any, Entry, Entry, Any], cut_index: int) -> None:
        """Begin to write a snapshot of the state as it is now."""
        if self.busy:
            return
        _, last, previous, _ = data
        self._cut_index = cut_index
        state = self._state()
        level = state.written_level
        parts = snapshot.encode(self.store.cluster, previous, last, state.freeze(), level)
        self._written = SERIALIZER_STATE.SERIALIZING

        def done(error: BaseException | None) -> None:
            if error is None:
                self._written = SERIALIZER_STATE.SUCCESS
                self.current, self.spoiled, self._level = last[1:], False, level
            elif isinstance(error, OSError):
                log.warning("snapshot index=%d found=%r", last[1], str(error))
                self._written = SERIALIZER_STATE.FAILED
                self._check_at += RETRY_S
            else:
                raise error

        self.background(lambda: self.store.write(parts), done)

    def deserialize(self) -> tuple[None, Entry, Entry, tuple[()]]:
        """Take over the state of the snapshot that was loaded; return its last entries.

        The library swallows what is raised here, and would go on without that state and
        deaf to its log; see `check`.
        """
        try:
            found, self._loaded = self._loaded, None
            assert found is not None, "no snapshot to restore"
            self._state().restore(found.sections)
            self.level_rose()
            self.restored()
        except BaseException as error:
            self.failure = error
            raise
        return None, found.last, found.previous, ()

    @property
    def pending(self) -> bool:
        """Whether a snapshot is loaded whose state was not taken over."""
        return self._loaded is not None

    def check(self) -> None:
        """Raise what the library swallowed; call it when the library returns."""
        if self.failure is not None:
            raise self.failure

    def adopted(self, found: Snapshot) -> None:
        """Note that a snapshot of the leader is the current one; `deserialize` takes it over."""
        self._loaded, self.current, self.spoiled = found, found.last[1:], False
        self._level = found.level

    def setTransmissionData(self, _data: object) -> bool:  # noqa: N802 - the library's name
        """Say that a snapshot was received whole: `snapshot_transfer` has seen to that."""
        return self._loaded is not None

    def getTransmissionData(self, _node: object) -> None:  # noqa: N802 - the library's name
        """Return nothing: `snapshot_transfer` sends snapshots."""

    def cancelTransmisstion(self, _node: object) -> None:  # noqa: N802 - the library's name, and its spelling
        """Do nothing: see above."""


def holds(log_: Any, index: int, term: int) -> bool:  # noqa: ANN401 - a log, the library's or ours
    """Say whether a log has the entry of that index and term."""
    if len(log_) == 0:
        return False
    position = index - log_[0][1]
    return bool(0 <= position < len(log_) and log_[position][2] == term)


class NoStore:
    """Keeps no snapshots: for logs that live as short as their process."""

    cluster = ""
    trigger = ""

    def load(self) -> Snapshot | None:
        """Return none."""
        return None

    def write(self, parts: Iterable[bytes]) -> None:  # noqa: ARG002
        """Refuse."""
        raise OSError("there is no place for snapshots")

    def flush(self) -> None:
        """Do nothing: there is none."""

    def open(self) -> Readable | None:
        """Return none."""
        return None

    def receive(self, data: bytes, offset: int) -> None:  # noqa: ARG002
        """Refuse."""
        raise OSError("there is no place for snapshots")

    def received(self) -> Snapshot:
        """Refuse."""
        raise OSError("there is no place for snapshots")

    def adopt(self) -> None:
        """Refuse."""
        raise OSError("there is no place for snapshots")
