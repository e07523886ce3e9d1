"""``python -m chaos compare DIR...``: what several runs found, side by side."""

from __future__ import annotations

import argparse
import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chaos.lab.lab_error import LabError

WORDS = {True: "ok", False: "FAIL", "unknown": "?"}


def add_parser(commands: Any) -> None:  # noqa: ANN401 - argparse keeps the type to itself
    """Add the command to those of ``python -m chaos``."""
    parser = commands.add_parser("compare", help="verdicts and outages of several runs")
    parser.add_argument("folder", nargs="+", type=Path, help="of a run")
    parser.set_defaults(run=compare)


def compare(options: argparse.Namespace) -> int:
    """Print the tables; return 0."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # whoever reads may have seen enough
    print("\n".join(tables([load(folder) for folder in options.folder])))
    return 0


def load(folder: Path) -> dict[str, Any]:
    """Return what a run has found.

    Raises:
        LabError: There is no result in the folder.
    """
    file = folder / "result.json"
    try:
        found = json.loads(file.read_text())
        found["verdicts"] = {v["name"]: v for v in found["verdicts"]}
        found["name"] = folder.name
        found.setdefault("times", {})
    except OSError as error:
        raise LabError(
            f"cannot compare {folder}: {file.name}: {error.strerror}; name folders of runs"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise LabError(f"cannot compare {folder}: {file.name} is no result: {error!r}") from error
    return dict(found)


def tables(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Return tables of verdicts, of the longest outages that are judged, of times; a line each.

    The first column has all runs together: how many are valid, and the longest of all.
    """
    head = ["", "all", *(run["name"] for run in runs)]
    rows = [
        head,
        ["seed", "", *(str(run["seed"]) for run in runs)],
        ["profile", "", *(run["profile"] for run in runs)],
        ["faults", str(sum(run["faults"] for run in runs)), *(str(run["faults"]) for run in runs)],
        _judged("verdict", [run["valid"] for run in runs]),
    ]
    for name in _names(run["verdicts"] for run in runs):
        cells = [run["verdicts"].get(name) for run in runs]
        rows.append(_judged(f"  {name}", [None if c is None else c["valid"] for c in cells]))
    outages = [["longest judged outage, ms", *head[1:]]]
    for nemesis in _names(run["outage_ms"] for run in runs):
        streams = [run["outage_ms"].get(nemesis) for run in runs]
        worst = [max(s.values()) if s else None for s in streams]
        most = max(ms for ms in worst if ms is not None)
        cells = ["-" if ms is None else f"{ms:.0f}" for ms in worst]
        outages.append([f"  {nemesis}", f"{most:.0f}", *cells])
    return [*_aligned(rows), "", *_aligned(outages), "", *_aligned(_times(runs))]


def _times(runs: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return a table: how often each nemesis was judged, in all runs and in each."""
    rows = [["times judged (with a bound)", "all", *(run["name"] for run in runs)]]
    for nemesis in _names(run["times"] for run in runs):
        each = [run["times"].get(nemesis, {"judged": 0, "bounded": 0}) for run in runs]
        judged, bounded = (sum(row[key] for row in each) for key in ("judged", "bounded"))
        cells = [str(row["judged"]) if row["judged"] else "-" for row in each]
        rows.append([f"  {nemesis}", f"{judged} ({bounded})", *cells])
    return rows


def _judged(name: str, verdicts: Sequence[Any]) -> list[str]:
    """Return a row: how many of those with this verdict are valid, then each."""
    given = [valid for valid in verdicts if valid is not None]
    share = f"{sum(valid is True for valid in given)}/{len(given)}"
    return [name, share, *("-" if valid is None else WORDS[valid] for valid in verdicts)]


def _names(keyed: Any) -> list[str]:  # noqa: ANN401 - several dictionaries
    return list(dict.fromkeys(name for each in keyed for name in each))


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
