"""How soon a verdict is in the kernels: ``python -m benchmarks.verdicts``.

Three real nodes in namespaces watch the servers of one service each 200 ms, beside so many other
services (``--services``). A server's process is stopped and goes on, again and again. Measured is
the time from the proposal of each verdict by the holder, a moment after the deciding probe ended,
until the kernel of each node had other rules: the holder's, and the last of all nodes. Both clocks
are the machine's. Printed as a Markdown table. Needs root.

Exit codes: 0 measured, 2 this machine or the command line is not fit.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

from benchmarks.failover import machine
from chaos.lab import node_api
from chaos.lab.lab import Lab
from chaos.lab.lab_error import LabError
from chaos.lab.netns import entered
from chaos.lab.node_files import cluster_toml
from hanat.kernel.ruleset_watch import KernelRulesetWatch

WEB = 'listen = ["vip:public tcp/80"]\nscheduler = "wrr"\n'
CHECK = '  [[service.check]]\n  kind = "http"\n  interval = "200ms"\n  timeout = "150ms"\n'
SETTLED_S = 15.0
GAP_S = 0.3  # so that the rules of one verdict are not those of the next


def configuration(services: int) -> str:
    """Return the lab's configuration with a checked service, and so many others."""
    others = [
        f'\n[[service]]\nname = "other{n}"\nlisten = ["vip:public tcp/{20_000 + n}"]\n'
        + "".join(
            f'  [[service.server]]\n  name = "w{k}"\n  address = "10.11.12.{k + 20}:80"\n'
            for k in range(10)
        )
        for n in range(services)
    ]
    base = cluster_toml(profile="default", checked=False)
    assert WEB in base, "the lab's configuration is another one"
    return base.replace(WEB, WEB + CHECK) + "".join(others)


class Watches:
    """Hears when the rules of each router change."""

    def __init__(self, lab: Lab) -> None:
        self._watches: dict[str, KernelRulesetWatch] = {}
        for name in lab.nodes:
            with entered(lab.topology.namespace(name)):
                self._watches[name] = KernelRulesetWatch()
        self.changes: dict[str, list[float]] = {name: [] for name in lab.nodes}

    def hear(self, seconds: float) -> None:
        """Note the changes of so many seconds."""
        names = {watch.fileno(): name for name, watch in self._watches.items()}
        poll = select.poll()
        for descriptor in names:
            poll.register(descriptor, select.POLLIN)
        end = time.monotonic() + seconds
        while (left_s := end - time.monotonic()) > 0:
            for descriptor, _ in poll.poll(1000 * left_s):
                at_s = time.time()
                if self._watches[names[descriptor]].read():
                    self.changes[names[descriptor]].append(at_s)

    def close(self) -> None:
        """Hear nothing any more."""
        for watch in self._watches.values():
            watch.close()


@contextmanager
def watching(lab: Lab) -> Iterator[Watches]:
    """Hear of rules for a while."""
    watches = Watches(lab)
    try:
        yield watches
    finally:
        watches.close()


def verdicts(lab: Lab, holder: str) -> list[float]:
    """Return when each verdict was proposed, seconds since 1970."""
    _, document = node_api.request(lab.nodes[holder].socket, "GET", "/v1/history")
    return [change["at_s"] for change in document["servers"] if change["what"] == "verdict"]


def is_up(lab: Lab, node: str) -> bool:
    """Say whether a node knows all servers of the service as up."""
    code, document = node_api.request(lab.nodes[node].socket, "GET", "/v1/services/web")
    return code == 200 and document["state"] == "up"


def measure(lab: Lab, rounds: int) -> tuple[list[float], list[float]]:
    """Return milliseconds from proposals to the holder's kernel, and to the last one."""
    holder = lab.wait_for_holder()
    lab.wait_for(lambda: all(is_up(lab, name) for name in lab.nodes), 60, "all servers up")
    server = lab.server("s1").identity.pid
    before = len(verdicts(lab, holder))
    with watching(lab) as watches:
        for _ in range(rounds):
            for number in (signal.SIGSTOP, signal.SIGCONT):
                os.kill(server, number)
                watches.hear(1.5)
    if lab.wait_for_holder() != holder:
        raise LabError("the addresses moved meanwhile")
    decided = sorted(verdicts(lab, holder)[before:])
    # Two verdicts close to each other share a transaction: the later one counts for itself.
    alone = [a for a, b in pairwise([*decided, decided[-1] + 9]) if b - a > GAP_S]
    here, last = [], []
    for at_s in alone:
        firsts = {
            name: next((c for c in changes if c > at_s), None)
            for name, changes in watches.changes.items()
        }
        found = [first for first in firsts.values() if first is not None]
        first_here = firsts[holder]
        if first_here is None or len(found) < len(lab.nodes):
            continue
        here.append(1000 * (first_here - at_s))
        last.append(1000 * (max(found) - at_s))
    return here, last


def figures(values: list[float]) -> str:
    """Return median and 99th percentile."""
    ordered = sorted(values)
    return f"{statistics.median(ordered):.1f} / {ordered[int(0.99 * (len(ordered) - 1))]:.1f}"


def main() -> int:
    """Measure, print, return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verdicts", description=__doc__)
    parser.add_argument("--services", type=int, nargs="+", default=[0, 1000])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--prefix", default="hnverdict")
    options = parser.parse_args()
    rows = []
    try:
        for services in options.services:
            with Lab(options.prefix, cluster_toml=configuration(services)) as lab:
                lab.start()
                here, last = measure(lab, options.rounds)
            rows.append(f"| {services + 3} | {len(here)} | {figures(here)} | {figures(last)} |")
            print(rows[-1], file=sys.stderr)
    except LabError as error:
        print(f"benchmarks.verdicts: {error}", file=sys.stderr)
        return 2
    head = "| services | verdicts | to the holder's kernel, ms, median / p99 | to all nodes' |"
    print("\n".join([head, "|---|---|---|---|", *rows, "", str(machine())]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
