"""Look flows up in the kernel's table, in slices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from hanat.core.flow_scope import ReplicationScope
from hanat.core.flow_selection import FlowQuery
from hanat.errors import KernelError
from hanat.worker.worker_channel import Answer


class Query:
    """One that is under way.

    Args:
        slices: What the kernel has, as it is read.
        scope: What is ours.
        selection: What is looked for.
        limit: How many records to return at most; all are counted.
        found: Called with each slice of what fits; returns why there is no going on, or nothing.
        done: Takes the answer.
    """

    def __init__(
        self,
        slices: Iterator[list[bytes]],
        scope: ReplicationScope,
        selection: FlowQuery,
        *,
        limit: int,
        found: Callable[[list[bytes]], str],
        done: Callable[[Answer], None],
    ) -> None:
        self._slices, self._scope, self._selection = slices, scope, selection
        self._limit, self._found, self._done = limit, found, done
        self._records: list[bytes] = []
        self._count = 0

    def step(self) -> None:
        """Read a slice; the loop has its turn before the next."""
        problem = ""
        records: list[bytes] | None = None
        try:
            records = next(self._slices, None)
            if records:
                fitting = list(filter(self._selection.matches, self._scope.covered(records)))
                problem = self._found(fitting)
                if not problem:
                    self._count += len(fitting)
                    self._records += fitting[: self._limit - len(self._records)]
        except KernelError as error:
            problem = str(error)
        if problem or records is None:
            self._done(Answer(self._count, self._records, problem))
        else:
            asyncio.get_running_loop().call_soon(self.step)
