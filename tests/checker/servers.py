"""Servers for probes, and one probe of each."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hanat.checker.probers import Probers
from hanat.checker.scripts import ScriptProber
from hanat.core.checks import Kind, Target
from hanat.core.probing import Check, Reply

LONG_S = 20.0  # ends a test that hangs
SHORT_S = 0.5  # ends a probe of a server that never answers

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def probe(
    kind: Kind,
    port: int = 0,
    *,
    address: str = "127.0.0.1",
    timeout_s: float = LONG_S,
    scripts: ScriptProber | None = None,
) -> Reply:
    """Make one probe, and check what holds of every one."""
    probers = Probers(scripts or ScriptProber())
    target = Target(kind, Check(1.0, timeout_s), ip_address(address), port)
    try:
        reply = await probers.probe(target, timeout_s)
    finally:
        await probers.close()
    assert reply.answer
    assert reply.latency_s > 0
    return reply


@asynccontextmanager
async def tcp_server(
    handle: Handler, address: str = "127.0.0.1", **options: object
) -> AsyncIterator[int]:
    """Serve each connection; yields the port."""
    handlers: set[asyncio.Task[None] | None] = set()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.current_task())
        with suppress(ConnectionError):
            await handle(reader, writer)
        writer.close()

    server = await asyncio.start_server(served, address, 0, **options)  # type: ignore[arg-type]
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        async with asyncio.timeout(LONG_S):  # the clients are gone, so all of them end
            await asyncio.gather(*filter(None, handlers))


Answers = Callable[[bytes], list[bytes]]


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        for answer in self._answers(data):
            self._transport.sendto(answer, peer)


@asynccontextmanager
async def udp_server(answers: Answers, port: int = 0) -> AsyncIterator[int]:
    """Answer each datagram with others; yields the port."""
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Datagrams(answers), ("127.0.0.1", port)
    )
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.close()
        await asyncio.sleep(0)


def says(data: bytes) -> Handler:
    """Return what sends something and closes."""

    async def handle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.write_eof()
        await _reader.read()

    return handle


def says_and_waits(data: bytes) -> Handler:
    """Return what sends something, and then nothing more until the other end is gone."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        while await reader.read(1024):
            pass

    return handle


class Flood:
    """Sends 1 GiB, after a beginning; counts what it could."""

    def __init__(self, beginning: bytes = b"", pattern: bytes = b"x") -> None:
        self.beginning, self._chunk = beginning, pattern * ((1 << 20) // len(pattern))
        self.sent = 0

    async def __call__(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self.beginning)
        for _ in range(1024):
            writer.write(self._chunk)
            await writer.drain()
            self.sent += len(self._chunk)

    def was_cut_off(self) -> bool:
        """Say whether nobody took all of it: some is in the buffers of the sockets."""
        return self.sent < 64 << 20


def closed_port() -> int:
    """Return a port of TCP that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as opened:
        port: int = opened.getsockname()[1]
        return port


class Authority:
    """Issues certificates, into files.

    Attributes:
        path: Its own certificate.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        certificate = self._sign("authority", self._key, 365, is_authority=True)
        self.path = folder / "authority.pem"
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *, days: float) -> Path:
        """Return a file with the key and certificate of a server; `days` are left of it."""
        key = ec.generate_private_key(ec.SECP256R1())
        path = self._folder / f"{name}-{days}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + self._sign(name, key, days).public_bytes(serialization.Encoding.PEM)
        )
        return path

    def _sign(
        self, name: str, key: ec.EllipticCurvePrivateKey, days: float, *, is_authority: bool = False
    ) -> x509.Certificate:
        ends_at = datetime.now(UTC) + timedelta(days=days)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(ends_at, datetime.now(UTC)) - timedelta(days=30))
            .not_valid_after(ends_at)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
