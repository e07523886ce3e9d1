"""Draw who held the addresses when, and when the traffic stood still, as text.

One row per router, one column per slice of time, one character:

    █  answers for both floating addresses      ▀ ▄  for the public / private one only
    ░  has an address on a device, silent        ·   neither

Below, one row per stream of probes: ``─`` all answered, ``╌`` some, ``x`` none.
Above, a mark at every fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chaos.observe.run_history import MS, AddressSeen, ArpSeen, Fault, History, Probes

LEGEND = "█ answers  ▀▄ for one address only  ░ address on a device, silent  · neither"
PROBE_LEGEND = "─ all probes answered  ╌ some  x none"


@dataclass(frozen=True, slots=True)
class Scale:
    """A stretch of time and the columns it is drawn on."""

    start_ns: int
    end_ns: int
    columns: int

    def __post_init__(self) -> None:
        assert self.start_ns < self.end_ns, self
        assert self.columns > 0, self

    @property
    def column_ms(self) -> float:
        """How much time one column stands for."""
        return (self.end_ns - self.start_ns) / self.columns / MS

    def column(self, t_ns: int) -> int | None:
        """Return where an instant is drawn, None if outside."""
        if not self.start_ns <= t_ns < self.end_ns:
            return None
        return (t_ns - self.start_ns) * self.columns // (self.end_ns - self.start_ns)

    def bounds(self, column: int) -> tuple[int, int]:
        """Return the first instant of a column and of the one after it."""
        width = self.end_ns - self.start_ns
        first = self.start_ns + -(-column * width // self.columns)
        return first, self.start_ns + -(-(column + 1) * width // self.columns)


def router_row(history: History, router: str, scale: Scale) -> str:
    """Return one router's row."""
    answers = {n: _answering(history.arp, router, n, scale) for n in ("public", "private")}
    present = _present(history.addresses, router, scale)
    row = []
    for column in range(scale.columns):
        public, private = answers["public"][column], answers["private"][column]
        if public or private:
            row.append("█" if public and private else "▀" if public else "▄")
        else:
            row.append("░" if present[column] else "·")
    return "".join(row)


def probe_row(probes: Probes, scale: Scale) -> str:
    """Return the row of a stream of probes, by when each was sent."""
    sent = [0] * scale.columns
    lost = [0] * scale.columns
    for t_ns, answer in zip(probes.sent, probes.answered, strict=True):
        column = scale.column(t_ns)
        if column is not None:
            sent[column] += 1
            lost[column] += answer is None
    return "".join(
        " " if not s else "─" if not missing else "x" if missing == s else "╌"
        for s, missing in zip(sent, lost, strict=True)
    )


def mark_row(faults: Iterable[Fault], scale: Scale) -> str:
    """Return the row of faults: each named, its instant under the ``▼``."""
    row = [" "] * scale.columns
    for fault in faults:
        column = scale.column(fault.t_ns)
        if column is None:
            continue
        text = f"▼{fault.f} {fault.node}"
        if column + len(text) > scale.columns:
            text = f"{fault.f} {fault.node}▼"
            column = max(0, column - len(text) + 1)
        row[column : column + len(text)] = text
    return "".join(row[: scale.columns]).rstrip()


def ruler(scale: Scale, zero_ns: int, every: int = 10) -> str:
    """Return the row of times relative to `zero_ns`, a label every so many columns."""
    row = ""
    short = scale.end_ns - scale.start_ns < 10_000 * MS
    for column in range(0, scale.columns, every):
        at_ms = (scale.bounds(column)[0] - zero_ns) / MS
        label = f"{at_ms:+.0f}" if short else f"{at_ms / 1000:.1f}"
        row += f"|{label}"[:every].ljust(every)
    return row[: scale.columns] + (" ms" if short else " s")


def draw(
    history: History,
    routers: Sequence[str],
    workloads: Sequence[str],
    scale: Scale,
    *,
    zero_ns: int,
) -> list[str]:
    """Return the whole picture, one line each."""
    streams = {p.workload: p for p in history.probes}
    rows = [("", mark_row(history.faults, scale))]
    rows += [(router, router_row(history, router, scale)) for router in routers]
    rows += [(w, probe_row(streams[w], scale)) for w in workloads if w in streams]
    rows.append(("", ruler(scale, zero_ns)))
    return [f"  {name:>8} {row}".rstrip() for name, row in rows]


def _answering(frames: Iterable[ArpSeen], router: str, network: str, scale: Scale) -> list[bool]:
    answering = [False] * scale.columns
    for frame in frames:
        if frame.router == router and frame.network == network:
            column = scale.column(frame.t_ns)
            if column is not None:
                answering[column] = True
    return answering


def _present(changes: Iterable[AddressSeen], router: str, scale: Scale) -> list[bool]:
    """Return for every column whether the router had any floating address in it."""
    present = [False] * scale.columns
    since: dict[str, int] = {}
    for change in changes:
        if change.router != router:
            continue
        if change.present:
            since.setdefault(change.address, change.t_ns)
        elif change.address in since:
            _fill(present, since.pop(change.address), change.t_ns, scale)
    for start_ns in since.values():
        _fill(present, start_ns, scale.end_ns, scale)
    return present


def _fill(row: list[bool], start_ns: int, end_ns: int, scale: Scale) -> None:
    for column in range(scale.columns):
        first, after = scale.bounds(column)
        if start_ns < after and first < end_ns:
            row[column] = True
