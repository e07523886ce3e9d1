"""What a flood of SYN from forged addresses does: ``python -m benchmarks.synflood``.

A host on the public network opens connections to a service as fast as asked, each from another
address and port, and answers nothing. Meanwhile it asks as an ordinary client, every 50 ms, for a
connection of the same service, and for one of another, and uses one of each that was there before.
First with the cluster: a service without limits, then one with ``new_per_second``; then with a bare
DNAT rule in one of the routers, where no daemon runs any more. Printed as a Markdown table. Needs
root.

Exit codes: 0 measured; 1 failed, or a lease was lost; 2 usage.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import os
import random
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from benchmarks.flood import CLIENT_ADDRESS, PUBLIC, SERVER_ADDRESS, count_file
from benchmarks.rawflows import BATCH, STRIDE, Sender, Side
from chaos.lab.lab import Lab, require_machine
from chaos.lab.lab_error import LabError, UsageError
from chaos.lab.netns import empty_connections
from chaos.lab.node_files import PROFILES, cluster_toml
from chaos.lab.processes import REPOSITORY
from chaos.lab.topology import CLIENT

PREFIX = "hanat-synflood"
OPEN, LIMITED, OTHER = 9100, 9101, 9102
LIMIT = 1_000  # new connections a second
SERVER_PORT = 9000  # a program of the lab echoes there
SOURCES = ipaddress.ip_network("100.64.0.0/10")
PROBE_S, PROBE_S_MAX = 0.05, 5.0
LOST = " was=ACTIVE "
_numbers = count(1)
SERVICE = f"""
[[service]]
name = "s%d"
listen = ["vip:public tcp/%d"]
%s
  [[service.server]]
  name = "s1"
  address = "{SERVER_ADDRESS}:{SERVER_PORT}"
"""
BARE = f"""
flush ruleset
table ip bare {{
  chain prerouting {{
    type nat hook prerouting priority dstnat
    ip daddr {PUBLIC} tcp dport {{ {OPEN}, {OTHER} }} dnat to {SERVER_ADDRESS}:{SERVER_PORT}
  }}
}}
"""
HEAD = (
    "router", "SYN a second", "same service: connected", "median / p99, ms", "another: connected",
    "median / p99, ms", "established: longest wait, ms", "entries", "leases lost",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Probes:
    """What an ordinary client met.

    Attributes:
        asked: Connections it asked for.
        times_s: How long it took, of those that it got.
        kept_s: The longest that a connection from before waited for an answer; None: it ended.
    """

    asked: int
    times_s: tuple[float, ...]
    kept_s: float | None

    def words(self) -> tuple[str, str]:
        """Return how many were connected, and how long it took."""
        part = f"{100 * len(self.times_s) / max(1, self.asked):.0f} %"
        if not self.times_s:
            return part, "-"
        times = sorted(self.times_s)
        p99 = times[min(len(times) - 1, len(times) * 99 // 100)]
        return part, f"{1e3 * statistics.median(times):.1f} / {1e3 * p99:.0f}"


@dataclass(frozen=True, slots=True)
class Row:
    """What one flood did."""

    router: str
    rate: float
    same: Probes
    other: Probes
    entries: int
    lost: int


# ------------------------------------------------------------------------ in processes of their own


def frames(side: Side, port: int, number: int) -> Iterator[bytes]:
    """Yield batches of SYN, each from another address and port, each in `STRIDE` bytes."""
    rng = random.Random(port)
    ethernet = bytes.fromhex(side.router_mac.replace(":", "") + "02aabbccdd01") + b"\x08\x00"
    first = int(SOURCES.network_address)
    destination = ipaddress.ip_address(side.destination).packed
    pack_ip, pack_tcp = struct.Struct("!HI4s").pack, struct.Struct("!HHI").pack
    ip_head, tcp_rest = b"\x45\0\0\x28\0\0\x40\0\x40\x06", b"\0\0\0\0\x50\x02\xfa\xf0"
    ip_base, tcp_base = _sum(ip_head + destination), _sum(destination + b"\0\x06\0\x14" + tcp_rest)
    padding = bytes(STRIDE - 54)
    for _ in range(0, number, BATCH):
        batch = []
        for _ in range(BATCH):
            source, sport = first + rng.getrandbits(22), rng.randrange(1024, 65536)
            address = (source >> 16) + (source & 0xFFFF)
            tcp = _folded(tcp_base + address + sport + port)
            ip = ip_head + pack_ip(_folded(ip_base + address), source, destination)
            ends = pack_tcp(sport, port, 0)
            batch.append(ethernet + ip + ends + tcp_rest + struct.pack("!HH", tcp, 0) + padding)
        yield b"".join(batch)


def _sum(data: bytes) -> int:
    return sum(struct.unpack(f"!{len(data) // 2}H", data))


def _folded(total: int) -> int:
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def send(side: Side, port: int, *, rate: float, seconds: float) -> float:
    """Send for some time, once somebody says so; return how many a second it were.

    What was not sent by then for want of a processor is left out.
    """
    sender, batches = Sender(side), list(frames(side, port, int(rate * seconds)))
    print("ready", flush=True)
    sys.stdin.readline()
    begun, sent = time.monotonic(), 0
    if not batches:
        time.sleep(seconds)
    for batch in batches:
        passed = time.monotonic() - begun
        if passed >= seconds:
            break
        if sent / rate > passed:
            time.sleep(sent / rate - passed)
        sender.send(batch)
        sent += BATCH
    return sent / (time.monotonic() - begun)


async def probe(address: str, port: int, seconds: float) -> Probes:
    """Ask for connections, and on each for an answer; and on one from before all the time."""
    kept = await asyncio.open_connection(address, port)
    await _answer(*kept)
    print("ready", flush=True)

    async def ask() -> float | None:
        begun = time.monotonic()
        try:
            async with asyncio.timeout(PROBE_S_MAX):
                reader, writer = await asyncio.open_connection(address, port)
                await _answer(reader, writer)
                took_s = time.monotonic() - begun
                writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return None
        return took_s

    async def use() -> float | None:
        longest_s = 0.0
        try:
            for _ in range(int(seconds / PROBE_S)):
                async with asyncio.timeout(PROBE_S_MAX):
                    longest_s = max(longest_s, await _answer(*kept))
                await asyncio.sleep(PROBE_S)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return None
        return longest_s

    async with asyncio.TaskGroup() as group:
        using, tasks = group.create_task(use()), []
        for _ in range(int(seconds / PROBE_S)):
            tasks.append(group.create_task(ask()))
            await asyncio.sleep(PROBE_S)
    times = [took_s for task in tasks if (took_s := task.result()) is not None]
    return Probes(len(tasks), tuple(times), using.result())


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> float:
    """Ask on a connection; return how long the answer took."""
    begun = time.monotonic()
    writer.write(b"x")
    await reader.readexactly(1)
    return time.monotonic() - begun


# ---------------------------------------------------------------------------------- what is done


def measure(lab: Lab, router: str, title: str, port: int, *, rate: float, seconds: float) -> Row:
    """Flood a port of a router; return what became of it and of others."""
    host = next(host for host in lab.topology.routers if host.name == router)
    mac = next(p.mac for p in host.ports if p.network == "public")
    empty_connections(lab.topology.namespace(router))
    own = [sys.executable, "-m", "benchmarks.synflood", "--seconds", str(seconds)]
    flooding = subprocess.Popen(
        [*own, "--send", lab.topology.namespace(CLIENT), mac, "--port", str(port),
         "--rate", str(rate)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY,
    )  # fmt: skip
    assert flooding.stdin is not None
    assert flooding.stdout is not None
    counted = count_file(lab, router)
    try:
        flooding.stdout.readline()
        before = {name: lab.log(name) for name in lab.nodes}
        names = [f"probe-{next(_numbers)}" for _ in range(2)]
        probing = [
            lab.spawn_in(CLIENT, name, [*own, "--probe", str(asked)])
            for name, asked in zip(names, (port, OTHER), strict=True)
        ]
        lab.wait_for(lambda: all(_is_ready(lab, name) for name in names), 10, "the clients")
        print(file=flooding.stdin, flush=True)
        sent = float(flooding.stdout.readline())
        entries = int(os.pread(counted, 32, 0))
        for child in probing:
            child.popen.wait(seconds + 2 * PROBE_S_MAX)
        same, other = (_read(lab, name) for name in names)
    finally:
        os.close(counted)
        flooding.kill()
        flooding.wait()
    lost = sum(lab.log(name)[len(text) :].count(LOST) for name, text in before.items())
    return Row(title, sent, same, other, entries, lost)


def _read(lab: Lab, name: str) -> Probes:
    text = (lab.folder / f"{name}.log").read_text()
    try:
        asked, times, kept_s = json.loads(text.splitlines()[-1])
    except (ValueError, IndexError, TypeError):
        raise LabError(f"a client failed: {text.strip()[-300:]}") from None
    return Probes(asked, tuple(times), kept_s)


def _is_ready(lab: Lab, name: str) -> bool:
    return "ready" in (lab.folder / f"{name}.log").read_text()


def run(options: argparse.Namespace) -> list[Row]:
    """Measure everything in one lab."""
    limits = f"limits = {{ new_per_second = {LIMIT} }}"
    text = cluster_toml(profile=options.profile, checked=False) + "".join(
        SERVICE % (port, port, limits if port == LIMITED else "") for port in (OPEN, LIMITED, OTHER)
    )
    rows = []
    times = {"rate": options.rate, "seconds": options.seconds}
    with Lab(options.prefix, cluster_toml=text) as lab:
        lab.start()
        holder = lab.wait_for_holder()
        _lead_answers_away(lab)
        quiet = {"rate": 0.0, "seconds": options.seconds}
        rows.append(measure(lab, holder, "hanat, no flood", OPEN, **quiet))
        for _ in range(options.trials):
            rows.append(measure(lab, holder, "hanat", OPEN, **times))
            title = f"hanat, new_per_second = {LIMIT}"
            rows.append(measure(lab, holder, title, LIMITED, **times))
        for name in lab.nodes:
            lab.stop_node(name)
        _make_bare(lab, holder)
        rows.append(measure(lab, holder, "bare DNAT rule, no flood", OPEN, **quiet))
        rows += [
            measure(lab, holder, "bare DNAT rule", OPEN, **times) for _ in range(options.trials)
        ]
    return rows


def _lead_answers_away(lab: Lab) -> None:
    """What the forged addresses are answered reaches a host that drops it."""
    for name in lab.nodes:
        _do(lab, name, f"ip route add {SOURCES} via {CLIENT_ADDRESS}")
    _do(lab, CLIENT, f"ip route add blackhole {SOURCES}")


def _make_bare(lab: Lab, router: str) -> None:
    """Have a router do the same with a rule and nothing else."""
    for device, address in (("eth0", f"{PUBLIC}/24"), ("eth1", "10.11.12.1/24")):
        _do(lab, router, f"ip addr add {address} dev {device}")
    path = lab.folder / "bare.nft"
    path.write_text(BARE)
    for name in lab.nodes:
        _do(lab, name, "nft flush ruleset")
    _do(lab, router, f"nft -f {path}")
    for host in (CLIENT, "s1"):
        _do(lab, host, "ip neigh flush all")


def _do(lab: Lab, host: str, command: str) -> None:
    done = lab.exec_in(host, command.split())
    if done.returncode:
        raise LabError(f"on {host}: {command}: {done.stderr.strip()}")


def markdown(rows: Sequence[Row]) -> str:
    """Return the table."""
    lines: list[Sequence[str]] = [HEAD, ("---",) * len(HEAD)]
    lines += [
        (row.router, f"{row.rate:,.0f}", *row.same.words(), *row.other.words(), _kept(row),
         f"{row.entries:,}", str(row.lost))
        for row in rows
    ]  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _kept(row: Row) -> str:
    same_s, other_s = row.same.kept_s, row.other.kept_s
    return "ended" if same_s is None or other_s is None else f"{1e3 * max(same_s, other_s):.0f}"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.synflood", description=__doc__)
    parser.add_argument("--profile", choices=PROFILES, default="default")
    parser.add_argument("--rate", type=float, default=50_000, help="SYN a second")
    parser.add_argument("--seconds", type=float, default=10, help="of each flood (default: 10)")
    parser.add_argument("--trials", type=int, default=1, help="of each kind (default: 1)")
    parser.add_argument("--prefix", default=PREFIX, help="of the lab (default: %(default)s)")
    parser.add_argument("--send", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--probe", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=OPEN, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.send:
        side = Side(options.send[0], "eth0", options.send[1], "", PUBLIC)
        print(send(side, options.port, rate=options.rate, seconds=options.seconds), flush=True)
        return 0
    if options.probe:
        found = asyncio.run(probe(PUBLIC, options.probe, options.seconds))
        print(json.dumps([found.asked, found.times_s, found.kept_s]))
        return 0
    try:
        require_machine()
        rows = run(options)
    except (UsageError, LabError) as error:
        print(f"benchmarks.synflood: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, UsageError) else 1
    print(markdown(rows))
    return 1 if any(row.lost for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
