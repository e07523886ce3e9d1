"""One client's connection: what it may send, how long it may take, what its failures cost.

The library parses what strangers send, so nothing that it raises leaves this file: it is
counted, complained of within bounds, and the connection ends. The request line is looked
at first, here, where it costs a comparison: a target that is not a path of this server
never reaches the library's parsers of hosts and names.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web
from aiohttp.http import HttpProcessingError

from hanat.errors import EXIT_USAGE

HEADERS_WAIT_S: Final = 5.0
CONNECTION_S_MAX: Final = 60.0
LINE_BYTES_MAX: Final = 8190  # aiohttp's own limit

# RFC 9112 section 3.2.1: of the four forms of a target, a server that is no proxy needs the first.
_LINE = re.compile(rb"[A-Z]{1,32} /[!-~]* HTTP/1\.[01]\r?\n")
_NEWLINES = b"\r\n"  # empty lines before a request: RFC 9112 section 2.2

_COMPLAINTS: Final = logging.getLogger("hanat.complaints")


class ApiConnection(web.RequestHandler):
    """A client, counted and cut off in time, also when it does not read its answer.

    Args:
        server: The library's.
        ended: Called when the connection is gone.
    """

    __slots__ = ("_cut", "_ended", "_line")

    def __init__(self, server: web.Server, ended: Callable[[], None]) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=HEADERS_WAIT_S,
            lingering_time=0.0,
            auto_decompress=False,  # a few bytes could become megabytes
            access_log=None,  # type: ignore[arg-type] # documented, not annotated
            logger=_HTTP_LOG,
        )
        self._ended = ended
        self._cut: asyncio.TimerHandle | None = None
        self._line: bytes | None = b""  # None when it was looked at

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to count the time."""
        assert isinstance(transport, asyncio.Transport)
        super().connection_made(transport)
        self._cut = asyncio.get_running_loop().call_later(CONNECTION_S_MAX, transport.abort)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give the place to somebody else."""
        if self._cut is not None:
            self._cut.cancel()
        self._ended()
        self._guarded(super().connection_lost, exc)

    def data_received(self, data: bytes) -> None:
        """Hand on what came, behind a request line that can be one."""
        if self._line is not None:
            if self._force_close:
                return
            self._line += data
            data = self._line.lstrip(_NEWLINES)
            fine = _judge(data) if data or len(self._line) > LINE_BYTES_MAX else None
            if fine is None:
                return
            if not fine:
                self._refuse()
                return
            self._line = None
        self._guarded(super().data_received, data)

    async def start(self) -> None:
        """Serve the one request of this connection."""
        try:
            await super().start()
        except Exception as error:  # noqa: BLE001 - the top of a task
            self._failed(error)

    def _guarded(self, call: Callable[[Any], None], argument: object) -> None:
        try:
            call(argument)
        except Exception as error:  # noqa: BLE001 - asyncio would tell the daemon's handler
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        _COMPLAINTS.error("api found=%r action=close", f"{type(error).__name__}: {error}")
        if self.transport is not None:
            self.transport.abort()

    def _refuse(self) -> None:
        assert self.transport is not None
        body = json.dumps({
            "error": "the request must begin with METHOD /PATH HTTP/1.1",
            "exit_code": EXIT_USAGE,
        }).encode()  # fmt: skip
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)
        )
        self.force_close()


def _judge(data: bytes) -> bool | None:
    """Say whether bytes begin with a request line for us; None if its end is not there."""
    line, newline, _ = data[: LINE_BYTES_MAX + 2].partition(b"\n")
    if newline:
        return _LINE.fullmatch(line + newline) is not None
    if len(data) > LINE_BYTES_MAX or not b"A" <= data[:1] <= b"Z":  # or only empty lines
        return False
    return None


def _complain(record: logging.LogRecord) -> bool:
    """Turn what the library logs, with a stack for each malformed request, into a complaint."""
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, HttpProcessingError):  # those are about bytes that are not HTTP
        found = record.getMessage() if error is None else f"{type(error).__name__}: {error}"
        _COMPLAINTS.log(record.levelno, "api library found=%r", found)
    return False


_HTTP_LOG: Final = logging.getLogger("hanat.api.http")
_HTTP_LOG.addFilter(_complain)
