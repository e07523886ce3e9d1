"""Read what the kernel counted of each flow to a service: at its end, and of those that go on.

A socket of its own hears of ends, beside that of `conntrack.KernelCapture`: here also those count
that were never assured (questions to a name server), of which strangers may make as many as they
like. When they are more than are read, sums are too small; replication loses nothing.
Handshakes that were not completed are not told of.

The kernel counts a flow if ``net.netfilter.nf_conntrack_acct`` was 1 when the flow began. Before
that its messages have no counters, which are taken for 0.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Generator

from hanat.core.flows import STATUS_ASSURED, STATUS_DST_NAT
from hanat.errors import KernelError
from hanat.kernel.classic_bpf import NLATTR, Step, attach
from hanat.kernel.ctnetlink import (
    BODY_OFFSET,
    CT_GET,
    CTA_PROTOINFO,
    CTA_STATUS,
    GROUP_DESTROY,
    services_dump_message,
)
from hanat.kernel.kernel_errors import refused
from hanat.kernel.netlink import (
    NETLINK_ADD_MEMBERSHIP,
    NETLINK_DROP_MEMBERSHIP,
    NETLINK_NETFILTER,
    SO_RCVBUFFORCE,
    SOL_NETLINK,
    NetlinkClient,
    open_socket,
)
from hanat.kernel.recvmmsg import SLOT_BYTES, SLOTS, Burst
from hanat.kernel.templates import Reader
from hanat.kernel.timeouts import SETTINGS

# Doubled by the kernel; at 1280 bytes an event room for 25,000.
BUFFER_BYTES = 16 << 20
READ_BURSTS_MAX = 2  # of 1024 events each, some milliseconds

# Ends of flows to a service that were assured; of protocols without a state (UDP) also others.
_FILTER: tuple[Step, ...] = (
    ("", "ld#", BODY_OFFSET),
    ("", "ldx#", CTA_STATUS),
    ("", "ld", NLATTR),
    ("", "jeq", 0, "drop", ""),
    ("", "tax", 0),
    ("", "ldx+", 4),
    ("", "jset", STATUS_DST_NAT, "", "drop"),
    ("", "jset", STATUS_ASSURED, "pass", ""),
    ("", "ld#", BODY_OFFSET),
    ("", "ldx#", CTA_PROTOINFO),
    ("", "ld", NLATTR),
    ("", "jeq", 0, "pass", "drop"),
    ("pass", "ret", 0xFFFFFFFF),
    ("drop", "ret", 0),
)


class KernelAccounts:
    """Implements `core.accounting.Accounts` over ctnetlink.

    Both sockets are kept when it is closed, for the next time: to close one costs others
    (`conntrack.KernelCapture`).
    """

    def __init__(self) -> None:
        self._reader = Reader(counters=True)
        self._burst = Burst()
        self._socket: socket.socket | None = None
        self._walking = NetlinkClient(NETLINK_NETFILTER)
        self._listens = False
        self.overruns = 0

    def open(self) -> None:
        """See `core.accounting.Accounts.open`."""
        try:
            if self._socket is None:
                self._socket = open_socket(NETLINK_NETFILTER)
                self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
                self._socket.setblocking(False)  # noqa: FBT003 - the library's signature
                attach(self._socket, _FILTER)
            self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, GROUP_DESTROY)
        except OSError as error:
            raise _refusal(error, "count flows") from error
        self._listens = True

    def read(self) -> list[bytes]:
        """See `core.accounting.Accounts.read`."""
        found: list[bytes] = []
        if self._socket is None or not self._listens:
            return found
        for _ in range(READ_BURSTS_MAX):
            try:
                events = self._burst.read(self._socket)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise _refusal(error, "read counters") from error
                self.overruns += 1
                continue
            whole = [event for event in events if len(event) < SLOT_BYTES]
            found += [record for record in self._reader.records(whole) if record is not None]
            if len(events) < SLOTS:
                break
        return found

    def walk(self) -> Generator[list[bytes]]:
        """See `core.accounting.Accounts.walk`."""
        over = False
        try:
            for answers in self._walking.walk(
                CT_GET, services_dump_message(), operation="count flows", target="conntrack"
            ):
                found = self._reader.records([buffer[start:end] for buffer, start, end in answers])
                yield [record for record in found if record is not None and _to_service(record)]
            over = True
        finally:
            if not over:
                self._walking.close()  # what is left of the answer must not meet another request

    def enabled(self) -> bool:
        """See `core.accounting.Accounts.enabled`."""
        try:
            return (SETTINGS / "nf_conntrack_acct").read_text().strip() == "1"
        except OSError:
            return False

    def close(self) -> None:
        """See `core.accounting.Accounts.close`."""
        if self._socket is not None and self._listens:
            self._socket.setsockopt(SOL_NETLINK, NETLINK_DROP_MEMBERSHIP, GROUP_DESTROY)
            if not self._emptied():
                self._socket.close()
                self._socket = None
        self._listens = False

    def release(self) -> None:
        """Give back the descriptors; it may be opened again."""
        self.close()
        self._walking.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _emptied(self) -> bool:
        """Drop what waits, for some milliseconds; say whether that was all."""
        assert self._socket is not None
        for _ in range(READ_BURSTS_MAX * SLOTS):
            try:
                self._socket.recv(1)
            except BlockingIOError:
                return True
            except OSError:
                continue  # an overrun, told once
        return False


def _to_service(counted: bytes) -> bool:
    return bool(counted[-17 - 32] & STATUS_DST_NAT)


def _refusal(error: OSError, operation: str) -> KernelError:
    return refused(error.errno or errno.EIO, operation=operation, target="conntrack")
