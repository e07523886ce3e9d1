"""End the flows of the holder's kernel that no longer fit its rules, in slices."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping

from hanat.core.reconcile import Misfit, Rules
from hanat.errors import KernelError
from hanat.kernel.ports import Conntrack, Routes

log = logging.getLogger(__name__)

Reconciled = Callable[[Mapping[str, int]], None]

# Of untranslated flows only; strangers choose addresses, but not how many are remembered.
ROUTES_KEPT_MAX = 10_000


class Reconciliation:
    """One that is under way.

    Args:
        conntrack: The kernel's table.
        routes: Its routing table.
        rules: In force.
        end: Deletes the first flows and marks the second for a reset, here and on the backups;
            returns False if this node stopped holding.
        done: Takes the number of flows that ended, by reason.
    """

    def __init__(
        self,
        conntrack: Conntrack,
        routes: Routes,
        rules: Rules,
        *,
        end: Callable[[list[bytes], list[bytes]], bool],
        done: Reconciled,
    ) -> None:
        self._slices = conntrack.walk(every=True)
        self._routes, self._rules, self._end, self._done = routes, rules, end, done
        self._devices: dict[bytes, str] = {}
        self._counts: Counter[str] = Counter()
        self._over = False

    def stop(self) -> None:
        """Go no further; tell what ended so far."""
        if self._over:
            return
        self._over = True
        if self._counts:
            counts = " ".join(f"{why}={count}" for why, count in sorted(self._counts.items()))
            log.info("flowsync reconciled ended=%d %s", self._counts.total(), counts)
        self._done(self._counts)

    def begin(self) -> None:
        """Read the first slice when the loop has had its turn."""
        asyncio.get_running_loop().call_soon(self.step)

    def step(self) -> None:
        """Read a slice; the loop has its turn before the next."""
        if self._over:
            return
        over = True
        try:
            records = next(self._slices, None)
            if records is not None:
                over = not self._look(records)
        except KernelError as error:
            log.error("flowsync op=reconcile found=%r", str(error))  # noqa: TRY400 - the text says it all
        if over:
            self.stop()
        else:
            self.begin()

    def _look(self, records: list[bytes]) -> bool:
        """End what does not fit; return whether to go on."""
        found: list[bytes] = []
        closing: list[bytes] = []
        reasons: Counter[str] = Counter()
        for record in records:
            why = self._rules.misfit(record, self._device_of)
            if why is not None:
                (closing if why is Misfit.RESET else found).append(record)
                reasons[why.value] += 1
        if reasons and not self._end(found, closing):
            return False
        self._counts += reasons
        return True

    def _device_of(self, address: bytes) -> str:
        device = self._devices.get(address)
        if device is None:
            if len(self._devices) >= ROUTES_KEPT_MAX:
                self._devices.clear()
            device = self._devices[address] = self._routes.device_of(address)
        return device
