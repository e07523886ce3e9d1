"""The fakes' connection-tracking table: entries, and what the kernel makes of records."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from itertools import count

from hanat.core.accounting import COUNTERS
from hanat.core.flows import (
    RESET_MARK,
    STATUS_ASSURED,
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
        ended: Flows that are gone, with their counters; None: nobody wants to know.
        counts: As ``nf_conntrack_acct`` says.
    """

    def __init__(self) -> None:
        self._flows: dict[Key, Flow] = {}
        self._originals: dict[Key, Key] = {}
        self._idents = count(1)
        self._counters: dict[Key, bytes] = {}
        self.room, self.counts = ROOM, True
        self.ended: list[bytes] | None = None

    def records(self) -> list[bytes]:
        """Return all entries, oldest first."""
        return [flow.to_record() for flow in self._flows.values()]

    def put(self, record: bytes) -> None:
        """Take an entry as it is, in place of one of the same original tuple."""
        self._take(record)
        self._insert(Flow.from_record(record))

    def carry(self, record: bytes, *packets_and_bytes: int) -> None:
        """Let packets of a flow pass: packets and bytes of one way, then of the other."""
        flow = Flow.from_record(record)
        key = _key(flow, flow.original)
        before = COUNTERS.unpack(self._counters.get(key, bytes(COUNTERS.size)))
        after = (a + b for a, b in zip(before, packets_and_bytes, strict=True))
        self._counters[key] = COUNTERS.pack(*after) if self.counts else bytes(COUNTERS.size)

    def counted(self) -> list[bytes]:
        """Return all entries to services, each followed by its counters."""
        return [
            flow.to_record() + self._counters.get(key, bytes(COUNTERS.size))
            for key, flow in self._flows.items()
            if flow.status & STATUS_DST_NAT
        ]

    def pop(self, record: bytes) -> bytes | None:
        """Remove by original tuple; return what was there."""
        flow = Flow.from_record(record)
        gone = self._take(record)
        counters = self._counters.pop(_key(flow, flow.original), bytes(COUNTERS.size))
        if gone is not None and self.ended is not None and _is_told(gone):
            self.ended.append(gone + counters)
        return gone

    def _take(self, record: bytes) -> bytes | None:
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


class FakeAccounts:
    """Implements `core.accounting.Accounts`."""

    def __init__(self, flows: FlowTable) -> None:
        self._flows, self.overruns = flows, 0

    def open(self) -> None:
        """See `core.accounting.Accounts.open`."""
        self._flows.ended = []

    def read(self) -> list[bytes]:
        """See `core.accounting.Accounts.read`."""
        found = self._flows.ended or []
        if found:
            self._flows.ended = []
        return found

    def walk(self) -> Generator[list[bytes]]:
        """See `core.accounting.Accounts.walk`."""
        yield self._flows.counted()

    def enabled(self) -> bool:
        """See `core.accounting.Accounts.enabled`."""
        return self._flows.counts

    def close(self) -> None:
        """See `core.accounting.Accounts.close`."""
        self._flows.ended = None


def _is_told(record: bytes) -> bool:
    status, protocol = status_of(record), record[-6]
    assured = status & STATUS_ASSURED or protocol not in {TCP, SCTP}
    return bool(status & STATUS_DST_NAT and assured)


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
