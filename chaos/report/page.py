"""A run as one HTML page with a timeline, readable without a network.

Everything is in the file: styles, one SVG, tables. Rows, from the top: the faults; for each
router when it acted as the holder (by packets) and when it carried flows; for each stream of
probes when it went unanswered; how long answers took. Anything may be pointed at for its
exact time. What a run recorded goes into the page as text and is escaped, log lines as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from chaos.judge.checkers import Verdict
from chaos.judge.verdicts import Judgement
from chaos.report import plot

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5em auto; max-width: 1500px; padding: 0 1em;
  color: #1a1a1a; background: #fff; }
h1 { font-size: 1.4em; } h2 { font-size: 1.1em; margin-top: 1.6em; }
code { background: #f0f0f0; padding: .1em .3em; }
table { border-collapse: collapse; } td, th { padding: .25em .7em; text-align: left;
  border-bottom: 1px solid #ddd; vertical-align: top; } td.n { text-align: right; }
.ok { color: #176b2c; } .bad { color: #b00020; font-weight: 600; } .unknown { color: #8a5a00; }
.scroll { overflow-x: auto; border: 1px solid #ddd; } svg text { font: 11px system-ui, sans-serif; }
details { margin: .4em 0; } pre { white-space: pre-wrap; background: #f6f6f6; padding: .6em; }
"""
WORDS = {True: ("ok", "valid"), False: ("bad", "not valid"), "unknown": ("unknown", "unknown")}


def page(title: str, command: str, judgement: Judgement, outages: dict[str, Any]) -> str:
    """Return the page.

    Args:
        title: Seed and profile, for people.
        command: What replays the run.
        judgement: The judged run.
        outages: In ms, by nemesis and stream, see `judge.availability.worst_by_nemesis`.
    """
    kind, word = WORDS[judgement.valid]
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>chaos {escape(title)}</title>',
        f"<style>{STYLE}</style></head><body>",
        f'<h1>chaos run: <span class="{kind}">{word}</span> &middot; {escape(title)}</h1>',
        f"<p>Replay: <code>{escape(command)}</code></p>",
        "<h2>Verdicts</h2>",
        _verdicts(judgement.verdicts),
        "<h2>Timeline</h2>",
        f'<div class="scroll">{plot.svg(judgement)}</div>',
        f"<p>{plot.LEGEND}</p>",
        "<h2>What the nodes tell of it (<code>hanat history</code>)</h2>",
        _told(judgement),
        "<h2>Longest outage after each nemesis, ms, where something was promised</h2>",
        _outages(outages),
        "<h2>Faults</h2>",
        _faults(judgement),
        "<h2>Changes of role, from the nodes' logs</h2>",
        _roles(judgement),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _verdicts(verdicts: Iterable[Verdict]) -> str:
    rows = []
    for verdict in verdicts:
        kind, word = WORDS[verdict.valid]
        rows.append([f'<span class="{kind}">{word}</span>', _t(verdict.name), _t(verdict.summary)])
    return _table(["", "check", "found"], rows)


def _outages(outages: dict[str, Any]) -> str:
    names = sorted({name for row in outages.values() for name in row})
    rows = [
        [_t(nemesis), *(f"{row[name]:.0f}" if name in row else "" for name in names)]
        for nemesis, row in outages.items()
    ]
    return _table(["nemesis", *map(escape, names)], rows)


def _faults(judgement: Judgement) -> str:
    start_ns = judgement.cut[0].start_ns if judgement.cut else 0
    rows = []
    for i in judgement.history.injections:
        lasted = "not undone" if i.heal_ns is None else f"{(i.heal_ns - i.t_ns) / 1e9:.1f} s"
        well = "never"
        if i.settled_ns is not None and i.heal_ns is not None:
            well = f"{(i.settled_ns - i.heal_ns) / 1e9:.1f} s"
        at = f"{(i.t_ns - start_ns) / 1e9:.1f} s"
        rows.append([at, _t(i.label), _t(i.target), _t(i.holder or "nobody"), lasted, well])
    return _table(["at", "fault", "aimed at", "holder before", "lasted", "well again after"], rows)


def _told(judgement: Judgement) -> str:
    history = judgement.history
    if not history.told:
        return "<p>Nothing was told.</p>"
    start_ns = judgement.cut[0].start_ns if judgement.cut else 0
    rows = []
    for event in history.told:
        at = "clock was stepped" if event.clock_wrong else f"{(event.t_ns - start_ns) / 1e9:.2f} s"
        rows.append([at, _t(event.node), str(event.term), _t(event.text)])
    asked = ", ".join(f"{a.node}: {a.events}" for a in history.asked)
    return _table(["at, by its clock", "node", "term", "what"], rows) + f"<p>{_t(asked)} events</p>"


def _roles(judgement: Judgement) -> str:
    start_ns = judgement.cut[0].start_ns if judgement.cut else 0
    rows = [
        [f"{(r.t_ns - start_ns) / 1e9:.2f} s", _t(r.node), _t(r.was), _t(r.role), str(r.term),
         _t(r.reason)]
        for r in judgement.history.roles
    ]  # fmt: skip
    table = _table(["at", "node", "was", "is", "term", "reason"], rows)
    return f"<details><summary>{len(rows)} lines</summary>{table}</details>"


def _t(text: str) -> str:
    return escape(text)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["<table><tr>", *(f"<th>{cell}</th>" for cell in head), "</tr>"]
    for row in rows:
        lines += ["<tr>", *(f"<td>{cell}</td>" for cell in row), "</tr>"]
    return "".join([*lines, "</table>"])
