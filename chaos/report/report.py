"""Tell what happened: pictures, figures and verdicts as text, and all of it as JSON."""

from __future__ import annotations

from typing import Any

from chaos import stopping
from chaos.demo import WORKLOADS, Result
from chaos.judge import checkers
from chaos.judge.checkers import Outage, Window
from chaos.observe.run_history import MS
from chaos.observe.traffic import HTTP, HTTP_V6, TCP
from chaos.report import timeline
from chaos.report.timeline import Scale

COLUMNS = 90
ZOOM_BEFORE_MS = 100
ZOOM_COLUMN_MS = 10  # no finer than the observer asks: there would be gaps that are none


def text(result: Result, routers: list[str]) -> list[str]:
    """Return the report, one line each."""
    start_ns, end_ns = result.windows[0].start_ns, result.windows[-1].end_ns
    whole = Scale(start_ns, end_ns, COLUMNS)
    lines = ["", "Who held the floating addresses:", ""]
    lines += _picture(result, routers, whole, zero_ns=start_ns)
    lines += ["", f"  {timeline.LEGEND}", f"  {timeline.PROBE_LEGEND}"]
    for window in result.windows[1:]:
        if window.moves_holder:
            lines += ["", f"Around {window.label}, {ZOOM_COLUMN_MS} ms a column:", ""]
            zoom_ns = window.start_ns - ZOOM_BEFORE_MS * MS
            scale = Scale(zoom_ns, zoom_ns + COLUMNS * ZOOM_COLUMN_MS * MS, COLUMNS)
            lines += _picture(result, routers, scale, zero_ns=window.start_ns)
    lines += ["", *_outage_table(result), "", *_connections(result)]
    if (server := stopping.seen(result.history)) is not None:
        lines += ["", "A server whose process stopped:", "", f"  {server.text}"]
    lines += ["", "Checks:", ""]
    marks = {True: "ok  ", False: "FAIL", "unknown": "?   "}
    lines += [f"  {marks[v.valid]} {v.name:<19} {v.summary}" for v in result.verdicts]
    return [*lines, ""]


def _picture(result: Result, routers: list[str], scale: Scale, *, zero_ns: int) -> list[str]:
    return timeline.draw(result.history, routers, WORKLOADS, scale, zero_ns=zero_ns)


def _outage_table(result: Result) -> list[str]:
    head = f"  {'':<24} {'nobody answers':>14} {'UDP in':>16} {'UDP out':>16}"
    lines = ["Longest time without an answer:", "", head + f" {'TCP':>8} {'HTTP':>8}"]
    for window in result.windows:
        found = _outages_of(result, window)
        for label, version in ((window.label, 4), ("", 6)):
            silent_ms = _silence(result, window, version)
            cells = f"{'-' if silent_ms is None else f'{silent_ms:.0f} ms':>14}"
            of = [found.get(f"udp{'6' if version == 6 else ''}-{way}") for way in ("in", "out")]
            for outage in of:
                told = f"{outage.outage_ms:.0f} ms, {outage.lost} lost" if outage else "?"
                cells += f" {told:>16}"
            for workloads in (TCP, (HTTP, HTTP_V6)):
                names = [w.name for w in workloads if w.version == version]
                ms = max((found[name].outage_ms for name in names if name in found), default=0)
                cells += f" {f'{ms:.0f} ms':>8}"
            lines.append(f"  {label:<18} IPv{version}  {cells}")
    return [*lines, '  ("before" is the noise of this machine)']


def _silence(result: Result, window: Window, version: int) -> float | None:
    """Return for how long nobody answered for an address of a version of IP, in ms."""
    frames = [f for f in result.history.arp if (":" in f.address) is (version == 6)]
    return checkers.silence(frames, window)


def _outages_of(result: Result, window: Window) -> dict[str, Outage]:
    requests = [
        checkers.as_probes(result.history, http.name, round(http.period_ms * MS))
        for http in (HTTP, HTTP_V6)
    ]
    streams = [*result.history.probes, *requests]
    return {p.workload: checkers.outage(p, window) for p in streams}


def _connections(result: Result) -> list[str]:
    lines = ["Established TCP connections, payload checked in lock step:", ""]
    streams = {p.workload: p for p in result.history.probes}
    for connection in result.history.connections:
        stream = streams.get(connection.workload)
        problem = checkers.connection_problem(connection, stream, result.windows)
        lines.append(
            f"  {connection.workload:<10} {connection.exchanges:5} exchanges, "
            f"{connection.payload_errors} payload errors, {problem or 'alive to the end'}"
        )
    return lines


def document(result: Result) -> dict[str, Any]:
    """Return everything that was found out, JSON-ready."""
    return {
        "valid": result.valid,
        "holders": list(result.holders),
        "outage_ms": round(result.outage_ms, 3),
        "tcp_survived": result.tcp_survived,
        "tcp_expected": len(TCP),
        "verdicts": [
            {
                "name": v.name,
                "valid": v.valid,
                "summary": v.summary,
                "evidence": dict(v.evidence),
            }
            for v in result.verdicts
        ],
        "windows": [
            {
                "label": w.label,
                "seconds": round((w.end_ns - w.start_ns) / 1e9, 3),
                "arp_silence_ms": _silence(result, w, 4),
                "nd_silence_ms": _silence(result, w, 6),
                "outages": {
                    name: {"outage_ms": round(o.outage_ms, 3), "lost": o.lost}
                    for name, o in _outages_of(result, w).items()
                },
            }
            for w in result.windows
        ],
        "servers": _servers(result),
    }


def _servers(result: Result) -> dict[str, int]:
    """Return how many HTTP requests each real server answered."""
    counts: dict[str, int] = {}
    for request in result.history.requests:
        if request.server is not None:
            counts[request.server] = counts.get(request.server, 0) + 1
    return counts
