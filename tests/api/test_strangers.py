"""Whatever a stranger sends, the API answers or closes, and nothing reaches the loop's handler."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hanat.api import connection, server
from hanat.config.settings import TcpListen, UnixListen
from tests.api.conftest import Served
from tests.api.helpers import FakeBackend, ask, send_raw, unix_in

TARGETS = [
    "http://xn--/",  # the library's URL cannot name its host
    "xn--:1",
    "http://[/",
    "//xn--/",
    "*",
    "http://a:99999999/",
    "/%",
    "/\x7f",
    "/a b",
    "",
]


@pytest.mark.parametrize("method", ["GET", "CONNECT", "OPTIONS"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("host", ["h", "xn--", "[", ""])
async def test_a_target_that_is_no_path_is_answered_with_400(
    served: Served, method: str, target: str, host: str
) -> None:
    request = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"
    reply = await send_raw(served.tcp, request.encode())
    if target.startswith("/") and target.isascii() and target.isprintable() and " " not in target:
        assert reply.startswith(b"HTTP/1.1 4")
    else:
        assert reply.startswith(b"HTTP/1.1 400 ")
        assert json.loads(reply.partition(b"\r\n\r\n")[2])["exit_code"] == 2
    assert (await ask(served.tcp, "/livez")).status == 200


async def test_a_second_request_in_the_same_bytes_does_no_harm(served: Served) -> None:
    second = b"GET http://xn--/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    reply = await send_raw(
        served.tcp, b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" + second * 9
    )
    assert reply.count(b"HTTP/1.1 ") <= 1


async def test_a_request_line_may_come_byte_by_byte(served: Served) -> None:
    reader, writer = await asyncio.open_connection(served.tcp.host, served.tcp.port)
    for byte in b"\r\nGET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n":
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0)
    assert b'{"alive":true}' in await reader.read()
    writer.close()


@pytest.mark.parametrize(
    "data", [b"G" * 9_000, b"\r\n" * 9_000, b"\r\n" * 9_000 + b"x", b"get / HTTP/1.1\r\n"]
)
async def test_a_line_without_end_is_refused_before_it_fills_memory(
    served: Served, data: bytes
) -> None:
    assert (await send_raw(served.tcp, data)).startswith(b"HTTP/1.1 400 ")


def _raises(*_: object, **__: object) -> None:
    raise UnicodeError("what a library may raise")


@pytest.mark.parametrize("method", ["data_received", "start"])
async def test_what_the_library_raises_ends_one_connection(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(web.RequestHandler, method, _raises)
        with pytest.raises(ConnectionError):
            await _one_request(served.tcp)
    assert [record.name for record in caplog.records] == ["hanat.complaints"]
    assert (await ask(served.tcp, "/livez")).status == 200


async def _one_request(where: TcpListen) -> None:
    if not await send_raw(where, b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"):
        raise ConnectionError


async def test_one_address_gets_a_part_of_the_places(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_PER_ADDRESS_MAX", 2)
    idle = [await asyncio.open_connection(served.tcp.host, served.tcp.port) for _ in range(2)]
    with pytest.raises(ConnectionError):
        await _one_request(served.tcp)
    for _, writer in idle:
        writer.close()
        await writer.wait_closed()
    assert (await ask(served.tcp, "/livez")).status == 200


async def test_connections_are_accepted_at_a_bounded_rate(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    plain = server._Listener._pause

    def noted(listener: server._Listener, seconds: float) -> None:
        waits.append(seconds)
        plain(listener, seconds)

    monkeypatch.setattr(server, "ACCEPTS_AT_ONCE", 4.0)
    monkeypatch.setattr(server._Listener, "_pause", noted)
    for _ in range(8):
        await _one_request(served.tcp)  # each is answered, though later
    assert waits
    assert max(waits) <= 1 / server.ACCEPTS_PER_S


# Pieces of requests, so that random ones come past the first checks.
PIECES = st.sampled_from([
    b"GET ", b"POST ", b"CONNECT ", b"/", b"/livez", b"/v1/config", b"/v1/history?limit=",
    b"http://", b"xn--", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\r\n\r\n", b"\n", b"\r", b":", b" ",
    b"%", b"%00", b"//", b"[", b"]", b"@", b"*", b"Host: h", b"Host: xn--", b"Host: [",
    b"Content-Length: 3", b"Content-Length: 99999999999999999999", b"Transfer-Encoding: chunked",
    b"Connection: Upgrade", b"Upgrade: websocket", b"Expect: 100-continue",
    b"Sec-WebSocket-Version: 13", b"Content-Encoding: gzip", b'If-Match: "1"',
    b"Accept: application/json", b"Cookie: a=\xff", b"5\r\nabcde\r\n", b"0\r\n\r\n",
    b"ffffffffffffffff\r\n", b"PRI * HTTP/2.0", b"\x00", b"\xff",
])  # fmt: skip
REQUESTS = st.lists(PIECES | st.binary(max_size=8), max_size=24).map(b"".join)
QUERIES = st.lists(
    st.sampled_from([
        b"service=", b"client=", b"server=", b"protocol=", b"limit=", b"dry_run=", b"&", b"=", b";",
        b"%ff", b"%", b"%00", b"+", b"1", b"-1", b"9" * 5000, b"1.5", b"::", b"::1%25eth0", b"tcp",
        b"%C2%B2", b"%F0%9F%98%80", b"10.0.0.1", b"true", b"#", b"[", b"%5B", b"web",
    ]) | st.binary(max_size=4).map(lambda data: data.translate(None, b" \r\n")),
    max_size=8,
).map(b"".join)  # fmt: skip
ASKED = st.builds(
    lambda path, query: b"GET %s?%s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % (path, query),
    st.sampled_from(
        [
            b"/v1/connections",
            b"/v1/history",
            b"/v1/config",
            b"/v1/status",
            b"/metrics",
            b"/v1/services",
            b"/v1/services/web",
            b"/v1/services/%ff%2f",
            b"/v1/services/%00/servers/x",
        ]
    ),
    QUERIES,
)


@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example(requests=[b"GET http://xn--/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"])
@example(
    requests=[b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n" * 2]
)
@given(requests=st.lists(REQUESTS | ASKED, min_size=1, max_size=8))
def test_no_bytes_reach_the_handler_of_the_loop(
    requests: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without the end of a request the server would go on waiting for it.
    monkeypatch.setattr(connection, "HEADERS_WAIT_S", 0.02)
    monkeypatch.setattr(connection, "CONNECTION_S_MAX", 0.1)
    monkeypatch.setattr(server, "ACCEPTS_AT_ONCE", 1e9)
    found: list[dict[str, object]] = []
    with asyncio.Runner() as runner:
        runner.get_loop().set_exception_handler(lambda _, context: found.append(context))
        runner.run(_send_all(requests))
    assert found == []


async def _send_all(requests: list[bytes]) -> None:
    """Send each request to both kinds of listener: the Unix socket serves more."""
    with tempfile.TemporaryDirectory() as folder:
        api = await server.serve([unix_in(Path(folder)), TcpListen("127.0.0.1", 0)], FakeBackend())
        unix, tcp = api.listens
        assert isinstance(unix, UnixListen)
        assert isinstance(tcp, TcpListen)
        replies = await asyncio.gather(
            *(send_raw(tcp, request) for request in requests),
            *(_send_raw_unix(unix, request) for request in requests),
            return_exceptions=True,
        )
        await api.close()
    for reply in replies:
        assert isinstance(reply, bytes | ConnectionError)
        assert not (isinstance(reply, bytes) and b"HTTP/1.1 500" in reply), requests


async def _send_raw_unix(where: UnixListen, data: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(where.path)
    try:
        writer.write(data)
        return await reader.read()
    finally:
        writer.close()
