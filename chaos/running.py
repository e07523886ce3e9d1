"""``python -m chaos run``: options, the run folder, what is printed, the exit code."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos import campaign
from chaos.campaign import Campaign, Settings
from chaos.faults.attack import Nemesis
from chaos.faults.nemeses import NEMESES, select
from chaos.judge import verdicts
from chaos.judge.availability import times_by_nemesis, worst_by_nemesis
from chaos.judge.spells import acts, spells
from chaos.judge.verdicts import Judgement
from chaos.lab import equipment
from chaos.lab.lab import Lab, require_machine
from chaos.lab.lab_error import UsageError
from chaos.lab.processes import marked
from chaos.lab.removal import prefix_option
from chaos.observe import run_history
from chaos.report import page

TIME_S_MIN = 20.0
TIME_S_MAX = 24 * 3600.0
EXIT_INTERRUPTED = 130  # as a shell reports SIGINT
MARKS = {True: "ok  ", False: "FAIL", "unknown": "?   "}

DESCRIPTION = """\
Break a cluster by a plan that follows from the seed, under traffic, and judge it by its packets.

exit codes: 0 valid; 1 not valid, or it could not be run; 2 this machine or the command line is
not fit; 3 unknown: nothing was found, but something could not be judged; 130 interrupted (what
was done is undone, the report is written).
"""


def add_parser(
    commands: Any,  # noqa: ANN401 - argparse keeps the type to itself
    parents: list[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    """Add the command to those of ``python -m chaos``."""
    lines = [f"  {n.name:<17} {n.summary}" for n in NEMESES.values()]
    parser: argparse.ArgumentParser = commands.add_parser(
        "run",
        parents=parents,
        help="random faults under traffic, judged by packets",
        description=DESCRIPTION,
        epilog="nemeses:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--nemesis", default="all", metavar="NAMES",
        help="all, none, or some of those below, separated by commas; a family such as "
        '"link" means all of it (default: %(default)s)',
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, help="the plan follows from it (default: by the clock, and printed)"
    )
    parser.add_argument(
        "--time", type=float, default=60.0, metavar="SECONDS",
        help="of traffic; starting, stopping and judging come on top (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--away", action="store_true",
        help="the node that two-of-three takes away stays away for the whole run",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, help="folder for the run, new (default: a fresh one in /tmp)"
    )
    return parser


@dataclass(slots=True)
class _Run:
    options: argparse.Namespace
    campaign: Campaign
    lab: Lab
    out: Path


def run(
    options: argparse.Namespace, make_lab: Callable[[list[str]], Lab], hush: Callable[[], None]
) -> int:
    """Do it all; return the exit code.

    Args:
        options: The command line.
        make_lab: Prepares the lab that the options describe, from what is to stand before the
            command of every node.
        hush: Makes this process deaf to further signals.
    """
    settings, left_out = _settings(options)
    require_machine()
    needs = {nemesis.needs for nemesis in settings.nemeses}
    lab = make_lab(equipment.wrapping(needs))
    out = _folder(options, settings)
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begun:6.1f} s  {text}", flush=True)

    print(f"chaos: seed={settings.seed} replay: {replay(options, settings)}", flush=True)
    for line in left_out:
        say(line)
    this = _Run(options, Campaign(settings, say), lab, out)
    left: list[str] = []
    try:
        lab.build()
        equipment.equip(lab, needs)
        campaign.perform(lab, this.campaign)
    except UsageError:
        raise
    except campaign.FAILURES as error:
        this.campaign.problem = str(error)
    except KeyboardInterrupt:
        this.campaign.problem, this.campaign.interrupted = "interrupted", True
    finally:
        hush()
        try:
            _write_history(this)  # before all that may fail
        finally:
            left = _clear_away(this)
    judgement = verdicts.judge(this.campaign, tuple(lab.nodes), left)
    _write(this, judgement)
    print("\n".join(told(judgement)))
    print(_last_line(this, judgement), flush=True)
    return EXIT_INTERRUPTED if this.campaign.interrupted else judgement.exit_code


def _settings(options: argparse.Namespace) -> tuple[Settings, list[str]]:
    """Return what is asked for, and what of it was left out, one line each."""
    words = [word.strip() for word in options.nemesis.split(",")]
    nemeses, left_out = _possible(select(options.nemesis), words)
    if options.away and not any(nemesis.inner for nemesis in nemeses):
        nemeses += tuple(nemesis for nemesis in NEMESES.values() if nemesis.inner)
    if not TIME_S_MIN <= options.time <= TIME_S_MAX:
        raise UsageError(
            f"--time {options.time:g} is not possible: from {TIME_S_MIN:.0f} (flows have to be "
            f"established, and the end to be quiet) to {TIME_S_MAX:.0f} seconds"
        )
    seed = options.seed if options.seed is not None else time.monotonic_ns() // 1000 % 100_000
    return Settings(seed, nemeses, options.time, options.profile, options.away), left_out


def _possible(
    nemeses: Sequence[Nemesis], words: Sequence[str]
) -> tuple[tuple[Nemesis, ...], list[str]]:
    """Leave out what this machine cannot do, if it was not asked for by name."""
    kept: list[Nemesis] = []
    left_out: list[str] = []
    for nemesis in nemeses:
        lacks = equipment.missing(nemesis.needs)
        if lacks is None:
            kept.append(nemesis)
        elif nemesis.name in words or "all" not in words:
            raise UsageError(f"nemesis {nemesis.name} is not possible here: {lacks}")
        else:
            left_out.append(f"without {nemesis.name}: {lacks}")
    return tuple(kept), left_out


def replay(options: argparse.Namespace, settings: Settings) -> str:
    """Return the command that does the same again."""
    asked = options.nemesis
    if tuple(settings.nemeses) != select(asked):
        # The plan follows from what was left, and another machine may lack something else.
        asked = ",".join(nemesis.name for nemesis in settings.nemeses) or "none"
    words = ["python", "-m", "chaos", "run", "--nemesis", asked]
    words += ["--seed", str(settings.seed), "--time", f"{settings.time_s:g}"]
    words += ["--profile", settings.profile, *(["--away"] if settings.lasting else [])]
    if options.hanat:
        words += ["--hanat", shlex.join(options.hanat)]
    return shlex.join(words) + prefix_option(options.prefix)


def _folder(options: argparse.Namespace, settings: Settings) -> Path:
    """Create the folder of the run.

    Raises:
        UsageError: It is there already, or cannot be made.
    """
    if options.out is None:
        name = f"{options.prefix}-run-{settings.seed}-"
        return Path(tempfile.mkdtemp(prefix=name))
    out: Path = options.out.resolve()
    try:
        out.mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"cannot create {out}: {error.strerror}; choose a new folder") from error
    return out


def _clear_away(this: _Run) -> list[str]:
    """Keep the logs, remove the lab; return what is left on the machine all the same."""
    left = []
    try:
        if this.lab.built:
            this.lab.save(this.out / "lab")
            shutil.rmtree(this.out / "lab" / "history", ignore_errors=True)  # merged into one
    except OSError as error:
        this.campaign.say(f"cannot keep the logs: {error}")
    try:
        this.lab.remove()
    except campaign.FAILURES as error:
        left.append(str(error))
    left += [f"network namespace {name} is left" for name in this.lab.topology.present()]
    left += [f"process {process.pid} is left" for process in marked(this.lab.prefix)]
    return left


def _write_history(this: _Run) -> None:
    with (this.out / "history.jsonl").open("w") as file:
        for fact in this.campaign.facts:
            run_history.write(file, fact)


def _write(this: _Run, judgement: Judgement) -> None:
    found = document(this.campaign, judgement)
    (this.out / "result.json").write_text(json.dumps(found, indent=1) + "\n")
    settings = this.campaign.settings
    title = f"seed {settings.seed}, profile {settings.profile}, {settings.time_s:g} s"
    command = replay(this.options, settings)
    html = page.page(title, command, judgement, found["outage_ms"])
    (this.out / "report.html").write_text(html)
    _write_captures(this.out / "captures.json", judgement)


def _write_captures(file: Path, judgement: Judgement) -> None:
    """Write who held and carried, as the captures on both bridges say, without each frame."""
    found = judgement.history
    held = spells(acts(found))
    seen = [f"arp {a.router} {a.network}" for a in found.arp]
    seen += [f"admission {a.router} {a.network}" for a in found.admissions]
    seen += [f"carried {c.router} {c.network}" for c in found.carried]
    summary = {
        "spells": [{"router": s.router, "start_ns": s.start_ns, "end_ns": s.end_ns} for s in held],
        "frames": dict(sorted(Counter(seen).items())),
        "announcements": sum(a.gratuitous for a in found.arp),
        "stalls_ms": [round(s.late_ns / 1e6, 1) for s in found.stalls],
    }
    file.write_text(json.dumps(summary, indent=1) + "\n")


def document(done: Campaign, judgement: Judgement) -> dict[str, Any]:
    """Return what ``result.json`` holds: settings, verdicts, figures."""
    settings = done.settings
    return {
        "seed": settings.seed,
        "profile": settings.profile,
        "time_s": settings.time_s,
        "nemeses": [n.name for n in settings.nemeses],
        "valid": judgement.valid,
        "problem": done.problem,
        "faults": len(done.injections),
        "outage_ms": worst_by_nemesis(judgement.history, judgement.cut, campaign.PROBED),
        "times": times_by_nemesis(judgement.history, judgement.cut),
        "verdicts": [
            {"name": v.name, "valid": v.valid, "summary": v.summary, "evidence": dict(v.evidence)}
            for v in judgement.verdicts
        ],
    }


def told(judgement: Judgement) -> list[str]:
    """Return the verdicts for a terminal."""
    lines = [f"  {MARKS[v.valid]} {v.name:<15} {v.summary}" for v in judgement.verdicts]
    return ["", *lines, ""]


def _last_line(this: _Run, judgement: Judgement) -> str:
    words = {True: "valid", False: "NOT VALID", "unknown": "unknown"}
    bad = [v.name for v in judgement.verdicts if v.valid is not True]
    names = f" ({', '.join(bad)})" if bad else ""
    verdict = words[judgement.valid]
    faults = len(this.campaign.injections)
    return f"chaos: {verdict}{names} seed={this.campaign.settings.seed} faults={faults} {this.out}"
