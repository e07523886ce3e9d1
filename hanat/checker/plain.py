"""Probe by TCP, UDP, ICMP echo, and HAProxy's agent-check."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import struct

from hanat.checker.answer_match import occurs
from hanat.checker.attempt import (
    BYTES_MAX,
    Attempt,
    ProbeError,
    connect,
    reset_on_close,
    shown,
    socket_to,
)
from hanat.core.checks import AgentCheck, PingCheck, TcpCheck, UdpCheck
from hanat.core.probing import Reply

# Before more of an answer is read and all of it looked at again: a server that sends single
# bytes would otherwise cost a search each.
PAUSE_S = 0.005

_ECHO = {4: (8, 0), 6: (128, 129)}  # types of request and reply: RFC 792, RFC 4443 section 4
_ECHO_HEAD = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence
_IPV4_BYTES_MIN = 20

_PERCENT = re.compile(r"(\d{1,3})%")
_MODES = frozenset({"ready", "drain", "maint"})
_DOWN = frozenset({"down", "failed", "stopped", "fail"})


async def probe_tcp(attempt: Attempt, check: TcpCheck) -> Reply:
    """Connect; then send, and expect, if there is something to."""
    expects = bool(check.expect or check.pattern)
    with socket_to(attempt.target, socket.SOCK_STREAM) as opened:
        await connect(opened, attempt)
        if expects or not check.send:
            reset_on_close(opened)
        if check.send:
            await asyncio.get_running_loop().sock_sendall(opened, check.send)
        if not expects:
            return Reply(ok=True, answer="connected")
        return Reply(ok=True, answer=shown(await _receive_expected(opened, attempt, check)))


async def _receive_expected(opened: socket.socket, attempt: Attempt, check: TcpCheck) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while True:
        chunk = await loop.sock_recv(opened, BYTES_MAX - len(data))
        data += chunk
        if _fits(check, data):
            return data
        if not chunk:
            raise ProbeError(_unexpected(data))
        if len(data) >= BYTES_MAX:
            raise ProbeError(f"the first {BYTES_MAX} bytes are not as expected: {shown(data)}")
        attempt.awaited, attempt.heard = "expected answer", data
        await asyncio.sleep(PAUSE_S)


def _fits(check: TcpCheck | UdpCheck, data: bytes) -> bool:
    return check.expect in data and (check.pattern is None or occurs(check.pattern, data))


def _unexpected(data: bytes) -> str:
    return f"the answer is not as expected: {shown(data)}" if data else "closed without an answer"


async def probe_udp(attempt: Attempt, check: UdpCheck) -> Reply:
    """Send a datagram, and expect one if there is something to.

    If nothing is expected, silence is a success: after half of the timeout, so that an ICMP
    error has time to come. Any answer is one at once.
    """
    loop = asyncio.get_running_loop()
    with socket_to(attempt.target, socket.SOCK_DGRAM) as opened:
        await connect(opened, attempt)
        await loop.sock_sendall(opened, check.send)
        if check.expect or check.pattern:
            data = await loop.sock_recv(opened, BYTES_MAX)
            if not _fits(check, data):
                raise ProbeError(_unexpected(data))
            return Reply(ok=True, answer=shown(data))
        try:
            async with asyncio.timeout(attempt.timeout_s / 2):
                return Reply(ok=True, answer=shown(await loop.sock_recv(opened, BYTES_MAX)))
        except TimeoutError:
            return Reply(ok=True, answer="no error")


async def probe_ping(attempt: Attempt, check: PingCheck) -> Reply:
    """Send ICMP echo requests, spread over the timeout; one answer is enough."""
    attempt.awaited = "echo reply"
    try:
        return await _ping(attempt, check, socket.SOCK_DGRAM)
    except PermissionError:  # net.ipv4.ping_group_range does not have this group
        return await _ping(attempt, check, socket.SOCK_RAW)


async def _ping(attempt: Attempt, check: PingCheck, kind: int) -> Reply:
    target, loop = attempt.target, asyncio.get_running_loop()
    protocol = socket.IPPROTO_ICMPV6 if target.address.version == 6 else socket.IPPROTO_ICMP
    with socket_to(target, kind, protocol) as opened:
        opened.connect((str(target.address), 0))  # sends nothing
        is_raw = kind == socket.SOCK_RAW
        echo = _Echo(version=target.address.version, size=check.size, is_raw=is_raw)
        for sequence in range(check.count):
            await loop.sock_sendall(opened, echo.request(sequence))
            try:
                async with asyncio.timeout(attempt.timeout_s / check.count):
                    while not echo.is_reply(await loop.sock_recv(opened, BYTES_MAX)):
                        pass
            except TimeoutError:
                continue
            return Reply(ok=True, answer=f"echo reply to request {sequence + 1}")
    return attempt.timed_out()


class _Echo:
    """The requests of one probe, and their replies.

    Args:
        version: Of IP.
        size: Of the payload, bytes.
        is_raw: The socket sees replies to others as well, and the IPv4 header.
    """

    def __init__(self, *, version: int, size: int, is_raw: bool) -> None:
        self._asks, self._answers = _ECHO[version]
        self._payload = os.urandom(16)[:size].ljust(size, b"\0")
        self._strips = is_raw and version == 4
        # Without a raw socket the kernel chooses the identifier, and passes on its replies alone.
        self._identifier = int.from_bytes(os.urandom(2)) if is_raw else None

    def request(self, sequence: int) -> bytes:
        """Return a request."""
        identifier = self._identifier or 0
        packed = _ECHO_HEAD.pack(self._asks, 0, 0, identifier, sequence) + self._payload
        # The kernel computes the checksum of ICMPv6, and of IPv4 for all but raw sockets.
        summed = _checksum(packed)
        return _ECHO_HEAD.pack(self._asks, 0, summed, identifier, sequence) + self._payload

    def is_reply(self, packet: bytes) -> bool:
        """Say whether a packet answers one of the requests."""
        if self._strips:
            if len(packet) < _IPV4_BYTES_MIN:
                return False
            packet = packet[4 * (packet[0] & 15) :]
        if len(packet) < _ECHO_HEAD.size:
            return False
        kind, _code, _checksum, identifier, _sequence = _ECHO_HEAD.unpack_from(packet)
        return (
            kind == self._answers
            and self._identifier in {None, identifier}
            and packet[_ECHO_HEAD.size :] == self._payload
        )


def _checksum(packet: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    padded = packet + b"\0" * (len(packet) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


async def probe_agent(attempt: Attempt, check: AgentCheck) -> Reply:
    """Ask an agent for a line of HAProxy's agent-check."""
    loop = asyncio.get_running_loop()
    with socket_to(attempt.target, socket.SOCK_STREAM) as opened:
        await connect(opened, attempt)
        reset_on_close(opened)
        if check.send:
            await loop.sock_sendall(opened, check.send)
        data = b""
        while b"\n" not in data and b"\r" not in data:
            chunk = await loop.sock_recv(opened, BYTES_MAX - len(data))
            data += chunk
            if not chunk or len(data) >= BYTES_MAX:
                break
            attempt.awaited, attempt.heard = "end of the line", data
    return parse_agent_line(shown(data))


def parse_agent_line(line: str) -> Reply:
    """Return what an agent said.

    The words are those of HAProxy's agent-check (configuration manual, section 5.2): ``75%``,
    ``up``, ``ready``, ``drain``, ``maint``, and ``down``, ``failed`` or ``stopped`` with a
    description behind ``#``. ``maxconn:`` is ignored. An agent that says neither up nor down is
    alive, and its server up. A line without any such word says nothing of the server: the reply
    does not count, as with HAProxy.

    Raises:
        ProbeError: The line is empty.
    """
    words = line.partition("#")[0].replace(",", " ").lower().split()
    percent, mode, known = None, "", False
    for word in words:
        if found := _PERCENT.fullmatch(word):
            percent = int(found[1])
        elif word in _MODES:
            mode = word
        elif word != "up" and word not in _DOWN and not word.startswith("maxconn:"):
            continue
        known = True
    if not line:
        raise ProbeError("the agent said nothing")
    if not known:
        return Reply(ok=False, answer=f"ignored, no answer of an agent: {line}", counts=False)
    return Reply(ok=_DOWN.isdisjoint(words), answer=line, percent=percent, mode=mode)
