"""Count what a node consists of, so that what leaks shows."""

from __future__ import annotations

import time
from pathlib import Path

from chaos import topology
from chaos.history import Census, NeighbourSeen
from chaos.lab import Lab
from chaos.topology import FLOATING

HOSTS = {"c1": "public", "s1": "private", "s2": "private"}


def count(lab: Lab, name: str) -> Census:
    """Return what a node is made of at this moment."""
    commands, descriptors, memory_kib = [], 0, 0
    for process in lab.nodes[name].processes:
        folder = Path(f"/proc/{process.pid}")
        try:
            command = (folder / "cmdline").read_text().split("\0")
            descriptors += len(list((folder / "fd").iterdir()))
            status = (folder / "status").read_text()
        except OSError:
            continue  # it has ended meanwhile
        commands.append(next((w for w in command if w.startswith("hanat.")), command[0]))
        resident = next((li for li in status.splitlines() if li.startswith("VmRSS")), "")
        memory_kib += int(resident.split()[1]) if resident else 0
    return Census(
        time.monotonic_ns(), name, sorted(commands), descriptors, memory_kib,
        sorted(lab.addresses(name)),
    )  # fmt: skip


def neighbours(lab: Lab) -> list[NeighbourSeen]:
    """Return where every host sends what it has for the floating address of its network."""
    found = []
    for host, network in HOSTS.items():
        address = FLOATING[network].partition("/")[0]
        namespace = lab.topology.namespace(host)
        words = topology.run_ip(["-n", namespace, "neigh", "show", "to", address]).split()
        mac = words[words.index("lladdr") + 1] if "lladdr" in words else None
        found.append(NeighbourSeen(time.monotonic_ns(), host, address, mac))
    return found
