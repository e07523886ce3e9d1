"""One probe under way: its socket, its bounds, and what is said when it fails.

Whoever is probed may be broken or hostile. So every prober reads at most so many bytes, and all
of it ends with the timeout, which `probers` sets. What it says becomes one printable line.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hanat.core.checks import Address, Target
from hanat.core.probing import Reply, first_line

BYTES_MAX = 64 << 10  # of an answer; of a body with a digest see `http`

_RESET = struct.pack("ii", 1, 0)  # socket(7): SO_LINGER on, no time


class ProbeError(Exception):
    """A probe failed; the text says how."""


@dataclass(slots=True)
class Attempt:
    """One probe under way.

    Attributes:
        target: What is probed.
        timeout_s: How long it may take.
        awaited: What comes next, if it comes.
        heard: What came, as far as that is not enough.
    """

    target: Target
    timeout_s: float
    awaited: str = "connection"
    heard: bytes = b""

    def timed_out(self) -> Reply:
        """Return how it ended if it did not end by itself."""
        text = f"no {self.awaited} within {self.timeout_s:g} s"
        if self.heard:
            text += f", only: {shown(self.heard)}"
        return Reply(ok=False, answer=text)


def shown(data: bytes) -> str:
    """Return the first line of an answer, for people."""
    return first_line(data[: 4 * 1024].decode("utf-8", "replace"))


def describe(error: Exception) -> str:
    """Return what an exception of a probe means, without addresses and numbers of errors."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or str(error)).replace('_', ' ').lower()}"
    if isinstance(error, OSError) and error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno).lower()
    if isinstance(error, ConnectionResetError):  # of asyncio, without a number
        return os.strerror(errno.ECONNRESET).lower()
    return str(error) or type(error).__name__


@contextmanager
def socket_to(target: Target, kind: int, protocol: int = 0) -> Iterator[socket.socket]:
    """Open a socket for a target, of a kind such as SOCK_STREAM; closed at the end."""
    with open_socket(target.address, kind, protocol) as opened:
        prepare(opened, target.source, target.mark)
        yield opened


def open_socket(address: Address, kind: int, protocol: int = 0) -> socket.socket:
    """Return a socket of an address's family that does not block."""
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    return socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)


def prepare(opened: socket.socket, source: Address | None, mark: int) -> None:
    """Let a socket send from an address, if one is given, and with a mark, if that is not 0."""
    if mark:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    if source is not None:
        opened.bind((str(source), 0))


def reset_on_close(opened: socket.socket) -> None:
    """End the connection by a reset.

    A close leaves TIME_WAIT for a minute, here and in connection tracking: at 1,000 probes a
    second 60,000 of them. HAProxy ends its checks by a reset as well.
    """
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


async def connect(opened: socket.socket, attempt: Attempt) -> None:
    """Connect to the target; from then on its answer is awaited."""
    to = (str(attempt.target.address), attempt.target.port)
    await asyncio.get_running_loop().sock_connect(opened, to)
    attempt.awaited = "answer"
