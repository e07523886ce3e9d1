"""Faults of the real servers: dead, cut off, slow, flapping; and of a router's view of them.

The same protocol as `faults.Fault`. What was done when goes to a file: a server may be down and
up several times within one fault, and it serves again only some time after the undoing.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from chaos.faults.hardships import run_in
from chaos.lab import topology
from chaos.lab.lab import Lab
from chaos.lab.servers import WELL
from chaos.lab.switch import Net
from chaos.lab.topology import SERVERS, server_addresses
from chaos.observe import run_history
from chaos.observe.observed import AgentSaid, ServerOutage

JOIN_S = 5.0
FILTERED = """\
table inet filtered {
    chain input { type filter hook input priority 0; meta l4proto { tcp, udp } drop; }
}
"""


def _stop(lab: Lab, host: str) -> None:
    lab.signal_server(host, signal.SIGSTOP)


def _continue(lab: Lab, host: str) -> None:
    lab.signal_server(host, signal.SIGCONT)


def _slow_down(lab: Lab, host: str) -> None:
    lab.signal_server(host, signal.SIGUSR1)


def _fail(lab: Lab, host: str) -> None:
    lab.signal_server(host, signal.SIGHUP)


def _be_well(lab: Lab, host: str) -> None:
    lab.signal_server(host, signal.SIGUSR2)


def _filter(lab: Lab, host: str) -> None:
    run_in(lab.topology.namespace(host), ["nft", "-f", "-"], FILTERED)


def _open(lab: Lab, host: str) -> None:
    run_in(lab.topology.namespace(host), ["nft", "delete", "table", "inet", "filtered"])


def _kill(lab: Lab, host: str) -> None:
    lab.kill_server(host)


def _start(lab: Lab, host: str) -> None:
    lab.start_servers(host)


def _unplug(lab: Lab, host: str) -> None:
    topology.set_carrier(lab.topology, host, "private", up=False)


def _plug(lab: Lab, host: str) -> None:
    topology.set_carrier(lab.topology, host, "private", up=True)


Act = Callable[[Lab, str], None]
HOW: Mapping[str, tuple[Act, Act]] = {
    "stopped": (_stop, _continue),
    "killed": (_kill, _start),
    "unplugged": (_unplug, _plug),
    "slow": (_slow_down, _be_well),
    "failing": (_fail, _be_well),
    "filtered": (_filter, _open),
}
"""What is done to a server, and what undoes it, by a word of `ServerOutage.how`."""


@dataclass(slots=True)
class ServerAils:
    """A server that does not serve as it should.

    Attributes:
        how: A word of `HOW`.
        out: The file that outages are appended to.
    """

    lab: Lab
    host: str
    how: str
    out: Path
    _since_ns: int | None = None

    def start(self) -> int:
        """Do it."""
        act, _ = HOW[self.how]
        self._since_ns = time.monotonic_ns()
        act(self.lab, self.host)
        return self._since_ns

    def stop(self) -> int:
        """Undo it, if it was done; write it down."""
        instant_ns = time.monotonic_ns()
        if self._since_ns is not None:
            _, undo = HOW[self.how]
            undo(self.lab, self.host)
            back_ns = time.monotonic_ns()
            outage = ServerOutage(self._since_ns, instant_ns, back_ns, self.host, self.how)
            self._since_ns = None
            with self.out.open("a") as file:
                run_history.write(file, outage)
        return instant_ns


@dataclass(slots=True)
class AgentSays:
    """An agent of a server that says something of it.

    Attributes:
        words: As of HAProxy's agent-check, or none of them.
        out: The file that it is appended to.
    """

    lab: Lab
    host: str
    words: str
    out: Path
    _since_ns: int | None = None

    def start(self) -> int:
        """Say it from now on."""
        self._since_ns = time.monotonic_ns()
        self._say(self.words)
        return self._since_ns

    def stop(self) -> int:
        """Say that all is well, if something else was said; write it down."""
        instant_ns = time.monotonic_ns()
        if self._since_ns is not None:
            self._say(WELL)
            with self.out.open("a") as file:
                run_history.write(
                    file, AgentSaid(self._since_ns, instant_ns, self.host, self.words)
                )
            self._since_ns = None
        return instant_ns

    def _say(self, words: str) -> None:
        draft = self.lab.folder / f"{self.host}-agent.new"
        draft.write_text(words)
        draft.rename(self.lab.agent_file(self.host))  # read at any time, never half of it


@dataclass(slots=True)
class ServerFlaps:
    """A server that is down and up again and again.

    Attributes:
        ails: What is done to it each time.
        down_s, up_s: How long each time.
    """

    ails: ServerAils
    down_s: float
    up_s: float
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> int:
        """Begin with the first time it is down."""
        instant_ns = time.monotonic_ns()
        self._thread = threading.Thread(target=self._flap, daemon=True)
        self._thread.start()
        return instant_ns

    def stop(self) -> int:
        """Let it serve."""
        instant_ns = time.monotonic_ns()
        self._ended.set()
        if self._thread is not None:
            self._thread.join(JOIN_S)
        self.ails.stop()
        return instant_ns

    def _flap(self) -> None:
        while not self._ended.is_set():
            self.ails.start()
            self._ended.wait(self.down_s)
            self.ails.stop()
            self._ended.wait(self.up_s)


@dataclass(frozen=True, slots=True)
class Blind:
    """A router that reaches no server itself, while what it forwards does."""

    net: Net
    router: str

    def start(self) -> int:
        """Drop its own packets to servers."""
        instant_ns = time.monotonic_ns()
        each = [server_addresses(host) for host in SERVERS]
        self.net.blind(self.router, {"ip": [v4 for v4, _ in each], "ip6": [v6 for _, v6 in each]})
        return instant_ns

    def stop(self) -> int:
        """Let them pass."""
        instant_ns = time.monotonic_ns()
        self.net.heal()
        return instant_ns
