"""What the checker of a node costs: ``python -m benchmarks.checker``.

A checker probes as many targets as asked on the loopback of a network namespace: half of them
answer, half are closed. It is commanded as the daemon does it. Then its share of a processor
and its memory (PSS, proc(5)) are printed as a Markdown table. Needs root and unshare(1).

Exit codes: 0 measured, and within the bounds; 1 not so; 2 usage.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.failover import machine
from benchmarks.memory import memory_of
from chaos.lab.processes import REPOSITORY

CPU_PERCENT_MAX, MIB_MAX = 35.0, 80.0
OPEN, CLOSED = 80, 81
SETTLE_S = 6.0
OPTIONS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "tcp": ("TcpCheck", {"send": "", "expect": "", "pattern": None}),
    "http": (
        "HttpCheck",
        {
            "method": "GET", "path": "/", "host": "", "headers": [], "statuses": [[200, 399]],
            "body": None, "digest": "", "tls": None,
        },
    ),
}  # fmt: skip
PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"

HEAD = (
    "kind",
    "targets",
    "interval, s",
    "probes",
    "CPU, % of a core",
    "CPU, ms a probe",
    "PSS, MiB",
)


def targets(kind: str, count: int, interval_s: float) -> dict[str, Any]:
    """Return targets for a checker, by name: every other one is closed."""
    name, options = OPTIONS[kind]
    timing = {
        "interval_s": interval_s, "timeout_s": 1.0, "fall": 3, "rise": 2, "fast_interval_s": None,
    }  # fmt: skip
    return {
        f"t{number}": {
            "kind": name,
            "options": options,
            "timing": timing,
            "address": f"127.0.{number // 250}.{number % 250 + 1}",
            "port": CLOSED if number % 2 else OPEN,
            "source": None,
            "mark": 0,
            "service": "",
            "server": "",
        }
        for number in range(count)
    }


class Server:
    """Answers on the open port; the answers are counted."""

    def __init__(self, kind: str) -> None:
        self._selector = selectors.DefaultSelector()
        self._listening = socket.create_server(("0.0.0.0", OPEN), backlog=4096)  # noqa: S104 - of a namespace
        self._listening.setblocking(False)  # noqa: FBT003 - the library's signature
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._talks = kind == "http"
        self.answered = 0

    def serve(self, seconds: float) -> None:
        """Answer for a while."""
        end = time.monotonic() + seconds
        while (left_s := end - time.monotonic()) > 0:
            for key, _ in self._selector.select(left_s):
                self._answer(key.fileobj)  # type: ignore[arg-type]  # sockets alone are registered

    def _answer(self, opened: socket.socket) -> None:
        if opened is self._listening:
            accepted, _ = opened.accept()
            if self._talks:
                self._selector.register(accepted, selectors.EVENT_READ)
                return
            accepted.close()
        else:
            self._selector.unregister(opened)
            with opened, suppress(ConnectionError):
                if opened.recv(4096):
                    opened.sendall(PAGE)
        self.answered += 1


def measure(kind: str, count: int, interval_s: float, seconds: float) -> tuple[float, float, int]:
    """Return share of a core in percent, memory in MiB, and how many probes were answered."""
    ours, theirs = socket.socketpair()
    server = Server(kind)
    command = [sys.executable, "-I", str(REPOSITORY / "hanat/start.py"), "-m", "hanat.checker"]
    with ours, subprocess.Popen(
        [*command, str(theirs.fileno())], pass_fds=[theirs.fileno()]
    ) as process:  # fmt: skip
        try:
            theirs.close()
            told = list(targets(kind, count, interval_s).items())
            for line in lines(told):
                ours.sendall(line)
            server.serve(SETTLE_S + interval_s)
            before, began, answered = cpu_s(process.pid), time.monotonic(), server.answered
            server.serve(seconds)
            cpu = 100 * (cpu_s(process.pid) - before) / (time.monotonic() - began)
            return cpu, memory_of(process.pid).pss / 1024, server.answered - answered
        finally:
            process.kill()


def lines(told: list[tuple[str, Any]], piece: int = 200) -> Iterator[bytes]:
    """Return what the daemon says to the checker."""
    for start in range(0, len(told), piece):
        part = dict(told[start : start + piece])
        body = {"first": start == 0, "last": start + piece >= len(told), "targets": part}
        yield json.dumps(["configure", body]).encode() + b"\n"


def cpu_s(pid: int) -> float:
    """Return the seconds of a processor that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checker", description=__doc__)
    parser.add_argument("--kind", choices=OPTIONS, default="tcp")
    parser.add_argument("--targets", type=int, default=2_000)
    parser.add_argument("--interval", type=float, default=2.0, help="of each target, seconds")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the measurement")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("benchmarks.checker: needs root: it makes a network namespace", file=sys.stderr)
        return 2
    if not options.inside:
        again = [sys.executable, "-m", "benchmarks.checker", "--inside", *sys.argv[1:]]
        return subprocess.run(["unshare", "--net", *again], check=False).returncode
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    cpu, mib, answered = measure(options.kind, options.targets, options.interval, options.seconds)
    probes = 2 * answered  # of which half are refused
    per_probe_ms = 10 * cpu * options.seconds / max(probes, 1)
    row = (
        options.kind, options.targets, f"{options.interval:g}", probes, f"{cpu:.1f}",
        f"{per_probe_ms:.2f}", f"{mib:.1f}",
    )  # fmt: skip
    print("; ".join(f"{name} {value}" for name, value in machine().items()), end="\n\n")
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}\n| {' | '.join(map(str, row))} |")
    return int(cpu > CPU_PERCENT_MAX or mib > MIB_MAX)


if __name__ == "__main__":
    sys.exit(main())
