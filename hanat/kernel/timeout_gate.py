"""Grant and withdraw the two rights that make a node the holder.

The rights are members of nftables sets whose elements time out in the kernel:
if nobody grants them anew, the node falls silent without any process of ours
having to run. Who asks, and for how long, is the lease's matter (docs/lease.md).

Granting empties the sets and fills them in one transaction, since adding an
element that is there already does not extend it. No packet sees the sets empty:
the kernel switches from the old members to the new at once. Deleting single
elements instead was tried; it costs the same and fails when one of them expires
in the middle of the transaction.

The one exception is the permit, an element without a right: each grant deletes it, which
fails when it is over, and puts a new one in its place that lasts as long as *answers*. The
kernel refuses the transaction as a whole then. So a process that computes a rest and then
stands still cannot grant anything when the former grant is over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from hanat.core.configuration import Address
from hanat.core.notation import GATE_TABLE
from hanat.errors import AbsentObjectError
from hanat.kernel.device_indexes import DeviceIndexes
from hanat.kernel.fence import (
    ANSWERS,
    CARRIES,
    NO_ANSWERS,
    NO_RIGHTS,
    PERMIT,
    guarded_addresses,
    guarded_devices,
    take_away,
)
from hanat.kernel.gate_ports import TIMEOUT_S_MIN, Rights
from hanat.kernel.nfnetlink import NfNetlink, Refill, SetName
from hanat.kernel.nft import NftLibrary

T = TypeVar("T")

PERMITTED = ("grant",)  # the one member of the set of permits

# E.g. "eth0" timeout 88ms expires 36ms; one of ours always has both.
_MEMBER = re.compile(r'"(?P<device>[^"]+)" timeout \S+ expires (?P<left>\w+)')
_PART = re.compile(r"(\d+)(ms|s|m|h|d)")
_MILLISECONDS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class InstalledGate:
    """The gate's tables, whatever ends the rights: what is done by libnftables.

    Args:
        nft: To share with the firewall; None: one of its own.
    """

    def __init__(self, nft: NftLibrary | None = None) -> None:
        self._nft = nft or NftLibrary()

    def close(self) -> None:
        """Release the library's context; the next call opens another."""
        self._nft.close()

    def install(self, script: str) -> None:
        """See `gate_ports.Gate.install`."""
        self._nft.run(script, operation="install the gate", target="nftables")

    def missing(self) -> tuple[str, ...]:
        """See `gate_ports.Gate.missing`."""
        return ()

    def guarded(self) -> frozenset[Address]:
        """See `gate_ports.Gate.guarded`."""
        return _of_gate(guarded_addresses, "list floating addresses")

    def ports(self) -> frozenset[str]:
        """See `gate_ports.Gate.ports`."""
        return _of_gate(guarded_devices, "list interfaces")


class KernelGate(InstalledGate):
    """Implements `gate_ports.TimedGate`: rights by netlink; arguments as `InstalledGate`."""

    def __init__(self, nft: NftLibrary | None = None) -> None:
        super().__init__(nft)
        self._sets = NfNetlink()
        self._indexes = DeviceIndexes()

    def close(self) -> None:
        """Release what is open; the next call opens it anew."""
        super().close()
        self._sets.close()
        self._indexes.close()

    def permit(self, valid_s: float) -> None:
        """See `gate_ports.Gate.permit`."""
        assert valid_s >= TIMEOUT_S_MIN, valid_s
        refill = Refill(PERMIT, PERMITTED, int(valid_s * 1000))
        self._refill([refill], operation="permit a grant", target="all interfaces")

    def arm(self, devices: Iterable[str], *, answers_s: float, carries_s: float) -> bool:
        """See `gate_ports.Gate.arm`."""
        answers_ms, carries_ms = int(answers_s * 1000), int(carries_s * 1000)
        assert TIMEOUT_S_MIN <= answers_s <= carries_s, (answers_s, carries_s)
        named = tuple(sorted(set(devices)))
        indexes = self._indexes.of(named)
        refills = [
            *(Refill(name, named, answers_ms) for name in ANSWERS),
            Refill(CARRIES, indexes, carries_ms),
            # The last: if it fails alone, everything else is as it should be.
            Refill(PERMIT, PERMITTED, answers_ms, demanded=True),
        ]
        return self._refill(refills, operation="grant rights", target=", ".join(named))

    def withdraw(self) -> None:
        """See `gate_ports.Gate.withdraw`."""
        self._take_away(NO_ANSWERS, operation="withdraw answers")

    def shut(self) -> None:
        """See `gate_ports.Gate.shut`."""
        self._take_away(NO_RIGHTS, operation="shut the gate")

    def rights(self) -> Mapping[str, Rights]:
        """See `gate_ports.Gate.rights`."""
        inet, arp = (self._members(name) for name in ANSWERS)
        carries = self._members(CARRIES)
        return {
            device: Rights(
                # Half an answer is none: only what both tables allow counts.
                answers_s=min(inet.get(device, 0.0), arp.get(device, 0.0)),
                carries_s=carries.get(device, 0.0),
            )
            for device in sorted(inet.keys() | carries.keys())
        }

    def _list(self, name: SetName, *, operation: str) -> str:
        words = f"{name.family} {name.table} {name.name}"
        try:
            return self._nft.run(f"list set {words}", operation=operation, target=words)
        except AbsentObjectError as error:
            raise not_installed(operation, words) from error

    def _members(self, name: SetName) -> dict[str, float]:
        """Return how many seconds are left to each member of a set."""
        listing = self._list(name, operation="list rights")
        return {
            member["device"]: sum(
                int(number) * _MILLISECONDS[unit] for number, unit in _PART.findall(member["left"])
            )
            / 1000
            for member in _MEMBER.finditer(listing)
        }

    def _refill(self, refills: Sequence[Refill], *, operation: str, target: str) -> bool:
        try:
            return self._sets.refill(refills, operation=operation, target=target)
        except AbsentObjectError as error:
            raise not_installed(operation, target) from error

    def _take_away(self, rights: tuple[Refill, ...], *, operation: str) -> None:
        try:
            take_away(self._sets, rights, operation=operation)
        except AbsentObjectError as error:
            raise not_installed(operation, "all interfaces") from error


def _of_gate(read: Callable[[], frozenset[T]], operation: str) -> frozenset[T]:
    """Read something of the gate that is installed."""
    try:
        return read()
    except AbsentObjectError as error:
        raise not_installed(operation, f"inet {GATE_TABLE}") from error


def not_installed(operation: str, target: str) -> AbsentObjectError:
    """Return the error of whoever needs a gate."""
    return AbsentObjectError(
        operation=operation,
        target=target,
        found="the gate's tables are missing",
        to_do="install the gate first",
    )
