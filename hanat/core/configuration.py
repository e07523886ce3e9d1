"""What the operators want, as values: the replicated configuration of a cluster.

`hanat.config` turns the text of ``cluster.toml`` into these; the core decides
with them and `core.ruleset` renders them. Everything here is frozen and
comparable, so "did it change" is ``==``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network


class Scheduler(Enum):
    """How a new connection finds its real server."""

    RR = "rr"  # each in turn, weights ignored
    WRR = "wrr"  # in turn, by weight
    SH = "sh"  # by a hash of the client's address, by weight


class Protocol(Enum):
    """Layer-4 protocols a service can listen on."""

    TCP = "tcp"
    UDP = "udp"


class Forward(Enum):
    """What the routers forward."""

    SERVICES = "services"  # to the servers of services, and what is masqueraded
    OPEN = "open"  # everything that this machine has a route for


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


# Margin: two kernel ticks at HZ=250 (2 x 4 ms) and 2 % of the lease for clock rates.
PROFILES = {
    profile.name: profile
    for profile in (
        Profile("fast", beacon_s=0.008, lease_s=0.040, margin_s=0.009),
        Profile("default", beacon_s=0.033, lease_s=0.120, margin_s=0.010),
        Profile("calm", beacon_s=0.100, lease_s=0.500, margin_s=0.018),
    )
}


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
    """

    name: str
    address: Address
    port: int | None
    weight: int


@dataclass(frozen=True, slots=True)
class VirtualService:
    """What clients see: addresses and ports, and the servers behind them.

    Attributes:
        sources: Logical interfaces by which clients may come; empty: that of the vip alone.
    """

    name: str
    listens: tuple[Listen, ...]
    scheduler: Scheduler
    servers: tuple[RealServer, ...]
    replicate: Replicate = Replicate()
    sources: tuple[str, ...] = ()


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
