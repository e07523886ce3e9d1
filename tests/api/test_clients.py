"""What clients may send or leave undone without disturbing anybody."""

from __future__ import annotations

import asyncio
import itertools
import random
from pathlib import Path

import pytest

from hanat.api import answers, connection, server
from hanat.config.settings import TcpListen, UnixListen
from tests.api.conftest import Served
from tests.api.helpers import FakeBackend, ask, send_raw, unix_in


async def test_an_unknown_path_is_404_in_json(served: Served) -> None:
    answer = await ask(served.unix, "/v1/nothing")
    assert answer.status == 404
    assert answer.document == {"error": "there is no '/v1/nothing' here", "exit_code": 2}


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v1/status", "GET, HEAD"),
        ("DELETE", "/metrics", "GET, HEAD"),
        ("GET", "/v1/switchover", "POST"),
    ],
)
async def test_a_wrong_method_is_405_in_json(
    served: Served, method: str, path: str, allowed: str
) -> None:
    answer = await ask(served.unix, path, method=method)
    assert answer.status == 405
    assert answer.headers["Allow"] == allowed
    assert answer.document["error"] == f"{method} is not possible on {path!r}, only {allowed}"
    assert answer.document["exit_code"] == 2


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 64 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /livez HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n" + b"A: b\r\n" * 1_000 + b"\r\n",
        b"GET /livez HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/switchover HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=lambda garbage: repr(garbage[:24]),
)
async def test_garbage_is_answered_with_400_and_logs_nothing(
    served: Served, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    reply = await send_raw(served.tcp, garbage)
    assert reply.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert caplog.records == []
    assert (await ask(served.tcp, "/livez")).status == 200


async def test_random_bytes_never_disturb(
    served: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without an end of line the server would go on waiting for the rest of the headers.
    monkeypatch.setattr(connection, "HEADERS_WAIT_S", 0.05)
    print("seed=7411")  # noqa: T201  replay: pytest tests/api/test_clients.py -k random_bytes
    chance = random.Random(7411)
    await asyncio.gather(
        *(send_raw(served.tcp, chance.randbytes(chance.randrange(1, 2_000))) for _ in range(30))
    )
    assert caplog.records == []
    assert (await ask(served.tcp, "/livez")).status == 200


async def test_a_client_gone_in_the_middle_of_its_request_leaves_nothing(served: Served) -> None:
    for part in (
        b"",
        b"GET /v1/sta",
        b"POST /v1/switchover HTTP/1.1\r\nContent-Length: 9\r\n\r\n{",
    ):
        _, writer = await asyncio.open_connection(served.tcp.host, served.tcp.port)
        writer.write(part)
        writer.close()
        await writer.wait_closed()
    assert (await ask(served.tcp, "/livez")).status == 200
    assert served.backend.asked == []


async def test_a_client_slow_with_its_headers_is_cut_off(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEADERS_WAIT_S", 0.05)
    assert await send_raw(served.tcp, b"GET /livez HTTP/1.1\r\nHost:") == b""


async def test_a_client_slow_with_its_body_is_told_408(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "BODY_WAIT_S", 0.05)
    reader, writer = await asyncio.open_unix_connection(served.unix.path)
    writer.write(b"POST /v1/switchover HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 12\r\n\r\n{")
    reply = await reader.read()
    writer.close()
    assert reply.startswith(b"HTTP/1.1 408 ")
    assert b"the body did not arrive within 0.05 s" in reply
    assert served.backend.asked == []


async def test_a_client_that_does_not_read_is_cut_off(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECTION_S_MAX", 0.05)
    reader, writer = await asyncio.open_unix_connection(served.unix.path)
    assert await reader.read() == b""
    writer.close()


async def test_a_connection_carries_one_request(served: Served) -> None:
    reply = await send_raw(served.tcp, b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 3)
    assert reply.count(b"HTTP/1.1 200 OK") == 1
    assert b"Connection: close" in reply


async def test_connections_too_many_are_closed_and_the_unix_socket_stays_open(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 3)
    idle = [await asyncio.open_connection(served.tcp.host, served.tcp.port) for _ in range(3)]
    with pytest.raises(ConnectionError):
        await send_one_more(served.tcp)
    assert (await ask(served.unix, "/livez")).status == 200
    for _, writer in idle:
        writer.close()
        await writer.wait_closed()
    assert (await ask(served.tcp, "/livez")).status == 200


async def test_a_burst_of_scrapes_leaves_the_loop_to_others_in_between(served: Served) -> None:
    order: list[str] = []
    plain = served.backend.status

    def noted() -> object:
        order.append("status")
        return plain()

    served.backend.status = noted  # type: ignore[method-assign, assignment]
    async with asyncio.TaskGroup() as group:
        burst = [group.create_task(ask(served.unix, "/v1/status")) for _ in range(8)]

        async def tick() -> None:
            while not all(task.done() for task in burst):
                order.append("tick")
                await asyncio.sleep(0)

        group.create_task(tick())
    assert order.count("status") == 8
    assert ("status", "status") not in itertools.pairwise(order)


async def test_close_gives_a_running_switchover_up_after_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "CLOSE_WAIT_S", 0.05)
    asked = asyncio.Event()

    class Endless(FakeBackend):
        async def switchover(self, to: str | None) -> str:
            asked.set()
            await asyncio.Event().wait()
            return str(to)

    api = await server.serve([unix_in(tmp_path)], Endless())
    reader, writer = await asyncio.open_unix_connection(tmp_path / "api.sock")
    body = b'{"to": "r2"}'
    writer.write(
        b"POST /v1/switchover HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 12\r\n\r\n" + body
    )
    await asked.wait()
    await api.close()
    assert await reader.read() == b""
    writer.close()


async def send_one_more(where: TcpListen | UnixListen) -> None:
    """Use a connection; raise ConnectionError when the server ends it without an answer."""
    assert isinstance(where, TcpListen)
    if not await send_raw(where, b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"):
        raise ConnectionError
