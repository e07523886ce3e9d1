"""Probe by a TLS handshake, and look at the certificate.

The handshake is made over a socket of ours with a `ssl.MemoryBIO`: so what the server may send
is bounded, and there is no transport that lives on behind a timeout.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

from hanat.checker.attempt import (
    BYTES_MAX,
    Attempt,
    ProbeError,
    connect,
    reset_on_close,
    socket_to,
)
from hanat.core.checks import Target, TlsCheck
from hanat.core.probing import Reply

DAY_S = 86_400


async def probe_tls(attempt: Attempt, check: TlsCheck) -> Reply:
    """Complete a handshake."""
    with socket_to(attempt.target, socket.SOCK_STREAM) as opened:
        await connect(opened, attempt)
        reset_on_close(opened)
        attempt.awaited = "end of the handshake"
        name = server_name(check, attempt.target)
        tls = await _handshake(opened, context_of(verify=check.verify), name)
    warning = warn(tls.getpeercert(binary_form=True), check.warn_days)
    return Reply(ok=True, answer=f"{tls.version()}{warning}")


async def _handshake(opened: socket.socket, context: ssl.SSLContext, name: str) -> ssl.SSLObject:
    loop = asyncio.get_running_loop()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
    received = 0
    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            finished = False
        else:
            finished = True
        if outgoing.pending:
            await loop.sock_sendall(opened, outgoing.read())
        if finished:
            return tls
        chunk = await loop.sock_recv(opened, BYTES_MAX)
        received += len(chunk)
        if not chunk:
            raise ProbeError("closed during the TLS handshake")
        if received > BYTES_MAX:
            raise ProbeError(f"more than {BYTES_MAX} bytes of TLS handshake")
        incoming.write(chunk)


def server_name(check: TlsCheck, target: Target) -> str:
    """Return for which name a certificate must be; an address is not sent as SNI (RFC 6066)."""
    return check.sni or str(target.address)


@cache
def context_of(*, verify: bool) -> ssl.SSLContext:
    """Return the settings of a client; made once, as the system's certificates are 2 MiB."""
    if verify:
        context = ssl.create_default_context()
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.sslobject_class = _Noting
    return context


_met: ContextVar[list[bytes | None]] = ContextVar("_met")


class _Noting(ssl.SSLObject):
    """Notes the certificate for `met`."""

    def do_handshake(self) -> None:
        super().do_handshake()
        certificates = _met.get(None)
        if certificates is not None:
            certificates.append(self.getpeercert(binary_form=True))


@contextmanager
def met() -> Iterator[list[bytes | None]]:
    """Note the certificates (DER) of handshakes that this task makes through a library.

    aiohttp has closed the connection, and with it forgotten the certificate, before we can ask.
    """
    certificates: list[bytes | None] = []
    token = _met.set(certificates)
    try:
        yield certificates
    finally:
        _met.reset(token)


def warn(certificate: bytes | None, days: int) -> str:
    """Return what to say of a certificate that ends soon; empty if it does not.

    Args:
        certificate: DER; None: there is none.
        days: What is soon; 0: nothing is.
    """
    if certificate is None or not days:
        return ""
    from cryptography.x509 import load_der_x509_certificate

    ends_at = load_der_x509_certificate(certificate).not_valid_after_utc.timestamp()
    left_s = ends_at - time.time()  # noqa: TID251 - a certificate ends by the wall clock
    if left_s > days * DAY_S:
        return ""
    if left_s < 0:
        return f", the certificate ended {-left_s / DAY_S:.0f} days ago"
    return f", the certificate ends in {left_s / DAY_S:.0f} days"
