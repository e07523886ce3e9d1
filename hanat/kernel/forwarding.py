"""Find chains of other programs that drop what is forwarded.

Docker sets the policy of ``ip filter FORWARD`` to drop, and so does many a firewall: what no
rule of it accepts is not forwarded. Whether a rule accepts what hanat forwards cannot be told
from outside, so each such chain is told of.

Source: ``include/uapi/linux/netfilter/nf_tables.h``.
"""

from __future__ import annotations

import struct
from collections.abc import Collection

from hanat.kernel.netlink import HEADER, NETLINK_NETFILTER, NetlinkClient, attributes
from hanat.kernel.nfnetlink import SUBSYSTEM

_GET_CHAIN = SUBSYSTEM << 8 | 4
_TABLE, _NAME, _HOOK, _POLICY = 1, 3, 4, 5
_HOOK_NUMBER = 1
_FORWARD, _DROP = 2, 0  # NF_INET_FORWARD, NF_DROP
_GENERIC = struct.Struct(">BBH")  # family, version, resource id
FAMILIES = {2: "ip", 10: "ip6", 1: "inet"}


class KernelForwarding:
    """Implements `ports.Forwarding`.

    Args:
        own: Tables that do not count.
    """

    def __init__(self, own: Collection[str]) -> None:
        self._own = frozenset(own)

    def droppers(self) -> tuple[str, ...]:
        """See `ports.Forwarding.droppers`."""
        netlink = NetlinkClient(NETLINK_NETFILTER)
        try:
            return tuple(
                f"{name} {found}"
                for family, name in FAMILIES.items()
                for answer in netlink.dump(
                    _GET_CHAIN, _GENERIC.pack(family, 0, 0),
                    operation="list chains", target="nftables",
                )
                if (found := self._dropper(answer)) is not None
            )  # fmt: skip
        finally:
            netlink.close()

    def _dropper(self, answer: bytes) -> str | None:
        found = {
            kind: answer[first:last]
            for kind, first, last in attributes(answer, HEADER.size + _GENERIC.size, len(answer))
            if kind in {_TABLE, _NAME, _HOOK, _POLICY}
        }
        if _HOOK not in found or _POLICY not in found:
            return None
        hook = next(
            found[_HOOK][first:last]
            for kind, first, last in attributes(found[_HOOK], 0, len(found[_HOOK]))
            if kind == _HOOK_NUMBER
        )
        table, name = (found[k].rstrip(b"\0").decode(errors="replace") for k in (_TABLE, _NAME))
        drops = int.from_bytes(hook) == _FORWARD and int.from_bytes(found[_POLICY]) == _DROP
        return f"{table} {name}" if drops and table not in self._own else None
