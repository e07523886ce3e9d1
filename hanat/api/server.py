"""Serve the API on Unix sockets and TCP addresses.

The event loop is the daemon's, and the daemon renews its lease on it every 40
to 100 ms. So a client costs a bounded amount whatever it does: each listener
carries at most 32 connections (more are closed at once), a connection carries
one request and ends after a minute at the latest, headers and body have five
seconds to arrive. Listeners have separate counts, so that a flood over TCP does
not shut out the operator on the Unix socket.

There is no access log: what a scraper asks every few seconds is not a fact.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from aiohttp import web
from aiohttp.http import HttpProcessingError

from hanat.api.ports import Backend
from hanat.api.routes import Routes
from hanat.api.sockets import QUEUE_CONNECTIONS, open_listening, remove_name
from hanat.config.settings import TcpListen, UnixListen
from hanat.errors import StartupError

CONNECTIONS_MAX: Final = 32
# At some 0.1 ms each; asyncio takes this number from the length of the queue.
ACCEPTS_PER_TURN: Final = 16
HEADERS_WAIT_S: Final = 5.0
CONNECTION_S_MAX: Final = 60.0
CLOSE_WAIT_S: Final = 1.0


async def serve(listens: Sequence[UnixListen | TcpListen], backend: Backend) -> ApiServer:
    """Open every listener and answer on it until closed.

    Args:
        listens: Where; a TCP port of 0 lets the kernel choose, see `ApiServer.listens`.
        backend: The daemon.

    Raises:
        StartupError: One of the places cannot be had; then none is kept.
    """
    runner = web.AppRunner(Routes(backend).application(), shutdown_timeout=CLOSE_WAIT_S)
    await runner.setup()
    server = ApiServer(runner)
    try:
        for listen in listens:
            await server.listen(listen)
    except StartupError:
        await server.close()
        raise
    return server


class ApiServer:
    """The listeners of one node; made by `serve`."""

    def __init__(self, runner: web.AppRunner) -> None:
        self._runner = runner
        self._listeners: list[_Listener] = []

    @property
    def listens(self) -> tuple[UnixListen | TcpListen, ...]:
        """Where it answers, with the ports the kernel chose."""
        return tuple(listener.listen for listener in self._listeners)

    async def listen(self, listen: UnixListen | TcpListen) -> None:
        """Open one more listener.

        Raises:
            StartupError: The place cannot be had.
        """
        assert self._runner.server is not None, "the API is closed"
        listener = _Listener(listen, open_listening(listen), self._runner.server)
        self._listeners.append(listener)
        await listener.start()

    async def close(self) -> None:
        """Stop listening, give running requests a second, remove the Unix sockets."""
        for listener in self._listeners:
            listener.close()
        await self._runner.cleanup()


class _Listener:
    """One socket and the number of its connections."""

    def __init__(
        self, listen: UnixListen | TcpListen, opened: socket.socket, server: web.Server
    ) -> None:
        self._server = server
        self._opened = opened
        self._accepting: asyncio.Server | None = None
        self._name: tuple[Path, int] | None = None
        self.connection_count = 0
        self.listen = listen
        match listen:
            case UnixListen(path):
                self._name = (path, path.lstat().st_ino)
            case TcpListen(host):
                self.listen = TcpListen(host, opened.getsockname()[1])

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        if self._name is None:
            self._accepting = await loop.create_server(
                self._accept, sock=self._opened, backlog=ACCEPTS_PER_TURN
            )
        else:
            self._accepting = await loop.create_unix_server(
                self._accept, sock=self._opened, backlog=ACCEPTS_PER_TURN
            )

        self._opened.listen(QUEUE_CONNECTIONS)  # asyncio made the queue itself that short

    def close(self) -> None:
        if self._accepting is None:
            self._opened.close()
        else:
            self._accepting.close()
        if self._name is not None:
            path, inode = self._name
            remove_name(path, inode=inode)

    def _accept(self) -> asyncio.Protocol:
        if self.connection_count >= CONNECTIONS_MAX:
            return _TurnedAway()
        return _Connection(self, self._server)


class _TurnedAway(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


class _Connection(web.RequestHandler):
    """A client, counted and cut off in time, also when it does not read its answer."""

    __slots__ = ("_cut", "_listener")

    def __init__(self, listener: _Listener, server: web.Server) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=HEADERS_WAIT_S,
            lingering_time=0.0,
            auto_decompress=False,  # a few bytes could become megabytes
            access_log=None,  # type: ignore[arg-type] # documented, not annotated
            logger=_HTTP_LOG,
        )
        self._listener = listener
        self._cut: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        super().connection_made(transport)
        self._listener.connection_count += 1
        self._cut = asyncio.get_running_loop().call_later(CONNECTION_S_MAX, transport.abort)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._listener.connection_count -= 1
        if self._cut is not None:
            self._cut.cancel()


def _not_malformed(record: logging.LogRecord) -> bool:
    """Whether a record is about us rather than about bytes that are not HTTP."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


# aiohttp logs a stack for each malformed request: a client could fill the disk.
_HTTP_LOG: Final = logging.getLogger("hanat.api.http")
_HTTP_LOG.addFilter(_not_malformed)
