"""The traffic of a run: which client runs where, and the observer that watches it."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.lab.lab import Lab
from chaos.lab.lab_error import LabError
from chaos.lab.processes import Child, python_module, send_signal, wait_gone
from chaos.lab.topology import floating
from chaos.observe.run_history import Fact, History, read

PUBLIC, PUBLIC_V6 = floating("public")
OUTSIDE, OUTSIDE_V6 = "203.0.113.100", "2001:db8:113::100"  # c1, where outbound traffic goes
STOP_S = 10.0  # answers still under way, then writing the history
LIMIT_S = 120.0  # every client ends by itself after this, even if the run is killed


@dataclass(frozen=True, slots=True)
class Workload:
    """A client: what it does, from where, to where.

    Attributes:
        target: ``203.0.113.10:80``, or ``[2001:db8:113::10]:80``.
    """

    name: str
    kind: str
    host: str
    target: str
    period_ms: float
    source_port: int = 0

    @property
    def version(self) -> int:
        """Of IP."""
        return 6 if self.target.startswith("[") else 4


UDP = (
    Workload("udp-in", "udp", "c1", f"{PUBLIC}:53", 1, source_port=40053),
    Workload("udp-out", "udp", "s1", f"{OUTSIDE}:5353", 1, source_port=40054),
)
# Four times as rare: to see a fault of IPv6 alone, not to measure it as finely.
UDP_V6 = (
    Workload("udp6-in", "udp", "c1", f"[{PUBLIC_V6}]:53", 4, source_port=40055),
    Workload("udp6-out", "udp", "s2", f"[{OUTSIDE_V6}]:5353", 4, source_port=40056),
)
TCP = (
    Workload("tcp-in", "tcp", "c1", f"{PUBLIC}:7", 15),
    Workload("tcp6-in", "tcp", "c1", f"[{PUBLIC_V6}]:7", 15),
    Workload("tcp-out", "tcp", "s1", f"{OUTSIDE}:9000", 15),
    Workload("tcp6-out", "tcp", "s2", f"[{OUTSIDE_V6}]:9000", 15),
)
HTTP = Workload("http", "http", "c1", f"{PUBLIC}:80", 20)
HTTP_V6 = Workload("http6", "http", "c1", f"[{PUBLIC_V6}]:80", 100)
SYN = (
    Workload("new-in", "syn", "c1", f"{PUBLIC}:80", 2),
    Workload("new-out", "syn", "s1", f"{OUTSIDE}:9000", 2),
)
SYN_V6 = (
    Workload("new6-in", "syn", "c1", f"[{PUBLIC_V6}]:80", 10),
    Workload("new6-out", "syn", "s2", f"[{OUTSIDE_V6}]:9000", 10),
)
EVERYTHING = (*UDP, *UDP_V6, *TCP, HTTP, HTTP_V6)


class Traffic:
    """Clients and observer of one lab; their histories go to ``<folder>/history``."""

    def __init__(
        self,
        lab: Lab,
        workloads: Sequence[Workload] = EVERYTHING,
        *,
        limit_s: float = LIMIT_S,
        carried: bool = False,
    ) -> None:
        """Prepare; nothing is started.

        Args:
            lab: Where.
            workloads: The clients.
            limit_s: After which every client ends by itself.
            carried: Whether the observer watches flows under way, too, and connections that were
                reset are opened anew.
        """
        self._lab = lab
        self._carried = carried
        self._limit_s = limit_s
        self._workloads = workloads
        self._folder = lab.folder / "history"
        self._children: dict[str, Child] = {}
        self.start_ns = 0
        self.end_ns = 0

    def start(self) -> None:
        """Start the observer, then all clients."""
        self._folder.mkdir()
        observer = python_module(
            "chaos.observe.observer", "--prefix", self._lab.prefix, "--seconds", str(self._limit_s),
            "--out", str(self._file("observer")), *(["--carried"] if self._carried else []),
        )  # fmt: skip
        # It runs on the switch for want of a better place; it enters all namespaces itself.
        self._children["observer"] = self._lab.spawn_in("sw", "observer", observer)
        for workload in self._workloads:
            self._children[workload.name] = self._lab.spawn_in(
                workload.host, workload.name, self._command(workload)
            )

    def run_for(self, seconds: float) -> None:
        """Let the traffic flow.

        Raises:
            LabError: A client has ended: whatever comes, it would not be measured.
        """
        deadline = time.monotonic() + seconds
        while (left_s := deadline - time.monotonic()) > 0:
            self.check()
            time.sleep(min(0.2, left_s))
        self.check()

    def check(self) -> None:
        """Raise a LabError if a client has ended before its time."""
        for name, child in self._children.items():
            if child.running:
                continue
            why = child.log.read_text(errors="replace").strip().rpartition("\n")[2]
            if not why and self._file(name).exists():
                why = "; ".join(
                    str(fact.error) for fact in History.of(read(self._file(name))).connections
                )
            raise LabError(f"client {name} ended before its time: {why or 'without a word'}")

    def stop(self) -> None:
        """Stop clients, then the observer; what was under way is still awaited.

        Raises:
            LabError: One of them did not end.
        """
        self.end_ns = time.monotonic_ns()
        clients = [c for name, c in self._children.items() if name != "observer"]
        for group in (clients, [self._children["observer"]]):
            for child in group:
                send_signal(child.identity, signal.SIGTERM)
            if not wait_gone([c.identity for c in group], STOP_S):
                raise LabError(f"a client did not end within {STOP_S:.0f} s of SIGTERM")
        for child in self._children.values():
            child.popen.wait(STOP_S)

    def facts(self) -> list[Fact]:
        """Read what they wrote, if they did; sets `start_ns` to when all streams were flowing."""
        files = [self._file(name) for name in self._children]
        facts = [fact for file in files if file.exists() for fact in read(file)]
        first = [probes.sent[0] for probes in History.of(facts).probes if probes.sent]
        self.start_ns = max(first, default=self.end_ns)
        return facts

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.jsonl"

    def _command(self, workload: Workload) -> list[str]:
        return python_module(
            "chaos.workloads", workload.kind, workload.name, workload.target,
            "--period-ms", str(workload.period_ms), "--seconds", str(self._limit_s),
            "--source-port", str(workload.source_port), "--out", str(self._file(workload.name)),
            *(["--again"] if self._carried else []),
        )  # fmt: skip
