"""A service of single datagrams on the first router: four servers, one client.

The servers are addresses of one machine, each with a socket of its own.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import re
import select
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address

import pytest

from chaos.lab.netns import entered
from hanat.core.configuration import Listen, Protocol, RealServer, Scheduler, VirtualService
from hanat.core.ruleset import render_rotations
from hanat.core.server_facts import ServerId
from hanat.core.service_limits import counter_of
from hanat.core.service_view import Datagrams
from hanat.core.services import Rotations, Turns, rotation_of
from hanat.core.steps import steps
from hanat.daemon.rule_counts import RuleCounts
from hanat.kernel.counters import KernelCounters
from tests.kernel.namespaces import run, until
from tests.kernel.network import (
    ANSWER_S_MAX,
    CLIENT,
    CLIENT_V6,
    CONFIGURATION,
    VIP,
    VIP_V6,
    Network,
    Router,
    family_of,
)

PORT, CLIENT_PORT = 53, 40_053
SIOCETHTOOL, ETHTOOL_STXCSUM = 0x8946, 0x17


@dataclass(frozen=True)
class Plan:
    """The addresses of one family."""

    vip: str
    client: str
    servers: tuple[str, ...]
    beside: str  # another machine inside
    routed: str  # a machine inside, behind a router
    strange: str  # a machine outside, behind the client
    width: int

    @property
    def places(self) -> tuple[tuple[str, int], ...]:
        """Where the servers listen."""
        return tuple((address, 8081 + n) for n, address in enumerate(self.servers))


V4 = Plan(
    VIP, CLIENT, tuple(f"10.11.12.{n}" for n in (101, 102, 103, 104)),
    "10.11.12.150", "10.44.0.5", "192.0.2.9", 32,
)  # fmt: skip
V6 = Plan(
    VIP_V6, CLIENT_V6, tuple(f"fd00:12::{n}" for n in (101, 102, 103, 104)),
    "fd00:12::150", "fd00:44::5", "2001:db8:9::9", 128,
)  # fmt: skip
PLANS = pytest.mark.parametrize("plan", [V4, V6], ids=["v4", "v6"])


@dataclass(frozen=True)
class Asked:
    """A datagram that came to a server: its socket and place, and whom it would answer."""

    far: socket.socket
    place: tuple[str, int]
    peer: tuple[str, int]


class Lab:
    """The service ``dns`` on the first router, its servers' sockets, and one client's.

    Args:
        network: Where; the first router takes over.
        plan: Addresses.
        others: What the service has beside four servers of weights 1 to 4; `forward` and
            `transits` are of the configuration.
    """

    def __init__(self, network: Network, plan: Plan, **others: object) -> None:
        self.network, self.plan = network, plan
        server = network.made["server"]
        for address in plan.servers[1:]:
            flags = "nodad" if ":" in address else ""
            run(f"ip addr add {address}/{64 if flags else 24} dev eth0 {flags}", server)
        whole = {key: others.pop(key) for key in ("forward", "transits") if key in others}
        dns = VirtualService(
            "dns",
            (Listen(ip_address(plan.vip), Protocol.UDP, PORT, PORT),),
            Scheduler.WRR,
            tuple(
                RealServer(f"s{n}", ip_address(address), port, weight=n)
                for n, (address, port) in enumerate(plan.places, 1)
            ),
            ops=True,
        )
        self.service = replace(dns, **others)  # type: ignore[arg-type]  # any field
        self.configuration = replace(
            CONFIGURATION,
            services=(*CONFIGURATION.services, self.service),
            **whole,  # type: ignore[arg-type]  # any field
        )
        self.router = network.r1
        self.turns = Turns()
        for router in (network.r1, network.r2):
            router.prepare(self.configuration)
        network.r1.take_over()
        self.servers = {place: self.udp("server", *place) for place in plan.places}
        self.client = self.udp("client", plan.client, CLIENT_PORT)

    def udp(self, place: str, address: str, port: int = 0) -> socket.socket:
        """Return a socket of a machine."""
        opened = self.network.open_socket(place, family_of(address), socket.SOCK_DGRAM)
        opened.bind((address, port))
        return opened

    def follow(self, rotations: Rotations) -> None:
        """Lead the first router to other rotations, as its daemon does."""
        after = Turns(rotations)
        plan = steps(*render_rotations(self.configuration, self.turns, after))
        assert plan is not None
        self.turns = after
        with self.router.entered():
            for script in filter(None, (*plan.builds, plan.switch, *plan.clears)):
                self.router.firewall.apply(script)

    def without(self, *names: str) -> None:
        """Take servers out of rotation."""
        some = (one for one in rotation_of(self.service) if one.name not in names)
        self.follow({"dns": tuple(some)})

    def asked(
        self, text: bytes = b"?", near: socket.socket | None = None, port: int = PORT
    ) -> Asked:
        """Send a datagram, and return where it came to."""
        (near or self.client).sendto(text, (self.plan.vip, port))
        return self.arrived(text)

    def arrived(self, text: bytes) -> Asked:
        """Return where a datagram came to."""
        ready, _, _ = select.select(list(self.servers.values()), [], [], ANSWER_S_MAX)
        assert ready, "nothing arrived at any server"
        (far,) = ready
        found, peer = far.recvfrom(65_535)
        assert found == text
        place = far.getsockname()[:2]
        return Asked(far, (place[0], place[1]), peer)

    def answered(
        self, text: bytes = b"?", near: socket.socket | None = None, port: int = PORT
    ) -> tuple[str, int]:
        """Send a datagram that is sent back; return the server that had it."""
        near = near or self.client
        asked = self.asked(text, near, port)
        asked.far.sendto(text[::-1], asked.peer)
        found, peer = near.recvfrom(65_535)
        assert (found, peer[:2]) == (text[::-1], (self.plan.vip, port))
        return asked.place

    def datagrams(self) -> Mapping[ServerId, Datagrams]:
        """Return what the first router shows of each server."""
        with self.router.entered():
            counters = KernelCounters()
            counts = RuleCounts(counters)
            asyncio.run(counts.refresh(self.configuration))
            counters.close()
        return counts.datagrams

    def waiting(self) -> int:
        """Take what came to the servers; return how many datagrams that were."""
        count = 0
        while ready := select.select(list(self.servers.values()), [], [], 0)[0]:
            for one in ready:
                one.recv(100)
                count += 1
        return count

    def assert_silent(self) -> None:
        """Nothing waits at a server or the client."""
        ready, _, _ = select.select([*self.servers.values(), self.client], [], [], 0)
        assert not ready

    def entries(self) -> set[str]:
        """Return the connections to and from the ports of the service that are tracked."""
        ports = "|".join(map(str, (PORT, CLIENT_PORT, *(port for _, port in self.plan.places))))
        found = run("conntrack -L -p udp", self.router.namespace)
        found += run("conntrack -L -p udp -f ipv6", self.router.namespace)
        return {line for line in found.splitlines() if re.search(rf"port=({ports})\b", line)}


def drops(router: Router, table: str, chain: str) -> int:
    """Return how many packets the rules of a chain counted."""
    listing = run(f"nft list chain inet {table} {chain}", router.namespace)
    return sum(int(n) for n in re.findall(r"counter packets (\d+)", listing))


@contextmanager
def dropped(router: Router, table: str, *chains: str) -> Iterator[None]:
    """What is done here makes a chain drop something; wait until it did."""
    before = {chain: drops(router, table, chain) for chain in chains}
    yield
    until(
        lambda: any(drops(router, table, chain) > count for chain, count in before.items()),
        f"a drop in {chains}",
    )


def counted(router: Router, reason: str) -> int:
    """Return how many datagrams the service dropped for a limit."""
    listing = run("nft list counters table inet hanat", router.namespace)
    (found,) = re.findall(rf"{counter_of('dns', reason)} \{{\s+packets (\d+)", listing)
    return int(found)


def compute_checksums(namespace: str, device: str) -> None:
    """Let the kernel compute the checksums of what a device sends."""
    value = struct.pack("II", ETHTOOL_STXCSUM, 0)
    buffer = bytearray(value)
    with entered(namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        pointer = (ctypes.c_char * len(buffer)).from_buffer(buffer)
        request = struct.pack("16sP", device.encode(), ctypes.addressof(pointer))
        fcntl.ioctl(opened, SIOCETHTOOL, request)
