"""TCP, UDP and ICMP against servers that answer well, badly, endlessly, slowly or never."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from hanat.checker.probers import Probers
from hanat.checker.scripts import ScriptProber
from hanat.core.checks import (
    AgentCheck,
    DnsCheck,
    HttpCheck,
    Kind,
    Pattern,
    PingCheck,
    Target,
    TcpCheck,
    TlsCheck,
    UdpCheck,
)
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
    udp_server,
)
from tests.kernel.namespaces import run

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("inside")]

SSH = Pattern(r"^SSH-[12]\.\d+-\S+", is_regex=True)


# --------------------------------------------------------------------------------- TCP


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_open_port_is_up(address: str) -> None:
    async with tcp_server(says_and_waits(b""), address) as port:
        reply = await probe(TcpCheck(), port, address=address)
    assert (reply.ok, reply.answer) == (True, "connected")


async def test_closed_port_is_refused() -> None:
    reply = await probe(TcpCheck(), closed_port())
    assert (reply.ok, reply.answer) == (False, "connection refused")


async def test_filtered_port_is_given_up(inside: str) -> None:
    run("nft add table inet filtered", inside)
    run("nft add chain inet filtered in { type filter hook input priority 0 ; }", inside)
    run("nft add rule inet filtered in tcp dport 81 drop", inside)
    reply = await probe(TcpCheck(), 81, timeout_s=SHORT_S)
    assert (reply.ok, reply.answer) == (False, "no connection within 0.5 s")


@pytest.mark.parametrize(
    "check",
    [
        TcpCheck(expect=b"-2.0-"),
        TcpCheck(pattern=Pattern("OpenSSH")),
        TcpCheck(pattern=SSH),
        TcpCheck(expect=b"SSH", pattern=SSH),
    ],
)
async def test_expected_answer_is_up(check: TcpCheck) -> None:
    async with tcp_server(says_and_waits(b"SSH-2.0-OpenSSH_9.2\r\n")) as port:
        reply = await probe(check, port)
    assert (reply.ok, reply.answer) == (True, "SSH-2.0-OpenSSH_9.2")


async def test_what_is_sent_arrives_even_if_nothing_is_expected() -> None:
    arrived: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def handle(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        arrived.set_result(await reader.read())

    async with tcp_server(handle) as port:
        reply = await probe(TcpCheck(send=b"PING\r\n"), port)
        assert reply.ok
        assert await arrived == b"PING\r\n"


async def test_answer_in_pieces_is_put_together() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"PING\r\n"
        for piece in (b"+PO", b"NG\r", b"\n"):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        await reader.read()

    async with tcp_server(handle) as port:
        reply = await probe(TcpCheck(send=b"PING\r\n", expect=b"+PONG\r\n"), port)
    assert (reply.ok, reply.answer) == (True, "+PONG")


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"-LOADING\r\n", "the answer is not as expected: -LOADING"),
        (b"\xff\x00\x1b[2J\x80", "the answer is not as expected: \ufffd??[2J\ufffd"),
        (b"", "closed without an answer"),
    ],
)
async def test_other_answer_is_shown(said: bytes, answer: str) -> None:
    async with tcp_server(says(said)) as port:
        reply = await probe(TcpCheck(expect=b"+PONG"), port)
    assert (reply.ok, reply.answer) == (False, answer)


async def test_server_that_resets_is_down() -> None:
    async def handle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with tcp_server(handle) as port:
        reply = await probe(TcpCheck(expect=b"+PONG"), port)
    assert not reply.ok


async def test_answer_without_end_is_cut_off() -> None:
    flood = Flood()
    async with tcp_server(flood) as port:
        reply = await probe(TcpCheck(expect=b"+PONG"), port)
        assert not reply.ok
        assert reply.answer.startswith("the first 65536 bytes are not as expected: xxxx")
    assert flood.was_cut_off()


async def test_byte_a_minute_is_given_up() -> None:
    async with tcp_server(says_and_waits(b"+")) as port:
        reply = await probe(TcpCheck(expect=b"+PONG"), port, timeout_s=SHORT_S)
    assert (reply.ok, reply.answer) == (False, "no expected answer within 0.5 s, only: +")


async def test_single_bytes_cost_no_search_each(monkeypatch: pytest.MonkeyPatch) -> None:
    searches = 0

    def fits(*_: object) -> bool:
        nonlocal searches
        searches += 1
        return False

    async def handle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0)

    monkeypatch.setattr("hanat.checker.plain._fits", fits)
    async with tcp_server(handle) as port:
        await probe(TcpCheck(expect=b"+PONG"), port, timeout_s=SHORT_S)
    assert 0 < searches <= SHORT_S / 0.005 + 2


async def test_silent_server_is_given_up() -> None:
    async with tcp_server(says_and_waits(b"")) as port:
        reply = await probe(TcpCheck(expect=b"+PONG"), port, timeout_s=SHORT_S)
    assert (reply.ok, reply.answer) == (False, "no answer within 0.5 s")


@pytest.mark.parametrize("check", [TcpCheck(), TcpCheck(expect=b"SSH")])
async def test_probe_leaves_no_connection_behind(inside: str, check: TcpCheck) -> None:
    async with tcp_server(says_and_waits(b"SSH-2.0")) as port:
        assert (await probe(check, port)).ok
    assert len(run("ss -taHn", inside).splitlines()) <= 1  # the server's own


# --------------------------------------------------------------------------------- UDP


@pytest.mark.parametrize(
    ("answer", "check", "ok", "said"),
    [
        (b"pong", UdpCheck(b"ping", b"pong"), True, "pong"),
        (b"pong", UdpCheck(b"ping", pattern=Pattern("^p.ng$", is_regex=True)), True, "pong"),
        (b"pong", UdpCheck(b"ping"), True, "pong"),
        (b"pung", UdpCheck(b"ping", b"pong"), False, "the answer is not as expected: pung"),
        (b"", UdpCheck(b"ping", b"pong"), False, "no answer within 0.5 s"),
        (b"", UdpCheck(b"ping"), True, "no error"),
    ],
)
async def test_datagram(answer: bytes, check: UdpCheck, ok: bool, said: str) -> None:  # noqa: FBT001
    async with udp_server(lambda _: [answer] if answer else []) as port:
        reply = await probe(check, port, timeout_s=LONG_S if answer else SHORT_S)
    assert (reply.ok, reply.answer) == (ok, said)


@pytest.mark.parametrize("check", [UdpCheck(b"ping"), UdpCheck(b"ping", b"pong")])
async def test_icmp_error_is_a_failure(check: UdpCheck) -> None:
    reply = await probe(check, 9)
    assert (reply.ok, reply.answer) == (False, "connection refused")


# -------------------------------------------------------------------------------- ping


@pytest.mark.parametrize("groups", ["0 0", "1 0"], ids=["datagrams", "raw"])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("size", [0, 56, 1200])
async def test_host_that_answers_is_up(inside: str, groups: str, address: str, size: int) -> None:
    run(f"sysctl -qw net.ipv4.ping_group_range='{groups}'", inside)
    reply = await probe(PingCheck(size=size), address=address)
    assert (reply.ok, reply.answer) == (True, "echo reply to request 1")


@pytest.mark.parametrize("groups", ["0 0", "1 0"], ids=["datagrams", "raw"])
async def test_host_that_does_not_answer_is_down(inside: str, groups: str) -> None:
    run(f"sysctl -qw net.ipv4.icmp_echo_ignore_all=1 net.ipv4.ping_group_range='{groups}'", inside)
    reply = await probe(PingCheck(count=2), timeout_s=SHORT_S)
    assert (reply.ok, reply.answer) == (False, "no echo reply within 0.5 s")


async def test_lost_request_is_followed_by_another(inside: str) -> None:
    run("nft add table ip lossy", inside)
    run("nft add chain ip lossy in { type filter hook input priority 0 ; }", inside)
    # The first one alone: sequence numbers count from 0.
    run("nft add rule ip lossy in icmp type echo-request icmp sequence 0 drop", inside)
    reply = await probe(PingCheck(count=2), timeout_s=2.0)
    assert (reply.ok, reply.answer) == (True, "echo reply to request 2")


async def test_unreachable_network_fails_at_once() -> None:
    reply = await probe(PingCheck(), address="192.0.2.1")
    assert (reply.ok, reply.answer) == (False, "network is unreachable")


# ------------------------------------------------------------------------------- agent


async def test_agent_is_asked_and_understood() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"web\n"
        writer.write(b"up 75%\n")  # and does not close
        await reader.read()

    async with tcp_server(handle) as port:
        reply = await probe(AgentCheck(send=b"web\n"), port)
    assert (reply.ok, reply.percent, reply.answer) == (True, 75, "up 75%")


@pytest.mark.parametrize(
    ("said", "answer", "counts"),
    [
        (
            b"\x00\xff\xfe garbage\n",
            "ignored, no answer of an agent: ?\ufffd\ufffd garbage",
            False,
        ),
        (b"", "the agent said nothing", True),
    ],
)
async def test_garbage_of_an_agent_does_not_count_and_silence_is_a_failure(
    said: bytes,
    answer: str,
    counts: bool,  # noqa: FBT001
) -> None:
    async with tcp_server(says(said)) as port:
        reply = await probe(AgentCheck(), port)
    assert (reply.ok, reply.answer, reply.counts) == (False, answer, counts)


async def test_agent_that_never_ends_a_line_is_given_up() -> None:
    flood = Flood()
    async with tcp_server(flood) as port:
        assert not (await probe(AgentCheck(), port)).ok
    assert flood.was_cut_off()
    async with tcp_server(says_and_waits(b"up")) as port:
        reply = await probe(AgentCheck(), port, timeout_s=SHORT_S)
    assert (reply.ok, reply.answer) == (False, "no end of the line within 0.5 s, only: up")


# --------------------------------------------------------------------------------- all


@pytest.mark.parametrize(
    "check",
    [
        TcpCheck(expect=b"x"),
        TlsCheck(),
        HttpCheck(),
        HttpCheck(body=Pattern("x"), tls=TlsCheck()),
        AgentCheck(),
        UdpCheck(expect=b"x"),
        DnsCheck(),
        PingCheck(),
    ],
)
async def test_probe_that_is_given_up_leaves_nothing_open(inside: str, check: Kind) -> None:
    run("sysctl -qw net.ipv4.icmp_echo_ignore_all=1", inside)
    probers = Probers(ScriptProber())
    async with (
        tcp_server(says_and_waits(b"")) as port,
        udp_server(lambda _: [], port),
    ):
        target = Target(check, Check(1.0, 0.05), ip_address("127.0.0.1"), port)
        probers.prepare([target])
        await probers.probe(target, 0.05)
        before = _open_sockets()
        for _ in range(5):
            assert not (await probers.probe(target, 0.05)).ok
        await _until(lambda: _open_sockets() <= before)
    await probers.close()


def _open_sockets() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LONG_S):
        while not condition():  # noqa: ASYNC110 - the server's ends are closed in its own time
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("check", [TcpCheck(), UdpCheck(b"x"), PingCheck(), AgentCheck()])
async def test_exception_that_nobody_expects_is_a_failure(
    check: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> socket.socket:
        raise RuntimeError("a bug\nwith a second line")

    monkeypatch.setattr("hanat.checker.attempt.open_socket", fail)
    reply = await probe(check, 9)
    assert not reply.ok
    assert reply.answer.startswith("a bug")
