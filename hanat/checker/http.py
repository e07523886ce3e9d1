"""Probe by HTTP and HTTPS.

One connection a probe, as a new client would make it: none is kept. The status counts, no
redirect is followed, no cookie is kept, nothing is unpacked, no proxy of the environment is
used. The body is read only if the check asks for something in it.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import aiohttp
from yarl import URL

from hanat.checker.answer_match import occurs
from hanat.checker.attempt import (
    BYTES_MAX,
    Attempt,
    ProbeError,
    describe,
    open_socket,
    prepare,
    reset_on_close,
    shown,
)
from hanat.checker.tls import context_of, met, server_name, warn
from hanat.core.checks import Address, HttpCheck, Target
from hanat.core.probing import Reply

DIGEST_BYTES_MAX = 1 << 20  # of a body with a digest; of another one `BYTES_MAX` are looked at
CHUNK_BYTES = 16 << 10

_Way = tuple[Address | None, int]  # source address and mark


class HttpProber:
    """Makes HTTP probes; they share nothing but settings."""

    def __init__(self) -> None:
        self._sessions: dict[_Way, aiohttp.ClientSession] = {}

    async def close(self) -> None:
        """Release what the library has."""
        for session in self._sessions.values():
            await session.close()

    async def probe(self, attempt: Attempt, check: HttpCheck) -> Reply:
        """Ask for a page."""
        target = attempt.target
        attempt.awaited = "answer"
        with met() as certificates, _plainly():
            response = await self._session(target).request(
                check.method,
                _url(target, check),
                headers=_headers(check),
                skip_auto_headers=("Accept-Encoding", "User-Agent"),
                allow_redirects=False,
                ssl=context_of(verify=check.tls.verify) if check.tls else False,
                server_hostname=server_name(check.tls, target) if check.tls else None,
            )
            try:
                answer = f"{response.status} {response.reason or ''}".rstrip()
                if not any(first <= response.status <= last for first, last in check.statuses):
                    raise ProbeError(answer)
                attempt.awaited = f"body after {answer}"
                await _read(response, check, answer)
            finally:
                response.close()
        if check.tls is not None and certificates:
            answer += warn(certificates[-1], check.tls.warn_days)
        return Reply(ok=True, answer=answer)

    def _session(self, target: Target) -> aiohttp.ClientSession:
        way = target.source, target.mark
        if way not in self._sessions:
            self._sessions[way] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0,  # the service has one for all kinds
                    force_close=True,
                    use_dns_cache=False,
                    happy_eyeballs_delay=None,
                    socket_factory=lambda info: _socket(info, way),
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                auto_decompress=False,
                trust_env=False,
                read_bufsize=CHUNK_BYTES,
            )
        return self._sessions[way]


def _socket(info: aiohttp.AddrInfoType, way: _Way) -> socket.socket:
    opened = open_socket(ip_address(info[4][0]), socket.SOCK_STREAM)
    prepare(opened, *way)
    reset_on_close(opened)
    return opened


def _url(target: Target, check: HttpCheck) -> URL:
    host = f"[{target.address}]" if target.address.version == 6 else str(target.address)
    scheme = "https" if check.tls else "http"
    return URL(f"{scheme}://{host}:{target.port}{check.path}", encoded=True)


def _headers(check: HttpCheck) -> list[tuple[str, str]]:
    given = {name.lower() for name, _ in check.headers}
    own = [("User-Agent", "hanat")] if "user-agent" not in given else []
    if check.host and "host" not in given:
        own.append(("Host", check.host))
    return own + list(check.headers)


@contextmanager
def _plainly() -> Iterator[None]:
    """Say what the machine or the server did, not what the library makes of it."""
    try:
        yield
    except aiohttp.ClientConnectorCertificateError as error:
        raise ProbeError(describe(error.certificate_error)) from error
    except aiohttp.ClientConnectorError as error:
        raise ProbeError(describe(error.os_error)) from error
    except aiohttp.ClientResponseError as error:
        text = " ".join(error.message.split())  # it takes several lines
        raise ProbeError(f"not an HTTP answer: {text}") from error
    except aiohttp.ClientPayloadError as error:
        raise ProbeError("the body is torn") from error
    except aiohttp.ServerDisconnectedError as error:
        raise ProbeError("closed without an answer") from error


async def _read(response: aiohttp.ClientResponse, check: HttpCheck, answer: str) -> None:
    """Read as much of the body as the check needs, and see whether it is as it should be."""
    if check.body is None and not check.digest:
        return
    limit = DIGEST_BYTES_MAX if check.digest else BYTES_MAX
    data = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
        data += chunk
        if len(data) > limit:
            break
    if check.digest and len(data) > limit:
        raise ProbeError(f"{answer}, and a body of more than {limit} bytes")
    if check.digest and hashlib.sha256(data).hexdigest() != check.digest:
        raise ProbeError(f"{answer}, and a body with another digest: {shown(bytes(data))}")
    if check.body is not None and not occurs(check.body, bytes(data[:BYTES_MAX])):
        raise ProbeError(f"{answer}, and the body is not as expected: {shown(bytes(data))}")
