"""Probe a name server, over UDP and, if asked to, over TCP as well.

dnspython makes the question and takes the answer apart; it is sent and received here, so that
its size and time are bounded.
"""

from __future__ import annotations

import asyncio
import socket
import struct

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from hanat.checker.attempt import Attempt, ProbeError, connect, reset_on_close, socket_to
from hanat.core.checks import DnsCheck
from hanat.core.probing import Reply

# Enough for any answer that a check is made for; dnspython takes 0.1 s for 64 KiB of records.
ANSWER_BYTES_MAX = 16 << 10
# Datagrams that are no answer to the question, as one with the wrong number: they may be forged,
# so they fail nothing, but each costs time.
STRAYS_MAX = 16
TEXTS_MAX = 4  # records that are shown; servers give them in turns, so they are sorted

_LENGTH = struct.Struct("!H")  # RFC 1035, section 4.2.2


async def probe_dns(attempt: Attempt, check: DnsCheck) -> Reply:
    """Ask for a name."""
    try:
        query = dns.message.make_query(check.name, check.kind)
        answer = _judge(await _ask_by_udp(attempt, query), check)
        if check.tcp:
            answer = _judge(await _ask_by_tcp(attempt, query), check) + ", also over TCP"
    except dns.exception.DNSException as error:
        raise ProbeError(f"DNS: {error}") from error
    return Reply(ok=True, answer=answer)


async def _ask_by_udp(attempt: Attempt, query: dns.message.Message) -> dns.message.Message:
    loop = asyncio.get_running_loop()
    stray = ""
    with socket_to(attempt.target, socket.SOCK_DGRAM) as opened:
        await connect(opened, attempt)
        await loop.sock_sendall(opened, query.to_wire())
        for _ in range(STRAYS_MAX):
            data = await loop.sock_recv(opened, ANSWER_BYTES_MAX + 1)
            try:
                return _parse(data, query)
            except (dns.exception.DNSException, ProbeError) as error:
                stray = str(error)
                attempt.awaited = f"answer to the question, but {stray},"
    raise ProbeError(f"no answer to the question: {stray}")


async def _ask_by_tcp(attempt: Attempt, query: dns.message.Message) -> dns.message.Message:
    loop = asyncio.get_running_loop()
    attempt.awaited = "connection over TCP"
    with socket_to(attempt.target, socket.SOCK_STREAM) as opened:
        await connect(opened, attempt)
        attempt.awaited = "answer over TCP"
        reset_on_close(opened)
        packed = query.to_wire()
        await loop.sock_sendall(opened, _LENGTH.pack(len(packed)) + packed)
        (length,) = _LENGTH.unpack(await _receive(opened, _LENGTH.size))
        if length > ANSWER_BYTES_MAX:
            raise ProbeError(f"an answer of {length} bytes, at most {ANSWER_BYTES_MAX} are read")
        return _parse(await _receive(opened, length), query)


async def _receive(opened: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = await asyncio.get_running_loop().sock_recv(opened, count - len(data))
        if not chunk:
            raise ProbeError("closed in the middle of an answer over TCP")
        data += chunk
    return data


def _parse(data: bytes, query: dns.message.Message) -> dns.message.Message:
    """Return an answer.

    Raises:
        DNSException: It cannot be read.
        ProbeError: It is to another question.
    """
    if len(data) > ANSWER_BYTES_MAX:
        raise ProbeError(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
    response = dns.message.from_wire(data)
    if not query.is_response(response):
        raise ProbeError("an answer to another question")
    return response


def _judge(response: dns.message.Message, check: DnsCheck) -> str:
    """Return what was answered.

    Raises:
        ProbeError: Something else than should be.
    """
    rcode = dns.rcode.to_text(response.rcode())
    kind = dns.rdatatype.from_text(check.kind)
    found = [rdata for rrset in response.answer if rrset.rdtype == kind for rdata in rrset]
    texts = ", ".join(sorted(rdata.to_text() for rdata in found)[:TEXTS_MAX])
    said = f"{rcode}, {len(found)} {check.kind}" + (f": {texts}" if texts else "")
    if response.flags & dns.flags.TC:
        said += ", truncated"
    if rcode != check.rcode.upper():
        raise ProbeError(f"{said}; expected {check.rcode}")
    if check.answer:
        wanted = dns.rdata.from_text(dns.rdataclass.IN, kind, check.answer)
        if wanted not in found:
            raise ProbeError(f"{said}; expected {check.answer}")
    return said
