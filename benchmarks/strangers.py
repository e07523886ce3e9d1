"""What a flood of garbage does to a cluster: ``python -m benchmarks.strangers``.

A host on the public network sends datagrams with forged sources to the holder's own address,
as fast as asked: first to a closed port, which shows what the kernel and this machine make of
it, then to the port of the beacons. Printed as a Markdown table. Needs root.

Exit codes: 0 measured; 1 failed, or leases were lost that a closed port keeps; 2 usage.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import random
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rawflows import BATCH, FRAME_BYTES, STRIDE, Sender, Side
from chaos.lab.lab import Lab, require_machine
from chaos.lab.lab_error import LabError, UsageError
from chaos.lab.node_files import PROFILES, cluster_toml
from chaos.lab.processes import REPOSITORY, marked
from chaos.lab.topology import CLIENT

PREFIX = "hanat-strangers"
CLOSED, MESH = 7999, 7412
SETTLE_S = 5.0
SOURCES = ipaddress.ip_network("100.64.0.0/10")
FRAMES = 8192
LOST = " was=ACTIVE "

HEAD = (
    "profile", "port", "datagrams a second", "leases lost", "log lines a second, worst node",
    "CPU of the holder, % of a core",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """What one flood did."""

    profile: str
    port: int
    rate: float
    lost: int
    lines_per_s: float
    cpu: float


def frames(side: Side, port: int, seed: int) -> Iterator[bytes]:
    """Yield batches of frames with forged sources, each frame in `STRIDE` bytes."""
    rng = random.Random(seed)
    ethernet = bytes.fromhex(side.router_mac.replace(":", "") + "02aabbccdd01") + b"\x08\x00"
    destination = ipaddress.ip_address(side.destination).packed
    for _ in range(FRAMES // BATCH):
        batch = b""
        for _ in range(BATCH):
            source = SOURCES[rng.randrange(1, SOURCES.num_addresses - 1)].packed
            head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 0, 0, 64, 17, 0, source, destination)
            checksum = sum(struct.unpack("!10H", head))
            checksum = ~(checksum % 0xFFFF) & 0xFFFF
            head = head[:10] + struct.pack("!H", checksum) + head[12:]
            datagram = struct.pack("!HHHH", rng.randrange(1024, 65536), port, 20, 0)
            frame = ethernet + head + datagram + rng.randbytes(12)
            assert len(frame) == FRAME_BYTES
            batch += frame.ljust(STRIDE, b"\0")
        yield batch


def send(side: Side, port: int, *, rate: float, seconds: float) -> float:
    """Send for some time; return how many a second it were."""
    sender, batches = Sender(side), list(frames(side, port, seed=1))
    begun, count = time.monotonic(), 0
    while (passed := time.monotonic() - begun) < seconds:
        if count > rate * passed:
            time.sleep(BATCH / rate)
            continue
        sender.send(batches[count // BATCH % len(batches)])
        count += BATCH
    return count / passed


def flood(lab: Lab, profile: str, port: int, rate: float, seconds: float) -> Row:
    """Flood the holder; return what became of the cluster."""
    holder = lab.wait_for_holder()
    time.sleep(SETTLE_S)
    router = next(host for host in lab.topology.routers if host.name == holder)
    public = next(p for p in router.ports if p.network == "public")
    command = [
        sys.executable, "-m", "benchmarks.strangers", "--send", lab.topology.namespace(CLIENT),
        public.mac, str(public.address).partition("/")[0], "--port", str(port), "--rate", str(rate),
        "--seconds", str(seconds),
    ]  # fmt: skip
    before = {name: lab.log(name) for name in lab.nodes}
    cpu_s, begun = _cpu_s(lab, holder), time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    took_s, cpu_s = time.monotonic() - begun, _cpu_s(lab, holder) - cpu_s
    if done.returncode:
        raise LabError(f"the flood failed: {done.stderr.strip()[-300:]}")
    new = {name: lab.log(name)[len(text) :] for name, text in before.items()}
    return Row(
        profile, port, float(done.stdout),
        lost=sum(text.count(LOST) for text in new.values()),
        lines_per_s=max(text.count("\n") for text in new.values()) / took_s,
        cpu=100 * cpu_s / took_s,
    )  # fmt: skip


def _cpu_s(lab: Lab, node: str) -> float:
    ticks = 0
    for process in marked(lab.prefix, node):
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # proc(5): utime, stime
    return ticks / os.sysconf("SC_CLK_TCK")


def markdown(rows: Sequence[Row]) -> str:
    """Return the table."""
    lines: list[Sequence[str]] = [HEAD, ("---",) * len(HEAD)]
    for row in rows:
        port = f"{row.port}, {'closed' if row.port == CLOSED else 'beacons'}"
        lines.append((
            row.profile, port, f"{row.rate:.0f}", str(row.lost), f"{row.lines_per_s:.1f}",
            f"{row.cpu:.1f}",
        ))  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.strangers", description=__doc__)
    parser.add_argument("--profile", choices=PROFILES, default="default")
    parser.add_argument("--rate", type=float, default=60_000, help="datagrams a second")
    parser.add_argument("--seconds", type=float, default=8, help="of each flood (default: 8)")
    parser.add_argument("--trials", type=int, default=2, help="of each port (default: 2)")
    parser.add_argument("--prefix", default=PREFIX, help="of the lab (default: %(default)s)")
    parser.add_argument("--send", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=MESH, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.send:
        namespace, mac, to = options.send
        side = Side(namespace, "eth0", mac, "", to)
        print(send(side, options.port, rate=options.rate, seconds=options.seconds))
        return 0
    try:
        require_machine()
        text = cluster_toml(profile=options.profile, checked=False)
        with Lab(options.prefix, cluster_toml=text) as lab:
            lab.start()
            rows = [
                flood(lab, options.profile, port, options.rate, options.seconds)
                for port in (CLOSED, MESH) * options.trials
            ]
    except UsageError as error:
        print(f"benchmarks.strangers: {error}", file=sys.stderr)
        return error.exit_code
    except LabError as error:
        print(f"benchmarks.strangers: {error}", file=sys.stderr)
        return 1
    print(markdown(rows))
    lost = {port: sum(row.lost for row in rows if row.port == port) for port in (CLOSED, MESH)}
    return 1 if lost[MESH] > lost[CLOSED] else 0


if __name__ == "__main__":
    sys.exit(main())
