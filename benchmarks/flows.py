"""What replicating connections costs, and how far the backups are behind.

``python -m benchmarks.flows``: the same connections through a router that replicates nothing,
through hanat and, where they are installed, through keepalived + conntrackd (FT-FW, established
connections only). The load generator, all routers and the servers share this machine, so only
ratios mean something. CPU is what the kernel accounts to the processes that replicate:
hanat's daemon, supervisor and flow worker, all of conntrackd. Printed as Markdown.

Exit codes: 0 measured, 1 the cluster failed, 2 this machine or the command line is not fit.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from types import FrameType
from typing import NoReturn

from benchmarks import flood
from benchmarks.failover import machine
from benchmarks.flood import PUBLIC, Loaded
from benchmarks.keepalived import Keepalived, require_programs
from benchmarks.load import wait_for_quiet
from benchmarks.rawflows import FIRST_SERVICE_PORT
from benchmarks.systems import System
from chaos.lab.lab import Lab, require_machine
from chaos.lab.lab_error import LabError, UsageError
from chaos.lab.netns import entered, write_sysctls
from chaos.lab.processes import marked
from chaos.lab.waiting import wait_until

SAMPLE_S = 0.002
SETTLE_S_MAX = 60.0
SYSTEMS = ("none", "hanat", "conntrackd")
HEAD = (
    "system", "offered, flows/s", "reached", "CPU s per 100k, holder", "backup",
    "behind p50, ms", "p99", "max", "missing at the end", "changes of holder", "stolen, ms",
)  # fmt: skip

SIZE_HEAD = (
    "flows", "daemon of the holder, MiB", "flow worker", "daemon of a backup", "flow worker",
    "resync of a new node, s", "changes of holder",
)  # fmt: skip


COMMIT_HEAD = ("flows", "conntrackd -c on a backup, s", "in its kernel then")


@dataclass(frozen=True, slots=True)
class Row:
    """One run; CPU in seconds, lags in seconds.

    Attributes:
        offered: Connections a second, 0: as many as possible.
        reached: Connections a second.
        cpu: On the holder and on the busiest backup.
        lags: Sorted.
        missing: Connections that the holder has and a backup has not.
        changes: How often the holder changed.
        stolen: What the hypervisor took of all cores.
    """

    system: str
    offered: float
    reached: float
    flows: int
    cpu: tuple[float, float]
    lags: Sequence[float]
    missing: int
    changes: int
    stolen: float


def build(system: str, prefix: str, profile: str) -> System:
    """Return a system that was not started."""
    if system == "conntrackd":
        return Keepalived(prefix, 1.0)
    return Loaded(prefix, profile, 0, policy="none" if system == "none" else "established")


class Bench:
    """A system that runs, and the load."""

    def __init__(self, name: str, system: System) -> None:
        self.name, self.system, self.lab = name, system, system.lab
        if name == "conntrackd":
            flood.silence(self.lab)
        self.holder = system.start()
        self.backups = [name for name in system.nodes if name != self.holder]
        for router in system.nodes:
            there = self.lab.topology.namespace(router)
            write_sysctls(there, {"net.netfilter.nf_conntrack_events": "1"})
        self._counts = {name: flood.count_file(self.lab, name) for name in system.nodes}

    def close(self) -> None:
        """Release descriptors."""
        for opened in self._counts.values():
            os.close(opened)

    def count(self, name: str) -> int:
        """Return the number of entries in a router's table."""
        return int(os.pread(self._counts[name], 16, 0))

    def load(self, first: int, count: int, *, rate: float = 0) -> float:
        """Open connections; return how many seconds it took."""
        return flood.open_flows(self.lab, self.holder, first=first, count=count, rate=rate)

    def cpu_s(self, name: str) -> float:
        """Return what the processes that replicate on a router have used."""
        total = 0
        for process in marked(self.lab.prefix, name):
            folder = Path(f"/proc/{process.pid}")
            try:
                if self.name == "conntrackd" and "conntrackd" not in (folder / "comm").read_text():
                    continue
                for task in (folder / "task").iterdir():
                    total += int((task / "schedstat").read_text().split()[0])
            except OSError:
                continue
        return total / 1e9

    def flows(self, name: str) -> set[str]:
        """Return the connections of the load that a router has, with their translations."""
        if self.name == "conntrackd" and name != self.holder:
            conf = str(self.lab.folder / name / "conntrackd.conf")
            command = ["conntrackd", "-C", conf, "-e"]  # it commits them at a takeover
        else:
            command = ["conntrack", "-L", "-p", "tcp", "-d", PUBLIC]
        done = self.lab.exec_in(name, command, 60)
        found = set()
        for line in done.stdout.splitlines():
            words = [word for word in line.split() if "=" in word]
            parts = [w for w in words if w.split("=")[0] in {"src", "dst", "sport", "dport"}]
            tuples = " ".join(parts[: 4 if self.name == "conntrackd" else 8])
            if f"dport={FIRST_SERVICE_PORT // 10}" in tuples:
                found.add(tuples)
        return found

    def settle(self) -> None:
        """Wait until no table changes any more."""
        before: list[int] = []

        def still() -> bool:
            nonlocal before
            time.sleep(0.5)
            now = [self.count(name) for name in self.system.nodes]
            same, before = now == before, now
            return same

        wait_until(still, SETTLE_S_MAX, "the tables to settle")


def memory_of(lab: Lab, name: str) -> dict[str, float]:
    """Return MiB resident by process."""
    found: dict[str, float] = {}
    for process in marked(lab.prefix, name):
        words = Path(f"/proc/{process.pid}/cmdline").read_text().split("\0")
        kind = next((w for w in words if w.startswith("hanat.")), "supervisor")
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        found[kind] = pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
    return found


class Sampler:
    """Notes how many entries the holder and a backup have, all the time."""

    def __init__(self, bench: Bench, backup: str) -> None:
        self._bench, self._backup = bench, backup
        self._stop = Event()
        self.samples: list[tuple[float, int, int]] = []
        self._thread = Thread(target=self._run)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            backup = self._bench.count(self._backup)
            self.samples.append((time.monotonic(), self._bench.count(self._bench.holder), backup))

    def lags(self) -> list[float]:
        """Return, for each sample while the stream lasted, how old the backup's table was."""
        if not self.samples:
            return []
        _, first_holder, first_backup = self.samples[0]
        times = [t for t, _, _ in self.samples]
        most = 0
        holder: list[int] = []
        for _, count, _ in self.samples:
            most = max(most, count - first_holder)
            holder.append(most)
        found: list[float] = []
        for t, _, count in self.samples:
            have = count - first_backup
            if 0 < have < most:
                # The first moment at which the holder had more than that.
                since = bisect_left(holder, have + 1)
                if since < len(times) and times[since] <= t:
                    found.append(t - times[since])
                else:
                    found.append(0.0)
        return sorted(found)


def measure(bench: Bench, *, first: int, count: int, rate: float) -> Row:
    """Open connections and see what it costs."""
    names = (bench.holder, *bench.backups)
    bench.settle()
    before = {name: bench.cpu_s(name) for name in names}
    stolen = _stolen_s()
    with Sampler(bench, bench.backups[0]) as sampler:
        seconds = bench.load(first, count, rate=rate)
        bench.settle()
    used = {name: bench.cpu_s(name) - before[name] for name in names}
    having = {name: bench.flows(name) for name in names}
    missing = 0
    if bench.name != "none":
        missing = max(len(having[bench.holder] - having[name]) for name in bench.backups)
    changed = bench.system.holder() != bench.holder
    backup = max(used[name] for name in bench.backups)
    return Row(
        bench.name, rate, count / seconds, count, (used[bench.holder], backup),
        sampler.lags(), missing, int(changed), _stolen_s() - stolen,
    )  # fmt: skip


def _stolen_s() -> float:
    words = Path("/proc/stat").read_text().split()
    return int(words[8]) / os.sysconf("SC_CLK_TCK")  # proc(5): cpu user nice system idle ...


def markdown(rows: Sequence[Row]) -> str:
    """Return the table."""
    lines = [HEAD, ("---",) * len(HEAD)]
    for row in rows:
        per = 100_000 / row.flows
        replicated = row.system != "none"
        lags = [f"{_quantile(row.lags, q) * 1000:.0f}" for q in (0.5, 0.99, 1)]
        lines.append((
            row.system, f"{row.offered:.0f}" if row.offered else "all it can", f"{row.reached:.0f}",
            *(f"{cpu * per:.2f}" for cpu in row.cpu),
            *(lags if row.system == "hanat" else "---"),
            str(row.missing) if replicated else "-", str(row.changes), f"{row.stolen * 1000:.0f}",
        ))  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _quantile(values: Sequence[float], share: float) -> float:
    return values[min(int(share * len(values)), len(values) - 1)] if values else 0.0


@contextmanager
def running(system: str, options: argparse.Namespace) -> Iterator[Bench]:
    """Run a system in a lab of its own."""
    built = build(system, options.prefix, options.profile)
    with built.lab:
        bench = Bench(system, built)
        try:
            yield bench
        finally:
            bench.close()


def sizes(options: argparse.Namespace, counts: Sequence[int]) -> Iterator[tuple[str, ...]]:
    """Yield what large tables take of hanat: memory, and the time of a resync."""
    with running("hanat", options) as bench:
        have = 0
        for count in counts:
            bench.load(have, count - have, rate=options.rate)
            have = count
            bench.settle()
            memory = memory_of(bench.lab, bench.holder)
            backup = memory_of(bench.lab, bench.backups[0])
            seconds = _resync_s(bench)
            bench.settle()
            yield (
                str(count),
                *(f"{memory.get(kind, 0):.0f}" for kind in ("hanat.daemon", "hanat.worker")),
                *(f"{backup.get(kind, 0):.0f}" for kind in ("hanat.daemon", "hanat.worker")),
                f"{seconds:.1f}", str(int(bench.system.holder() != bench.holder)),
            )  # fmt: skip


def commits(options: argparse.Namespace, counts: Sequence[int]) -> Iterator[tuple[str, ...]]:
    """Yield what a takeover costs conntrackd: from the cache of a backup into its kernel."""
    for count in counts:
        with running("conntrackd", options) as bench:
            bench.load(0, count, rate=options.rate)
            bench.settle()
            backup = bench.backups[0]
            conf = str(bench.lab.folder / backup / "conntrackd.conf")
            began = time.monotonic()
            bench.lab.exec_in(backup, ["conntrackd", "-C", conf, "-c"], 60)
            seconds = time.monotonic() - began
            yield str(count), f"{seconds:.2f}", str(bench.count(backup))


def _resync_s(bench: Bench) -> float:
    """Restart a backup; return how long until it has all flows again, from its first answer."""
    lab, name = bench.lab, bench.backups[0]

    def flows() -> Mapping[str, object] | None:
        status = lab.status(name)
        return None if status is None else status["flows"]

    lab.kill_node(name)
    with entered(lab.topology.namespace(name)):
        subprocess.run(["conntrack", "-F"], capture_output=True, check=True)
    lab.start_node(name)
    lab.wait_for(flows, 30, "the node to answer")
    began = time.monotonic()
    lab.wait_for(lambda: (flows() or {}).get("complete"), 120, "all flows")
    return time.monotonic() - began


def _print(head: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    print(f"\n| {' | '.join(head)} |")
    print("|---" * len(head) + "|")
    for line in lines:
        print(f"| {' | '.join(line)} |", flush=True)


def _interrupted(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flows", description=__doc__)
    parser.add_argument("--system", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--profile", default="default")
    parser.add_argument("--flows", type=int, default=100_000, help="a run (default: 100000)")
    parser.add_argument("--rate", type=float, default=10_000, help="flows/s (default: 10000)")
    parser.add_argument("--trials", type=int, default=1)
    parser.add_argument(
        "--size", nargs="*", type=int, default=[], metavar="FLOWS",
        help="tables for memory, resync, and what a takeover costs conntrackd",
    )  # fmt: skip
    parser.add_argument("--patience", type=float, default=0, metavar="SECONDS")
    parser.add_argument("--prefix", default="hanat-flows", help="of the lab (default: %(default)s)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        require_machine()
        require_programs()
        others = wait_for_quiet(options.patience)
        rows: list[Row] = []
        for _ in range(options.trials):
            for system in options.system:
                for rate in (options.rate, 0.0):
                    with running(system, options) as bench:
                        rows.append(measure(bench, first=0, count=options.flows, rate=rate))
        if rows:
            print(markdown(rows))
        for system, head, found in (
            ("hanat", SIZE_HEAD, sizes),
            ("conntrackd", COMMIT_HEAD, commits),
        ):
            if options.size and system in options.system:
                _print(head, found(options, options.size))
    except UsageError as error:
        print(f"benchmarks.flows: {error}", file=sys.stderr)
        return error.exit_code
    except LabError as error:
        print(f"benchmarks.flows: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmarks.flows: interrupted; everything was removed", file=sys.stderr)
        return 130
    where = ", ".join(f"{key} {value}" for key, value in machine().items())
    print(f"\n{where}; others used {100 * others:.0f} % before.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
