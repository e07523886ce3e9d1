"""Many connections through a lab's routers, from the generator `benchmarks.rawflows`."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from benchmarks.rawflows import FIRST_SERVICE_PORT
from benchmarks.systems import Hanat
from chaos.lab.lab import Lab
from chaos.lab.lab_error import LabError
from chaos.lab.netns import entered
from chaos.lab.node_files import cluster_toml
from chaos.lab.processes import REPOSITORY
from chaos.lab.topology import CLIENT, FLOATING, SERVERS

LAST_PORT = FIRST_SERVICE_PORT + 9
CLIENT_ADDRESS, SERVER_ADDRESS = "203.0.113.100", "10.11.12.101"
PUBLIC = FLOATING["public"].partition("/")[0]
SETTLE_S = 60.0
SERVICE = f"""
[[service]]
name = "many"
listen = ["vip:public tcp/{FIRST_SERVICE_PORT}-{LAST_PORT}"]
replicate = "%s"
  [[service.server]]
  name = "s1"
  address = "{SERVER_ADDRESS}"
"""
SILENT = f"""
table inet silent {{
  chain prerouting {{
    type filter hook prerouting priority raw
    tcp dport {FIRST_SERVICE_PORT}-{LAST_PORT} drop
    tcp sport {FIRST_SERVICE_PORT}-{LAST_PORT} drop
  }}
}}
"""


def silence(lab: Lab) -> None:
    """Let the hosts' kernels not answer what they know nothing of."""
    for host in (CLIENT, *SERVERS):
        with entered(lab.topology.namespace(host)):
            subprocess.run(["nft", "-f", "-"], input=SILENT, text=True, check=True)


def open_flows(
    lab: Lab, holder: str, *, first: int, count: int, rate: float = 0, reset: bool = False
) -> float:
    """Open connections through the holder; return how many seconds it took.

    Args:
        lab: Running.
        holder: Its name.
        first: Number of the first connection; a number twice is the same connection.
        count: How many.
        rate: Connections a second; 0: as fast as it goes.
        reset: End them instead.

    Raises:
        LabError: The generator failed.
    """
    topology = lab.topology
    router = next(host for host in topology.routers if host.name == holder)
    macs = {port.network: port.mac for port in router.ports}
    command = [
        sys.executable, "-m", "benchmarks.rawflows",
        "--client", topology.namespace(CLIENT), "eth0", macs["public"], CLIENT_ADDRESS, PUBLIC,
        "--server", topology.namespace(SERVERS[0]), "eth0", macs["private"],
        SERVER_ADDRESS, CLIENT_ADDRESS,
        "--first", str(first), "--count", str(count), "--rate", str(rate),
        *(["--reset"] if reset else []),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    if done.returncode:
        raise LabError(f"the load generator failed: {done.stderr.strip()[-300:]}")
    return float(json.loads(done.stdout)["seconds"])


def count_file(lab: Lab, router: str) -> int:
    """Open what says how many entries a router's table has; read it with `pread`."""
    with entered(lab.topology.namespace(router)):
        return os.open("/proc/sys/net/netfilter/nf_conntrack_count", os.O_RDONLY)


class Loaded(Hanat):
    """Three nodes of hanat with a table that is full of idle connections."""

    def __init__(
        self, prefix: str, profile: str, flows: int, *, policy: str = "established"
    ) -> None:
        super().__init__(prefix, profile)
        self._flows = flows
        self.lab = Lab(
            prefix, cluster_toml=cluster_toml(profile=profile, checked=False) + SERVICE % policy
        )
        self.nodes = self.lab.nodes

    def start(self) -> str:
        """See `systems.System.start`; every node has all connections then."""
        silence(self.lab)
        holder = super().start()
        if self._flows:
            open_flows(self.lab, holder, first=0, count=self._flows, rate=20_000)
            self.lab.wait_for(self._all_have_them, SETTLE_S, "all flows on all nodes")
        return holder

    def _all_have_them(self) -> bool:
        statuses = self.lab.statuses().values()
        return all(s is not None and s["flows"]["flows"] >= self._flows for s in statuses)
