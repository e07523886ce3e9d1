"""What a cluster costs and holds when nothing fails: ``python -m benchmarks.steady``.

For each profile a lab: how much CPU and memory its nodes take while idle, then how long
commits take under the demo's HTTP and TCP traffic. With ``--busy`` other processes want
all cores all the time; then it is told whether the holder changed, and how late its loop ran.
Printed as a Markdown table. Needs root.

Exit codes: 0 measured and no holder changed, 1 not so, 2 this machine or the command line is
not fit.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from benchmarks.failover import machine
from benchmarks.load import wait_for_quiet
from benchmarks.memory import node_pss_bytes
from chaos.lab.lab import Lab, require_machine
from chaos.lab.lab_error import LabError, UsageError
from chaos.lab.node_files import PROFILES, cluster_toml
from chaos.lab.processes import marked
from chaos.observe.traffic import HTTP, TCP, Traffic

PREFIX = "hanat-steady"
SETTLE_S = 5.0  # the last announcements of the first election
TRAFFIC_S_MAX = 60.0
LOOK_S = 1.0

HEAD = (
    "profile", "CPU holder, % of a core", "CPU backups", "memory of a node, MiB",
    "commits", "commit p50, ms", "p99", "max", "loop late max, ms", "changes of holder",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """What was found in one profile; times in seconds.

    Attributes:
        cpu: By node, percent of one core, all its processes.
        memory: By node, bytes (PSS), all its processes.
        commits: As the holder's status has them.
        late_s: The worst lateness of any loop.
        changes: How often another node was seen to be the holder, or none.
    """

    profile: str
    holder: str
    cpu: Mapping[str, float]
    memory: Mapping[str, float]
    commits: Mapping[str, Any]
    late_s: float
    changes: int


def measure(lab: Lab, profile: str, seconds: float) -> Row:
    """Measure one profile in a lab that was built.

    Raises:
        LabError: The cluster did not come up, or nothing was committed.
    """
    lab.start()
    holder = lab.wait_for_holder()
    time.sleep(SETTLE_S)
    before = {name: cpu_s(lab, name) for name in lab.nodes}
    began = time.monotonic()
    changes = _watch(lab, holder, seconds)
    took_s = time.monotonic() - began
    cpu = {name: 100 * (cpu_s(lab, name) - before[name]) / took_s for name in lab.nodes}
    memory = {name: node_pss_bytes(lab.prefix, name) for name in lab.nodes}
    traffic = Traffic(lab, (*TCP, HTTP))
    traffic.start()
    changes += _watch(lab, holder, min(seconds, TRAFFIC_S_MAX))
    traffic.stop()
    statuses = [status for status in lab.statuses().values() if status is not None]
    commits = next((s["commits"] for s in statuses if s["node"] == holder), None)
    if commits is None or not sum(commits["counts"]):
        raise LabError(f"{holder} committed nothing")
    late_s = max(status["late"]["max_s"] for status in statuses)
    return Row(profile, holder, cpu, memory, commits, late_s, changes)


def _watch(lab: Lab, holder: str, seconds: float) -> int:
    changes, seen = 0, holder
    end = time.monotonic() + seconds
    while (left_s := end - time.monotonic()) > 0:
        time.sleep(min(LOOK_S, left_s))
        now = lab.holder() or "nobody"
        changes += now != seen
        seen = now
    return changes


def cpu_s(lab: Lab, node: str) -> float:
    """Return the seconds of a processor that a node's processes have used."""
    ticks = 0
    for process in marked(lab.prefix, node):
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # proc(5): utime, stime
    return ticks / os.sysconf("SC_CLK_TCK")


def quantile_ms(found: Mapping[str, Any], share: float) -> str:
    """Return the upper bound of the class that a share of a histogram ends in."""
    wanted, total = share * sum(found["counts"]), 0
    for bound_s, count in zip(found["bounds_s"], found["counts"], strict=False):
        total += count
        if total >= wanted:
            return f"≤ {bound_s * 1000:g}"
    return f"> {found['bounds_s'][-1] * 1000:g}"


def markdown(rows: Sequence[Row]) -> str:
    """Return the table."""
    lines = [HEAD, ("---",) * len(HEAD)]
    for row in rows:
        backups = " / ".join(f"{v:.1f}" for n, v in row.cpu.items() if n != row.holder)
        memory = max(row.memory.values()) / (1 << 20)
        lines.append((
            row.profile, f"{row.cpu[row.holder]:.1f}", backups, f"{memory:.0f}",
            str(sum(row.commits["counts"])), quantile_ms(row.commits, 0.5),
            quantile_ms(row.commits, 0.99), f"{row.commits['max_s'] * 1000:.1f}",
            f"{row.late_s * 1000:.1f}", str(row.changes),
        ))  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@contextmanager
def _busy_cores(*, wanted: bool) -> Iterator[None]:
    """Keep all cores busy at ordinary priority."""
    spin = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(spin) for _ in range(os.cpu_count() or 1) if wanted]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def _interrupted(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steady", description=__doc__)
    parser.add_argument("--profile", nargs="+", choices=PROFILES, default=PROFILES)
    parser.add_argument("--seconds", type=float, default=30, help="a profile (default: 30)")
    parser.add_argument("--busy", action="store_true", help="keep all cores busy meanwhile")
    parser.add_argument(
        "--patience",
        type=float,
        default=0,
        metavar="SECONDS",
        help="how long to wait at first for others to use less than 10%% of the machine",
    )
    parser.add_argument("--prefix", default=PREFIX, help="of the lab (default: %(default)s)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupted)
    rows: list[Row] = []
    try:
        require_machine()
        others = wait_for_quiet(options.patience)
        for profile in options.profile:
            lab = Lab(options.prefix, cluster_toml=cluster_toml(profile=profile, checked=False))
            with _busy_cores(wanted=options.busy), lab:
                rows.append(measure(lab, profile, options.seconds))
    except UsageError as error:
        print(f"benchmarks.steady: {error}", file=sys.stderr)
        return error.exit_code
    except LabError as error:
        print(f"benchmarks.steady: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmarks.steady: interrupted; everything was removed", file=sys.stderr)
        return 130
    where = ", ".join(f"{key} {value}" for key, value in machine().items())
    print(markdown(rows))
    print(f"\n{where}; {options.seconds:g} s idle; others used {100 * others:.0f} % before.")
    return 1 if any(row.changes for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
