"""Ten thousand clients in front of a router, and servers that count them.

First packets alone: a raw socket sends them from addresses that nobody has, and the servers count
and drop what arrives. So it is the packets that tell which server got a client, and ten thousand
connections take a second.
"""

from __future__ import annotations

import json
import re
import socket
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from itertools import islice
from typing import NamedTuple

from chaos.lab.netns import entered
from chaos.observe.frames import checksum
from chaos.workloads.syn import DATA_OFFSET, SYN, WINDOW
from chaos.workloads.syn import HEADER as TCP_HEADER
from hanat.core.configuration import Listen, Protocol, RealServer, VirtualService
from hanat.core.ruleset import render_ruleset
from hanat.core.schedulers import InRotation
from hanat.core.services import Levels, Rotations
from hanat.core.steps import steps
from tests.core.examples import DEVICES
from tests.kernel.namespaces import run, until
from tests.kernel.network import (
    CLIENT,
    CLIENT_V6,
    CONFIGURATION,
    VIP,
    VIP_V6,
    Network,
    answers_echo,
)

NAME = "crowd"
PORT = 80
NUMBERS = {Protocol.TCP: socket.IPPROTO_TCP, Protocol.UDP: socket.IPPROTO_UDP}
UDP_HEADER = struct.Struct("!HHHH")
BURST = 500  # packets that wait for a neighbour, or for a busy machine, must find room
_ANSWERS = re.compile(r" src=(\S+) dst=198\.18\.")  # of an entry: the way back
COUNTING = """\
table inet counted {{
    counter arrived {{ }}
    set got {{
        typeof {ip} saddr . {ip} daddr . th dport
        size 65536
        flags dynamic
        counter
    }}
    chain arriving {{
        type filter hook prerouting priority raw
        {ip} daddr {network} meta l4proto {{ tcp, udp }} goto count
    }}
    chain count {{
        counter name arrived
        update @got {{ {ip} saddr . {ip} daddr . th dport counter }}
        drop
    }}
}}
"""


class Client(NamedTuple):
    """Where a first packet comes from."""

    address: str
    port: int = 40_000


def clients(count: int, version: int = 4) -> list[Client]:
    """Return clients with an address each."""
    if version == 6:
        return [Client(f"2001:db8:{0x1000 + n // 250:x}::{n % 250 + 1:x}") for n in range(count)]
    return [Client(f"198.18.{n // 250}.{n % 250 + 1}") for n in range(count)]


class Crowd:
    """A service of some servers on the first router, its clients, and what the servers counted.

    Args:
        network: Where; the first router takes over.
        version: Of IP.
        weights: Of the servers ``s0``, ``s1``, ...
        others: What else the service has.
    """

    def __init__(
        self, network: Network, version: int = 4, *, weights: Iterable[int], **others: object
    ) -> None:
        self._network, self.version = network, version
        self._ip, self.vip = ("ip", VIP) if version == 4 else ("ip6", VIP_V6)
        pool = "10.11.12.{}" if version == 4 else "fd00:12::{}"
        self.servers = tuple(
            RealServer(f"s{n}", ip_address(pool.format(101 + n)), None, weight=weight)
            for n, weight in enumerate(weights)
        )
        self._names = {str(server.address): server.name for server in self.servers}
        listens = tuple(Listen(ip_address(self.vip), protocol, PORT, PORT) for protocol in Protocol)
        service = VirtualService(NAME, listens, CONFIGURATION.services[0].scheduler, self.servers)
        self.service = replace(service, **others)  # type: ignore[arg-type]  # any field
        self._script = ""
        self._prepare()

    def _prepare(self) -> None:
        server, router = (self._network.made[n] for n in ("server", "r1"))
        for one in self.servers[1:]:
            length, flags = (24, "") if self.version == 4 else (64, "nodad")
            run(f"ip addr add {one.address}/{length} dev eth0 {flags}", server)
        pool = "10.11.12.0/24" if self.version == 4 else "fd00:12::/64"
        run(f"nft '{COUNTING.format(ip=self._ip, network=pool)}'", server)
        self._network.r1.take_over()
        for route in (f"198.18.0.0/15 via {CLIENT}", f"2001:db8::/32 via {CLIENT_V6}"):
            run(f"ip route add {route} dev eth0", router)
        assert answers_echo(self._network, "client", self.vip)  # or a burst waits for a neighbour

    def follow(
        self,
        rotation: Iterable[str | InRotation] | None = None,
        levels: Levels | None = None,
        **others: object,
    ) -> None:
        """Bring a rotation, a table or another service into force, as a node does: by steps."""
        self.service = replace(self.service, **others)  # type: ignore[arg-type]  # any field
        rotations: Rotations = {}
        if rotation is not None:
            weights = {server.name: server.weight for server in self.service.servers}
            tiers = {server.name: server.tier for server in self.service.servers}
            rotations = {
                NAME: tuple(
                    InRotation(one, weights[one], tier=tiers[one]) if isinstance(one, str) else one
                    for one in rotation
                )
            }
        script = render_ruleset(
            replace(CONFIGURATION, services=(self.service,)),
            DEVICES,
            self._network.r1.conversation,
            rotations=rotations,
            levels=levels,
        )
        plan = steps(self._script, script) if self._script else None
        parts = [script] if plan is None else [*plan.builds, plan.switch, *plan.clears]
        with self._network.r1.entered() as router:
            for part in filter(None, parts):
                router.firewall.apply(part)
        self._script = script

    def come(
        self,
        some: Iterable[Client],
        protocol: Protocol = Protocol.TCP,
        port: int = PORT,
        *,
        fresh: bool = True,
    ) -> dict[str, Counter[str]]:
        """Send a first packet from each; return who got it, by address: counts by server.

        Args:
            some: From where.
            protocol: Of the packets.
            port: Where to.
            fresh: Nobody has a connection before.
        """
        self._forget(connections=fresh)
        listed = list(some)
        with self._sending() as sock:
            for number, client in enumerate(listed, start=1):
                sock.sendto(_packet(client, self.vip, protocol, port), (self.vip, 0))
                if number % BURST == 0 or number == len(listed):
                    until(partial(self._has, number), f"{number} packets to arrive")
        found: dict[str, Counter[str]] = {}
        for address, server, _, count in self._counted():
            found.setdefault(address, Counter())[self._names[server]] += count
        return found

    def shares(
        self, some: Iterable[Client], protocol: Protocol = Protocol.TCP, port: int = PORT
    ) -> Counter[str]:
        """Send a first packet from each; return how many each server got."""
        return sum(self.come(some, protocol, port).values(), Counter())

    def ports(self, wanted: Mapping[int, Protocol]) -> set[int]:
        """Send to other ports of the address; return at which ports of servers packets arrived.

        Another client comes last: what was sent before has arrived by then, or never will.
        """
        self._forget()
        mine, last = (client.address for client in clients(2, self.version))
        with self._sending() as sock:
            for port, protocol in wanted.items():
                sock.sendto(_packet(Client(mine), self.vip, protocol, port), (self.vip, 0))
            sock.sendto(_packet(Client(last), self.vip, Protocol.TCP, PORT), (self.vip, 0))
        until(lambda: last in {client for client, *_ in self._counted()}, "the last packet")
        return {port for client, _, port, _ in self._counted() if client == mine}

    def let(self, count: int, some: Iterator[Client]) -> list[Client]:
        """Let so many come, beside those that are there; return them."""
        listed = list(islice(some, count))
        self.come(listed, fresh=False)
        return listed

    def end(self, some: Iterable[Client]) -> None:
        """End the connections of some clients."""
        for client in some:
            run(f"conntrack -D -s {client.address}", self._network.made["r1"])

    def live(self) -> Counter[str]:
        """Return how many connections each server has, as the router's table knows them."""
        listed = run("conntrack -L -p tcp", self._network.made["r1"])
        return Counter(self._names[server] for server in re.findall(_ANSWERS, listed))

    def _sending(self) -> socket.socket:
        family = socket.AF_INET if self.version == 4 else socket.AF_INET6
        with entered(self._network.made["client"]):
            # The header is ours: raw(7), and rawv6_sendmsg for this protocol.
            return socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)

    def _forget(self, *, connections: bool = True) -> None:
        run("nft 'flush set inet counted got; reset counters'", self._network.made["server"])
        if connections:
            run("conntrack -F", self._network.made["r1"])

    def _has(self, number: int) -> bool:
        listed = json.loads(self._listed("counter inet counted arrived"))
        (packets,) = (one["counter"]["packets"] for one in listed["nftables"] if "counter" in one)
        return int(packets) >= number

    def _listed(self, what: str) -> str:
        return run(f"nft -j list {what}", self._network.made["server"])

    def _counted(self) -> Iterator[tuple[str, str, int, int]]:
        """Yield client, server, port and how many packets arrived."""
        listed = json.loads(self._listed("set inet counted got"))
        (got,) = (one["set"] for one in listed["nftables"] if "set" in one)
        for one in got.get("elem", ()):
            client, server, port = one["elem"]["val"]["concat"]
            yield client, server, port, one["elem"]["counter"]["packets"]


def _packet(client: Client, to: str, protocol: Protocol, port: int) -> bytes:
    ends = [ip_address(end).packed for end in (client.address, to)]
    number = NUMBERS[protocol]

    def segment(sum_: int) -> bytes:
        if protocol is Protocol.UDP:
            return UDP_HEADER.pack(client.port, port, UDP_HEADER.size, sum_)
        fields = (client.port, port, 1, 0, DATA_OFFSET, SYN, WINDOW)
        return TCP_HEADER.pack(*fields, sum_, 0)

    size = len(segment(0))
    pseudo = b"".join(ends) + struct.pack("!II", size, number)
    if len(ends[0]) == 4:
        # RFC 791, section 3.1; the kernel fills in length, number and checksum: raw(7)
        header = struct.pack("!BBHHHBBH", 0x45, 0, 0, 0, 0, 64, number, 0)
    else:
        header = struct.pack("!IHBB", 0x6 << 28, size, number, 64)  # RFC 8200, section 3
    return header + b"".join(ends) + segment(checksum(pseudo + segment(0)) or 0xFFFF)
