"""TLS handshakes with good, expired, self-signed and foreign certificates, and with no TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from hanat.checker.tls import context_of
from hanat.core.checks import HttpCheck, Kind, TlsCheck
from tests.checker.servers import (
    SHORT_S,
    Authority,
    Flood,
    Handler,
    probe,
    says,
    says_and_waits,
    tcp_server,
)

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("inside")]

NAME = "www.example.org"


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Authority]:
    """An authority that this machine trusts."""
    found = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(found.path))
    context_of.cache_clear()
    yield found
    context_of.cache_clear()


def settings(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def both(tls: TlsCheck) -> tuple[Kind, Kind]:
    return tls, HttpCheck(tls=tls)


async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve a page to who asks for one."""
    if await reader.readline():
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        await writer.drain()


@pytest.mark.parametrize("check", both(TlsCheck(sni=NAME, verify=True)))
async def test_valid_certificate_is_up(authority: Authority, check: Kind) -> None:
    context = settings(authority.issue(NAME, days=90))
    names: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    async with tcp_server(web, ssl=context) as port:
        reply = await probe(check, port)
    assert (reply.ok, reply.answer) == (
        True,
        "TLSv1.3" if isinstance(check, TlsCheck) else "200 OK",
    )
    assert names == [NAME]


@pytest.mark.parametrize("check", both(TlsCheck(sni=NAME, verify=True)))
@pytest.mark.parametrize(
    ("name", "days", "answer"),
    [
        (NAME, -3, "certificate: certificate has expired"),
        ("other.example.org", 90, "certificate: Hostname mismatch"),
    ],
)
async def test_wrong_certificate_is_down(
    authority: Authority, check: Kind, name: str, days: int, answer: str
) -> None:
    async with tcp_server(web, ssl=settings(authority.issue(name, days=days))) as port:
        reply = await probe(check, port)
    assert not reply.ok
    assert reply.answer.startswith(answer)


@pytest.mark.parametrize("check", both(TlsCheck(sni=NAME, verify=True)))
async def test_certificate_of_a_stranger_is_down(
    authority: Authority, tmp_path: Path, check: Kind
) -> None:
    assert authority.path.exists()
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other")
    async with tcp_server(web, ssl=settings(stranger.issue(NAME, days=90))) as port:
        reply = await probe(check, port)
    assert not reply.ok
    assert reply.answer.startswith("certificate: ")


@pytest.mark.parametrize("check", both(TlsCheck(verify=True)))
async def test_certificate_without_a_name_to_ask_for_must_be_for_the_address(
    authority: Authority, check: Kind
) -> None:
    async with tcp_server(web, ssl=settings(authority.issue(NAME, days=90))) as port:
        reply = await probe(check, port)
    assert (reply.ok, reply.answer[:44]) == (False, "certificate: IP address mismatch, certificat")


@pytest.mark.parametrize("check", both(TlsCheck(warn_days=14)))
@pytest.mark.parametrize(
    ("days", "warning"),
    [
        (5.2, ", the certificate ends in 5 days"),
        (-3.2, ", the certificate ended 3 days ago"),
        (15, ""),
    ],
)
async def test_certificate_that_ends_soon_is_said(
    authority: Authority, check: Kind, days: float, warning: str
) -> None:
    async with tcp_server(web, ssl=settings(authority.issue(NAME, days=days))) as port:
        reply = await probe(check, port)
    assert reply.ok
    assert reply.answer in {"TLSv1.3" + warning, "200 OK" + warning}


@pytest.mark.parametrize("check", both(TlsCheck()))
@pytest.mark.parametrize(
    "handle",
    [says(b"220 smtp ready\r\n"), says(b""), says(b"\x16\x03\x01\xff\xff" + b"\0" * 40)],
    ids=["plain", "closed", "torn"],
)
async def test_server_without_tls_is_down(check: Kind, handle: Handler) -> None:
    async with tcp_server(handle) as port:
        assert not (await probe(check, port)).ok


@pytest.mark.parametrize("check", both(TlsCheck()))
async def test_silent_server_is_given_up(check: Kind) -> None:
    async with tcp_server(says_and_waits(b"")) as port:
        reply = await probe(check, port, timeout_s=SHORT_S)
    assert not reply.ok
    assert reply.answer in {"no end of the handshake within 0.5 s", "no answer within 0.5 s"}


@pytest.mark.parametrize(
    ("beginning", "record"),
    [
        # A server_hello of 16 MiB, a byte a record.
        (b"\x16\x03\x03\x00\x04\x02\xff\xff\xff", b"\x16\x03\x03\x00\x01\x00"),
        # hello_request, which a client that shakes hands ignores: RFC 5246, section 7.4.1.1.
        (b"", b"\x16\x03\x03\x00\x04\x00\x00\x00\x00"),
    ],
)
async def test_handshake_without_end_is_cut_off(beginning: bytes, record: bytes) -> None:
    flood = Flood(beginning, record)
    async with tcp_server(flood) as port:
        assert not (await probe(TlsCheck(), port)).ok
    assert flood.was_cut_off()
