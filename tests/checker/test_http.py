"""HTTP servers that answer well, wrongly, with garbage, endlessly, slowly or never."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from ipaddress import ip_address

import pytest

from hanat.checker.probers import Probers
from hanat.checker.scripts import ScriptProber
from hanat.core.checks import HttpCheck, Pattern, Target
from hanat.core.probing import Check
from tests.checker.servers import (
    LONG_S,
    SHORT_S,
    Flood,
    closed_port,
    probe,
    says,
    says_and_waits,
    tcp_server,
)

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("inside")]

LOGIN = Pattern(r"<title>\w+</title>", is_regex=True)


class Web:
    """Answers each request with the same bytes; notes the requests."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.requests: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader.at_eof():
            try:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            except asyncio.IncompleteReadError:
                return
            writer.write(self._answer)
            await writer.drain()


def page(status: str = "200 OK", body: bytes = b"hello", headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_request_is_as_configured(address: str) -> None:
    web = Web(page())
    check = HttpCheck(
        method="OPTIONS",
        path="/%7Ea%2Fb?c=%20d",
        host="www.example.org",
        headers=(("X-Probe", "1"), ("X-Probe", "2")),
    )
    async with tcp_server(web, address) as port:
        reply = await probe(check, port, address=address)
    assert (reply.ok, reply.answer) == (True, "200 OK")
    (request,) = web.requests
    first, *rest = request.decode().strip().split("\r\n")
    assert first == "OPTIONS /%7Ea%2Fb?c=%20d HTTP/1.1"
    assert sorted(rest) == [
        "Accept: */*",
        "Connection: close",
        "Host: www.example.org",
        "User-Agent: hanat",
        "X-Probe: 1",
        "X-Probe: 2",
    ]


async def test_host_is_the_address_if_none_is_given() -> None:
    web = Web(page())
    async with tcp_server(web) as port:
        assert (await probe(HttpCheck(), port)).ok
        assert f"\r\nHost: 127.0.0.1:{port}\r\n".encode() in web.requests[0]


@pytest.mark.parametrize(
    ("status", "ok"),
    [("200 OK", True), ("204 No Content", True), ("404 Not Found", False), ("401 Who", True)],
)
async def test_status_counts(status: str, ok: bool) -> None:  # noqa: FBT001
    async with tcp_server(Web(page(status, b""))) as port:
        reply = await probe(HttpCheck(statuses=((200, 299), (401, 401))), port)
    assert (reply.ok, reply.answer) == (ok, status)


@pytest.mark.parametrize(("statuses", "ok"), [(((200, 399),), True), (((200, 299),), False)])
async def test_no_redirect_is_followed(statuses: tuple[tuple[int, int], ...], ok: bool) -> None:  # noqa: FBT001
    web = Web(page("302 Found", headers="Location: /\r\nSet-Cookie: a=b\r\n"))
    async with tcp_server(web) as port:
        reply = await probe(HttpCheck(statuses=statuses), port)
    assert (reply.ok, reply.answer, len(web.requests)) == (ok, "302 Found", 1)


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (HttpCheck(body=Pattern("title")), ""),
        (HttpCheck(body=LOGIN), ""),
        (HttpCheck(body=Pattern("Goodbye")), ", and the body is not as expected: <title>Login"),
        (HttpCheck(digest=hashlib.sha256(b"<title>Login</title>").hexdigest()), ""),
        (HttpCheck(digest="0" * 64), ", and a body with another digest: <title>Login"),
    ],
)
async def test_body_counts(check: HttpCheck, answer: str) -> None:
    async with tcp_server(Web(page(body=b"<title>Login</title>"))) as port:
        reply = await probe(check, port)
    assert reply.ok == (not answer)
    assert reply.answer.startswith("200 OK" + answer)


async def test_body_in_chunks_is_put_together() -> None:
    body = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nHel\r\n2\r\nlo\r\n0\r\n\r\n"
    async with tcp_server(Web(body)) as port:
        assert (await probe(HttpCheck(body=Pattern("Hello")), port)).ok


async def test_nothing_is_unpacked() -> None:
    bomb = gzip.compress(b"Hello" * 1_000_000)
    async with tcp_server(Web(page(body=bomb, headers="Content-Encoding: gzip\r\n"))) as port:
        assert not (await probe(HttpCheck(body=Pattern("Hello")), port)).ok


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\x00\xff\xfe\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 20_000 + b"\r\n\r\n",
    ],
)
async def test_garbage_is_a_failure(said: bytes) -> None:
    async with tcp_server(says(said)) as port:
        assert not (await probe(HttpCheck(), port)).ok


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello",
    ],
)
async def test_torn_body_is_a_failure(said: bytes) -> None:
    async with tcp_server(says(said)) as port:
        assert not (await probe(HttpCheck(body=Pattern("goodbye")), port)).ok


BIG = b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n"


@pytest.mark.parametrize(
    ("beginning", "check", "ok"),
    [
        (BIG, HttpCheck(), True),
        (BIG, HttpCheck(body=Pattern("Hello")), False),
        (BIG, HttpCheck(digest="0" * 64), False),
        (b"", HttpCheck(), False),
        (b"HTTP/1.1 200 OK\r\n", HttpCheck(), False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", HttpCheck(body=LOGIN), False),
    ],
    ids=["body-unread", "body", "digest", "status", "headers", "chunk"],
)
async def test_answer_without_end_is_cut_off(beginning: bytes, check: HttpCheck, ok: bool) -> None:  # noqa: FBT001
    flood = Flood(beginning)
    async with tcp_server(flood) as port:
        assert (await probe(check, port)).ok is ok
    assert flood.was_cut_off()


async def test_headers_without_end_are_cut_off() -> None:
    flood = Flood(b"HTTP/1.1 200 OK\r\n", b"Name: value\r\n")
    async with tcp_server(flood) as port:
        assert not (await probe(HttpCheck(), port)).ok
    assert flood.was_cut_off()


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"", "no answer within 0.5 s"),
        (b"H", "no answer within 0.5 s"),
        (b"HTTP/1.1 200 OK\r\nA:", "no answer within 0.5 s"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "no answer within 0.5 s"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nH", "no body after 200 OK within 0.5 s"),
    ],
)
async def test_byte_a_minute_is_given_up(said: bytes, answer: str) -> None:
    async with tcp_server(says_and_waits(said)) as port:
        reply = await probe(HttpCheck(body=Pattern("Hello")), port, timeout_s=SHORT_S)
    assert (reply.ok, reply.answer) == (False, answer)


@pytest.mark.parametrize("check", [HttpCheck(), HttpCheck(body=Pattern("hello"))])
async def test_each_probe_has_a_connection_of_its_own(check: HttpCheck) -> None:
    connections, ended = 0, asyncio.Event()
    web = Web(page())

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        try:
            await web(reader, writer)
        finally:
            ended.set()

    probers = Probers(ScriptProber())
    async with tcp_server(handle) as port:
        target = Target(check, Check(1.0, LONG_S), ip_address("127.0.0.1"), port)
        for count in (1, 2):
            ended.clear()
            assert (await probers.probe(target, LONG_S)).ok
            async with asyncio.timeout(5.0):  # a library would keep it for 15 s
                await ended.wait()
            assert connections == count
    await probers.close()


async def test_closed_port_is_refused() -> None:
    reply = await probe(HttpCheck(), closed_port())
    assert (reply.ok, reply.answer) == (False, "connection refused")
