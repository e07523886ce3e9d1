"""What the demonstration shows of a server whose process stops: what its clients saw, and when.

The server accepts connections and says nothing: nothing refuses a client, so only checks can tell.
Chosen is one that has no connection which is to last for the whole demonstration.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from chaos.faults.bounds import BACK_MS, DETECT_MS
from chaos.judge.checkers import Verdict
from chaos.lab.lab import Lab
from chaos.lab.lab_error import LabError
from chaos.lab.servers import TCP_PORT
from chaos.lab.topology import CLIENT, SERVERS
from chaos.observe.observed import ServerOutage
from chaos.observe.run_history import MS, Fault, History, Request
from chaos.workloads.http import TIMEOUT_S

NAME = "server-stopped"
STOPPED_S = DETECT_MS / 1000 + 2.0
BACK_S = BACK_MS / 1000 + 0.5
STOP, RESUME = "stop server", "resume server"  # of a `Fault`
WAITED_NS = 200 * MS  # a request usually takes a few milliseconds
ESTABLISHED = "01"  # include/net/tcp_states.h


@dataclass(frozen=True, slots=True)
class Seen:
    """What clients saw of a server that stopped.

    Attributes:
        requests: Made from the stop until it went on.
        failed: How many of them ended with an error.
        gave_up: How many got no answer in all the time that a client waits.
        waited: How many got theirs late.
        longest_ms: How long one of the late ones took at most.
        last_ms: How long after the stop the last of all those began.
        back_ms: How long after it went on it answered a request that began then; None: never.
    """

    server: str
    requests: int
    failed: int
    gave_up: int
    waited: int
    longest_ms: float
    last_ms: float
    back_ms: float | None

    @property
    def met(self) -> int:
        """How many requests noticed it."""
        return self.failed + self.gave_up + self.waited

    @property
    def text(self) -> str:
        """The same in plain words."""
        told = f"{self.server} stopped: of {self.requests} HTTP requests {self.failed} failed, "
        told += f"{self.gave_up} got no answer and gave up after {TIMEOUT_S:g} s, "
        told += f"{self.waited} waited"
        told += f", {self.longest_ms:.0f} ms at most" if self.waited else ""
        if self.met:
            told += f"; the last of these began {self.last_ms:.0f} ms after the stop"
        if self.back_ms is None:
            return f"{told}; it had no clients again"
        return f"{told}; it had clients again {self.back_ms:.0f} ms after it went on"


def perform(
    lab: Lab, say: Callable[[str], None], run_for: Callable[[float], None]
) -> tuple[list[Fault], ServerOutage]:
    """Stop a server's process, let it go on later.

    Raises:
        LabError: Each server has connections that are to last.
    """
    free = [host for host in reversed(SERVERS) if not lasting(lab, host)]
    if not free:
        raise LabError("cannot stop a server: each has a connection that is to last")
    host = free[0]
    stopped_ns = time.monotonic_ns()
    lab.signal_server(host, signal.SIGSTOP)
    say(f"SIGSTOP to the server's process on {host}: it accepts connections and says nothing")
    try:
        run_for(STOPPED_S)
    finally:
        resumed_ns = time.monotonic_ns()
        lab.signal_server(host, signal.SIGCONT)
    say(f"the server's process on {host} goes on")
    run_for(BACK_S)
    faults = [
        Fault(stopped_ns, STOP, host, moves_holder=False),
        Fault(resumed_ns, RESUME, host, moves_holder=False),
    ]
    return faults, ServerOutage(stopped_ns, resumed_ns, resumed_ns, host, "stopped")


def lasting(lab: Lab, host: str) -> int:
    """Return how many TCP connections of clients a server's echo has."""
    (port,) = lab.topology.host(CLIENT).ports
    own = {address.partition("/")[0] for address in (port.address, port.address_v6)}
    folder = Path(f"/proc/{lab.server(host).identity.pid}/net")
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in (folder / name).read_text().splitlines()
    ]
    return sum(
        words[3] == ESTABLISHED
        and int(words[1].rpartition(":")[2], 16) == TCP_PORT
        and _address(words[2].rpartition(":")[0]) in own
        for words in lines
        if words and words[0].endswith(":")
    )


def _address(digits: str) -> str:
    """Return an address of /proc/net/tcp: words of four bytes in the machine's order."""
    raw = bytes.fromhex(digits)
    found = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
    return str(ip_address(found))


def seen(history: History) -> Seen | None:
    """Return what clients saw; None if no server was stopped."""
    if not history.outages:
        return None
    outage = history.outages[-1]
    made = [r for r in history.requests if outage.t_ns <= r.t_ns < outage.end_ns]
    failed = [r for r in made if r.outcome == "fail"]
    gave_up = [r for r in made if r.outcome == "info"]
    waited = [r for r in made if r.outcome == "ok" and _took_ns(r) > WAITED_NS]
    back = (
        r.end_ns
        for r in sorted(history.requests, key=lambda r: r.end_ns)
        if r.t_ns >= outage.end_ns and r.server == outage.server
    )
    back_ns = next(back, None)
    met = [*failed, *gave_up, *waited]
    return Seen(
        server=outage.server,
        requests=len(made),
        failed=len(failed),
        gave_up=len(gave_up),
        waited=len(waited),
        longest_ms=max(map(_took_ns, waited), default=0) / MS,
        last_ms=(max((r.t_ns for r in met), default=outage.t_ns) - outage.t_ns) / MS,
        back_ms=None if back_ns is None else (back_ns - outage.end_ns) / MS,
    )


def _took_ns(request: Request) -> int:
    return request.end_ns - request.t_ns


def judge(history: History) -> Verdict:
    """Check that a server that stopped was noticed, and had clients again when it went on."""
    found = seen(history)
    if found is None or not found.requests:
        return Verdict(NAME, "unknown", "no server was stopped, or nobody asked")
    good = found.last_ms <= DETECT_MS and found.back_ms is not None and found.back_ms <= BACK_MS
    evidence = {"server": found.server, "failed": found.failed, "gave_up": found.gave_up,
                "waited": found.waited, "longest_ms": found.longest_ms, "last_ms": found.last_ms,
                "back_ms": found.back_ms}  # fmt: skip
    return Verdict(NAME, good, found.text, evidence)
