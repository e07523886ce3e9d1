"""What memory the processes of idle nodes hold: ``python -m benchmarks.memory``.

A lab for each case, without checks of the servers and with them; some seconds after the first
election the proportional set size (PSS, proc(5)) of every process is read, so that a page that
n processes share counts 1/n in each. The nodes of a lab share the pages of the interpreter and
of the libraries, as nodes on machines of their own do not. So the last columns have what belongs
to no file, and what a node would have alone: each page of a file whole, once for all of its
processes. Printed as a Markdown table: the most of each on any node. Needs root.

Exit codes: 0 measured, and a node without checks is within the bound; 1 not so, 2 this machine
or the command line is not fit.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.failover import machine
from chaos.lab.lab import Lab, require_machine
from chaos.lab.lab_error import LabError, UsageError
from chaos.lab.node_files import PROFILES, cluster_toml
from chaos.lab.processes import marked

PREFIX = "hanat-memory"
IDLE_S = 10.0
MIB_MAX = 75.0  # of a node without checks
PROCESSES = ("supervisor", "daemon", "worker", "checker")
HEAD = ("case", *(f"{name}, MiB" for name in PROCESSES), "node", "of no file", "alone")

_MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ ([0-9a-f]+) \S+ \d+ *(.*)$")


@dataclass(frozen=True, slots=True)
class Memory:
    """What one process holds, in KiB.

    Attributes:
        pss: What it shares counted in part.
        anonymous: Of no file.
        files: What is resident of a file, by its path and the mapping's offset.
    """

    pss: int
    anonymous: int
    files: Mapping[tuple[str, str], int]


def memory_of(pid: int) -> Memory:
    """Return the memory of a process. Raises OSError if it has ended."""
    pss = anonymous = 0
    files: dict[tuple[str, str], int] = defaultdict(int)
    where = ("", "")
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if (found := _MAPPING.match(line)) is not None:
            where = (found[2], found[1])
            continue
        name, _, value = line.partition(":")
        if name == "Pss":
            pss += int(value.split()[0])
        elif name == "Rss":
            files[where] += int(value.split()[0])
        elif name == "Anonymous":
            anonymous += int(value.split()[0])
            files[where] -= int(value.split()[0])
    return Memory(pss, anonymous, files)


def alone(processes: Sequence[Memory]) -> int:
    """Return what some processes hold together if no others share with them, in KiB."""
    files: dict[tuple[str, str], int] = defaultdict(int)
    for process in processes:
        for where, resident in process.files.items():
            files[where] = max(files[where], resident)
    return sum(process.anonymous for process in processes) + sum(files.values())


def node_memory(prefix: str, node: str) -> dict[str, Memory]:
    """Return the memory of each process of a node of a lab, by the process's name."""
    found: dict[str, Memory] = {}
    for process in marked(prefix, node):
        arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes().decode().split("\0")
        module = arguments[arguments.index("-m") + 1]
        found[module.removeprefix("hanat.")] = memory_of(process.pid)
    return found


def node_pss_bytes(prefix: str, node: str) -> float:
    """Return the memory of all processes of a node, what they share counted in part."""
    return 1024.0 * sum(memory.pss for memory in node_memory(prefix, node).values())


def measure(lab: Lab, seconds: float) -> list[dict[str, Memory]]:
    """Return the memory of each node's processes after some idle seconds.

    Raises:
        LabError: The cluster did not come up.
    """
    lab.start()
    lab.wait_for_holder()
    time.sleep(seconds)
    return [node_memory(lab.prefix, name) for name in lab.nodes]


def row(case: str, nodes: Sequence[Mapping[str, Memory]]) -> tuple[str, ...]:
    """Return a line of the table: the most of each on any node."""
    parts = (max((n[p].pss for n in nodes if p in n), default=0) for p in PROCESSES)
    anonymous = max(sum(memory.anonymous for memory in node.values()) for node in nodes)
    figures = (*parts, _pss(nodes), anonymous, max(alone(list(n.values())) for n in nodes))
    return (case, *(f"{figure / 1024:.1f}" if figure else "-" for figure in figures))


def _pss(nodes: Sequence[Mapping[str, Memory]]) -> int:
    return max(sum(memory.pss for memory in node.values()) for node in nodes)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--profile", choices=PROFILES, default="default")
    parser.add_argument("--seconds", type=float, default=IDLE_S, help="idle (default: 10)")
    parser.add_argument("--prefix", default=PREFIX, help="of the lab (default: %(default)s)")
    options = parser.parse_args()
    rows: list[tuple[str, ...]] = []
    within = True
    try:
        require_machine()
        for case, checked in (("no checks", False), ("checks", True)):
            text = cluster_toml(profile=options.profile, checked=checked)
            with Lab(options.prefix, cluster_toml=text) as lab:
                nodes = measure(lab, options.seconds)
            rows.append(row(case, nodes))
            within = within and (checked or _pss(nodes) <= 1024 * MIB_MAX)
    except (UsageError, LabError) as error:
        print(f"benchmarks.memory: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print("benchmarks.memory: interrupted; everything was removed", file=sys.stderr)
        return 130
    print("; ".join(f"{name} {value}" for name, value in machine().items()), end="\n\n")
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for line in rows:
        print(f"| {' | '.join(line)} |")
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
