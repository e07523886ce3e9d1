"""Faults, each with its undoing: what a nemesis does to a cluster.

::

    fault = Frozen(lab.nodes["r1"])
    instant_ns = fault.start()
    ...
    fault.stop()

Every fault is named after the state it puts a node (or the network) into; `start` puts
it there and `stop` takes it out again. Both return the CLOCK_MONOTONIC nanosecond just before
they did anything that can be noticed.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from chaos.lab import topology
from chaos.lab.lab import Lab
from chaos.lab.lab_error import LabError
from chaos.lab.netns import empty_connections, entered
from chaos.lab.node import Kill, KillDaemon, Node, Pause
from chaos.lab.switch import Grudge, Net
from chaos.lab.topology import FLOATING, FLOATING_V6, Topology


class Fault(Protocol):
    """Something that can be done to a cluster and undone."""

    def start(self) -> int:
        """Do it; return the instant before, monotonic ns."""
        ...

    def stop(self) -> int:
        """Undo it; return the instant before, monotonic ns."""
        ...


@dataclass(frozen=True, slots=True)
class Partitioned:
    """Some hosts do not hear some others; nobody's carrier changes."""

    net: Net
    grudge: Grudge

    def start(self) -> int:
        """Cut."""
        instant_ns = time.monotonic_ns()
        self.net.drop_all(self.grudge)
        return instant_ns

    def stop(self) -> int:
        """Heal the whole network."""
        return _heal(self.net)


@dataclass(frozen=True, slots=True)
class CutOff:
    """A host whose cables carry nothing, or nothing in one direction; its carrier is up.

    Attributes:
        host: Which.
        way: ``both``; ``in``: it can send but not receive; ``out``: it can receive but not send.
    """

    net: Net
    host: str
    way: Literal["both", "in", "out"] = "both"

    def start(self) -> int:
        """Cut."""
        cut = {"both": self.net.isolate, "in": self.net.deafen, "out": self.net.mute}[self.way]
        instant_ns = time.monotonic_ns()
        cut(self.host)
        return instant_ns

    def stop(self) -> int:
        """Heal the whole network."""
        return _heal(self.net)


@dataclass(frozen=True, slots=True)
class Unplugged:
    """A router whose cable to one network is pulled: it loses the carrier."""

    topology: Topology
    router: str
    network: str

    def start(self) -> int:
        """Pull the cable."""
        instant_ns = time.monotonic_ns()
        topology.set_carrier(self.topology, self.router, self.network, up=False)
        return instant_ns

    def stop(self) -> int:
        """Plug it in."""
        instant_ns = time.monotonic_ns()
        topology.set_carrier(self.topology, self.router, self.network, up=True)
        return instant_ns


@dataclass(frozen=True, slots=True)
class Killed:
    """A node all of whose processes are dead; its kernel goes on."""

    node: Kill

    def start(self) -> int:
        """SIGKILL all of them."""
        return self.node.kill()

    def stop(self) -> int:
        """Start the node."""
        instant_ns = time.monotonic_ns()
        self.node.start()
        return instant_ns


@dataclass(frozen=True, slots=True)
class DaemonKilled:
    """A node whose deciding process was killed alone; what supervises it lives."""

    node: KillDaemon

    def start(self) -> int:
        """SIGKILL that one process."""
        return self.node.kill_daemon()

    def stop(self) -> int:
        """Start the node, unless its supervisor has done so."""
        instant_ns = time.monotonic_ns()
        if not self.node.running:
            self.node.start()
        return instant_ns


@dataclass(frozen=True, slots=True)
class Frozen:
    """A node all of whose processes are stopped, as by a hypervisor; its kernel goes on."""

    node: Pause

    def start(self) -> int:
        """SIGSTOP all of them."""
        return self.node.pause()

    def stop(self) -> int:
        """SIGCONT all of them."""
        return self.node.resume()


@dataclass(frozen=True, slots=True)
class PoweredOff:
    """A router without power: silent at once on all cables, its processes and state gone.

    The carrier stays up, as behind a switch of one's own; files survive, unsynced data
    included (a process cannot take the page cache with it).
    """

    topology: Topology
    net: Net
    router: str
    node: Kill

    def start(self) -> int:
        """Cut all cables, then kill everything."""
        instant_ns = time.monotonic_ns()
        self.net.isolate(self.router)
        self.node.kill()
        return instant_ns

    def stop(self) -> int:
        """Boot: an empty kernel, cables that work, the node started."""
        forget(self.topology, self.router)
        instant_ns = _heal(self.net)
        self.node.start()
        return instant_ns


@dataclass(frozen=True, slots=True)
class Stopped:
    """A node that was told to end, and did so in good order."""

    node: Node

    def start(self) -> int:
        """SIGTERM; wait for the end."""
        instant_ns = time.monotonic_ns()
        if self.node.running:
            self.node.stop()
        return instant_ns

    def stop(self) -> int:
        """Start the node."""
        instant_ns = time.monotonic_ns()
        self.node.start()
        return instant_ns


@dataclass(frozen=True, slots=True)
class WorkerKilled:
    """A node whose flow worker was killed alone; its daemon starts another."""

    node: Node

    def start(self) -> int:
        """SIGKILL that one process."""
        return self.node.signal_flow_worker(signal.SIGKILL)

    def stop(self) -> int:
        """Do nothing: the daemon has done it."""
        return time.monotonic_ns()


@dataclass(frozen=True, slots=True)
class HandedOver:
    """No fault: an operator wants the addresses on another node."""

    lab: Lab
    to: str

    def start(self) -> int:
        """Ask for it.

        Raises:
            LabError: It was refused, nobody holds them, or the answer names another node.
        """
        instant_ns = time.monotonic_ns()
        code, answer = self.lab.switchover(self.to)
        if code != 200:
            raise LabError(f"the switchover to {self.to} was refused: {code} {answer}")
        if not isinstance(answer, dict) or answer.get("holder") != self.to:
            raise LabError(f"the switchover to {self.to} was answered with {answer}")
        return instant_ns

    def stop(self) -> int:
        """Do nothing: there is no automatic way back."""
        return time.monotonic_ns()


@dataclass(frozen=True, slots=True)
class NetworkSilent:
    """Hosts whose cables to one network carry nothing, from one instant on; carriers are up."""

    net: Net
    hosts: Sequence[str]
    network: str

    def start(self) -> int:
        """Cut."""
        instant_ns = time.monotonic_ns()
        self.net.cut(self.hosts, self.network)
        return instant_ns

    def stop(self) -> int:
        """Heal what this fault's network drops."""
        return _heal(self.net)


@dataclass(frozen=True, slots=True)
class Lossy:
    """A host whose cables lose frames at random, both ways."""

    net: Net
    host: str
    percent: int

    def start(self) -> int:
        """Begin to lose."""
        instant_ns = time.monotonic_ns()
        self.net.lose(self.host, self.percent)
        return instant_ns

    def stop(self) -> int:
        """Lose nothing any more."""
        return _heal(self.net)


@dataclass(frozen=True, slots=True)
class Together:
    """Several faults at once, begun in order and undone in the opposite one."""

    faults: Sequence[Fault]

    def start(self) -> int:
        """Begin all; if one cannot be begun, undo those that were.

        Raises:
            LabError: One could not be begun.
        """
        instant_ns = time.monotonic_ns()
        begun: list[Fault] = []
        try:
            for fault in self.faults:
                begun.append(fault)
                fault.start()
        except LabError:
            for fault in reversed(begun[:-1]):
                fault.stop()
            raise
        return instant_ns

    def stop(self) -> int:
        """Undo all, whatever becomes of each.

        Raises:
            LabError: One of them could not be undone; the others were.
        """
        instant_ns = time.monotonic_ns()
        problems = []
        for fault in reversed(self.faults):
            try:
                fault.stop()
            except LabError as error:
                problems.append(str(error))
        if problems:
            raise LabError("; ".join(problems))
        return instant_ns


def forget(network: Topology, router: str) -> None:
    """Empty a router's kernel as a reboot does: rules, connections, floating addresses."""
    namespace = network.namespace(router)
    with entered(namespace):
        subprocess.run(["nft", "flush", "ruleset"], check=True, capture_output=True)
    try:
        empty_connections(namespace)
    except OSError as error:
        raise LabError(f"cannot empty the connections of {router}: {error.strerror}") from error
    present = topology.run_ip(["-n", namespace, "-o", "addr", "show"])
    lines = [
        f"addr del {address} dev {topology.DEVICES[name]}"
        for family in (FLOATING, FLOATING_V6)
        for name, address in family.items()
        if f" {address} " in present
    ]
    topology.run_ip(["-n", namespace], lines)


def _heal(net: Net) -> int:
    instant_ns = time.monotonic_ns()
    net.heal()
    return instant_ns
