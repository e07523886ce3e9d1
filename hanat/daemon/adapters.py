"""Make what a node changes its kernel with, and choose the gate; a part of `main`.

The gate has a deadline in the packet path if the kernel takes the programs, else timeouts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from hanat.config.settings import GateChoice, NodeSettings
from hanat.core.configuration import GateKind
from hanat.core.rights import TIMEOUTS, Enforcement
from hanat.daemon.granting import DeadlineGranting, Granting, TimedGranting
from hanat.errors import KernelError, StartupError
from hanat.kernel.addresses import KernelAddresses
from hanat.kernel.announcer import KernelAnnouncer
from hanat.kernel.deadline_gate import KernelDeadlineGate
from hanat.kernel.firewall import KernelFirewall
from hanat.kernel.links import KernelLinks
from hanat.kernel.nft import NftLibrary
from hanat.kernel.tcx import remove_programs
from hanat.kernel.timeout_gate import KernelGate

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ChosenGate:
    """The gate that this node has.

    Attributes:
        granting: Grants and takes back.
        by: How its rules know the rights.
        map_fd: Descriptor of the map with the deadlines; None with timeouts.
        found: Why there is no deadline, for people; nothing if there is one, or none is wanted.
        data_dir: Where a killed daemon noted what it left.
    """

    granting: Granting
    by: Enforcement
    map_fd: int | None = None
    found: str = ""
    data_dir: Path | None = None

    def take_over(self, devices: Collection[str]) -> None:
        """Take away what a killed daemon left that had a deadline, if this one has timeouts.

        Its programs would drop what passes here by right. To be called when it is certain that no
        other daemon of this node runs.
        """
        if self.by.kind is GateKind.TIMEOUTS:
            try:
                remove_programs(devices, self.data_dir)
            except KernelError as error:
                log.error("gate found=%r", str(error))  # noqa: TRY400 - the text says it all


@dataclass(frozen=True, slots=True)
class Adapters:
    """What a node changes its kernel with."""

    addresses: KernelAddresses
    links: KernelLinks
    announcer: KernelAnnouncer
    firewall: KernelFirewall
    gate: ChosenGate

    @classmethod
    def of(cls, settings: NodeSettings, clock: Callable[[], float]) -> Adapters:
        """Return them for a node; raises as `choose_gate` does."""
        nft = NftLibrary()
        gate = choose_gate(settings, clock, nft)
        nft.kept = gate.by.kind is GateKind.TIMEOUTS
        firewall = KernelFirewall(nft)
        return cls(KernelAddresses(), KernelLinks(), KernelAnnouncer(), firewall, gate)


def choose_gate(
    settings: NodeSettings, clock: Callable[[], float], nft: NftLibrary | None = None
) -> ChosenGate:
    """Return the gate that the node's file wants, or the best that this kernel can do.

    Raises:
        StartupError: The file demands a deadline, and the kernel refuses it.
    """
    devices, data_dir = settings.interfaces.values(), settings.data_dir
    found = ""
    if settings.gate is not GateChoice.TIMEOUTS:
        try:
            gate = KernelDeadlineGate(devices, settings.gate_mark, nft=nft, data_dir=data_dir)
            try:
                gate.probe()
            except BaseException:
                gate.close()
                raise
        except (KernelError, OSError) as error:
            found = str(error)
        else:
            log.info("gate=deadline")
            by = Enforcement(GateKind.DEADLINE, settings.gate_mark)
            return ChosenGate(DeadlineGranting(gate, clock), by, gate.map_fd)
        if settings.gate is GateChoice.DEADLINE:
            raise StartupError(
                tried="put a deadline into the packet path",
                found=found,
                to_do='write kind = "auto" under [gate] in node.toml, for timeouts of nftables',
            )
        log.warning("gate=timeouts found=%r", found)
    timed = TimedGranting(KernelGate(nft), devices, clock)
    return ChosenGate(timed, TIMEOUTS, found=found, data_dir=data_dir)
