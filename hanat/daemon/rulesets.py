"""Read and install configurations in order, while the loop goes on.

One thread does both, so that a ruleset is installed behind the one before it.
Everything that grants or withdraws a right stays on the loop, by a socket of its own:
to stop answering never waits for a ruleset, but for the kernel's transaction, of
which there is one at a time in a network namespace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from hanat.consensus.background import Background
from hanat.core.configuration import Configuration
from hanat.core.conversation import Conversation
from hanat.core.notation import GATE_TABLE, TABLE
from hanat.daemon.gate_change import GateChange
from hanat.daemon.reading import Read, Scripts, read, render
from hanat.errors import ConfigError, KernelError
from hanat.kernel.ports import Firewall

TABLES = (("inet", GATE_TABLE), ("arp", GATE_TABLE), ("inet", TABLE))


class Rulesets:
    """Reads texts and installs what they say.

    Args:
        devices: Logical name to kernel device.
        conversation: How this node and its peers reach each other.
        gate: Where its tables are brought up to date.
        firewall: Where rulesets are applied.
        background: Does one work after the other, off the loop.
        known: A text that was read already, and what it says.
    """

    def __init__(
        self,
        devices: Mapping[str, str],
        *,
        conversation: Conversation,
        gate: GateChange,
        firewall: Firewall,
        background: Background,
        known: tuple[str, Configuration],
    ) -> None:
        self._devices, self._conversation = devices, conversation
        self._gate, self._firewall = gate, firewall
        self._background = background
        self._doubts = 0
        # Used by the thread alone from here on.
        self._text, configuration = known
        self._read: Read = (configuration, None)
        self._installed: tuple[Configuration, int] | None = None  # and the doubts there were
        self._drifted = False
        self._listed: dict[tuple[str, str], str | None] = {}  # then

    def doubt(self) -> None:
        """The kernel refused something: nobody knows what is installed."""
        self._doubts += 1

    def read(
        self, text: str, *, file: str, done: Callable[[Configuration | ConfigError], None]
    ) -> None:
        """Read a text, then tell what it says or what is wrong with it."""
        found: list[Configuration] = []

        def ended(error: BaseException | None) -> None:
            if error is not None and not isinstance(error, ConfigError):
                raise error
            done(found[0] if error is None else error)

        self._background(lambda: found.append(self._read_now(text, file)), ended)

    def _read_now(self, text: str, file: str) -> Configuration:
        if text != self._text:
            self._read = read(
                text, file=file, devices=self._devices, conversation=self._conversation
            )
            self._text = text
        return self._read[0]

    def install(
        self, configuration: Configuration, done: Callable[[str | None, bool], None]
    ) -> None:
        """Install gate and ruleset of a configuration.

        Args:
            configuration: Which one.
            done: Called with why that failed, None if it did not; and whether what was in
                force before still is.
        """

        def ended(error: BaseException | None) -> None:
            if error is not None and not isinstance(error, (KernelError, OSError)):
                raise error
            done(None if error is None else str(error), kept[0])

        kept: list[bool] = []
        self._background(partial(self._install_or_keep, configuration, self._doubts, kept), ended)

    def _install_or_keep(self, configuration: Configuration, doubts: int, kept: list[bool]) -> None:
        try:
            self._install_now(configuration, doubts)
        finally:
            kept.append(self._installed is not None)

    def pass_over(self, done: Callable[[bool], None]) -> None:
        """Install nothing, in its turn; tell whether what was in force is."""
        kept: list[bool] = []
        self._background(lambda: kept.append(self._installed is not None), lambda _: done(kept[0]))

    def try_out(self, configuration: Configuration, done: Callable[[str | None], None]) -> None:
        """Let the kernel look at a configuration; tell why it would refuse it or None."""

        def ended(error: BaseException | None) -> None:
            if error is not None and not isinstance(error, (KernelError, OSError)):
                raise error
            done(None if error is None else str(error))

        self._background(partial(self._try_now, configuration), ended)

    def _scripts(self, configuration: Configuration) -> Scripts:
        known, scripts = self._read
        if known is not configuration or scripts is None:
            scripts = render(configuration, self._devices, self._conversation)
        assert scripts is not None, f"no device for one of {configuration.interfaces}"
        return scripts

    def _try_now(self, configuration: Configuration) -> None:
        for script in self._scripts(configuration):
            self._firewall.check(script)

    def _install_now(self, configuration: Configuration, doubts: int) -> None:
        wanted = (configuration, doubts)
        if wanted == self._installed and not self._drifted:
            return
        was = self._installed if not self._drifted else None
        self._installed = None
        gate, ruleset = self._scripts(configuration)
        try:
            self._gate.install(gate, configuration)
            self._firewall.apply(ruleset)
        except (KernelError, OSError):
            # Each was applied as a whole or not at all: the ruleset before is in force, and
            # its gate must be as well.
            if was is not None and was[0] is not configuration:
                self._gate.install(self._scripts(was[0])[0], was[0])
                self._installed = (was[0], doubts)
            raise
        self._listed = {table: self._firewall.steady(*table) for table in TABLES}
        self._installed, self._drifted = wanted, False

    def look(self, done: Callable[[tuple[str, ...]], None]) -> None:
        """Compare our tables with what was installed; tell what became of those that differ."""
        found: list[str] = []

        def ended(error: BaseException | None) -> None:
            if error is not None and not isinstance(error, (KernelError, OSError)):
                raise error
            done(tuple(found))

        self._background(lambda: found.extend(self._look_now()), ended)

    def _look_now(self) -> list[str]:
        if self._installed is None:
            return []  # it was refused, and is tried again
        found = []
        for (family, name), wanted in self._listed.items():
            listed = self._firewall.steady(family, name)
            if listed is None or listed != wanted:
                found.append(f"table {family} {name} {'changed' if listed else 'gone'}")
        self._drifted = bool(found)
        return found
