"""Let sets of the ruleset have clients for a while: those that have too many connections.

Source: ``include/uapi/linux/netfilter/nf_tables.h``.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from hanat.core.notation import TABLE
from hanat.kernel.netlink import NLM_F_CREATE, attribute, nested
from hanat.kernel.nfnetlink import (
    DELETE_ELEMENTS,
    FAMILIES,
    GENERIC,
    NEW_ELEMENTS,
    Message,
    NfNetlink,
)

ELEMENTS_MAX = 500  # of a message: the length of an attribute has 16 bits
_TABLE, _SET, _ELEMENTS = 1, 2, 3
_ELEMENT, _KEY, _TIMEOUT, _VALUE = 1, 1, 4, 1


class KernelClientSets:
    """One socket for all sets; it stays open, see `kernel.conntrack.KernelCapture`."""

    def __init__(self) -> None:
        self._netlink = NfNetlink()

    def close(self) -> None:
        """Release the descriptor; the next call opens another."""
        self._netlink.close()

    def refill(self, name: str, clients: Sequence[bytes], *, timeout_s: float) -> None:
        """Let a set have these clients for a while, and no others, in one transaction.

        Args:
            name: Of the set.
            clients: Packed addresses.
            timeout_s: When they go if this is not called again.

        Raises:
            AbsentObjectError: There is no such set.
            KernelError: What else the kernel answered; nothing was changed.
        """
        timeout = attribute(_TIMEOUT, struct.pack(">Q", round(timeout_s * 1000)))
        head = (
            GENERIC.pack(FAMILIES["inet"], 0, 0)
            + attribute(_TABLE, TABLE.encode() + b"\0")
            + attribute(_SET, name.encode() + b"\0")
        )
        batch: list[Message] = [(DELETE_ELEMENTS, 0, head)]
        for first in range(0, len(clients), ELEMENTS_MAX):
            listed = b"".join(
                nested(_ELEMENT, nested(_KEY, attribute(_VALUE, client)) + timeout)
                for client in clients[first : first + ELEMENTS_MAX]
            )
            batch.append((NEW_ELEMENTS, NLM_F_CREATE, head + nested(_ELEMENTS, listed)))
        self._netlink.run(batch, operation="tell clients", target=name)
