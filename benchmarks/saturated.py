"""A holder whose uplink is offered twice its rate: ``python -m benchmarks.saturated``.

The public device of every router gets a bounded queue, a server sends through the holder what
the queue cannot carry, for minutes. Told are what the queue dropped, and how often the addresses
moved. Printed as a Markdown table. Needs root.

Exit codes: 0 nothing moved; 1 not so, or not measured; 2 usage.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence

from benchmarks.failover import machine
from chaos.faults.afflictions import Plagued
from chaos.faults.hardships import Narrowed
from chaos.lab.lab import Lab, require_machine
from chaos.lab.lab_error import LabError, UsageError
from chaos.lab.node_files import PROFILES, cluster_toml
from chaos.lab.topology import DEVICES, SERVERS, SUBNET

PREFIX = "hanat-saturated"
MBIT = 4
_ROLE = re.compile(r" role=\S+ was=ACTIVE ")
_DROPPED = re.compile(r"dropped (\d+)")


def given_up(lab: Lab) -> int:
    """Return how often a holder gave up, by the logs of all nodes."""
    return sum(len(_ROLE.findall(lab.log(name))) for name in lab.nodes)


def measure(lab: Lab, seconds: float) -> tuple[int, int]:
    """Return how many packets the holder's queue dropped, and how often a holder gave up.

    Raises:
        LabError: The cluster did not come up, or somebody else holds at the end.
    """
    lab.start()
    holder = lab.wait_for_holder()
    queues = [Narrowed(lab.topology, name, "public", MBIT) for name in lab.nodes]
    words = ["chaos.workloads.pour", f"{SUBNET['public']}100:9", "--mbit", str(2 * MBIT)]
    ends = time.monotonic() + seconds
    for queue in queues:
        queue.start()
    while time.monotonic() < ends:  # it ends by itself after 30 s
        load = Plagued(lab, {f"pour{time.monotonic_ns()}": (SERVERS[1], words)})
        load.start()
        time.sleep(max(0.0, min(25.0, ends - time.monotonic())))
        load.stop()
    shown = lab.exec_in(holder, ["tc", "-s", "qdisc", "show", "dev", DEVICES["public"]], 10).stdout
    if lab.wait_for_holder() != holder:
        raise LabError(f"{holder} held at the beginning, another node at the end")
    moves = given_up(lab)
    return max(map(int, _DROPPED.findall(shown)), default=0), moves


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.saturated", description=__doc__)
    parser.add_argument("--profile", choices=list(PROFILES), default="default")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--prefix", default=PREFIX, help="of the lab (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        require_machine()
        with Lab(
            options.prefix, cluster_toml=cluster_toml(profile=options.profile, checked=False)
        ) as lab:
            dropped, moves = measure(lab, options.seconds)
    except UsageError as error:
        print(f"benchmarks.saturated: {error}", file=sys.stderr)
        return error.exit_code
    except LabError as error:
        print(f"benchmarks.saturated: {error}", file=sys.stderr)
        return 1
    print("| profile | seconds | offered / carried, Mbit/s | dropped by the queue | moves |")
    print("| --- | --- | --- | --- | --- |")
    print(
        f"| {options.profile} | {options.seconds:.0f} | {2 * MBIT} / {MBIT} | {dropped} | {moves} |"
    )
    print(f"\n{', '.join(f'{key} {value}' for key, value in machine().items())}.")
    return int(moves > 0 or not dropped)


if __name__ == "__main__":
    sys.exit(main())
