"""What hanat needs of a kernel, as Protocols.

Adapters do not decide. They do one thing, at once and synchronously (each call
takes microseconds to a few milliseconds), or raise a `KernelError` that names
operation, target and what the kernel said. Each Protocol has a real adapter and
a fake in `tests.fakes`, and one contract suite holds both to the same behaviour.

Sources of events (`Capture`, `LinkWatch`) offer a file descriptor for the
event loop and a `read` that never blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from hanat.core.accounting import Accounts
from hanat.core.configuration import Address, Interface
from hanat.core.flows import Run
from hanat.core.placements import Placement
from hanat.core.table_pressure import TableStatistics
from hanat.errors import KernelError


class Addresses(Protocol):
    """Addresses on devices."""

    def present(self, device: str) -> frozenset[Interface]:
        """Return all addresses on a device. Raises AbsentObjectError: no such device."""
        ...

    def add(self, placements: Iterable[Placement]) -> None:
        """Add all; what is there already stays. IPv6 without duplicate detection.

        Every placement is tried, then the first error is raised.

        Raises:
            AbsentObjectError: No such device.
            NotPermittedError: CAP_NET_ADMIN is missing.
        """
        ...

    def local(self, placement: Placement) -> bool:
        """Say whether the kernel takes packets to an address that was added for its own.

        Of IPv6 addresses it does only a while after it acknowledged the addition.
        """
        ...

    def remove(self, placements: Iterable[Placement]) -> None:
        """Remove all; what is absent already is no error, a missing device neither.

        Every placement is tried, then the first error is raised.
        """
        ...


@dataclass(frozen=True, slots=True)
class Announced:
    """What became of a round of announcements.

    Attributes:
        sent: Frames that the kernel took.
        refused: Where it took one not, and why: a full queue, no carrier, no such device.
    """

    sent: int
    refused: tuple[tuple[Placement, KernelError], ...] = ()


class Announcer(Protocol):
    """Gratuitous ARP and unsolicited neighbour advertisements."""

    def announce(self, placements: Iterable[Placement]) -> Announced:
        """Send one round for every address, as far as the kernel takes it; never wait.

        IPv4: an ARP request and an ARP reply, both with sender = target = the address,
        to broadcast (RFC 5227 section 3; some hosts learn only from one form).
        IPv6: one neighbour advertisement to ff02::1 with the override flag (RFC 4861
        section 7.2.6). When to repeat is the core's decision.

        Raises:
            NotPermittedError: CAP_NET_RAW is missing.
        """
        ...


FIXED_BYTES = 16  # of a fingerprint


class Firewall(Protocol):
    """nftables, own tables only; each call is one transaction."""

    def apply(self, script: str) -> None:
        """Apply a script of nft commands, all or nothing.

        Raises:
            KernelError: With the first line nft complains about; nothing was changed.
        """
        ...

    def check(self, script: str) -> None:
        """Let the kernel look at a script; nothing is changed.

        Raises:
            KernelError: As `apply` would.
        """
        ...

    def table(self, family: str, name: str) -> str | None:
        """Return a table as nft text, None if there is none."""
        ...

    def names(self, family: str, name: str) -> tuple[tuple[str, str], ...]:
        """Return what is defined in a table: its kind, as nft calls it, and its name.

        Chains, sets, maps, counters, quotas and limits. Nothing if there is no such table.
        """
        ...

    def fingerprint(self, family: str, name: str) -> bytes | None:
        """Return what only a change of the table changes, None if there is none.

        Counters, rights that are granted, slots of services that follow connection counts and
        clients of services with persistence change by themselves and are no part of it. The first
        `FIXED_BYTES` change with what is not of single services: no rotation changes them.
        """
        ...


class Changed(IntEnum):
    """What of nftables changed, by whomever."""

    NOTHING = 0
    RULES = 1
    TABLES = 2  # a table was removed, perhaps with others


class RulesetWatch(Protocol):
    """An open stream of changes of nftables; not of the gate's rights."""

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when something changed."""
        ...

    def read(self) -> Changed:
        """Say what changed since the last call; the gravest of it."""
        ...

    def close(self) -> None:
        """Stop watching."""
        ...


class Claims(Protocol):
    """Other machines that claim an address, by ARP or neighbour advertisement."""

    def watch(self, addresses: Iterable[Address]) -> tuple[int, ...]:
        """Listen for claims of these, of no others; return descriptors that become readable.

        Raises:
            NotPermittedError: CAP_NET_RAW is missing.
        """
        ...

    def read(self) -> bool:
        """Say whether there was a claim since the last call."""
        ...

    def close(self) -> None:
        """Stop listening."""
        ...


class Forwarding(Protocol):
    """What else than our tables decides what is forwarded."""

    def droppers(self) -> tuple[str, ...]:
        """Return chains of others that drop forwarded packets by default, ``ip filter FORWARD``."""
        ...


class KernelSettings(Protocol):
    """Settings of the kernel, by their path below ``/proc/sys``."""

    def read(self, paths: Iterable[str]) -> dict[str, str]:
        """Return the values of those that there are."""
        ...

    def write(self, path: str, value: str) -> None:
        """Change one. Raises KernelError: the kernel refuses."""
        ...


@dataclass(frozen=True, slots=True)
class Installed:
    """Result of an installation: each record is in exactly one field.

    Attributes:
        created, replaced: How many entries were made, where there was none and one.
        clashed: The records left out because another entry has their translated tuple.
        unplaced: How many the table had no room for.
        failed: How many the kernel cannot have, or refused for another reason.
    """

    created: int = 0
    replaced: int = 0
    clashed: tuple[bytes, ...] = ()
    unplaced: int = 0
    failed: int = 0


class Capture(Protocol):
    """An open stream of changes to flows."""

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when changes wait."""
        ...

    def read(self) -> list[Run]:
        """Return what waits, oldest first; empty when nothing does.

        Only ASSURED and DESTROY events of translated flows (and NEW ones, if so wanted),
        never those that this process caused itself. An overrun is counted in `overruns`,
        not raised.
        """
        ...

    @property
    def overruns(self) -> int:
        """How often the kernel dropped events because we were slow."""
        ...

    def close(self) -> None:
        """Stop; further reads return nothing."""
        ...


class Conntrack(Protocol):
    """The connection-tracking table."""

    def account(self) -> Accounts:
        """Return what tells how much flows carried, the same at each call."""
        ...

    def capture(self, *, unassured: bool = False) -> Capture:
        """Begin to capture; also, if so wanted, flows that were not answered, or not yet.

        Raises:
            NotPermittedError: CAP_NET_ADMIN is missing.
        """
        ...

    def install(self, records: Iterable[bytes]) -> Installed:
        """Create entries with their NAT; an entry with the same original tuple is replaced.

        Entries wait for 20 days: who installs sees no packets. A record whose translated
        tuple another entry has is left out. Of a mark only `core.flows.RESET_MARK` is taken.
        """
        ...

    def extend(self, records: Iterable[bytes]) -> list[bytes]:
        """Give entries the state of their records, and let them wait for 20 days from now.

        Translations stay as they are. Returns the records that have no entry.
        """
        ...

    def settle(self, records: Iterable[bytes]) -> int:
        """Give entries that waited the timeout they have in use; return their number.

        Those are the records, as dumped, with a timeout that no packet gave them. It is
        the one their protocol and state have in the kernel's settings; of connections that
        wait for a reset, that of `mark_for_reset`.
        """
        ...

    def mark_for_reset(self, records: Iterable[bytes]) -> list[bytes]:
        """Let entries of TCP be what `core.flows.with_reset` says; return those that are not.

        They have no entry, or are not TCP. The entries last two and a quarter hours from now,
        whatever packets come; a SYN of the same ports replaces them. Other bits of the mark
        stay as they are.
        """
        ...

    def delete(self, records: Iterable[bytes]) -> int:
        """Delete by original tuple; return how many were there."""
        ...

    def dump(self) -> list[bytes]:
        """Return the records of all translated flows."""
        ...

    def walk(self, *, every: bool = False) -> Iterator[list[bytes]]:
        """Return the same in slices, each as the kernel hands it out: at the latest moment.

        Args:
            every: Also flows that are not translated.
        """
        ...

    def count(self) -> int:
        """Return the number of entries of any kind."""
        ...

    def statistics(self) -> TableStatistics:
        """Return how full the table is, and what did not find room in it."""
        ...


@dataclass(frozen=True, slots=True)
class CarrierChanged:
    """A device got or lost its carrier, or vanished (carrier False)."""

    device: str
    carrier: bool


@dataclass(frozen=True, slots=True)
class AddressRemoved:
    """An address was taken off a device that is still there, by whomever."""

    device: str
    address: Interface


LinkChange = CarrierChanged | AddressRemoved


class Routes(Protocol):
    """The routing table."""

    def device_of(self, address: bytes) -> str:
        """Return the device by which a packed address is reached.

        ``lo`` for an address of this machine, empty if there is no way to it. Never raises:
        a kernel that does not answer knows no way.
        """
        ...


class LinkWatch(Protocol):
    """An open stream of what happens to all devices.

    Attributes:
        stale: Something was lost, and what became of it is not known yet: read again soon.
    """

    stale: bool

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when changes wait."""
        ...

    def read(self) -> list[LinkChange]:
        """Return what waits: carriers, then addresses, each oldest first.

        Of very much only a part: the descriptor stays readable then. An address that was
        added again meanwhile is not among them.
        """
        ...

    def close(self) -> None:
        """Stop watching."""
        ...


class Links(Protocol):
    """Interfaces: names, carriers, and what changes."""

    def names(self) -> tuple[str, ...]:
        """Return all device names, sorted."""
        ...

    def carrier(self, device: str) -> bool:
        """Say whether a device is up and has a carrier. Raises AbsentObjectError."""
        ...

    def received(self, device: str) -> int:
        """Return how many frames a device received since it is there. Raises AbsentObjectError."""
        ...

    def ask(self, device: str) -> int:
        """Make hosts on a device's network answer; return how many frames asked.

        Never raises, never waits: what cannot be asked is not. Answers are heard from the
        first question on, until `ask_no_more`.
        """
        ...

    def answered(self, device: str) -> bool:
        """Say whether a host answered since this was asked last. Never raises, never waits."""
        ...

    def ask_no_more(self, device: str) -> None:
        """Hear answers no longer. Never raises."""
        ...

    def watch(self) -> LinkWatch:
        """Begin to watch; changes after this call are not missed."""
        ...
