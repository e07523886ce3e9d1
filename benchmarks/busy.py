"""A cluster on a machine whose cores are all taken: ``python -m benchmarks.busy``.

As many processes as there are cores, or more, compute for minutes without any priority, beside a
three-node lab that carries nothing. Told is how often the addresses moved, for no fault. Printed as
a Markdown table. Needs root.

Exit codes: 0 nothing moved; 1 not so, or not measured; 2 usage.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.failover import machine
from benchmarks.saturated import given_up
from chaos.lab.lab import Lab, require_machine
from chaos.lab.lab_error import LabError, UsageError
from chaos.lab.node_files import PROFILES, cluster_toml

PREFIX = "hanat-busy"


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Let so many processes compute."""
    burners = [
        subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(count)
    ]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def measure(lab: Lab, seconds: float) -> tuple[int, float]:
    """Return how often a holder gave up, and the longest that a loop was late, in seconds.

    Raises:
        LabError: The cluster did not come up, or ended.
    """
    lab.start()
    lab.wait_for_holder()
    before = given_up(lab)
    time.sleep(seconds)
    late = [
        float(status["late"]["max_s"]) for status in lab.statuses().values() if status is not None
    ]
    return given_up(lab) - before, max(late, default=0.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.busy", description=__doc__)
    parser.add_argument("--profile", choices=list(PROFILES), default="fast")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--prefix", default=PREFIX, help="of the lab (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        require_machine()
        with (
            Lab(
                options.prefix, cluster_toml=cluster_toml(profile=options.profile, checked=False)
            ) as lab,
            busy(options.processes),
        ):
            moves, late_s = measure(lab, options.seconds)
    except UsageError as error:
        print(f"benchmarks.busy: {error}", file=sys.stderr)
        return error.exit_code
    except LabError as error:
        print(f"benchmarks.busy: {error}", file=sys.stderr)
        return 1
    print("| profile | seconds | busy processes | moves | a loop late by, at most |")
    print("| --- | --- | --- | --- | --- |")
    print(
        f"| {options.profile} | {options.seconds:.0f} | {options.processes} | {moves} | "
        f"{late_s * 1000:.1f} ms |"
    )
    print(f"\n{', '.join(f'{key} {value}' for key, value in machine().items())}.")
    return int(moves > 0)


if __name__ == "__main__":
    sys.exit(main())
