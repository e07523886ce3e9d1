"""Faults of a router's kernel and of its disk: queues, rules, addresses, tables, broken disks.

The same protocol as `faults.Fault`.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.faults.faults import Fault
from chaos.lab import equipment, machine, mounts, topology
from chaos.lab.lab import Lab
from chaos.lab.lab_error import LabError
from chaos.lab.netns import entered
from chaos.lab.node import Node
from chaos.lab.topology import DEVICES, Topology

QUEUE_PACKETS = 20
GONE_S = 0.04  # long enough for a floating address to be put back first
HANDOVER_S = 5.0
POLL_S = 0.05
SWITCHED = 200
FULL = 8  # fewer than there are connections; the table of a lab has hundreds
# As iptables-nft names them. Docker: "iptables -P FORWARD DROP".
FORWARD = """\
add table ip filter
add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }
"""


@dataclass(frozen=True, slots=True)
class Contended:
    """A fault under a load of its own, which begins before it and ends before it is undone."""

    fault: Fault
    load: Fault
    lead_s: float = 0.0

    def start(self) -> int:
        """Begin the load, then the fault.

        Raises:
            LabError: The fault could not be begun; the load is ended.
        """
        self.load.start()
        time.sleep(self.lead_s)
        try:
            return self.fault.start()
        except LabError:
            self.load.stop()
            raise

    def stop(self) -> int:
        """End the load, then undo the fault."""
        instant_ns = self.load.stop()
        self.fault.stop()
        return instant_ns


@dataclass(frozen=True, slots=True)
class Narrowed:
    """A router one of whose devices lets little through, and keeps little."""

    topology: Topology
    router: str
    network: str
    mbit: int

    def start(self) -> int:
        """Put the queue in its place."""
        instant_ns = time.monotonic_ns()
        rate = f"{self.mbit}mbit"
        self._tc("replace", "root", "handle", "1:", "tbf", "rate", rate, "burst", "4kb",
                 "limit", "64kb")  # fmt: skip
        self._tc("add", "parent", "1:", "handle", "2:", "pfifo", "limit", str(QUEUE_PACKETS))
        return instant_ns

    def stop(self) -> int:
        """Take it away; harmless if it is not there."""
        instant_ns = time.monotonic_ns()
        self._tc("del", "root", good=(0, 2))
        return instant_ns

    def _tc(self, what: str, *words: str, good: Sequence[int] = (0,)) -> None:
        namespace = self.topology.namespace(self.router)
        device = DEVICES[self.network]
        run_in(namespace, ["tc", "qdisc", what, "dev", device, *words], good=good)


@dataclass(frozen=True, slots=True)
class ForwardDropped:
    """A router on which another program drops everything that is forwarded."""

    namespace: str

    def start(self) -> int:
        """Set the policy."""
        instant_ns = time.monotonic_ns()
        run_in(self.namespace, ["nft", "-f", "-"], FORWARD)
        return instant_ns

    def stop(self) -> int:
        """Take it back; harmless if it was not set."""
        instant_ns = time.monotonic_ns()
        run_in(self.namespace, ["nft", "-f", "-"], "add table ip filter\ndelete table ip filter\n")
        return instant_ns


@dataclass(frozen=True, slots=True)
class RulesFlushed:
    """A router whose rules somebody has flushed; to restore them is hanat's business.

    Attributes:
        table: Only of this one; empty: all there are.
    """

    namespace: str
    table: str = ""

    def start(self) -> int:
        """Flush."""
        instant_ns = time.monotonic_ns()
        what = f"table {self.table}" if self.table else "ruleset"
        run_in(self.namespace, ["nft", "flush", *what.split()])
        return instant_ns

    def stop(self) -> int:
        """Do nothing."""
        return time.monotonic_ns()


@dataclass(frozen=True, slots=True)
class TableFull:
    """Tables of connections that have no room for another one, on all routers."""

    folder: Path

    def start(self) -> int:
        """Lower the limit below what there is."""
        instant_ns = time.monotonic_ns()
        machine.lower_table_limit(self.folder, FULL)
        return instant_ns

    def stop(self) -> int:
        """Set it as it was."""
        instant_ns = time.monotonic_ns()
        machine.restore_table_limit(self.folder)
        return instant_ns


@dataclass(frozen=True, slots=True)
class AddressReplaced:
    """A router's own addresses went and came, as when its network is set up again.

    If floating addresses were on that device, what Linux made of it shows when they leave: so
    to undo it, whoever it hit hands over.

    Attributes:
        versions: Of IP: of which the address goes.
    """

    lab: Lab
    router: str
    network: str
    versions: Sequence[int]

    def start(self) -> int:
        """Delete them, add them a moment later."""
        instant_ns = time.monotonic_ns()
        ports = self.lab.topology.router(self.router).ports
        (port,) = (p for p in ports if p.network == self.network)
        own = {4: port.address, 6: f"{port.address_v6} nodad"}  # as the lab was built
        where = [f"{own[version]} dev {port.device}" for version in self.versions]
        namespace = self.lab.topology.namespace(self.router)
        topology.run_ip(["-n", namespace], [f"addr del {each}" for each in where])
        time.sleep(GONE_S)
        topology.run_ip(["-n", namespace], [f"addr add {each}" for each in where])
        return instant_ns

    def stop(self) -> int:
        """Let another node hold, if this one does; what is refused is asked for again.

        Raises:
            LabError: It was refused for too long.
        """
        instant_ns = time.monotonic_ns()
        deadline = time.monotonic() + HANDOVER_S
        others = [n for n, node in self.lab.nodes.items() if n != self.router and node.wanted]
        while others and self.lab.holder() == self.router:
            try:
                code, answer = self.lab.switchover(others[0])
            except LabError as error:
                code, answer = 0, error
            if code != SWITCHED and time.monotonic() > deadline:
                raise LabError(f"the switchover to {others[0]} was refused: {code} {answer}")
            time.sleep(POLL_S)
        return instant_ns


@dataclass(frozen=True, slots=True)
class DiskBroken:
    """A node whose disk has failed: the kernel made it read-only, or every access fails.

    Attributes:
        how: ``EIO`` or ``read-only``.
    """

    node: Node
    how: str

    def start(self) -> int:
        """Break it.

        Raises:
            LabError: The file system cannot do that.
        """
        instant_ns = time.monotonic_ns()
        act = mounts.break_down if self.how == "EIO" else mounts.make_read_only
        try:
            act(self.node.folder / "data")
        except OSError as error:
            raise LabError(f"cannot break the disk of {self.node.name}: {error}") from error
        return instant_ns

    def stop(self) -> int:
        """Do what an operator does: end the node, check the disk, start the node."""
        instant_ns = time.monotonic_ns()
        self.node.kill()
        equipment.replug(self.node.folder / "data")
        self.node.start()
        return instant_ns


def run_in(
    namespace: str, command: Sequence[str], script: str | None = None, good: Sequence[int] = (0,)
) -> None:
    """Run a program in a network namespace.

    Raises:
        LabError: It ended with another exit code than a good one.
    """
    with entered(namespace):
        done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    if done.returncode not in good:
        raise LabError(f"cannot run {' '.join(command)}: {done.stderr.strip()}")
