"""What other programs changed on this machine, and what is put back.

Rules of our own tables are put back whatever was done to them: without the gate's
nothing enforces the lease, without the others no service is published. Of the kernel's
settings only those are put back that were right once since the start: an operator who
never set them is told by the doctor, and decides.
"""

from __future__ import annotations

from collections.abc import Mapping

IP_FORWARD = "net/ipv4/ip_forward"
IP6_FORWARD = "net/ipv6/conf/all/forwarding"
EVENTS = "net/netfilter/nf_conntrack_events"
PROMOTE = "net/ipv4/conf/all/promote_secondaries"
LIBERAL = "net/netfilter/nf_conntrack_tcp_be_liberal"

REFUSED_GAP_S = 60.0  # a kernel that refused a repair will refuse the next one
REPAIR_GAP_S = 1.0  # whoever changes it again and again must not keep the node busy

Setting = tuple[str, str, str]
"""Path below ``/proc/sys``, what was found, what is wanted."""


def settings_of(devices: tuple[str, ...]) -> tuple[str, ...]:
    """Return the paths of the settings that matter."""
    filters = (f"net/ipv4/conf/{device}/rp_filter" for device in ("all", *devices))
    return (IP_FORWARD, IP6_FORWARD, EVENTS, LIBERAL, PROMOTE, *filters)


def is_right(path: str, value: str) -> bool:
    """Say whether a setting is as a node needs it: strict reverse path filters are not."""
    return value in {"0", "2"} if path.endswith("/rp_filter") else value == "1"


class Settings:
    """Remembers what was right."""

    def __init__(self) -> None:
        self._right: dict[str, str] = {}

    def look(self, found: Mapping[str, str]) -> tuple[Setting, ...]:
        """Return what was right once and is not now; remember what is."""
        for path, value in found.items():
            if is_right(path, value):
                self._right[path] = value
        return tuple(
            (path, value, self._right[path])
            for path, value in found.items()
            if path in self._right and not is_right(path, value)
        )


class Repairs:
    """Counts repairs, and keeps them from following each other too fast.

    Attributes:
        counts: How many of each kind.
    """

    def __init__(self) -> None:
        self._free_at: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    def begin(self, kind: str, now: float) -> bool:
        """Say whether to repair something now; then it counts."""
        if now < self._free_at.get(kind, 0.0):
            return False
        self._free_at[kind] = now + REPAIR_GAP_S
        self.counts[kind] = self.counts.get(kind, 0) + 1
        return True

    def refused(self, kind: str, now: float) -> None:
        """Note that a repair that began was refused: it does not count."""
        self._free_at[kind] = now + REFUSED_GAP_S
        self.counts[kind] -= 1
