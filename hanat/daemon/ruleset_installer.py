"""Read and install configurations in order, while the loop goes on.

One thread does both, so that a ruleset is installed behind the one before it.
Everything that grants or withdraws a right stays on the loop, by a socket of its own:
to stop answering never waits for a ruleset, but for the kernel's transaction, of
which there is one at a time in a network namespace. So what changes much is installed
in several short ones (`core.steps`).

Who gets new clients changes more often than the configuration: of a rotation nothing is rendered
but the services that it is about, and the tables are not looked at before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from time import thread_time

from hanat.core.configuration import Configuration
from hanat.core.control_traffic import ControlTraffic
from hanat.core.notation import GATE_TABLE, TABLE
from hanat.core.outcomes import DONE, Cause, Done, Failed
from hanat.core.ruleset import Known as KnownScript
from hanat.core.ruleset import render_rotations, render_ruleset
from hanat.core.services import Levels, Rotations, Turns
from hanat.core.steps import (
    SLICE_BYTES,
    Steps,
    has_clients,
    keeping_clients,
    steps,
    without_services,
)
from hanat.daemon.configuration_reader import Known, Read, Scripts, read, render
from hanat.daemon.gate_change import GateChange
from hanat.daemon.realtime import hurried
from hanat.errors import ConfigError, KernelError
from hanat.kernel.ports import FIXED_BYTES, Firewall
from hanat.raft.slow_work import Background

TABLES = (("inet", GATE_TABLE), ("arp", GATE_TABLE), ("inet", TABLE))
GONE = b""  # unlike what any table is like, and unlike none


@dataclass(slots=True)
class _InForce:
    """What the kernel has, as far as we know; a text is empty if that is nothing or unknown.

    Attributes:
        configuration: Whose gate and ruleset were brought into force last.
        scripts: Of it, with the default rotations.
        gate: The gate's script.
        ruleset: The ruleset's script, if it had the default rotations.
        services: Of which configuration `ruleset` has services; None: it has none.
        turns: Who gets clients of them.
        prints: What the tables were like.
        rotated: Those have changed since as rotations do.
    """

    configuration: Configuration | None = None
    scripts: Scripts = ("", "")
    gate: str = ""
    ruleset: str = ""
    services: Configuration | None = None
    turns: Turns = field(default_factory=Turns)
    prints: dict[tuple[str, str], bytes | None] = field(default_factory=dict)
    rotated: bool = False

    @property
    def whole(self) -> bool:
        """Whether gate and ruleset of one configuration are in force."""
        return self.configuration is not None and (self.gate, self.ruleset) == self.scripts


_Before = tuple[Configuration | None, Scripts]
"""What was in force before an installation."""


class RulesetInstaller:
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
        conversation: ControlTraffic,
        gate: GateChange,
        firewall: Firewall,
        background: Background,
        known: tuple[str, Configuration],
    ) -> None:
        self._devices, self._conversation = devices, conversation
        self._gate, self._firewall = gate, firewall
        self._background = background
        # Used by the thread alone from here on.
        self._text, configuration = known
        self._read: Read = (configuration, None)
        self._in_force = _InForce()
        self._turns = Turns()  # the newest that the thread knows
        # Set on the loop before somebody waits for them; taken by the thread after those who wait.
        self._newest = Turns()
        self._waiting: list[Callable[[str | None], None]] = []
        self._is_rotating = False

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
            configuration, scripts = self._read
            if scripts is None and self._in_force.configuration is configuration:
                scripts = self._in_force.scripts
            self._read = read(
                text,
                file=file,
                devices=self._devices,
                conversation=self._conversation,
                known=Known(self._text, configuration, scripts),
                by=self._gate.by,
            )
            self._text = text
        return self._read[0]

    def install(
        self, configuration: Configuration, done: Callable[[Done | Failed, bool], None]
    ) -> None:
        """Install gate and ruleset of a configuration.

        Args:
            configuration: Which one.
            done: Called with how that ended, and whether what was in force before still is.
        """

        def ended(error: BaseException | None) -> None:
            _raise_unforeseen(error)
            done(DONE if error is None else Failed(Cause.KERNEL, str(error)), kept[0])

        kept = [False]
        self._background(partial(self._install_or_keep, configuration, kept), ended)

    def _install_or_keep(self, configuration: Configuration, kept: list[bool]) -> None:
        with hurried():
            was = self._look_before()
            try:
                self._bring(was, configuration, self._scripts(configuration))
            finally:
                kept[0] = self._in_force.whole

    def rotate(self, rotations: Rotations, done: Callable[[str | None], None]) -> None:
        """Let these servers get new clients, of the configuration in force and of later ones.

        What is called while another one is under way waits for it, and only the newest is
        installed then. If no configuration is in force, the next one will have these rotations.

        Args:
            rotations: All of them; a service without an entry has its default.
            done: Called with why that failed, None if these or newer ones are in force. They are
                tried again with the next configuration that is installed, and the next rotation.
        """
        was = self._newest.rotations
        levels = {
            place: table
            for place, table in self._newest.levels.items()
            if rotations.get(place[0]) == was.get(place[0])
        }
        self._turn(Turns(dict(rotations), levels), done)

    def level(self, tables: Levels, done: Callable[[str | None], None]) -> None:
        """Let some services by counts have these tables, until they get another rotation.

        It is like `rotate`, and waits together with it. Elements of maps are all that changes.

        Args:
            tables: As `schedulers.level` makes them of the newest rotation; others change nothing.
            done: As of `rotate`.
        """
        self._turn(Turns(self._newest.rotations, {**self._newest.levels, **tables}), done)

    def _turn(self, newest: Turns, done: Callable[[str | None], None]) -> None:
        self._newest = newest
        self._waiting.append(done)
        if not self._is_rotating:
            self._begin_rotation()

    def _begin_rotation(self) -> None:
        taken: list[list[Callable[[str | None], None]]] = []

        def ended(error: BaseException | None) -> None:
            _raise_unforeseen(error)
            self._is_rotating = False
            if self._waiting:
                self._begin_rotation()
            for tell in taken[0]:
                tell(None if error is None else str(error))

        self._is_rotating = True
        self._background(partial(self._rotate_now, taken), ended)

    def _rotate_now(self, taken: list[list[Callable[[str | None], None]]]) -> None:
        there = self._in_force
        taken.append(self._waiting)
        self._waiting = []
        self._turns = self._newest
        if not there.whole or there.services is None:
            return
        with hurried():
            old, new = render_rotations(there.services, there.turns, self._turns)
            plan = steps(old, new)
            assert plan is not None, "rotations change elements of maps, not their types"
            self._follow(plan)
            there.turns = self._turns
            for script in plan.clears:
                self._firewall.apply(script)
            there.rotated |= old != new

    def pass_over(self, done: Callable[[bool], None]) -> None:
        """Install nothing, in its turn; put back what was in force, and tell whether it is."""

        def ended(error: BaseException | None) -> None:
            _raise_unforeseen(error)
            done(kept[0])

        kept = [False]
        self._background(partial(self._keep, kept), ended)

    def _keep(self, kept: list[bool]) -> None:
        with hurried():
            self._put_back(self._look_before())
            kept[0] = self._in_force.whole

    def try_out(
        self,
        configuration: Configuration,
        done: Callable[[str | None], None],
        *,
        bytes_max: int | None = None,
    ) -> None:
        """Let the kernel look at a configuration; tell why it would refuse it or None.

        Args:
            configuration: Which one.
            done: Called with that.
            bytes_max: A longer script is not tried; None: any is.
        """

        def ended(error: BaseException | None) -> None:
            _raise_unforeseen(error)
            done(None if error is None else str(error))

        self._background(partial(self._try_now, configuration, bytes_max), ended)

    def _scripts(self, configuration: Configuration) -> Scripts:
        if self._in_force.configuration is configuration:
            return self._in_force.scripts
        known, scripts = self._read
        if known is not configuration or scripts is None:
            scripts = render(configuration, self._devices, self._conversation, by=self._gate.by)
        assert scripts is not None, f"no device for one of {configuration.interfaces}"
        return scripts

    def _try_now(self, configuration: Configuration, bytes_max: int | None) -> None:
        gate, ruleset = self._scripts(configuration)
        there = self._in_force
        ruleset = self._rotated(configuration, ruleset, self._turns)
        plan = _planned(self._present(), ruleset)
        # The switch of a large change leads to chains that are not there yet.
        found = [ruleset] if plan is None else [*(plan.builds or [plan.switch])]
        scripts = [gate if gate != there.gate else "", *found]
        if bytes_max is not None and sum(map(len, scripts)) > bytes_max:
            return
        with hurried():
            for script in filter(None, scripts):
                self._firewall.check(script)

    def _look_before(self) -> _Before:
        """Return what was in force, and forget what somebody changed of it."""
        before = self._in_force.configuration, self._in_force.scripts
        self._forget(self._changed())
        if self._missing_now():
            self._in_force.gate = ""
        return before

    def _bring(self, was: _Before, configuration: Configuration, scripts: Scripts) -> None:
        there = self._in_force
        try:
            self._put(configuration, *scripts)
        except (KernelError, OSError):
            # Each was applied as a whole or not at all, or somebody took it away: gate and
            # ruleset before must be in force. If they are not, `whole` says so.
            if was[1] != scripts:
                with contextlib.suppress(KernelError, OSError):
                    self._put_back(was)
            raise
        there.configuration, there.scripts = configuration, scripts

    def _put_back(self, was: _Before) -> None:
        configuration, scripts = was
        if configuration is not None and not self._in_force.whole:
            self._put(configuration, *scripts)

    def _put(self, configuration: Configuration, gate: str, ruleset: str) -> None:
        """Bring both into force: no ruleset without a gate, no other gate before its ruleset."""
        there = self._in_force
        old = there.gate
        if not there.gate:
            self._install_gate(gate, configuration)
        replaced = there.ruleset != ruleset or there.turns != self._turns
        if replaced:
            self._replace(configuration, ruleset)
        if there.gate != gate:
            self._install_gate(gate, configuration)
        renewed = {GATE_TABLE: gate != old, TABLE: replaced}
        self._note({name for name, is_new in renewed.items() if is_new})

    def _install_gate(self, gate: str, configuration: Configuration) -> None:
        self._gate.install(gate, configuration)
        self._in_force.gate = gate

    def _note(self, renewed: set[str]) -> None:
        """Remember what the tables are like that were brought up to date, by their names.

        The others were looked at before: what somebody did to them meanwhile is found by the next
        look, and so is it if one of those is gone already.
        """
        there = self._in_force
        for table in TABLES:
            if table[1] in renewed or table not in there.prints:
                there.prints[table] = self._firewall.fingerprint(*table) or GONE
                there.rotated &= table[1] != TABLE

    def _replace(self, configuration: Configuration, ruleset: str) -> None:
        """Bring a ruleset into force with the newest rotations, or leave the one that is."""
        there = self._in_force
        turns = self._turns
        wanted = self._rotated(configuration, ruleset, turns)
        plan = _planned(self._present(), wanted)
        if plan is None:
            there.ruleset = ""
            first = wanted if len(wanted) <= SLICE_BYTES else without_services(wanted)
            self._replace_table(first, wanted)
            there.ruleset, there.services = first, None
            plan = _planned(first, wanted)
        assert plan is not None, "what a ruleset is without its services can become that ruleset"
        self._follow(plan)
        there.ruleset, there.services, there.turns = ruleset, configuration, turns
        for script in plan.clears:
            self._firewall.apply(script)

    def _replace_table(self, script: str, wanted: str) -> None:
        """Replace what is there, whatever it is; but clients stay with their servers."""
        if has_clients(wanted):
            kept = keeping_clients(script, wanted, self._firewall.names("inet", TABLE))
            with contextlib.suppress(KernelError):  # what is there is not as we left it
                self._firewall.apply(kept)
                return
        self._firewall.apply(script)

    def _present(self) -> str:
        """Return the script of the ruleset that is in force."""
        there = self._in_force
        return self._rotated(there.services, there.ruleset, there.turns)

    def _rotated(self, configuration: Configuration | None, ruleset: str, turns: Turns) -> str:
        """Return a script of the default rotations with others."""
        if configuration is None or not ruleset or not turns:
            return ruleset
        with hurried():
            return render_ruleset(
                configuration,
                self._devices,
                self._conversation,
                rotations=turns.rotations,
                levels=turns.levels,
                known=KnownScript(configuration, ruleset),
            )

    def _follow(self, plan: Steps) -> None:
        try:
            for script in (*plan.builds, plan.switch):
                if script:
                    self._firewall.apply(script)
        except KernelError:
            for script in plan.undo:
                with contextlib.suppress(KernelError):  # it was not built
                    self._firewall.apply(script)
            raise

    def _forget(self, changed: list[tuple[str, str]]) -> None:
        """What somebody changed has to be installed anew."""
        if any(name == GATE_TABLE for _, name in changed):
            self._in_force.gate = ""
        if any(name == TABLE for _, name in changed):
            self._in_force.ruleset = ""

    def _changed(self) -> list[tuple[str, str]]:
        with hurried():
            return [table for table in self._in_force.prints if not self._is_as_it_was(*table)]

    def _is_as_it_was(self, family: str, name: str) -> bool:
        there = self._in_force
        known, found = there.prints[family, name], self._firewall.fingerprint(family, name)
        if known and found and there.rotated and name == TABLE:
            # Nobody looked between rotations: services may have changed, and nothing else.
            if known[:FIXED_BYTES] != found[:FIXED_BYTES]:
                return False
            there.prints[family, name], there.rotated = found, False
            return True
        return known == found

    def look(self, done: Callable[[tuple[str, ...], float], None]) -> None:
        """Compare our tables with what was installed.

        Args:
            done: Takes what became of those that differ, and how long a processor took [s].
        """
        found: list[str] = []
        spent = [0.0]

        def work() -> None:
            began = thread_time()
            found.extend(self._look_now())
            spent[0] = thread_time() - began

        def ended(error: BaseException | None) -> None:
            _raise_unforeseen(error)
            done(tuple(found), spent[0])

        self._background(work, ended)

    def look_at_gate(self, done: Callable[[tuple[str, ...]], None]) -> None:
        """Tell what somebody took away of the gate that is no table."""
        found: list[str] = []

        def ended(error: BaseException | None) -> None:
            _raise_unforeseen(error)
            done(tuple(found))

        self._background(lambda: found.extend(self._missing_now()), ended)

    def _missing_now(self) -> tuple[str, ...]:
        return self._gate.missing() if self._in_force.gate else ()

    def _look_now(self) -> list[str]:
        there = self._in_force
        if not there.gate or not there.ruleset:
            return []  # it was refused, and is tried again
        tables = [
            f"table {family} {name} {'changed' if self._is_there(family, name) else 'gone'}"
            for family, name in self._changed()
        ]
        return [*tables, *self._missing_now()]

    def _is_there(self, family: str, name: str) -> bool:
        return self._firewall.fingerprint(family, name) is not None


def _raise_unforeseen(error: BaseException | None) -> None:
    """Pass what the kernel refused; anything else is a mistake of ours."""
    if error is not None and not isinstance(error, (KernelError, OSError)):
        raise error


def _planned(old: str, new: str) -> Steps | None:
    if not old:
        return None
    with hurried():
        return steps(old, new)
