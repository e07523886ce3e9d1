"""The fakes' connection-tracking table: entries, and what the kernel makes of records."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from itertools import count

from hanat.core.flows import (
    RESET_MARK,
    STATUS_DST_NAT,
    STATUS_FIXED_TIMEOUT,
    STATUS_SRC_NAT,
    Flow,
    Tuple5,
    awaits_reset,
    status_of,
    timeout_of,
    with_reset,
)
from hanat.kernel.ctnetlink import (
    RESET_TIMEOUT_S,
    SCTP,
    STATUS_SENT,
    TCP,
    TCP_BE_LIBERAL,
    UDP,
    WAITING_TIMEOUT_S,
    create_message,
)
from hanat.kernel.ports import Installed
from hanat.kernel.timeouts import USED_TIMEOUT_S_MAX

Key = tuple[int, int, IPv4Address | IPv6Address, IPv4Address | IPv6Address, int, int]

# IPS_SRC_NAT_DONE and IPS_DST_NAT_DONE: the kernel has decided on both.
STATUS_NAT_DONE = 0x180
USED_TIMEOUTS_S = {TCP: 432_000, UDP: 120, SCTP: 210}  # as the kernel has them
ROOM = 262_144  # the kernel's own default on most machines


class FlowTable:
    """Entries by both their tuples; no two entries share one.

    Attributes:
        room: For how many entries, as ``nf_conntrack_max`` says.
    """

    def __init__(self) -> None:
        self._flows: dict[Key, Flow] = {}
        self._originals: dict[Key, Key] = {}
        self._idents = count(1)
        self.room = ROOM

    def records(self) -> list[bytes]:
        """Return all entries, oldest first."""
        return [flow.to_record() for flow in self._flows.values()]

    def put(self, record: bytes) -> None:
        """Take an entry as it is, in place of one of the same original tuple."""
        flow = Flow.from_record(record)
        self.pop(record)
        self._insert(flow)

    def pop(self, record: bytes) -> bytes | None:
        """Remove by original tuple; return what was there."""
        flow = Flow.from_record(record)
        gone = self._flows.pop(_key(flow, flow.original), None)
        if gone is None:
            return None
        for key in _keys(gone):
            self._originals.pop(key, None)
        return gone.to_record()

    def install(self, records: Iterable[bytes]) -> Installed:
        """Do what `ports.Conntrack.install` says."""
        found: dict[str, list[bytes]] = {}
        for record in records:
            found.setdefault(self._install(record), []).append(record)
        count = {outcome: len(some) for outcome, some in found.items() if outcome != "clashed"}
        return Installed(clashed=tuple(found.get("clashed", ())), **count)

    def _set_timeout(self, record: bytes, timeout_s: int) -> bool:
        """Set the timeout of an entry; say whether it was there."""
        flow = Flow.from_record(record)
        original = _key(flow, flow.original)
        found = self._flows.get(original)
        if found is not None:
            self._flows[original] = replace(found, timeout_s=timeout_s)
        return found is not None

    def mark_for_reset(self, record: bytes) -> bool:
        """Do what `ports.Conntrack.mark_for_reset` says to one entry; say whether it was there."""
        flow = Flow.from_record(record)
        original = _key(flow, flow.original)
        found = self._flows.get(original)
        if found is None or found.protocol != TCP:
            return False
        marked = Flow.from_record(with_reset(found.to_record()))
        flags = (marked.tcp_flags[0] | TCP_BE_LIBERAL, marked.tcp_flags[1] | TCP_BE_LIBERAL)
        self._flows[original] = replace(
            marked,
            status=marked.status | STATUS_FIXED_TIMEOUT,
            timeout_s=RESET_TIMEOUT_S,
            tcp_flags=flags,
        )
        return True

    def settle(self, records: Iterable[bytes]) -> int:
        """Do what `ports.Conntrack.settle` says."""
        settled = 0
        for record in records:
            if awaits_reset(record):
                fixed = status_of(record) & STATUS_FIXED_TIMEOUT
                settled += not fixed and self.mark_for_reset(record)
            elif timeout_of(record) > USED_TIMEOUT_S_MAX:
                settled += self._set_timeout(record, USED_TIMEOUTS_S.get(record[-6], 30))
        return settled

    def renew(self, record: bytes) -> bool:
        """Do what `ports.Conntrack.extend` says to one entry; say whether it was there."""
        flow = Flow.from_record(record)
        original = _key(flow, flow.original)
        found = self._flows.get(original)
        if found is not None:
            kept = found.status | flow.status & STATUS_SENT
            renewed = _as_installed(replace(flow, status=kept), found.ident)
            self._flows[original] = replace(renewed, reply=found.reply, mark=found.mark)
        return found is not None

    def _install(self, record: bytes) -> str:
        if create_message(record, 0) is None:
            return "failed"
        flow = Flow.from_record(record)
        outcome = "created"
        if any(key in self._originals for key in _keys(flow)):
            outcome = "replaced"
            self.pop(record)
        if any(key in self._originals for key in _keys(flow)):
            return "clashed"
        if len(self._flows) >= self.room:
            return "unplaced"
        self._insert(_as_installed(flow, next(self._idents)))
        return outcome

    def _insert(self, flow: Flow) -> None:
        original = _key(flow, flow.original)
        self._flows[original] = flow
        for key in _keys(flow):
            self._originals[key] = original


def _key(flow: Flow, side: Tuple5) -> Key:
    return (
        flow.protocol, flow.zone, side.source, side.destination,
        side.source_port, side.destination_port,
    )  # fmt: skip


def _keys(flow: Flow) -> tuple[Key, Key]:
    return _key(flow, flow.original), _key(flow, flow.reply)


def _as_installed(flow: Flow, ident: int) -> Flow:
    nat = flow.status & (STATUS_SRC_NAT | STATUS_DST_NAT)
    if flow.protocol == SCTP:  # with verification tags in the places of id, scales and flags
        ident, state, scale, flags = flow.ident, flow.tcp_state, flow.tcp_scale, flow.tcp_flags
    elif flow.protocol == TCP:
        state, scale = flow.tcp_state, flow.tcp_scale
        flags = (flow.tcp_flags[0] | TCP_BE_LIBERAL, flow.tcp_flags[1] | TCP_BE_LIBERAL)
    else:
        state, scale, flags = 0, (0, 0), (0, 0)
    return replace(
        flow,
        ident=ident,
        status=flow.status & STATUS_SENT | nat | STATUS_NAT_DONE,
        timeout_s=WAITING_TIMEOUT_S,
        mark=flow.mark & RESET_MARK,
        tcp_state=state,
        tcp_scale=scale,
        tcp_flags=flags,
    )
