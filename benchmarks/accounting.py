"""What counting bytes costs: ``python -m benchmarks.accounting``.

Packets go through the holder as fast as one sender makes them, by turns of connections that began
while ``net.netfilter.nf_conntrack_acct`` was 0, and while it was 1. Then the flow worker of the
holder is watched for a minute with many connections: silent ones, and such of which each carries
packets all the time. Sender, routers and servers share this machine, so only ratios mean something.
Needs root.

Exit codes: 0 measured, 1 the cluster failed, 2 this machine or the command line is not fit.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

from benchmarks import flood
from benchmarks.failover import machine
from benchmarks.flood import CLIENT_ADDRESS, PUBLIC, Loaded
from benchmarks.rawflows import ACK, BATCH, STRIDE, Sender, Side, frames
from chaos.lab.lab import Lab, require_machine
from chaos.lab.lab_error import LabError, UsageError
from chaos.lab.netns import write_sysctls
from chaos.lab.node_files import PROFILES
from chaos.lab.processes import marked
from chaos.lab.topology import CLIENT

ACCT = "net.netfilter.nf_conntrack_acct"
CONNECTIONS = 1_000  # with each setting
WORKER = "hanat.worker"
BUSY_PACKETS, BUSY_GAP_S = 500, 0.05  # more at once would cost the lease here
SETTLE_S = 15.0  # what follows many new connections: they are told, and walked through once


class Bench:
    """A lab whose holder is loaded."""

    def __init__(self, lab: Lab, holder: str) -> None:
        self.lab, self.holder = lab, holder
        router = next(host for host in lab.topology.routers if host.name == holder)
        mac = next(port.mac for port in router.ports if port.network == "public")
        here = lab.topology.namespace(CLIENT)
        self._side = Side(here, "eth0", mac, CLIENT_ADDRESS, PUBLIC)
        self._sender = Sender(self._side)
        self.opened = 0

    def count_bytes(self, value: int) -> None:
        """Let connections be counted that begin now, or not."""
        write_sysctls(self.lab.topology.namespace(self.holder), {ACCT: str(value)})

    def open(self, count: int) -> range:
        """Open connections; return their numbers."""
        first, self.opened = self.opened, self.opened + count
        flood.open_flows(self.lab, self.holder, first=first, count=count, rate=5_000)
        return range(first, self.opened)

    def send(self, numbers: range, packets: int) -> float:
        """Send packets of connections in turn; return how many a second."""
        made = frames(self._side, flags=ACK, numbers=numbers, client=True)
        step = BATCH * STRIDE
        parts = [made[first : first + step] for first in range(0, len(made), step)]
        began = time.monotonic()
        for number in range(packets // BATCH):
            self._sender.send(parts[number % len(parts)])
        return packets / (time.monotonic() - began)

    def worker_s(self) -> float:
        """Return the processor time of the holder's flow worker."""
        for process in marked(self.lab.prefix, self.holder):
            folder = Path(f"/proc/{process.pid}")
            if WORKER in (folder / "cmdline").read_text().split("\0"):
                tasks = (folder / "task").iterdir()
                return sum(int((t / "schedstat").read_text().split()[0]) for t in tasks) / 1e9
        raise LabError(f"{self.holder} has no flow worker")

    def memory_mib(self) -> float:
        """Return what the worker has resident."""
        for process in marked(self.lab.prefix, self.holder):
            folder = Path(f"/proc/{process.pid}")
            if WORKER in (folder / "cmdline").read_text().split("\0"):
                words = (folder / "status").read_text().partition("VmRSS:")[2].split()
                return int(words[0]) / 1024
        raise LabError(f"{self.holder} has no flow worker")


def packets(bench: Bench, *, turns: int, count: int) -> dict[int, list[float]]:
    """Return packets a second of each turn, by the setting."""
    numbers: dict[int, range] = {}
    for value in (0, 1):
        bench.count_bytes(value)
        numbers[value] = bench.open(CONNECTIONS)
        bench.send(numbers[value], count)
    found: dict[int, list[float]] = {0: [], 1: []}
    for turn in range(2 * turns):
        found[turn % 2].append(bench.send(numbers[turn % 2], count))
    return found


def worker(bench: Bench, *, connections: int, seconds: float, busy: bool) -> float:
    """Return the share of a processor that the worker takes with so many connections."""
    bench.count_bytes(1)
    numbers = range(bench.opened)
    if bench.opened < connections:
        bench.open(connections - bench.opened)
        numbers = range(bench.opened)
        time.sleep(SETTLE_S)
    before, began, next_one = bench.worker_s(), time.monotonic(), 0
    while time.monotonic() < began + seconds:
        if busy:
            bench.send(numbers[next_one : next_one + BUSY_PACKETS], BUSY_PACKETS)
            next_one = (next_one + BUSY_PACKETS) % len(numbers)
        time.sleep(BUSY_GAP_S)
    if bench.lab.holder() != bench.holder:
        raise LabError(f"{bench.holder} holds no more; is the machine busy with other things?")
    return (bench.worker_s() - before) / (time.monotonic() - began)


def _interrupted(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accounting", description=__doc__)
    parser.add_argument("--turns", type=int, default=50, help="with each setting (default: 50)")
    parser.add_argument("--packets", type=int, default=20_000, help="a turn (default: 20000)")
    parser.add_argument("--connections", type=int, nargs="+", default=[100_000])
    parser.add_argument("--seconds", type=float, default=60, help="of a worker (default: 60)")
    parser.add_argument("--profile", choices=PROFILES, default="default")
    parser.add_argument("--prefix", default="hanat-acct", help="of the lab (default: %(default)s)")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupted)
    try:
        require_machine()
        loaded = Loaded(options.prefix, options.profile, 0)
        with loaded.lab:
            bench = Bench(loaded.lab, loaded.start())
            print("| nf_conntrack_acct | packets a second, median | best |\n|---|---|---|")
            for value, found in packets(bench, turns=options.turns, count=options.packets).items():
                print(f"| {value} | {statistics.median(found):.0f} | {max(found):.0f} |")
            print("\n| connections | packets | worker, % of a core | MiB |\n|---|---|---|---|")
            for count in options.connections:
                for busy in (False, True):
                    share = worker(bench, connections=count, seconds=options.seconds, busy=busy)
                    words = "10,000 a second" if busy else "none"
                    print(f"| {count} | {words} | {100 * share:.1f} | {bench.memory_mib():.0f} |")
    except UsageError as error:
        print(f"benchmarks.accounting: {error}", file=sys.stderr)
        return error.exit_code
    except LabError as error:
        print(f"benchmarks.accounting: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmarks.accounting: interrupted; everything was removed", file=sys.stderr)
        return 130
    print("\n" + ", ".join(f"{key} {value}" for key, value in machine().items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
