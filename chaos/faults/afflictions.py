"""Faults that are programs or files: busy cores, bad disks, wrong clocks, hostile hosts.

The same protocol as `faults.Fault`. Every program ends by itself after `LIMIT_S`, whatever
becomes of the run.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chaos.lab import topology
from chaos.lab.equipment import CLOCK_FILE
from chaos.lab.lab import Lab
from chaos.lab.node import Node
from chaos.lab.processes import Child, python_module, send_signal, wait_gone
from chaos.lab.topology import floating
from chaos.observe.census import HOSTS

LIMIT_S = 30.0
END_S = 5.0
BLOCK_BYTES = 16 << 20
BALLAST = "ballast"


@dataclass(slots=True)
class Plagued:
    """Programs that run on hosts of the lab while the fault lasts.

    Attributes:
        programs: By a name that no other program of the lab has: host, module and arguments.
    """

    lab: Lab
    programs: Mapping[str, tuple[str, Sequence[str]]]
    children: list[Child] = field(default_factory=list)

    def start(self) -> int:
        """Start them."""
        instant_ns = time.monotonic_ns()
        for name, (host, words) in self.programs.items():
            module, *arguments = words
            command = python_module(module, *arguments, "--seconds", str(LIMIT_S))
            self.children.append(self.lab.spawn_in(host, name, command))
        return instant_ns

    def stop(self) -> int:
        """End them; what does not end in good order is killed."""
        instant_ns = time.monotonic_ns()
        for number in (signal.SIGTERM, signal.SIGKILL):
            for child in self.children:
                send_signal(child.identity, number)
            if wait_gone([child.identity for child in self.children], END_S):
                break
        for child in self.children:
            child.popen.wait(END_S)
        return instant_ns


@dataclass(slots=True)
class Misled:
    """A stranger claims a floating address; undone, hosts forget what it told them."""

    lab: Lab
    claiming: Plagued
    network: str

    def start(self) -> int:
        """Begin to claim."""
        return self.claiming.start()

    def stop(self) -> int:
        """End it; let the hosts of that network ask anew."""
        instant_ns = self.claiming.stop()
        for host in (host for host, network in HOSTS.items() if network == self.network):
            namespace = self.lab.topology.namespace(host)
            for address in floating(self.network):
                topology.run_ip(["-n", namespace, "neigh", "flush", "to", address])
        return instant_ns


@dataclass(frozen=True, slots=True)
class DiskFull:
    """A node whose disk has no room at all."""

    node: Node

    @property
    def _ballast(self) -> Path:
        return self.node.folder / "data" / BALLAST

    def start(self) -> int:
        """Fill it."""
        instant_ns = time.monotonic_ns()
        size, taken = BLOCK_BYTES, 0
        with self._ballast.open("wb", buffering=0) as ballast:
            while size:
                try:
                    os.posix_fallocate(ballast.fileno(), taken, size)
                    taken += size
                except OSError:
                    size //= 2
        return instant_ns

    def stop(self) -> int:
        """Make room."""
        instant_ns = time.monotonic_ns()
        self._ballast.unlink(missing_ok=True)
        return instant_ns


@dataclass(frozen=True, slots=True)
class ClockStepped:
    """A node whose wall clock is wrong; it goes on at the right rate."""

    node: Node
    offset_s: int

    def start(self) -> int:
        """Step it."""
        instant_ns = time.monotonic_ns()
        self._write(self.offset_s)
        return instant_ns

    def stop(self) -> int:
        """Step it back."""
        instant_ns = time.monotonic_ns()
        self._write(0)
        return instant_ns

    def _write(self, offset_s: int) -> None:
        draft = self.node.folder / f"{CLOCK_FILE}.new"
        draft.write_text(f"{offset_s:+d}\n")
        draft.rename(self.node.folder / CLOCK_FILE)
