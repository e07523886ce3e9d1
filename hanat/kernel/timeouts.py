"""How long the kernel keeps an entry after a packet: ``nf_conntrack-sysctl.rst``."""

from __future__ import annotations

from pathlib import Path

from hanat.kernel.ctnetlink import ICMP, ICMPV6, SCTP, TCP, UDP, WAITING_TIMEOUT_S

SETTINGS = Path("/proc/sys/net/netfilter")

# An entry with more waits on a backup, or did; the kernel's own default is 5 days at most.
USED_TIMEOUT_S_MAX = WAITING_TIMEOUT_S * 3 // 4
DEFAULT_S = 600  # of the kernel, for protocols it does not know

_TCP_STATES = {  # enum tcp_conntrack
    1: "syn_sent", 2: "syn_recv", 3: "established", 4: "fin_wait", 5: "close_wait", 6: "last_ack",
    7: "time_wait", 8: "close",
}  # fmt: skip
_SCTP_STATES = {  # enum sctp_conntrack
    1: "closed", 2: "cookie_wait", 3: "cookie_echoed", 4: "established", 5: "shutdown_sent",
    6: "shutdown_recd", 7: "shutdown_ack_sent", 8: "heartbeat_sent",
}  # fmt: skip
_OTHERS = {UDP: "udp_timeout_stream", ICMP: "icmp_timeout", ICMPV6: "icmpv6_timeout"}


class Timeouts:
    """The settings of this kernel, each read once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], int] = {}

    def of(self, record: bytes) -> int:
        """Return the timeout in seconds that a packet would give the flow now."""
        kind = record[-6], record[-5]
        found = self._known.get(kind)
        if found is None:
            found = self._known[kind] = _read(*kind)
        return found


def _read(protocol: int, state: int) -> int:
    name = _OTHERS.get(protocol)
    if protocol == TCP:
        name = f"tcp_timeout_{_TCP_STATES.get(state, 'established')}"
    if protocol == SCTP:
        name = f"sctp_timeout_{_SCTP_STATES.get(state, 'established')}"
    try:
        return int((SETTINGS / f"nf_conntrack_{name}").read_text())
    except (OSError, ValueError):
        return DEFAULT_S
