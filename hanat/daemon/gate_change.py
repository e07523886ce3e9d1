"""Put a gate in place, and lose no floating address by it.

An address that is on a device and that no gate guards answers whoever asks, lease or not.
The gate in the kernel may guard addresses that the new one does not know: of a newer
configuration, which a killed predecessor had in force and this node's file lacks. So what
leaves the gate's sets is taken off the devices before; if that fails, the gate stays.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from hanat.core.configuration import Configuration
from hanat.core.placements import Placement
from hanat.core.rights import TIMEOUTS, Enforcement
from hanat.errors import AbsentObjectError
from hanat.kernel.gate_ports import Gate
from hanat.kernel.ports import Addresses

log = logging.getLogger(__name__)


class GateChange:
    """Installs gates; used by one thread.

    Args:
        gate: The present one.
        addresses: Where addresses are removed.
        devices: Kernel names of this node's interfaces.

    Attributes:
        by: How the gate's rules know the rights.
    """

    def __init__(
        self,
        gate: Gate,
        addresses: Addresses,
        devices: Iterable[str],
        by: Enforcement = TIMEOUTS,
    ) -> None:
        self.by = by
        self._gate, self._addresses = gate, addresses
        self._devices = frozenset(devices)

    def install(self, script: str, configuration: Configuration) -> None:
        """Install the gate of a configuration.

        Raises:
            KernelError: What the kernel refused; the present gate stays.
        """
        left = list(self._left_out(configuration))
        if left:
            names = ", ".join(f"{p.address} from {p.device}" for p in left)
            log.warning("guarded=%r found=not_in_new_configuration action=removed", names)
            self._addresses.remove(left)
        self._gate.install(script)

    def missing(self) -> tuple[str, ...]:
        """Return what somebody took away that is no table, for people."""
        return self._gate.missing()

    def _left_out(self, configuration: Configuration) -> Iterable[Placement]:
        """Yield what is on a device, guarded now, and not a part of the configuration."""
        try:
            guarded, devices = self._gate.guarded(), self._devices | self._gate.ports()
        except AbsentObjectError:
            return
        guarded -= {address.ip for vip in configuration.vips for address in vip.addresses}
        if not guarded:
            return
        for device in sorted(devices):
            try:
                present = self._addresses.present(device)
            except AbsentObjectError:
                continue
            for address in sorted(present, key=str):
                if address.ip in guarded:
                    yield Placement(device, address)
