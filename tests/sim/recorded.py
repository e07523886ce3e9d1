"""Nodes of the simulation that record what their state machines are given, as a chaos run does.

Facts of `chaos.observe.run_history`: what a node applies, when it does; what a leader counts as
committed, in the tick in which it does. Not while logs are cut: a snapshot is no entry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from chaos.observe.replicated import Applied, Committed
from hanat.raft.messages import Entry, unwrap
from hanat.raft.state import Flows, decode
from tests.sim.process import Process
from tests.sim.storage import Storage


class Recorded(Process):
    """A node that records."""

    def _build(self) -> None:
        super()._build()
        self.told_committed = 1  # up to this index others recorded, or this node did
        self._apply: Callable[[bytes], None] = self.replica.machine._apply
        self.replica.machine._apply = self._take

    def _entry(self, index: int) -> Entry:
        entry: Entry = self.journal[index - self.journal[0][1]]
        return entry

    def _fact(self, kind: type[Applied] | type[Committed], entry: Entry) -> None:
        command, index, term = entry
        digest = hashlib.sha256(command).hexdigest()[:16]
        t_ns = round(self.world.now * 1e9)
        self.world.facts.append(kind(t_ns, f"r{self.node_id}", index, term, digest))

    def _take(self, data: bytes) -> None:
        """Apply what the library says is to be applied next."""
        self._give(self._entry(self.replica.applied_index + 1), data)

    def _give(self, entry: Entry, data: bytes) -> None:
        self._fact(Applied, entry)
        self._apply(data)

    def _tick_now(self) -> None:
        led = self.replica.leading
        super()._tick_now()
        committed = self.replica.commit_index
        if led or self.replica.leading:  # it may have counted, then given up
            for index in range(self.told_committed + 1, committed + 1):
                self._fact(Committed, self._entry(index))
        self.told_committed = committed


class AppliedAtAppend(Recorded):
    """A node that applies flows as soon as they are in its own log."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - as `Process`
        super().__init__(*arguments, **options)
        self.journal = _TellingStorage(self)

    def _build(self) -> None:
        self.hasty: set[tuple[int, int]] = set()  # index and term of what was applied too early
        super()._build()

    def appended(self, entry: Entry) -> None:
        """Apply an entry that was just appended, if it is about flows."""
        command, index, term = entry
        data = unwrap(command)
        if data is not None and isinstance(decode(data), Flows):
            self.hasty.add((index, term))
            self._give(entry, data)

    def _take(self, data: bytes) -> None:
        _, index, term = self._entry(self.replica.applied_index + 1)
        if (index, term) not in self.hasty:
            super()._take(data)


class _TellingStorage(Storage):
    def __init__(self, process: AppliedAtAppend) -> None:
        super().__init__(process.world.checks, process.node_id)
        self._process = process

    def add(self, command: bytes, idx: int, term: int) -> None:
        super().add(command, idx, term)
        self._process.appended((command, idx, term))
