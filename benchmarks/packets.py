"""What the ruleset costs a packet: ``python -m benchmarks.packets``.

A client, a router and a server in network namespaces of their own, with cables between them and no
daemon. Small datagrams go through the router, as fast as one core sends and forwards them: of one
established flow, or each the first of a flow of its own. By turns the router has a single DNAT rule
and nothing else, or the gate and the ruleset of a node that holds, with accounting on, for one
service or for a thousand. Told are packets a second that the server's device saw, the median of
the rounds, and its ratio to that of the bare rule, the median of the ratios of each round.

With ``--running`` a three-node lab as well: its holder with everything running, and one of its
routers with a bare rule while no daemon runs. Its networks are bridges, which cost a packet more
than cables, so the two tables are not to be compared. Needs root.

Exit codes: 0 measured, 1 the lab failed, 2 this machine or the command line is not fit.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from pathlib import Path

from benchmarks.failover import machine
from benchmarks.flood import PUBLIC, SERVER_ADDRESS, SERVICE
from benchmarks.rawflows import FIRST_SERVICE_PORT
from chaos.lab.lab import Lab, require_machine
from chaos.lab.lab_error import LabError, UsageError
from chaos.lab.netns import empty_connections, entered, write_sysctls
from chaos.lab.node_files import PROFILES as LAB_PROFILES
from chaos.lab.node_files import cluster_toml
from chaos.lab.topology import CLIENT, DEVICES, FLOATING, SERVERS, run_ip
from hanat.core.configuration import (
    PROFILES,
    Configuration,
    FloatingAddress,
    GateKind,
    Listen,
    Protocol,
    RealServer,
    Scheduler,
    VirtualService,
)
from hanat.core.control_traffic import ControlTraffic
from hanat.core.gate_rules import render_gate
from hanat.core.rights import MARK_MASK, Enforcement
from hanat.core.ruleset import render_ruleset
from hanat.kernel.deadline_gate import KernelDeadlineGate
from hanat.kernel.timeout_gate import KernelGate

PREFIX = "hanat-packets"
UDP_SEGMENT = 103  # linux/udp.h; Python 3.11 does not have it
SEGMENTS, BYTES = 64, 18  # as many datagrams a system call as the kernel takes
WARM_S = 0.03
FIRST_PORT, SERVICES = FIRST_SERVICE_PORT, 1_000
FLOWS, FIRST_SOURCE = 50_000, 10_000  # each new flow comes from another port
RIGHTS_S = 3_600.0
VIPS = {"public": "203.0.113.10/24", "private": "10.11.12.1/24"}
OWN = {"public": "203.0.113.11", "private": "10.11.12.11"}
CLIENT_ADDRESS = "203.0.113.100"
BARE = f"""
table inet bare {{
  chain prerouting {{
    type nat hook prerouting priority dstnat
    ip daddr {PUBLIC} udp dport {FIRST_PORT}-{FIRST_PORT + SERVICES - 1} dnat ip to {SERVER_ADDRESS}
  }}
}}
"""


@dataclass(frozen=True)
class Wire:
    """Where packets are sent, forwarded and counted: names of namespaces."""

    client: str
    router: str
    server: str

    def received(self) -> int:
        """Return how many packets the server's device has seen."""
        with entered(self.server):
            text = Path("/proc/thread-self/net/dev").read_text(encoding="ascii")
        return int(text.partition("eth0:")[2].split()[1])

    def open_socket(self, namespace: str) -> socket.socket:
        """Return a UDP socket that lives there."""
        with entered(namespace):
            return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


Measure = Callable[[Wire, float], float]


def established(wire: Wire, seconds: float) -> float:
    """Return how many packets of one answered flow arrive in a second."""
    with wire.open_socket(wire.client) as near, wire.open_socket(wire.server) as far:
        far.bind((SERVER_ADDRESS, FIRST_PORT))
        near.settimeout(5)
        far.settimeout(5)
        near.connect((PUBLIC, FIRST_PORT))
        near.send(b"?")
        far.sendto(b"!", far.recvfrom(1)[1])
        near.recv(1)
        near.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, BYTES)
        return _rate(wire, seconds, near)


def _rate(wire: Wire, seconds: float, near: socket.socket) -> float:
    batch = bytes(SEGMENTS * BYTES)
    before, began = 0, 0.0
    for duration in (WARM_S, seconds):
        before, began = wire.received(), time.thread_time()
        while time.thread_time() < began + duration:
            for _ in range(20):
                near.send(batch)
    return (wire.received() - before) / (time.thread_time() - began)


def opening(services: int) -> Measure:
    """Return what measures how many first packets of flows to so many services arrive in a second.

    It takes no notice of seconds: the table has no room for more.
    """
    packets = [
        struct.pack("!HHHHx", FIRST_SOURCE + n, FIRST_PORT + n % services, 9, 0)
        for n in range(FLOWS)
    ]

    def measure(wire: Wire, _seconds: float) -> float:
        with entered(wire.client):
            near = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
        with near:
            near.connect((PUBLIC, 0))
            send = near.send
            before, began = wire.received(), time.thread_time()
            for packet in packets:
                send(packet)
            return (wire.received() - before) / (time.thread_time() - began)

    return measure


@contextmanager
def cables(prefix: str) -> Iterator[Wire]:
    """Make client, router and server; whatever happens they are removed."""
    wire = Wire(*(f"{prefix}-{name}" for name in ("client", "router", "server")))
    every = (wire.client, wire.router, wire.server)
    with ExitStack() as stack:
        for namespace in every:
            run_ip(["netns", "add", namespace])
            stack.callback(run_ip, ["netns", "del", namespace])
        ends = ((wire.client, "public", CLIENT_ADDRESS), (wire.server, "private", SERVER_ADDRESS))
        for namespace, network, address in ends:
            here = DEVICES[network]
            lines = [
                f"link add {here} type veth peer name eth0 netns {namespace}",
                f"addr add {OWN[network]}/24 dev {here}",
                f"addr add {VIPS[network]} dev {here}",
                f"link set {here} up",
            ]
            run_ip(["-n", wire.router], lines)
            gateway = VIPS[network].partition("/")[0]
            lines = ["link set lo up", f"addr add {address}/24 dev eth0", "link set eth0 up"]
            run_ip(["-n", namespace], [*lines, f"route add default via {gateway}"])
        write_sysctls(wire.router, {"net.ipv4.ip_forward": "1"})
        segmented(wire)
        yield wire


def segmented(wire: Wire) -> None:
    """Let the client's kernel make packets of what is sent at once, before its device."""
    run_ip(["-n", wire.client, "link", "set", "eth0", "gso_max_segs", "1"])
    with entered(wire.server):  # no answers to what nobody listens to
        script = "table inet silent {\n chain output {\n type filter hook output priority 0\n"
        nft(wire.server, f"{script} icmp type destination-unreachable drop\n }}\n}}\n")


def nft(namespace: str, script: str) -> None:
    """Run a script there."""
    subprocess.run(
        ["ip", "netns", "exec", namespace, "nft", "-f", "-"], input=script, text=True, check=True
    )


def configuration(services: int) -> Configuration:
    """Return so many services, each with a port of its own."""
    made = tuple(
        VirtualService(
            f"s{n}",
            (Listen(ip_address(PUBLIC), Protocol.UDP, port, port),),
            Scheduler.RR,
            (RealServer("one", ip_address(SERVER_ADDRESS), None, weight=1),),
        )
        for n, port in enumerate(range(FIRST_PORT, FIRST_PORT + services))
    )
    vips = tuple(FloatingAddress(n, n, (ip_interface(a),)) for n, a in VIPS.items())
    return Configuration("any", PROFILES["default"], vips, (), made)


def bare(wire: Wire) -> None:
    """Have one rule in the router's kernel."""
    _begin_anew(wire, accounting=False)
    nft(wire.router, BARE)


def holder(services: int, kind: GateKind) -> Callable[[Wire], None]:
    """Return what puts all that a holder has into the router's kernel."""
    wanted = configuration(services)
    own, peers = (
        tuple(ip_address(f"{a}") for a in some)
        for some in (OWN.values(), ("203.0.113.12", "10.11.12.12"))
    )
    conversation = ControlTraffic(own, peers, 7411, 7412, ())
    script = render_gate(wanted, DEVICES, Enforcement(kind)) + render_ruleset(
        wanted, DEVICES, conversation
    )

    def install(wire: Wire) -> None:
        _begin_anew(wire, accounting=True)
        nft(wire.router, script)
        with entered(wire.router):
            if kind is GateKind.TIMEOUTS:
                gate = KernelGate()
                gate.permit(RIGHTS_S)
                gate.arm(DEVICES.values(), answers_s=RIGHTS_S, carries_s=RIGHTS_S)
                gate.close()
                return
            programs = KernelDeadlineGate(DEVICES.values(), MARK_MASK)  # open as long as we run
            programs.attach()
            until = time.clock_gettime(time.CLOCK_BOOTTIME) + RIGHTS_S
            programs.grant(answers_until=until, carries_until=until)
            _OPEN.append(programs)

    return install


_OPEN: list[KernelDeadlineGate] = []


def _begin_anew(wire: Wire, *, accounting: bool) -> None:
    nft(wire.router, "flush ruleset")
    with entered(wire.router):
        while _OPEN:
            _OPEN.pop().close()
    # Tracking has to be there already: it begins with the first rule that asks for it.
    nft(wire.router, "table inet seen {\n chain seen {\n ct state new\n }\n}\n")
    write_sysctls(wire.router, {"net.netfilter.nf_conntrack_acct": str(int(accounting))})
    empty_connections(wire.router)
    nft(wire.router, "delete table inet seen")


def rounds(
    wire: Wire, kernels: Mapping[str, Callable[[Wire], None]], measure: Measure,
    *, count: int, seconds: float,
) -> dict[str, list[float]]:  # fmt: skip
    """Measure each kernel once in each round, in any order."""
    found: dict[str, list[float]] = {name: [] for name in kernels}
    for _ in range(count):
        for name in random.sample(list(kernels), len(kernels)):
            kernels[name](wire)
            found[name].append(measure(wire, seconds))
    return found


def running(prefix: str, profile: str, *, count: int, seconds: float) -> dict[str, list[float]]:
    """Measure a lab's holder with everything running, and the same router with a bare rule.

    Raises:
        LabError: The lab failed.
    """
    text = (SERVICE % "established").replace("tcp/", "udp/")
    found: dict[str, list[float]] = {"a bare DNAT rule, no daemon": [], "everything running": []}
    with Lab(prefix, cluster_toml=cluster_toml(profile=profile, checked=False) + text) as lab:
        for number in range(count):
            lab.start()
            name = lab.wait_for_holder()
            names = (lab.topology.namespace(host) for host in (CLIENT, name, SERVERS[0]))
            wire = Wire(*names)
            if not number:
                segmented(wire)
            found["everything running"].append(established(wire, seconds))
            for node in lab.nodes:
                lab.stop_node(node)
            with _by_hand(wire):
                bare(wire)
                found["a bare DNAT rule, no daemon"].append(established(wire, seconds))
            nft(wire.router, "flush ruleset")
    return found


@contextmanager
def _by_hand(wire: Wire) -> Iterator[None]:
    """Give the router the floating addresses."""
    there = [f"{FLOATING[network]} dev {device}" for network, device in DEVICES.items()]
    run_ip(["-n", wire.router], [f"addr add {address}" for address in there])
    for namespace in (wire.client, wire.server):
        run_ip(["-n", namespace, "neigh", "flush", "all"])
    try:
        yield
    finally:
        run_ip(["-n", wire.router], [f"addr del {address}" for address in there])


def show(what: str, found: Mapping[str, Sequence[float]]) -> None:
    """Print a table; the first row is what the others are compared with."""
    print(f"\n| {what} | thousands a second of a core | beside the first |\n| --- | --- | --- |")
    base = next(iter(found.values()))
    for name, values in found.items():
        ratio = statistics.median(v / b for v, b in zip(values, base, strict=True))
        print(f"| {name} | {statistics.median(values) / 1000:.0f} | {ratio:.2f} |", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packets", description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=0.2, help="of a round (default: 0.2)")
    parser.add_argument("--running", action="store_true", help="measure a lab's holder as well")
    parser.add_argument("--profile", choices=list(LAB_PROFILES), default="default")
    parser.add_argument("--prefix", default=PREFIX, help="of namespaces (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        require_machine()
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # sends, forwards and receives
        with cables(options.prefix) as wire:
            for what, measure, services in (
                ("packets of an established flow", established, SERVICES),
                ("first packets of flows to one service", opening(1), 1),
                (f"first packets of flows to {SERVICES:,} services", opening(SERVICES), SERVICES),
            ):
                kernels = {"a bare DNAT rule": bare} | {
                    f"gate with {kind.value}": holder(services, kind) for kind in GateKind
                }
                each = {"count": options.rounds, "seconds": options.seconds}
                show(what, rounds(wire, kernels, measure, **each))
        if options.running:
            each = {"count": min(options.rounds, 7), "seconds": 5 * options.seconds}
            show("the same in a lab", running(options.prefix, options.profile, **each))
    except UsageError as error:
        print(f"benchmarks.packets: {error}", file=sys.stderr)
        return error.exit_code
    except LabError as error:
        print(f"benchmarks.packets: {error}", file=sys.stderr)
        return 1
    print(f"\n{', '.join(f'{key} {value}' for key, value in machine().items())}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
