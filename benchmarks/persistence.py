"""What a takeover costs with many persistent clients: ``python -m benchmarks.persistence``.

Three nodes, and two services with persistence. So many entries (``--entries``) are put into the
sets of one on the holder, as packets would. A thousand clients of the other send a request each;
their connections end with it. When every node knows all of them, all processes of the holder are
killed. Seen are the probes of ``benchmarks.failover`` around that, and then which servers the
thousand clients meet. With 0 entries no service has persistence and no client is asked. Printed as
a Markdown table. Needs root.

Exit codes: 0 measured, 1 a client changed its server, 2 this machine or command line is not fit.
"""

from __future__ import annotations

import argparse
import re
import socket
import sys
import time
from dataclasses import dataclass, field
from ipaddress import ip_address

from benchmarks import trial
from benchmarks.cases import CASES, Case, Stage
from benchmarks.failover import machine
from benchmarks.figures import Figures
from benchmarks.load import wait_for_quiet
from benchmarks.systems import Hanat
from benchmarks.table import spread
from chaos.lab import topology
from chaos.lab.lab import Lab
from chaos.lab.lab_error import LabError, UsageError
from chaos.lab.netns import entered
from chaos.lab.node_files import cluster_toml
from hanat.core.sticky import Wanted
from hanat.kernel.client_sets import KernelClientSets

PUBLIC = topology.FLOATING["public"].partition("/")[0]
CLIENTS = "198.18.0.0/15"  # RFC 2544: of benchmarks
SAMPLE = 1_000
FIRST_OF_SAMPLE = int(ip_address("198.19.0.1"))
FIRST_OF_MANY = int(ip_address("198.18.0.1"))
SLICE = 250
TIMEOUT_MS = 3_600_000
OLD_S = 1.0  # what is younger is not promised
KNOWN_S_MAX = 180.0
PERSISTENT = 'persistence = { timeout = "1h" }'
SERVERS = "".join(
    f'  [[service.server]]\n  name = "many{n}"\n  address = "10.11.12.{100 + n}:5353"\n'
    for n in (1, 2, 3)
)
MANY = f"""
[[service]]
name = "many"
listen = ["vip:public udp/5300"]
scheduler = "rr"
{PERSISTENT}
{SERVERS}"""


def configuration() -> str:
    """Return the lab's configuration with persistence."""
    base = cluster_toml(profile="default", checked=False)
    assert 'name = "web"\n' in base, "the lab's configuration is another one"
    return base.replace('name = "web"\n', f'name = "web"\n{PERSISTENT}\n', 1) + MANY


@dataclass
class Seen:
    """What became of the clients.

    Attributes:
        entries: So many are put into the sets.
        known_s: By trial, until every node knew all of them.
        moved: By trial, how many clients of the sample met another server.
        asked: How many were asked.
    """

    entries: int
    known_s: list[float] = field(default_factory=list)
    moved: list[int] = field(default_factory=list)
    asked: int = 0
    before: dict[str, str] = field(default_factory=dict)

    def prepare(self, stage: Stage) -> None:
        """Let clients come, and wait until every node knows them."""
        lab = stage.system.lab
        run = topology.run_ip
        home = lab.topology.namespace(topology.CLIENT)
        run(["-n", home, "route", "add", "local", CLIENTS, "dev", "lo"])
        with entered(home):
            near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with near:
            near.connect((PUBLIC, 9))
            client = near.getsockname()[0]
        for name in stage.system.nodes:
            there = lab.topology.namespace(name)
            run(["-n", there, "route", "add", CLIENTS, "via", client, "dev", "eth0"])
        began = time.monotonic()
        fill(lab, stage.holder, self.entries - SAMPLE)
        addresses = [str(ip_address(FIRST_OF_SAMPLE + n)) for n in range(SAMPLE)]
        self.before = who_answers(lab, addresses)
        lab.wait_for(
            lambda: all(
                status is not None and status["flows"]["clients"] >= self.entries
                for status in lab.statuses().values()
            ),
            KNOWN_S_MAX,
            "every node to know all clients",
        )
        self.known_s.append(time.monotonic() - began)
        stage.wait(OLD_S)

    def act(self, stage: Stage) -> int:
        """Kill the holder, and ask the clients again when the time of the probes is over."""
        instant_ns = CASES["kill"].act(stage)
        stage.wait(stage.system.settle_s + OLD_S)
        after = who_answers(stage.system.lab, list(self.before))
        self.moved.append(sum(after[client] != server for client, server in self.before.items()))
        self.asked += len(after)
        return instant_ns


def fill(lab: Lab, holder: str, count: int) -> None:
    """Put clients into the holder's sets, evenly."""
    listing = lab.exec_in(holder, ["nft", "-t", "list", "sets", "inet"]).stdout
    names = re.findall(r"set (persist/many/\S+/v4/\S+) ", listing)
    if len(names) != 3:
        raise LabError(f"{holder} has the sets {names}, not three of the service")
    with entered(lab.topology.namespace(holder)):
        sets = KernelClientSets()
        for number, name in enumerate(names):
            some = [
                Wanted(ip_address(FIRST_OF_MANY + n).packed, TIMEOUT_MS)
                for n in range(number, count, len(names))
            ]
            # A transaction keeps the gate from being armed; nft would list all sets before each.
            for first in range(0, len(some), SLICE):
                sets.write(name, put=some[first : first + SLICE], gone=[])
        sets.close()


def who_answers(lab: Lab, clients: list[str]) -> dict[str, str]:
    """Return which server answers a request of each client."""
    found = {}
    for client in clients:
        with entered(lab.topology.namespace(topology.CLIENT)):
            sock = socket.create_connection((PUBLIC, 80), 5, source_address=(client, 0))
        with sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b""
            while data := sock.recv(4096):
                answer += data
        found[client] = answer.rpartition(b"\r\n\r\n")[2].decode().strip()
    return found


def measure(prefix: str, seen: Seen) -> Figures:
    """Run one trial."""
    system = Hanat(prefix, "default")
    if not seen.entries:
        return trial.run(system, CASES["kill"])
    system.lab = Lab(prefix, cluster_toml=configuration())
    system.nodes = system.lab.nodes
    return trial.run(system, Case("kill", seen.act, seen.prepare))


def main() -> int:
    """Measure, print, return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.persistence", description=__doc__)
    parser.add_argument("--entries", type=int, nargs="+", default=[0, 100_000])
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--patience", type=float, default=60.0, help="for a quiet machine, s")
    parser.add_argument("--prefix", default="hnpersist")
    options = parser.parse_args()
    every = {entries: Seen(entries) for entries in options.entries}
    figures: dict[int, list[Figures]] = {entries: [] for entries in every}
    failed: list[str] = []
    for number in range(options.trials):
        for entries, seen in every.items():  # in turn: a machine is not always as busy
            busy = wait_for_quiet(options.patience)
            try:
                found = measure(options.prefix, seen)
            except UsageError as error:
                print(f"benchmarks.persistence: {error}", file=sys.stderr)
                return 2
            except LabError as error:
                failed.append(f"{entries:,} entries: {error}")
                print(f"trial {number} busy={busy:.0%} {failed[-1]}", file=sys.stderr)
                continue
            figures[entries].append(found)
            gap, new = max(found.gap_ms.values()), max(found.new_ms.values())
            clients = f"moved={seen.moved[-1:]} known_s={seen.known_s[-1:]}"
            line = f"trial {number} busy={busy:.0%} entries={entries} gap={gap:.1f} new={new:.1f}"
            print(line, clients, file=sys.stderr)
    print("| entries | trials | UDP gap, ms | no new connections, ms | two holders, ms | "
          "clients that changed server | all nodes knew all after, s |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for entries, seen in every.items():
        some = figures[entries]
        cells = [
            f"{entries:,}", str(len(some)), spread([max(f.gap_ms.values()) for f in some]),
            spread([max(f.new_ms.values()) for f in some]), spread([f.two_ms for f in some]),
            f"{sum(seen.moved)} of {seen.asked:,}" if entries else "-", spread(seen.known_s),
        ]  # fmt: skip
        print(f"| {' | '.join(cells)} |")
    print("\n".join(["", *failed, str(machine())]))
    return int(any(sum(seen.moved) for seen in every.values()))


if __name__ == "__main__":
    sys.exit(main())
