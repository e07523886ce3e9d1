"""How long a fault of the holder is felt: ``python -m benchmarks.failover``.

For every fault a number of trials on the lab of `chaos`, printed as a Markdown table, median /
maximum. All systems and faults take turns, so that whatever else the machine does meets
all of them; the row without a fault is the noise of the machine in the same run, and how much
of the machine others used is measured before each trial. Needs root. Takes about 12 s a trial.

Exit codes: 0 everything was measured and hanat never had two holders, 1 not so, 2 this machine
or the command line is not fit.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from benchmarks import keepalived, load, table, trial
from benchmarks.cases import CASES
from benchmarks.figures import ENDLESS, Figures
from benchmarks.flood import Loaded
from benchmarks.systems import SETTLE_S, Hanat, System, other_build
from chaos.lab.lab import require_machine
from chaos.lab.lab_error import LabError, UsageError
from chaos.lab.removal import remove_lab

PREFIX = "hanat-bench"


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one trial: figures, or why there are none.

    Attributes:
        busy: The share of the machine that others used just before, 0 to 1.
    """

    system: str
    fault: str
    busy: float
    figures: Figures | None = None
    error: str | None = None


@dataclass(slots=True)
class Results:
    """All trials so far, stored after each one if there is a file."""

    file: Path | None
    trials: list[Trial] = field(default_factory=list)

    def add(self, one: Trial) -> None:
        """Keep a trial."""
        self.trials.append(one)
        if self.file is not None:
            draft = self.file.with_name(self.file.name + ".part")
            draft.write_text(json.dumps(self.document(), indent=1) + "\n")
            draft.rename(self.file)

    def document(self) -> dict[str, Any]:
        """Return what the JSON file holds; times that did not end are null."""
        trials = [_without_infinity(asdict(one)) for one in self.trials]
        return {"machine": machine(), "trials": trials}

    def tables(self) -> str:
        """Return one Markdown table a system."""
        names = list(dict.fromkeys(one.system for one in self.trials))
        tables = [table.markdown(name, self._rows(name)) for name in names]
        where = ", ".join(f"{key} {value}" for key, value in machine().items())
        others = table.spread([100 * one.busy for one in self.trials])
        tables.append(f"Median / maximum. {where}; others used {others} % of the machine before.")
        return "\n\n".join(tables)

    def _rows(self, system: str) -> list[table.Row]:
        rows = []
        for fault, case in CASES.items():
            mine = [t for t in self.trials if (t.system, t.fault) == (system, fault)]
            if mine:
                found = [t.figures for t in mine if t.figures is not None]
                failed = [t.error for t in mine if t.error is not None]
                rows.append(table.Row(case.label, found, failed))
        return rows

    @property
    def good(self) -> bool:
        """Whether everything was measured and hanat never had two holders."""
        return all(
            t.figures is not None and (t.figures.two_ms == 0 or t.system.startswith("keepalived"))
            for t in self.trials
        )


def _without_infinity(value: Any) -> Any:  # noqa: ANN401 - whatever JSON can hold
    if isinstance(value, dict):
        return {key: _without_infinity(item) for key, item in value.items()}
    return None if value == ENDLESS else value


def machine() -> dict[str, object]:
    """Return where this was measured."""
    return {
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def systems(options: argparse.Namespace) -> Mapping[str, Callable[[], System]]:
    """Return what is compared, by its title; every trial makes a new one."""
    chosen: dict[str, Callable[[], System]] = {
        f"hanat, profile {options.profile}": partial(Hanat, options.prefix, options.profile)
    }
    for command in options.beside:
        title = f"{shlex.join(command)}, profile {options.profile}"
        chosen[title] = partial(Hanat, options.prefix, options.profile, other_build(command))
    for flows in options.flows:
        title = f"hanat, profile {options.profile}, {flows} flows"
        chosen[title] = partial(Loaded, options.prefix, options.profile, flows)
    for advert_s in options.keepalived or ():
        title = f"keepalived, advert_int {advert_s:g} s"
        chosen[title] = partial(keepalived.Keepalived, options.prefix, advert_s)
    return chosen


def measure_all(options: argparse.Namespace, results: Results) -> None:
    """Run all trials in turns; what cannot be measured is told and does not end the run."""
    faults = options.fault or list(CASES)
    compared = systems(options)
    total = options.trials * len(compared) * len(faults)
    for round_ in range(1, options.trials + 1):
        for title, make in compared.items():
            for fault in faults:
                one = measure_one(title, make, fault, patience_s=options.patience)
                results.add(one)
                _say(
                    f"{len(results.trials)}/{total} {title}, {fault}, round {round_}: {_brief(one)}"
                )


def measure_one(
    title: str, make: Callable[[], System], fault: str, *, patience_s: float = 0.0
) -> Trial:
    """Run one trial, as soon as the machine is quiet or patience ends."""
    busy = load.wait_for_quiet(patience_s)
    try:
        return Trial(title, fault, busy, figures=trial.run(make(), CASES[fault]))
    except UsageError:
        raise
    except LabError as error:
        return Trial(title, fault, busy, error=str(error).replace("\n", " "))


def _brief(one: Trial) -> str:
    found = one.figures
    if found is None:
        return f"FAILED {one.error}"
    return (
        f"lost {_both(found.lost)}, gap {_both(found.gap_ms)} ms, new {_both(found.new_ms)} ms, "
        f"two holders {table.number(found.two_ms)} ms, {len(found.tcp_dead)} TCP dead, "
        f"{found.changes} changes"
    )


def _both(values: Mapping[str, float]) -> str:
    return "/".join(table.number(value) for value in values.values())


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        UsageError: The file cannot be written.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.failover", description=__doc__)
    parser.add_argument("--profile", choices=SETTLE_S, default="fast", help="(default: fast)")
    parser.add_argument("--trials", type=_count, default=20, help="a fault (default: 20)")
    parser.add_argument(
        "--fault", nargs="+", choices=CASES, metavar="NAME", help=f"of {', '.join(CASES)}"
    )
    parser.add_argument(
        "--keepalived", nargs="*", type=_advert, metavar="SECONDS",
        help="compare with keepalived and conntrackd, with these advert intervals "
        f"(default: {' '.join(f'{s:g}' for s in keepalived.ADVERTS_S)})",
    )  # fmt: skip
    parser.add_argument(
        "--flows", nargs="*", type=int, default=[], metavar="COUNT",
        help="also with so many established connections in all tables",
    )  # fmt: skip
    parser.add_argument(
        "--beside", nargs="+", type=shlex.split, default=[], metavar="COMMAND",
        help="other builds of hanat to compare with, such as OTHER/.venv/bin/hanat of a checkout",
    )  # fmt: skip
    parser.add_argument(
        "--patience", type=float, default=0.0, metavar="SECONDS",
        help="before each trial, how long to wait for others to use less than "
        f"{load.QUIET:.0%}% of the machine (default: 0)",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep every trial's figures")
    parser.add_argument("--prefix", default=PREFIX, help="of the lab (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.keepalived == []:
        options.keepalived = list(keepalived.ADVERTS_S)
    if options.json is not None and not options.json.resolve().parent.is_dir():
        folder = options.json.resolve().parent
        raise UsageError(f"cannot write {options.json}: there is no folder {folder}")
    return options


def _count(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f'"{text}" is no number of trials; 1 or more')
    return int(text)


def _advert(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.01 <= seconds <= 40.95:  # RFC 5798, section 5.2.7: 12 bits of centiseconds
        raise argparse.ArgumentTypeError(f'"{text}" is no advert interval; 0.01 to 40.95 seconds')
    return seconds


def _interrupted(_number: int, _frame: FrameType | None) -> NoReturn:
    _on_signals(signal.SIG_IGN)  # a second Ctrl-C must not leave half a lab behind
    raise KeyboardInterrupt


def _on_signals(handler: signal.Handlers | Callable[[int, FrameType | None], NoReturn]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handler)


def main() -> int:
    """Measure, print the tables, return the exit code."""
    _on_signals(_interrupted)
    try:
        options = parse()
        require_machine()
        if options.keepalived:
            keepalived.require_programs()
        results = Results(options.json)
        try:
            measure_all(options, results)
        except KeyboardInterrupt:
            remove_lab(options.prefix)  # again: the first time may be what was interrupted
            _say("interrupted; the lab was removed, what was measured follows")
            print(results.tables())
            return 130  # as a shell reports SIGINT
    except LabError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return error.exit_code
    print(results.tables())
    return 0 if results.good else 1


if __name__ == "__main__":
    sys.exit(main())
