"""The timeline of a run as an SVG: faults, holders, outages, latencies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from itertools import pairwise

from chaos.judge.spells import acts, spells
from chaos.judge.verdicts import Judgement
from chaos.observe.run_history import MS, CarriedSeen, Injection, Probes

LEFT, RIGHT, TOP = 90, 20, 26
PIXELS_S = 12.0
ROW, GAP, LATENCY = 18, 6, 70
OUTAGE_MS_MIN = 20.0  # shorter ones are noise on a busy machine
CARRIED_GAP_NS = 50 * MS
LATENCY_BIN_NS = 250 * MS
LATENCY_MS_MAX = 100.0
COLOURS = {"fault": "#d9822b", "heal": "#f3e3cf", "holds": "#1f77b4", "carries": "#9ec9e8",
           "outage": "#c62828", "unjudged": "#e6a5a5"}  # fmt: skip
LEGEND = (
    "Orange: a fault, pale until all is well again. Dark blue: acts as the holder (answers ARP, "
    "admits connections); light blue: carries flows under way. Red: no answer, pale where nothing "
    "was promised. Grey: the slowest answer of each quarter of a second, up to 100 ms. Point at "
    "a bar for its time."
)


class _Scale:
    def __init__(self, start_ns: int, end_ns: int) -> None:
        self.start_ns, self.end_ns = start_ns, end_ns

    @property
    def width(self) -> float:
        return LEFT + RIGHT + self.seconds(self.end_ns) * PIXELS_S

    def seconds(self, t_ns: float) -> float:
        return (min(max(t_ns, self.start_ns), self.end_ns) - self.start_ns) / 1e9

    def x(self, t_ns: float) -> float:
        return LEFT + self.seconds(t_ns) * PIXELS_S


def svg(judgement: Judgement) -> str:
    """Return the picture; an empty one if there was no traffic."""
    if not judgement.cut:
        return "<p>There was no traffic.</p>"
    scale = _Scale(judgement.cut[0].start_ns, judgement.cut[-1].end_ns)
    history = judgement.history
    routers = sorted({a.router for a in history.arp} | {c.router for c in history.carried})
    udp = [p for p in history.probes if p.workload.startswith("udp")]
    rows: list[tuple[str, int, Iterable[str]]] = [
        ("faults", ROW, _faults(history.injections, scale)),
        *((name, ROW, _router(judgement, name, scale)) for name in routers),
        *((p.workload, ROW, _outages(judgement, p, scale)) for p in history.probes),
        *((f"{p.workload} ms", LATENCY, [_latencies(p, scale)]) for p in udp),
    ]
    body: list[str] = []
    y = TOP
    for label, height, shapes in rows:
        body.append(f'<text x="4" y="{y + 13}">{escape(label)}</text>')
        body.append(f'<g transform="translate(0 {y})">{"".join(shapes)}</g>')
        y += height + GAP
    grid = "".join(_grid(scale, y))
    size = f'width="{scale.width:.0f}" height="{y + 6}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{grid}{"".join(body)}</svg>'


def _grid(scale: _Scale, height: int) -> Iterator[str]:
    for second in range(0, int(scale.seconds(scale.end_ns)) + 1, 5):
        x = LEFT + second * PIXELS_S
        yield f'<line x1="{x}" x2="{x}" y1="{TOP - 6}" y2="{height}" stroke="#eee"/>'
        yield f'<text x="{x - 6}" y="14" fill="#666">{second} s</text>'


def _bar(scale: _Scale, span: tuple[float, float], colour: str, title: str) -> str:
    x, end = scale.x(span[0]), scale.x(span[1])
    at = f"{scale.seconds(span[0]):.3f}-{scale.seconds(span[1]):.3f} s"
    return (
        f'<rect x="{x:.2f}" y="2" width="{max(end - x, 0.6):.2f}" height="{ROW - 4}" '
        f'fill="{COLOURS[colour]}"><title>{escape(title)}, {at}</title></rect>'
    )


def _faults(injections: Sequence[Injection], scale: _Scale) -> Iterator[str]:
    for i in injections:
        heal_ns = scale.end_ns if i.heal_ns is None else i.heal_ns
        yield _bar(scale, (heal_ns, i.settled_ns or scale.end_ns), "heal", f"after {i.label}")
        yield _bar(scale, (i.t_ns, heal_ns), "fault", f"{i.label} ({i.target})")


def _router(judgement: Judgement, router: str, scale: _Scale) -> Iterator[str]:
    history = judgement.history
    for start_ns, end_ns in _runs(c for c in history.carried if c.router == router):
        yield _bar(scale, (start_ns, end_ns), "carries", f"{router} carries")
    for spell in spells(acts(history)):
        if spell.router == router:
            yield _bar(scale, (spell.start_ns, spell.end_ns), "holds", f"{router} holds")


def _runs(seen: Iterable[CarriedSeen]) -> Iterator[tuple[int, int]]:
    span: tuple[int, int] | None = None
    for each in sorted(seen, key=lambda c: c.t_ns):
        if span is not None and each.t_ns - span[1] <= CARRIED_GAP_NS:
            span = (span[0], max(span[1], each.last_ns))
            continue
        if span is not None:
            yield span
        span = (each.t_ns, each.last_ns)
    if span is not None:
        yield span


def _outages(judgement: Judgement, probes: Probes, scale: _Scale) -> Iterator[str]:
    promised = _promised(judgement)
    arrived = sorted(t for t in probes.answered if t is not None)
    for before, after in pairwise([scale.start_ns, *arrived, scale.end_ns]):
        gap_ms = (after - before - probes.period_ns) / MS
        if gap_ms >= OUTAGE_MS_MIN and after > scale.start_ns:
            colour = "outage" if promised((before + after) // 2) else "unjudged"
            yield _bar(scale, (before, after), colour, f"{probes.workload}: {gap_ms:.0f} ms")


def _promised(judgement: Judgement) -> Callable[[int], bool]:
    cut = judgement.cut

    def promised(t_ns: int) -> bool:
        return any(s.judged for s in cut if s.start_ns <= t_ns < s.end_ns)

    return promised


def _latencies(probes: Probes, scale: _Scale) -> str:
    slowest: dict[int, float] = {}
    for sent, answered in zip(probes.sent, probes.answered, strict=True):
        if answered is not None and scale.start_ns <= sent < scale.end_ns:
            slot = (sent - scale.start_ns) // LATENCY_BIN_NS
            slowest[slot] = max(slowest.get(slot, 0.0), (answered - sent) / MS)
    shapes = []
    for slot, ms in slowest.items():
        x = scale.x(scale.start_ns + slot * LATENCY_BIN_NS)
        height = max(1.0, min(ms, LATENCY_MS_MAX) / LATENCY_MS_MAX * LATENCY)
        shapes.append(
            f'<rect x="{x:.1f}" y="{LATENCY - height:.1f}" width="2.4" height="{height:.1f}" '
            f'fill="#888"><title>{ms:.1f} ms</title></rect>'
        )
    return "".join(shapes)
