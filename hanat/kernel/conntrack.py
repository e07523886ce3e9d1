"""Read what the kernel does to translated flows, and do the same to another kernel.

The holder captures; the backups install. Of the seven events in a connection's
life two are read: the entry became ASSURED, which says all that is needed to
make it anew, and it is gone, or as TCP over: the entry itself goes some minutes later,
too late for a backup that takes over meanwhile. The kernel drops the rest before they
take room in our buffer (`_filter`).

Installing sends a thousand requests at once and asks for no acknowledgements:
the kernel answers only those it refuses, with the number of the request. That
takes 2 us in the kernel where one request at a time takes 6.

Entries made while nobody listens never tell of their end, unless the kernel is
told to track events always: ``nf_conntrack_events`` is set before the first use.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence

from hanat.core.flows import (
    RESET_MARK,
    STATUS_ASSURED,
    STATUS_CONFIRMED,
    STATUS_DST_NAT,
    STATUS_FIXED_TIMEOUT,
    STATUS_SRC_NAT,
    ChangeKind,
    Run,
    awaits_reset,
    is_over,
    is_translated,
    status_of,
    timeout_of,
    with_timeout,
)
from hanat.core.table_pressure import TableStatistics
from hanat.kernel.classic_bpf import NLATTR, NLATTR_NEST, assembled
from hanat.kernel.ctnetlink import (
    BODY_OFFSET,
    CT_DELETE,
    CT_GET,
    CT_GET_STATS_CPU,
    CT_NEW,
    CTA_MARK,
    CTA_PROTOINFO,
    CTA_PROTOINFO_TCP,
    CTA_PROTOINFO_TCP_STATE,
    CTA_STATUS,
    GROUP_DESTROY,
    GROUP_NEW,
    GROUP_UPDATE,
    TCP_CLOSE,
    TCP_ESTABLISHED,
    TCP_SYN_RECV,
    TCP_SYN_SENT,
    TCP_TIME_WAIT,
    create_message,
    delete_message,
    dump_message,
    renewal_message,
    reset_message,
    statistics_of,
    timeout_message,
)
from hanat.kernel.flow_counters import KernelAccounts
from hanat.kernel.kernel_errors import refused
from hanat.kernel.netlink import (
    HEADER,
    NETLINK_ADD_MEMBERSHIP,
    NETLINK_CAP_ACK,
    NETLINK_DROP_MEMBERSHIP,
    NETLINK_NETFILTER,
    NLMSG_ERROR,
    RECEIVE_BYTES,
    SO_ATTACH_FILTER,
    SO_RCVBUFFORCE,
    SO_SNDBUFFORCE,
    SOL_NETLINK,
    NetlinkClient,
    error_of,
    messages,
    open_socket,
)
from hanat.kernel.ports import Installed
from hanat.kernel.recvmmsg import SLOT_BYTES, SLOTS, Burst
from hanat.kernel.templates import Reader, Writer
from hanat.kernel.timeouts import SETTINGS, USED_TIMEOUT_S_MAX, Timeouts

# The kernel doubles it and charges 1280 bytes an event (measured): room for 100,000 events.
CAPTURE_BUFFER_BYTES = 64 << 20
GROUPS = (GROUP_UPDATE, GROUP_DESTROY)
# A read gives the loop back after 4096 events (10 ms).
READ_BURSTS_MAX = 4
READ_EVENTS_MAX = READ_BURSTS_MAX * SLOTS

# About a thousand requests of 200 to 300 bytes, 2.5 ms in the kernel.
SEND_BYTES_MAX = 256 << 10
SEND_BUFFER_BYTES = 1 << 20
# A refusal of each of them, 1 KiB as the kernel counts, must fit.
ANSWER_BUFFER_BYTES = 16 << 20

_TRANSLATED = STATUS_SRC_NAT | STATUS_DST_NAT


def _filter(own_port: int, *, unassured: bool) -> list[tuple[int, int, int, int]]:
    """Return a classic BPF program over one event, from its netlink header on.

    Passes ASSURED entries (or all) with NAT that somebody else changed; of TCP, those that
    became established or are over now, and the end only of those that were not over before, or
    waited for a reset.
    """
    wanted = STATUS_ASSURED | (STATUS_CONFIRMED if unassured else 0)
    begins = "pass" if unassured else "drop"
    return assembled(
        [
            ("", "ld", 12),  # nlmsg_pid, read as if in network order
            ("", "jeq", socket.htonl(own_port), "drop", ""),
            ("", "ld#", BODY_OFFSET),  # the first attribute
            ("", "ldx#", CTA_STATUS),
            ("", "ld", NLATTR),
            ("", "jeq", 0, "drop", ""),
            ("", "tax", 0),
            ("", "ldx+", 4),
            ("", "jset", wanted, "", "drop"),
            ("", "jset", _TRANSLATED, "", "drop"),
            ("", "ld#", BODY_OFFSET),
            ("", "ldx#", CTA_PROTOINFO),
            ("", "ld", NLATTR),
            ("", "jeq", 0, "pass", ""),
            ("", "ldx#", CTA_PROTOINFO_TCP),
            ("", "ld", NLATTR_NEST),
            ("", "jeq", 0, "pass", ""),
            ("", "ldx#", CTA_PROTOINFO_TCP_STATE),
            ("", "ld", NLATTR_NEST),
            ("", "jeq", 0, "pass", ""),
            ("", "tax", 0),
            ("", "ldbx+", 4),
            ("", "st", 0),
            ("", "ldb", 4),  # nlmsg_type without the subsystem
            ("", "jeq", CT_DELETE & 0xFF, "end", ""),
            ("", "ldm", 0),
            ("", "jeq", TCP_ESTABLISHED, "pass", ""),
            ("", "jeq", TCP_TIME_WAIT, "pass", ""),
            ("", "jeq", TCP_CLOSE, "pass", ""),
            ("", "jeq", TCP_SYN_SENT, begins, ""),
            ("", "jeq", TCP_SYN_RECV, begins, "drop"),
            ("end", "ldm", 0),
            ("", "jeq", TCP_TIME_WAIT, "drop", ""),
            ("", "jeq", TCP_CLOSE, "", "pass"),
            ("", "ld#", BODY_OFFSET),
            ("", "ldx#", CTA_MARK),
            ("", "ld", NLATTR),
            ("", "jeq", 0, "drop", ""),
            ("", "tax", 0),
            ("", "ldx+", 4),
            ("", "jset", RESET_MARK, "pass", "drop"),
            ("pass", "ret", 0xFFFFFFFF),
            ("drop", "ret", 0),
        ]
    )


class KernelConntrack:
    """Implements `ports.Conntrack` over ctnetlink.

    One object a process: what it changes does not appear in its own captures.
    """

    def __init__(self) -> None:
        self._reader = Reader()
        self._creation, self._deletion = Writer(create_message), Writer(delete_message)
        self._renewal, self._timing = Writer(renewal_message), Writer(timeout_message)
        self._resetting = Writer(reset_message)
        self._burst: Burst | None = None
        self._sender: socket.socket | None = None
        # Kept open: this is asked every second, and to close one costs others (`KernelCapture`).
        self._asking = NetlinkClient(NETLINK_NETFILTER)
        self._unused: list[socket.socket] = []  # of captures that were closed
        self._accounts = KernelAccounts()

    def close(self) -> None:
        """Release the descriptors; the next call opens others."""
        self._asking.close()
        self._accounts.release()
        for opened in (self._sender, *self._unused):
            if opened is not None:
                opened.close()
        self._sender = None
        self._unused.clear()

    def capture(self, *, unassured: bool = False) -> KernelCapture:
        """See `ports.Conntrack.capture`."""
        program = _filter(self._opened().getsockname()[0], unassured=unassured)
        groups = (*GROUPS, GROUP_NEW) if unassured else GROUPS
        used = self._unused.pop() if self._unused else None
        if self._burst is None:
            self._burst = Burst()
        return KernelCapture(
            self._reader, self._burst, (program, groups), used=used, reuse=self._unused.append
        )

    def account(self) -> KernelAccounts:
        """See `ports.Conntrack.account`."""
        return self._accounts

    def install(self, records: Iterable[bytes]) -> Installed:
        """See `ports.Conntrack.install`."""
        wanted = list(records)
        if not wanted:
            return Installed()
        refusals = self._send(wanted, self._creation)
        again = [i for i, number in refusals.items() if number == errno.EEXIST]
        # Either there is an entry of the same original tuple, which goes, or another
        # flow has the translated tuple, which stays.
        occupied = [wanted[i] for i in again]
        self._send(occupied, self._deletion)
        still = self._send(occupied, self._creation)
        clashed = tuple(occupied[i] for i, number in still.items() if number == errno.EEXIST)
        errors = [*refusals.values(), *still.values()]
        unplaced = errors.count(errno.ENOMEM)
        return Installed(
            created=len(wanted) - len(refusals),
            replaced=len(occupied) - len(still),
            clashed=clashed,
            unplaced=unplaced,
            failed=len(refusals) - len(again) + len(still) - len(clashed) - unplaced,
        )

    def extend(self, records: Iterable[bytes]) -> list[bytes]:
        """See `ports.Conntrack.extend`."""
        wanted = list(records)
        return [wanted[i] for i in self._send(wanted, self._renewal)]

    def settle(self, records: Iterable[bytes]) -> int:
        """See `ports.Conntrack.settle`."""
        used = Timeouts()
        waited: list[bytes] = []
        closing: list[bytes] = []
        for record in records:
            if awaits_reset(record):
                if not status_of(record) & STATUS_FIXED_TIMEOUT:
                    closing.append(record)
            elif timeout_of(record) > USED_TIMEOUT_S_MAX:
                waited.append(with_timeout(record, used.of(record)))
        refused = len(self._send(waited, self._timing)) + len(self._send(closing, self._resetting))
        return len(waited) + len(closing) - refused

    def mark_for_reset(self, records: Iterable[bytes]) -> list[bytes]:
        """See `ports.Conntrack.mark_for_reset`."""
        wanted = list(records)
        return [wanted[i] for i in self._send(wanted, self._resetting)]

    def delete(self, records: Iterable[bytes]) -> int:
        """See `ports.Conntrack.delete`."""
        wanted = list(records)
        return len(wanted) - len(self._send(wanted, self._deletion))

    def dump(self) -> list[bytes]:
        """See `ports.Conntrack.dump`."""
        return [record for records in self.walk() for record in records]

    def walk(self, *, every: bool = False) -> Iterator[list[bytes]]:
        """See `ports.Conntrack.walk`."""
        netlink = NetlinkClient(NETLINK_NETFILTER)
        try:
            for answers in netlink.walk(
                CT_GET, dump_message(), operation="list flows", target="conntrack"
            ):
                found = self._reader.records([buffer[start:end] for buffer, start, end in answers])
                yield [
                    record
                    for record in found
                    if record is not None and (every or is_translated(record))
                ]
        finally:
            netlink.close()

    def count(self) -> int:
        """See `ports.Conntrack.count`."""
        try:
            return int((SETTINGS / "nf_conntrack_count").read_text())
        except OSError as error:
            raise _refusal(error, "count flows") from error

    def statistics(self) -> TableStatistics:
        """See `ports.Conntrack.statistics`."""
        answers = self._asking.dump(
            CT_GET_STATS_CPU, dump_message(), operation="read statistics", target="conntrack"
        )
        try:
            limit = int((SETTINGS / "nf_conntrack_max").read_text())
        except OSError as error:
            raise _refusal(error, "read the limit of flows") from error
        counted = [statistics_of(answer) for answer in answers]
        return TableStatistics(
            entries=self.count(),
            limit=limit,
            uninserted=sum(uninserted for uninserted, _ in counted),
            dropped=sum(dropped for _, dropped in counted),
        )

    def _send(self, records: Sequence[bytes], writer: Writer) -> dict[int, int]:
        """Send one request a record; return the errno of each refused, by its place."""
        if not records:
            return {}
        sender = self._opened()
        refusals: dict[int, int] = {}
        unable: list[int] = []
        try:
            for chunk in writer.chunks(records, bytes_max=SEND_BYTES_MAX, unable=unable):
                sender.send(chunk)
                _collect_refusals(sender, refusals)
        except OSError as error:
            raise _refusal(error, "change flows") from error
        return refusals | dict.fromkeys(unable, errno.EPROTONOSUPPORT)

    def _opened(self) -> socket.socket:
        if self._sender is None:
            _track_events_always()
            try:
                sender = open_socket(NETLINK_NETFILTER)
                sender.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER_BYTES)
                sender.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ANSWER_BUFFER_BYTES)
                sender.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
            except OSError as error:
                raise _refusal(error, "open conntrack") from error
            self._sender = sender
        return self._sender


class KernelCapture:
    """Implements `ports.Capture` on an event socket.

    The socket outlives the capture. To close one, the kernel waits until what the last
    change of the ruleset replaced is gone (`nft_rcv_nl_event`), and meanwhile no other
    change gets through: 20 to 40 ms, in which the gate of a holder is not armed.

    Args:
        reader: Turns an event into a record.
        burst: Where events are read to; nobody else uses it meanwhile.
        wanted: A BPF program, see `_filter`, and the groups to join.
        used: The socket of an earlier capture.
        reuse: Takes the socket when the capture is closed.
    """

    def __init__(
        self,
        reader: Reader,
        burst: Burst,
        wanted: tuple[Sequence[tuple[int, int, int, int]], Sequence[int]],
        *,
        used: socket.socket | None,
        reuse: Callable[[socket.socket], None],
    ) -> None:
        self._reader, self._burst, self._reuse = reader, burst, reuse
        self._overruns = 0
        self._closed = False
        try:
            self._socket = used or _open_capture()
            program, self._groups = wanted
            _attach_filter(self._socket, program)
            self._join(NETLINK_ADD_MEMBERSHIP)
        except OSError as error:
            raise _refusal(error, "capture flows") from error

    def _join(self, option: int) -> None:
        for group in self._groups:
            self._socket.setsockopt(SOL_NETLINK, option, group)

    @property
    def overruns(self) -> int:
        """See `ports.Capture.overruns`."""
        return self._overruns

    def fileno(self) -> int:
        """See `ports.Capture.fileno`."""
        return -1 if self._closed else self._socket.fileno()

    def close(self) -> None:
        """See `ports.Capture.close`."""
        if self._closed:
            return
        self._closed = True
        self._join(NETLINK_DROP_MEMBERSHIP)
        if _emptied(self._socket):
            self._reuse(self._socket)
        else:
            self._socket.close()

    def read(self) -> list[Run]:
        """See `ports.Capture.read`."""
        found: list[Run] = []
        if self._closed:
            return found
        for _ in range(READ_BURSTS_MAX):
            try:
                events = self._burst.read(self._socket)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise _refusal(error, "read flows") from error
                self._overruns += 1
                continue
            self._take(events, found)
            if len(events) < SLOTS:
                break
        return found

    def _take(self, events: list[bytes], found: list[Run]) -> None:
        """Append what events tell."""
        whole = [event for event in events if len(event) < SLOT_BYTES]
        self._overruns += len(events) - len(whole)  # cut off: lost as well
        for event, record in zip(whole, self._reader.records(whole), strict=True):
            if record is not None:
                gone = event[4] != CT_NEW & 0xFF or is_over(record)
                kind = ChangeKind.DELETE if gone else ChangeKind.PUT
                if found and found[-1].kind is kind:
                    found[-1].records.append(record)
                else:
                    found.append(Run(kind, [record]))


def _open_capture() -> socket.socket:
    opened = open_socket(NETLINK_NETFILTER)
    opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, CAPTURE_BUFFER_BYTES)
    opened.setblocking(False)  # noqa: FBT003 - the library's signature
    return opened


def _emptied(opened: socket.socket) -> bool:
    """Drop what waits, for one turn of the loop; say whether that was all."""
    for _ in range(READ_EVENTS_MAX):
        try:
            opened.recv(1)
        except BlockingIOError:
            return True
        except OSError:
            continue  # an overrun, told once
    return False


def _attach_filter(opened: socket.socket, steps: Sequence[tuple[int, int, int, int]]) -> None:
    code = b"".join(struct.pack("=HBBI", *step) for step in steps)
    program = ctypes.create_string_buffer(code, len(code))
    pointer = struct.pack("@HP", len(steps), ctypes.addressof(program))
    opened.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, pointer)


def _collect_refusals(sender: socket.socket, refusals: dict[int, int]) -> None:
    """Read the answers to what was just sent; the kernel has queued them all."""
    while True:
        try:
            buffer = sender.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        for kind, start, _ in messages(buffer):
            if kind == NLMSG_ERROR and (number := error_of(buffer, start)):
                _, _, _, sequence, _ = HEADER.unpack_from(buffer, start)
                refusals[sequence] = number


def _track_events_always() -> None:
    setting = SETTINGS / "nf_conntrack_events"
    try:
        if setting.read_text().strip() != "1":
            setting.write_text("1")
    except OSError as error:
        raise _refusal(error, "set nf_conntrack_events") from error


def _refusal(error: OSError, operation: str) -> Exception:
    to_do = {
        errno.ENOENT: "load the module nf_conntrack",
        errno.EROFS: "set net.netfilter.nf_conntrack_events to 1 in /etc/sysctl.d",
    }.get(error.errno or 0, "")
    return refused(error.errno or errno.EIO, operation=operation, target="conntrack", to_do=to_do)
