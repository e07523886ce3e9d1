"""What the operators want, as values: the replicated configuration of a cluster.

`hanat.config` turns the text of ``cluster.toml`` into these; the core decides
with them and `core.ruleset` renders them. Everything here is frozen and
comparable, so "did it change" is ``==``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)

from hanat.core.checks import ServiceCheck, Target, target_of

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network


class Scheduler(Enum):
    """How a new connection finds its server; names as of ipvsadm(8), and ``random``."""

    RR = "rr"
    WRR = "wrr"
    RANDOM = "random"
    SH = "sh"
    MH = "mh"
    LC = "lc"
    WLC = "wlc"
    SED = "sed"
    NQ = "nq"
    FO = "fo"

    @property
    def by_counts(self) -> bool:
        """Whether the slots follow the connection counts."""
        return self in {Scheduler.LC, Scheduler.WLC, Scheduler.SED, Scheduler.NQ}

    @property
    def by_source(self) -> bool:
        """Whether a client is to come back to the same server."""
        return self in {Scheduler.SH, Scheduler.MH}


class Protocol(Enum):
    """Layer-4 protocols a service can listen on."""

    TCP = "tcp"
    UDP = "udp"


class Forward(Enum):
    """What the routers forward."""

    SERVICES = "services"  # to the servers of services, and what is masqueraded
    OPEN = "open"  # everything that this machine has a route for


class OnServerDown(Enum):
    """What becomes of the connections of a server that is down, in maintenance or removed."""

    KEEP = "keep"
    EXPIRE = "expire"  # their entries are deleted: the next packet gets another server
    RESET = "reset"  # the client gets a RST at its next packet


class Unavailable(Enum):
    """What a client meets if no server can take it, and there is no sorry server."""

    REJECT = "reject"  # a reset, or ICMP port unreachable
    DROP = "drop"


PROTOCOL_NUMBERS = {Protocol.TCP: 6, Protocol.UDP: 17}


@dataclass(frozen=True, slots=True)
class Replicate:
    """Which flows of a service the backups get.

    Attributes:
        established: Those that were answered; False: none.
        min_age_s: Only what has lasted this long.
        unassured: Also those that were not answered, or not yet.
    """

    established: bool = True
    min_age_s: float = 0.0
    unassured: bool = False


class GateKind(StrEnum):
    """What ends a right on time."""

    TIMEOUTS = "timeouts"  # of elements of nftables sets: at a tick of the kernel, every kernel can
    DEADLINE = "deadline"  # compared with the clock for each packet, by an eBPF program


@dataclass(frozen=True, slots=True)
class Profile:
    """Timing of the lease; see ``docs/lease.md`` for the arithmetic.

    Attributes:
        name: ``fast``, ``default`` or ``calm``.
        beacon_s: Period of the leader's heartbeat and of the lease's renewal.
        lease_s: How long a promise lasts, from the receipt of the beacon that asked for it.
        margin_s: What the holder gives away for clock rate and kernel ticks.
        grace_s: How much longer than the lease established flows are carried.
    """

    name: str
    beacon_s: float
    lease_s: float
    margin_s: float
    grace_s: float = 0.2

    def __post_init__(self) -> None:
        assert self.lease_s >= 3 * self.beacon_s + self.margin_s, self


# Margin, where timeouts end the rights: two kernel ticks at HZ=250 (2 x 4 ms) and 2 % of the lease
# for clock rates.
PROFILES = {
    profile.name: profile
    for profile in (
        Profile("fast", beacon_s=0.008, lease_s=0.040, margin_s=0.009),
        Profile("default", beacon_s=0.033, lease_s=0.120, margin_s=0.010),
        Profile("calm", beacon_s=0.100, lease_s=0.500, margin_s=0.018),
    )
}
# Where a deadline ends them: 0.2 ms by which a packet may be late, 2 % of the lease, and what a
# slewed clock takes before somebody looks; a holder looks at each beacon (docs/lease.md).
WITH_DEADLINE = {
    profile.name: profile
    for profile in (
        Profile("fast", beacon_s=0.006, lease_s=0.024, margin_s=0.0015),
        Profile("default", beacon_s=0.033, lease_s=0.120, margin_s=0.005),
        Profile("calm", beacon_s=0.100, lease_s=0.500, margin_s=0.018),
    )
}
LEASE_S_MAX = max(p.lease_s for known in (PROFILES, WITH_DEADLINE) for p in known.values())


def nominal_lease_s(profile: Profile) -> float:
    """Return the lease that all nodes know a profile by: the longest that any of them asks for."""
    return PROFILES[profile.name].lease_s


def profile_with(name: str, gate: GateKind) -> Profile:
    """Return the timing of a node: what ends its rights decides how much it gives away."""
    return (WITH_DEADLINE if gate is GateKind.DEADLINE else PROFILES)[name]


@dataclass(frozen=True, slots=True)
class FloatingAddress:
    """An address (or one per family) that moves with the lease.

    Attributes:
        name: The operators' name, ``public`` in ``vip:public``.
        interface: Logical interface, ``public`` or ``private``; each node maps it to a device.
        addresses: With prefix length, at most one per family.
    """

    name: str
    interface: str
    addresses: tuple[Interface, ...]

    def of_version(self, version: int) -> Interface | None:
        """Return the address of IP version 4 or 6, if there is one."""
        return next((a for a in self.addresses if a.version == version), None)


@dataclass(frozen=True, slots=True)
class Listen:
    """One published address and port range, both ends included."""

    address: Address
    protocol: Protocol
    first_port: int
    last_port: int

    def __str__(self) -> str:
        ports = str(self.first_port)
        if self.last_port != self.first_port:
            ports += f"-{self.last_port}"
        return f"{self.address} {self.protocol.value}/{ports}"


@dataclass(frozen=True, slots=True)
class RealServer:
    """A machine behind a service.

    Attributes:
        port: None keeps the port the client asked for.
        weight: 0 takes the server out of rotation, established flows go on.
        tier: Of scheduler ``fo``; 0 is the best.
        max_conn: With so many connections it gets no new ones; 0: any number.
    """

    name: str
    address: Address
    port: int | None
    weight: int
    tier: int = 0
    max_conn: int = 0

    @property
    def place(self) -> str:
        """Address and port; at another place, the same name is another machine."""
        address = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return address if self.port is None else f"{address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Sorry:
    """Where clients go when no server can take them."""

    address: Address
    port: int | None


@dataclass(frozen=True, slots=True)
class Persistence:
    """A client, or all of one network, goes to the server it was at.

    Attributes:
        timeout_s: For so long after its last new connection.
        netmask: Prefix length of what counts as one client, IPv4; `netmask6` likewise.
    """

    timeout_s: float
    netmask: int = 32
    netmask6: int = 128


@dataclass(frozen=True, slots=True)
class Limits:
    """How many new connections a service takes; 0: any number.

    Attributes:
        new_per_second: Of all clients together; `burst` of them at once, not 0 then.
        new_per_second_per_client: Likewise of each, `burst_per_client`.
        connections_per_client: At the same time.
        netmask: Prefix length of what counts as one client, IPv4; `netmask6` likewise.
    """

    new_per_second: int = 0
    burst: int = 0
    new_per_second_per_client: int = 0
    burst_per_client: int = 0
    connections_per_client: int = 0
    netmask: int = 32
    netmask6: int = 64


@dataclass(frozen=True, slots=True)
class VirtualService:
    """What clients see: addresses and ports, and the servers behind them.

    Attributes:
        sources: Logical interfaces by which clients may come; empty: that of the vip alone.
        checks: All must hold for a server; none: it is always up.
        min_healthy_percent: With fewer healthy servers all are used; 0: never.
        on_server_down: None: `reset` for TCP, `expire` for UDP.
        sorry: At most one per family.
        slow_start_s: In which a server that comes back grows to its whole weight; 0: at once.
        hash_port: Schedulers ``sh`` and ``mh`` hash the client's port, too.
        ops: UDP: each datagram by itself, without a flow.
        allow: Where clients must come from; empty: from anywhere.
        deny: Where they must not come from, allowed or not.
    """

    name: str
    listens: tuple[Listen, ...]
    scheduler: Scheduler
    servers: tuple[RealServer, ...]
    replicate: Replicate = Replicate()
    sources: tuple[str, ...] = ()
    checks: tuple[ServiceCheck, ...] = ()
    min_healthy_percent: int = 0
    on_server_down: OnServerDown | None = None
    sorry: tuple[Sorry, ...] = ()
    unavailable: Unavailable = Unavailable.REJECT
    slow_start_s: float = 0.0
    persistence: Persistence | None = None
    hash_port: bool = False
    ops: bool = False
    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()
    limits: Limits = Limits()

    def targets_of(self, server: RealServer) -> tuple[Target, ...]:
        """Return what is probed to know whether one of its servers is up, one per check."""
        port = self.listens[0].first_port if server.port is None else server.port
        return tuple(
            target_of(c, service=self.name, server=server.name, address=server.address, port=port)
            for c in self.checks
        )


@dataclass(frozen=True, slots=True)
class Transit:
    """Networks whose packets are none of hanat's business: any router forwards them as they are."""

    name: str
    networks: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class Masquerade:
    """Networks whose outgoing traffic gets a floating address as its source.

    Attributes:
        networks: Where the traffic comes from.
        sources: The floating address per family, at most one each.
        interface: Logical interface the traffic leaves by.
    """

    networks: tuple[Network, ...]
    sources: tuple[Address, ...]
    interface: str


@dataclass(frozen=True, slots=True)
class Configuration:
    """All of ``cluster.toml``."""

    name: str
    profile: Profile
    vips: tuple[FloatingAddress, ...]
    masquerades: tuple[Masquerade, ...]
    services: tuple[VirtualService, ...]
    forward: Forward = Forward.SERVICES
    transits: tuple[Transit, ...] = ()

    @property
    def interfaces(self) -> tuple[str, ...]:
        """Logical interfaces that carry a floating address, sorted, each once."""
        return tuple(sorted({vip.interface for vip in self.vips}))


def among(
    vips: Iterable[FloatingAddress], others: Iterable[FloatingAddress]
) -> tuple[FloatingAddress, ...]:
    """Return the vips with those of their addresses that others have, too, on that interface."""
    wanted = tuple(vips)
    if not wanted:  # each time a timer is due, beside a thousand others
        return ()
    known = {(vip.interface, address) for vip in others for address in vip.addresses}
    found = []
    for vip in wanted:
        there = tuple(a for a in vip.addresses if (vip.interface, a) in known)
        if there:
            found.append(vip if there == vip.addresses else replace(vip, addresses=there))
    return tuple(found)
