"""Count what a node consists of, so that what leaks shows."""

from __future__ import annotations

import time
from ipaddress import ip_interface
from pathlib import Path

from chaos.lab import topology
from chaos.lab.lab import Lab
from chaos.lab.netns import entered
from chaos.lab.topology import CLIENT, SERVERS, Topology, floating
from chaos.observe.observed import NeighbourSeen
from chaos.observe.replicated import FlowTable
from chaos.observe.run_history import Census

FLOWS = Path("/proc/thread-self/net/nf_conntrack")  # not in every kernel
HOSTS = {CLIENT: "public"} | dict.fromkeys(SERVERS, "private")


def count(lab: Lab, name: str) -> Census:
    """Return what a node is made of at this moment."""
    commands, descriptors, memory_kib = [], 0, 0
    pids: dict[str, str] = {}
    for process in lab.nodes[name].processes:
        folder = Path(f"/proc/{process.pid}")
        try:
            command = (folder / "cmdline").read_text().split("\0")
            descriptors += len(list((folder / "fd").iterdir()))
            status = (folder / "status").read_text()
        except OSError:
            continue  # it has ended meanwhile
        commands.append(next((w for w in command if w.startswith("hanat.")), command[0]))
        pids[commands[-1]] = f"{process.pid}@{process.started}"
        resident = next((li for li in status.splitlines() if li.startswith("VmRSS")), "")
        memory_kib += int(resident.split()[1]) if resident else 0
    ports = lab.topology.router(name).ports
    own = {address for port in ports for address in (port.address, port.address_v6)}
    return Census(
        time.monotonic_ns(), name, sorted(commands), descriptors, memory_kib,
        sorted(lab.addresses(name)), pids, sorted(own - lab.present(name)),
    )  # fmt: skip


def neighbours(lab: Lab) -> list[NeighbourSeen]:
    """Return where every host sends what it has for the floating addresses of its network."""
    found = []
    for host, network in HOSTS.items():
        namespace = lab.topology.namespace(host)
        for address in floating(network):
            words = topology.run_ip(["-n", namespace, "neigh", "show", "to", address]).split()
            mac = words[words.index("lladdr") + 1] if "lladdr" in words else None
            found.append(NeighbourSeen(time.monotonic_ns(), host, address, mac))
    return found


def flow_tables(lab: Lab) -> list[FlowTable]:
    """Return the established flows of every router; nothing where the kernel does not tell.

    The holder's last: what closes meanwhile is not in its table any more.
    """
    found = []
    holder = lab.holder()
    for name in sorted(lab.nodes, key=lambda name: name == holder):
        with entered(lab.topology.namespace(name)):
            if not FLOWS.exists():
                return []
            lines = FLOWS.read_text().splitlines()
        own = own_sources(lab.topology)
        flows = dict(filter(None, map(established, lines)))
        flows = {flow: left_s for flow, left_s in flows.items() if flow.split()[1] not in own}
        found.append(FlowTable(time.monotonic_ns(), name, flows))
    return found


def own_sources(topology: Topology) -> set[str]:
    """Return how flows begin that routers open themselves, to servers that they check too.

    Such a flow is of one router alone: nobody goes on with it.
    """
    ports = [port for router in topology.routers for port in router.ports]
    owned = [ip_interface(a) for port in ports for a in (port.address, port.address_v6)]
    return {f"src={own.ip if own.version == 4 else own.ip.exploded}" for own in owned}


def established(line: str) -> tuple[str, int] | None:
    """Return a flow and the seconds until it is forgotten, None if it is not established."""
    words = line.split()
    if "[ASSURED]" not in words or (words[2] == "tcp" and words[5] != "ESTABLISHED"):
        return None
    tuples = (w for w in words if w.partition("=")[0] in ("src", "dst", "sport", "dport"))
    return " ".join((words[2], *tuples)), int(words[4])
