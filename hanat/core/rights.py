"""The rights of a holder as bits of a packet's mark.

Two bits, wherever an operator wants them: they are values between 0 and 3. A packet that comes
in has what its device may do at that moment; a packet that leaves has 3 if it must not leave
without the right to answer (docs/lease.md, "The gate").
"""

from __future__ import annotations

from dataclasses import dataclass

from hanat.core.configuration import GateKind
from hanat.core.notation import ATTACHED_SET, CARRIES_SET

NO_RIGHT = 0
CARRIES_ONLY = 1
BOTH_RIGHTS = 2
ANSWERS_NEEDED = 3

# Bits that kube-proxy, Calico, Cilium, Tailscale, WireGuard and mwan3 leave alone by default, but
# Calico's whole upper half; and none that this project has in marks of connections.
MARK_MASK = 0x6000_0000


def bits(mask: int, value: int) -> int:
    """Return a value at the place that a mask of two neighbouring bits has.

    Args:
        mask: E.g. 0x60000000.
        value: 0 to 3.
    """
    assert is_mask(mask), hex(mask)
    return value * (mask & -mask)


def is_mask(mask: int) -> bool:
    """Say whether it is two neighbouring bits of 32."""
    lowest = mask & -mask
    return 0 < mask < 1 << 32 and mask == lowest * 3


@dataclass(frozen=True, slots=True)
class Enforcement:
    """How the gate's rules come to know the rights.

    Attributes:
        kind: Of the gate.
        mask: Two neighbouring bits of the packets' marks; nothing with timeouts.
    """

    kind: GateKind = GateKind.TIMEOUTS
    mask: int = MARK_MASK

    def is_bit(self, value: int) -> str:
        """Return the condition that a packet has one of the bits of a value."""
        return f"meta mark & {bits(self.mask, value):#010x} != 0"

    @property
    def answers(self) -> str:
        """The condition that a packet came in where *answers* is granted."""
        return self.is_bit(BOTH_RIGHTS) if self.has_deadline else "iifname @answers"

    @property
    def carries(self) -> str:
        """The condition that a packet came in where *carries* is granted."""
        if self.has_deadline:
            return self.is_bit(CARRIES_ONLY | BOTH_RIGHTS)
        return f"iif @{CARRIES_SET}"

    @property
    def leaves(self) -> str:
        """The rule that lets a packet leave where *answers* is granted.

        With a deadline it is the program at the egress that decides, so only devices pass that
        have it.
        """
        if self.has_deadline:
            needed = bits(self.mask, ANSWERS_NEEDED)
            return f"oif @{ATTACHED_SET} counter meta mark set meta mark | {needed:#010x} accept"
        return "oifname @answers accept"

    @property
    def judged_again(self) -> str:
        """What lets a packet that needs *answers* be judged once more when it leaves.

        It may have waited: shaped at its ingress, or for its other fragments.
        """
        if not self.has_deadline:
            return ""
        return f"meta mark set meta mark | {bits(self.mask, ANSWERS_NEEDED):#010x} "

    @property
    def has_deadline(self) -> bool:
        """Whether it is the gate with a deadline."""
        return self.kind is GateKind.DEADLINE


TIMEOUTS = Enforcement()
