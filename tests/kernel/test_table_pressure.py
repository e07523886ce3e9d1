"""What the kernel counts when a table has no room or no port."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from hanat.kernel.conntrack import KernelConntrack
from tests.kernel.namespaces import run

pytestmark = pytest.mark.kernel

TWO_PORTS = """
add table ip t
add chain ip t c { type nat hook postrouting priority srcnat; }
add rule ip t c udp dport 9 snat to 192.0.2.1:5000-5001
"""


def test_flows_without_a_free_port_are_counted(inside: str, tmp_path: Path) -> None:
    run("ip link add d0 type veth peer name d1", inside)
    run("ip addr add 192.0.2.1/24 dev d0", inside)
    for device in ("d0", "d1"):
        run(f"ip link set {device} up", inside)
    run("ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev d0", inside)
    script = tmp_path / "script"
    script.write_text(TWO_PORTS)
    run(f"nft -f {script}", inside)
    conntrack = KernelConntrack()
    before = conntrack.statistics()
    for _ in range(5):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
            try:
                opened.sendto(b"?", ("192.0.2.9", 9))
            except PermissionError:  # so is a packet told of that a hook dropped
                continue

    after = conntrack.statistics()

    assert after.entries - before.entries == 2
    assert after.uninserted - before.uninserted == 3
    limit = Path("/proc/sys/net/netfilter/nf_conntrack_max").read_text()
    assert after.limit == int(limit)
    conntrack.close()
