"""What a node is at one moment, and why it came to be that."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from hanat.core.configuration import Configuration, FloatingAddress, Interface, Profile
from hanat.core.status import Role


class Reason(Enum):
    """Why a role was entered."""

    STARTED = "started"
    ELECTED = "elected"
    LEASE_OBTAINED = "lease_obtained"
    LEASE_EXPIRED = "lease_expired"
    LEADERSHIP_LOST = "leadership_lost"
    SWITCHOVER = "switchover"
    SWITCHOVER_ABORTED = "switchover_aborted"
    SHUTDOWN = "shutdown"
    UNSAFE = "unsafe"
    HINDERED = "hindered"
    BLIND = "blind"
    TAKEN_BACK = "taken_back"
    HANDED_OVER = "handed_over"


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """What a node is right now; times in seconds of its clock.

    Attributes:
        held: What a holder has on its devices, or is adding.
        coming: Of that, what it is adding.
    """

    started_at: float
    role: Role
    role_since: float
    reason: Reason
    term: int
    leader: int | None
    lease_until: float
    gate_until: float  # until when the kernel may let the node answer, newest; 0 when it may not
    unsafe: tuple[str, ...]  # why this node must not hold the addresses
    hindrances: tuple[str, ...]  # why another one may be better
    handicap: int  # the same as a number
    revision: int
    settled: int  # newest revision of which it is known whether it is in force here
    refuses: bool  # it is not
    configuration: Configuration
    profile: Profile  # that of the node, not of the configuration
    transitions: tuple[tuple[str, int], ...]
    restored: int  # floating addresses that somebody took off the holder
    repairs: tuple[tuple[str, int], ...]  # of what else was changed, by kind
    held: tuple[FloatingAddress, ...] = ()
    coming: tuple[FloatingAddress, ...] = ()

    def places(self) -> frozenset[tuple[str, Interface]]:
        """Return the floating addresses that are on their devices: logical name, address."""
        coming = {(vip.interface, address) for vip in self.coming for address in vip.addresses}
        held = ((vip.interface, address) for vip in self.held for address in vip.addresses)
        return frozenset(place for place in held if place not in coming)
