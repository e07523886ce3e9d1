"""Talk netlink on a socket of our own: the frame of messages and of attributes.

pyroute2's `IPRoute` starts an event loop inside and refuses to work where one is
running, as in the daemon. A netlink request is one send and a few receives, and
the kernel has queued its whole answer when the send returns, so a plain socket
is both synchronous and fast (60 us a request). No process of a node loads pyroute2.

Source: RFC 3549; ``include/uapi/linux/netlink.h``.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Sequence

from hanat.kernel.kernel_errors import refused

HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port id
ATTRIBUTE = struct.Struct("=HH")  # length, type
IFINFOMSG = struct.Struct("=BxHiII")  # family, hardware type, index, flags, change mask

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_EXCL, NLM_F_CREATE = 0x200, 0x400
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_DUMP_INTR = 0x10

ATTRIBUTE_NESTED = 0x8000
ATTRIBUTE_TYPE_MASK = 0x3FFF

# From <linux/netlink.h> and <asm-generic/socket.h>; the socket module lacks them.
NETLINK_NETFILTER = 12
SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP, NETLINK_DROP_MEMBERSHIP, NETLINK_CAP_ACK = 1, 2, 10
SO_ATTACH_FILTER, SO_SNDBUFFORCE, SO_RCVBUFFORCE = 26, 32, 33

RECEIVE_BYTES = 1 << 18

# Requests in one send. Each is answered before the send returns, by a message that takes 0.8 KB
# of the socket's buffer, which has room for some 250.
BATCH_MAX = 64

# The kernel answers before the send returns; this only bounds a broken kernel.
ANSWER_S_MAX = 2.0


def aligned(length: int) -> int:
    """Round up to the four bytes netlink aligns everything to."""
    return (length + 3) & ~3


def attribute(kind: int, payload: bytes) -> bytes:
    """Return one attribute, padded."""
    length = ATTRIBUTE.size + len(payload)
    return ATTRIBUTE.pack(length, kind) + payload + bytes(-length & 3)


def nested(kind: int, payload: bytes) -> bytes:
    """Return one attribute that holds attributes."""
    return attribute(kind | ATTRIBUTE_NESTED, payload)


def attributes(buffer: bytes | memoryview, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield type, first offset and end offset of the payload of each attribute."""
    while start + ATTRIBUTE.size <= end:
        length, kind = ATTRIBUTE.unpack_from(buffer, start)
        if length < ATTRIBUTE.size or start + length > end:
            return
        yield kind & ATTRIBUTE_TYPE_MASK, start + ATTRIBUTE.size, start + length
        start += aligned(length)


def messages(buffer: bytes | memoryview) -> Iterator[tuple[int, int, int]]:
    """Yield type, offset and end offset of each message, header included."""
    start = 0
    while start + HEADER.size <= len(buffer):
        length, kind = struct.unpack_from("=IH", buffer, start)
        if length < HEADER.size or start + length > len(buffer):
            return
        yield kind, start, start + length
        start += aligned(length)


def error_of(buffer: bytes | memoryview, start: int) -> int:
    """Return the positive errno in an NLMSG_ERROR or NLMSG_DONE message, 0 for none."""
    (number,) = struct.unpack_from("=i", buffer, start + HEADER.size)
    return -int(number)


def open_socket(protocol: int, *, groups: int = 0) -> socket.socket:
    """Return a bound netlink socket.

    Args:
        protocol: E.g. `socket.NETLINK_ROUTE`.
        groups: Mask of the legacy multicast groups to join.
    """
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    try:
        opened.bind((0, groups))
    except OSError:
        opened.close()
        raise
    return opened


class NetlinkClient:
    """Requests and answers on one socket, opened at the first request.

    Opened late so that it belongs to the network namespace of whoever uses it.
    """

    def __init__(self, protocol: int) -> None:
        self._protocol = protocol
        self._socket: socket.socket | None = None
        self._sequence = 0

    def close(self) -> None:
        """Release the descriptor; the next request opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def request(self, kind: int, flags: int, body: bytes, *, operation: str, target: str) -> None:
        """Send one request and wait for its acknowledgement.

        Raises:
            KernelError: What the kernel answered instead.
        """
        number = self._exchange(kind, flags | NLM_F_ACK, body, None)
        if number:
            raise refused(number, operation=operation, target=target)

    def batch(self, kind: int, flags: int, bodies: Sequence[bytes]) -> list[int]:
        """Send many requests, few system calls; return the errno of each, 0 for done.

        All are tried, in order. Those that nothing is known of have the errno of the socket.
        """
        found: list[int] = []
        for first in range(0, len(bodies), BATCH_MAX):
            part = bodies[first : first + BATCH_MAX]
            try:
                found += self._together(kind, flags | NLM_F_ACK, part)
            except OSError as error:
                self.close()  # an answer that comes later must not meet another request
                found += [error.errno or errno.ETIMEDOUT] * len(part)
        return found

    def _together(self, kind: int, flags: int, bodies: Sequence[bytes]) -> list[int]:
        opened = self._opened()
        data = bytearray()
        for sequence, body in enumerate(bodies, start=self._sequence + 1):
            length = HEADER.size + len(body)
            data += HEADER.pack(length, kind, NLM_F_REQUEST | flags, sequence, 0) + body
            data += bytes(-length & 3)
        first, self._sequence = self._sequence + 1, self._sequence + len(bodies)
        opened.send(data)
        found: dict[int, int] = {}
        while len(found) < len(bodies):
            buffer = opened.recv(RECEIVE_BYTES)
            for number, start, _ in messages(buffer):
                _, _, _, sequence, _ = HEADER.unpack_from(buffer, start)
                if number == NLMSG_ERROR and first <= sequence <= self._sequence:
                    found[sequence] = error_of(buffer, start)
        return [found[sequence] for sequence in range(first, self._sequence + 1)]

    def dump(self, kind: int, body: bytes, *, operation: str, target: str) -> list[bytes]:
        """Return all messages that answer a dump.

        A dump the kernel says was torn by a change is taken again, three times
        at most: changes come singly here.
        """
        number = errno.EINTR
        for _ in range(3):
            found: list[bytes] = []
            number = self._exchange(kind, NLM_F_DUMP, body, found)
            if number == 0:
                return found
            if number != errno.EINTR:
                break
        raise refused(number, operation=operation, target=target)

    def walk(
        self, kind: int, body: bytes, *, operation: str, target: str
    ) -> Iterator[list[tuple[bytes, int, int]]]:
        """Return what answers a dump in parts: buffer, start and end of each message.

        The kernel makes the next part when one is read. Torn dumps are not taken again: a
        large table changes all the time.

        Raises:
            KernelError: What the kernel answered instead, also halfway.
        """
        try:
            yield from self._parts(kind, body)
        except OSError as error:
            self.close()  # what is left of the answer must not meet another request
            number = error.errno or errno.ETIMEDOUT
            raise refused(number, operation=operation, target=target) from error

    def _parts(self, kind: int, body: bytes) -> Iterator[list[tuple[bytes, int, int]]]:
        opened = self._send(kind, NLM_F_DUMP, body)
        while True:
            buffer = opened.recv(RECEIVE_BYTES)
            found: list[tuple[bytes, int, int]] = []
            for number, start, end in messages(buffer):
                if number in {NLMSG_ERROR, NLMSG_DONE}:
                    yield found
                    if error := error_of(buffer, start):
                        raise OSError(error, "dump")
                    return
                found.append((buffer, start, end))
            yield found

    def get(self, kind: int, body: bytes, *, operation: str, target: str) -> bytes:
        """Return the one message that answers a request."""
        found: list[bytes] = []
        number = self._exchange(kind, NLM_F_ACK, body, found)
        if number or not found:
            raise refused(number or errno.ENOENT, operation=operation, target=target)
        return found[0]

    def _exchange(self, kind: int, flags: int, body: bytes, found: list[bytes] | None) -> int:
        """Send a request, collect what answers it, return the errno that ends it."""
        try:
            return self._collect(self._send(kind, flags, body), found)
        except OSError as error:
            self.close()  # an answer that comes later must not meet another request
            return error.errno or errno.ETIMEDOUT

    def _send(self, kind: int, flags: int, body: bytes) -> socket.socket:
        opened = self._opened()
        self._sequence += 1
        length = HEADER.size + len(body)
        header = HEADER.pack(length, kind, NLM_F_REQUEST | flags, self._sequence, 0)
        opened.send(header + body)
        return opened

    def _opened(self) -> socket.socket:
        if self._socket is None:
            self._socket = open_socket(self._protocol)
            self._socket.settimeout(ANSWER_S_MAX)
        return self._socket

    def _collect(self, opened: socket.socket, found: list[bytes] | None) -> int:
        torn = False
        while True:
            buffer = opened.recv(RECEIVE_BYTES)
            for kind, start, end in messages(buffer):
                _, _, flags, sequence, _ = HEADER.unpack_from(buffer, start)
                if sequence != self._sequence:
                    continue
                torn = torn or bool(flags & NLM_F_DUMP_INTR)
                if kind in {NLMSG_ERROR, NLMSG_DONE}:
                    return error_of(buffer, start) or (errno.EINTR if torn else 0)
                if found is not None:
                    found.append(buffer[start:end])
