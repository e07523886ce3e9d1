"""Run one workload: ``python -m chaos.workloads udp udp_in 203.0.113.10:53 --out FILE``.

Ends on SIGTERM, or after ``--seconds`` whatever happens, and then writes what it saw as
lines of a history. Writing only at the end keeps the disk out of the measurement.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path

from chaos.lab.priority import prefer
from chaos.lab.stop import Stop
from chaos.observe import run_history
from chaos.workloads import http, syn, tcp, udp


def main() -> None:
    """Parse the command line, run the workload, write its history."""
    parser = argparse.ArgumentParser(prog="python -m chaos.workloads", description=__doc__)
    parser.add_argument("workload", choices=("udp", "tcp", "http", "syn"))
    parser.add_argument("name", help="of this stream in the history")
    parser.add_argument("target", help="ADDRESS:PORT, [ADDRESS]:PORT of IPv6")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--period-ms", type=float, required=True, help="between operations")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="at most (default: %(default)s)"
    )
    parser.add_argument("--source-port", type=int, default=0, help="udp only")
    parser.add_argument("--again", action="store_true", help="tcp only: after a reset")
    options = parser.parse_args()
    prefer()
    facts = _run(options, Stop(options.seconds))
    draft = options.out.with_suffix(".part")
    with draft.open("w") as file:
        for fact in facts:
            run_history.write(file, fact)
    draft.rename(options.out)


def _run(options: argparse.Namespace, stop: Stop) -> Sequence[run_history.Fact]:
    address, _, port = options.target.rpartition(":")
    target = (address.strip("[]"), int(port))
    period_s = options.period_ms / 1000
    if options.workload == "udp":
        source = options.source_port
        return [udp.run(options.name, target, source_port=source, period_s=period_s, stop=stop)]
    if options.workload == "syn":
        return [syn.run(options.name, target, period_s=period_s, stop=stop)]
    if options.workload == "tcp":
        return tcp.run(options.name, target, period_s=period_s, stop=stop, again=options.again)
    return asyncio.run(http.run(options.name, target, period_s=period_s, stop=stop))


if __name__ == "__main__":
    main()
