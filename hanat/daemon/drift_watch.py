"""Look whether other programs changed what this node needs of its kernel.

The kernel tells of changed rules at once; all is looked at every few seconds as well. A
look lists our tables in the thread that installs them, and costs the loop nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from hanat.core.drift import REPAIR_GAP_S, Settings, settings_of
from hanat.core.inputs import Input, RulesetDrifted, SettingsDrifted
from hanat.daemon.ruleset_installer import RulesetInstaller
from hanat.kernel.ports import Changed, KernelSettings, RulesetWatch

PERIOD_S = 5.0
GATE_PERIOD_S = 1.0  # the kernel tells nobody of programs that go
GAP_S = 0.25  # between two looks, whatever the kernel tells
# Another program may change its rules all day long. A look at a thousand services takes 20 ms of a
# processor, so the next one waits a hundred times as long as the last one took of it. How long that
# one had to wait does not count: least of all does a busy machine bear to wait longer.
GAP_LOOKS = 100
# Tables do not go all day long, and if it is one of ours nothing is translated meanwhile.
GONE_GAP_S, GONE_GAP_LOOKS = 0.02, 4


class DriftWatch:
    """Tells the core what drifted.

    Args:
        watch: Becomes readable when rules changed.
        rulesets: Knows what is installed.
        settings: The kernel's.
        devices: Those of hanat.
        feed: Takes inputs of the core.
    """

    def __init__(
        self,
        watch: RulesetWatch,
        rulesets: RulesetInstaller,
        settings: KernelSettings,
        *,
        devices: Iterable[str],
        feed: Callable[[Input], None],
    ) -> None:
        self._watch, self._rulesets, self._feed = watch, rulesets, feed
        self._settings, self._paths = settings, settings_of(tuple(sorted(set(devices))))
        self._known = Settings()
        self._looking = self._again = False
        self._looked_at = self._spent_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._gate_timer: asyncio.TimerHandle | None = None

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look from now on."""
        self._loop = loop
        loop.add_reader(self._watch.fileno(), self._changed)
        self._look()
        self._look_at_gate_later()

    def close(self) -> None:
        """Stop."""
        for timer in (self._timer, self._gate_timer):
            if timer is not None:
                timer.cancel()
        self._loop.remove_reader(self._watch.fileno())
        self._watch.close()

    def _changed(self) -> None:
        changed = self._watch.read()
        if changed is Changed.NOTHING:
            return
        least_s, looks = GAP_S, GAP_LOOKS
        if changed is Changed.TABLES:
            least_s, looks = GONE_GAP_S, GONE_GAP_LOOKS
        gap_s = min(PERIOD_S, max(least_s, looks * self._spent_s))
        self._look_in(max(0.0, self._looked_at + gap_s - self._loop.time()))

    def _look_at_gate_later(self) -> None:
        self._gate_timer = self._loop.call_at(self._loop.time() + GATE_PERIOD_S, self._look_at_gate)

    def _look_at_gate(self) -> None:
        self._gate_timer = None
        self._rulesets.look_at_gate(self._gate_looked)

    def _gate_looked(self, found: tuple[str, ...]) -> None:
        if found:
            self._feed(RulesetDrifted(found))
        self._look_at_gate_later()

    def _look_in(self, delay_s: float) -> None:
        """Look then, or earlier if that was planned."""
        at = self._loop.time() + delay_s
        if self._timer is not None:
            at = min(at, self._timer.when())
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._look)

    def _look(self) -> None:
        self._timer, self._looked_at = None, self._loop.time()
        self._look_in(PERIOD_S)
        if found := self._known.look(self._settings.read(self._paths)):
            self._feed(SettingsDrifted(found))
            self._look_in(REPAIR_GAP_S)
        if self._looking:
            self._again = True  # what changed since that look began is not seen by it
            return
        self._looking = True
        self._rulesets.look(self._looked)

    def _looked(self, found: tuple[str, ...], spent_s: float) -> None:
        self._looking, self._spent_s = False, spent_s
        if self._again:
            self._again = False
            self._look_in(0.0)
        if found:
            self._feed(RulesetDrifted(found))
            self._look_in(REPAIR_GAP_S)
