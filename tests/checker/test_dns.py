"""Name servers that answer well, lie, send garbage, endlessly, slowly or never."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from hanat.core.checks import DnsCheck
from tests.checker.servers import LONG_S, SHORT_S, Answers, Handler, probe, tcp_server, udp_server

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("inside")]

A = DnsCheck("www.example.org.", "A", answer="192.0.2.1")


def answer(query: bytes, change: Callable[[dns.message.Message], object] = lambda _: None) -> bytes:
    """Return a name server's answer, with a change made to it."""
    response = dns.message.make_response(dns.message.from_wire(query))
    response.answer = [
        dns.rrset.from_text("www.example.org.", 60, "IN", "A", "192.0.2.2", "192.0.2.1")
    ]
    change(response)
    return response.to_wire()


def server(change: Callable[[dns.message.Message], object] = lambda _: None) -> Answers:
    return lambda query: [answer(query, change)]


def refuse(response: dns.message.Message) -> None:
    response.answer = []
    response.set_rcode(dns.rcode.REFUSED)


def lie(response: dns.message.Message) -> None:
    response.answer = [dns.rrset.from_text("www.example.org.", 60, "IN", "A", "203.0.113.66")]


def truncate(response: dns.message.Message) -> None:
    response.answer = []
    response.flags |= dns.flags.TC


def renumber(response: dns.message.Message) -> None:
    response.id ^= 1


def requestion(response: dns.message.Message) -> None:
    response.question = dns.message.make_query("other.example.org.", "A").question


@pytest.mark.parametrize(
    ("change", "check", "ok", "said"),
    [
        (lambda _: None, A, True, "NOERROR, 2 A: 192.0.2.1, 192.0.2.2"),
        (lie, A, False, "NOERROR, 1 A: 203.0.113.66; expected 192.0.2.1"),
        (refuse, A, False, "REFUSED, 0 A; expected NOERROR"),
        (refuse, DnsCheck("example.org.", "A", rcode="REFUSED"), True, "REFUSED, 0 A"),
        (truncate, A, False, "NOERROR, 0 A, truncated; expected 192.0.2.1"),
        (lambda _: None, DnsCheck(), True, "NOERROR, 0 SOA"),
    ],
)
async def test_answer_counts(
    change: Callable[[dns.message.Message], object],
    check: DnsCheck,
    ok: bool,  # noqa: FBT001
    said: str,
) -> None:
    async with udp_server(server(change)) as port:
        reply = await probe(check, port)
    assert (reply.ok, reply.answer) == (ok, said)


@pytest.mark.parametrize("change", [renumber, requestion])
async def test_answer_to_another_question_is_waited_past(
    change: Callable[[dns.message.Message], object],
) -> None:
    async with udp_server(lambda query: [answer(query, change), answer(query)]) as port:
        assert (await probe(A, port)).ok
    async with udp_server(server(change)) as port:
        reply = await probe(A, port, timeout_s=SHORT_S)
    assert (reply.ok, reply.answer) == (
        False,
        "no answer to the question, but an answer to another question, within 0.5 s",
    )


LOOP = struct.pack("!6H", 0, 0x8180, 1, 0, 0, 0) + b"\xc0\x0c\0\x01\0\x01"  # a name that is itself


@pytest.mark.parametrize("garbage", [b"\0" * 11, b"\xff" * 500, LOOP, b"GET / HTTP/1.1\r\n"])
async def test_garbage_is_bounded(garbage: bytes) -> None:
    async with udp_server(lambda _: [garbage] * 100) as port:
        reply = await probe(A, port)
    assert not reply.ok
    assert reply.answer.startswith("no answer to the question: ")


async def test_silent_server_is_given_up() -> None:
    async with udp_server(lambda _: []) as port:
        reply = await probe(A, port, timeout_s=SHORT_S)
    assert (reply.ok, reply.answer) == (False, "no answer within 0.5 s")


async def test_closed_port_is_refused() -> None:
    reply = await probe(A, 53)
    assert (reply.ok, reply.answer) == (False, "connection refused")


@pytest.mark.parametrize(
    "check",
    [DnsCheck("a..b", "A"), DnsCheck("example.org.", "NONE_SUCH"), DnsCheck(".", "A", answer="x")],
)
async def test_wrong_check_is_said(check: DnsCheck) -> None:
    async with udp_server(server()) as port:
        reply = await probe(check, port)
    assert not reply.ok
    assert reply.answer.startswith("DNS: ")


# --------------------------------------------------------------------------------- TCP

BOTH = DnsCheck("www.example.org.", "A", answer="192.0.2.1", tcp=True)


def stream(answers: Callable[[bytes], bytes]) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        writer.write(answers(await reader.readexactly(length)))
        await writer.drain()
        await reader.read()

    return handle


def framed(data: bytes) -> bytes:
    return struct.pack("!H", len(data)) + data


@pytest.mark.parametrize(
    ("answers", "ok", "said"),
    [
        (
            lambda query: framed(answer(query)),
            True,
            "NOERROR, 2 A: 192.0.2.1, 192.0.2.2, also over TCP",
        ),
        (
            lambda query: framed(answer(query, lie)),
            False,
            "NOERROR, 1 A: 203.0.113.66; expected 192.0.2.1",
        ),
        (lambda query: framed(answer(query, renumber)), False, "an answer to another question"),
        (lambda _: b"\xff\xff", False, "an answer of 65535 bytes, at most 16384 are read"),
        (lambda query: framed(answer(query))[:-1], False, "no answer over TCP within 0.5 s"),
        (lambda _: b"", False, "no answer over TCP within 0.5 s"),
        (
            lambda _: framed(b"garbage"),
            False,
            "DNS: The DNS packet passed to from_wire() is too short.",
        ),
    ],
)
async def test_answer_over_tcp_counts_too(
    answers: Callable[[bytes], bytes],
    ok: bool,  # noqa: FBT001
    said: str,
) -> None:
    async with tcp_server(stream(answers)) as port, udp_server(server(), port):
        reply = await probe(BOTH, port, timeout_s=SHORT_S if "within" in said else LONG_S)
    assert reply.ok == ok
    assert reply.answer.startswith(said)


async def test_server_that_answers_over_udp_only_is_down() -> None:
    async with udp_server(server()) as port:
        reply = await probe(BOTH, port)
    assert (reply.ok, reply.answer) == (False, "connection refused")
