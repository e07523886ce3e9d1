"""Serve the API on Unix sockets and TCP addresses.

The event loop is the daemon's, and the daemon renews its lease on it every 40
to 100 ms. So a client costs a bounded amount whatever it does: each listener
carries at most 32 connections, 8 of one address (more are closed at once), a
connection carries one request and ends after a minute at the latest, headers and
body have five seconds to arrive. Over TCP some 50 connections a second are accepted,
the others wait in the kernel. Listeners have separate counts, so that a flood over
TCP does not shut out the operator on the Unix socket.

There is no access log: what a scraper asks every few seconds is not a fact.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from aiohttp import web

from hanat.api.backend import Backend
from hanat.api.connection import ApiConnection
from hanat.api.listening import open_listening, remove_name
from hanat.api.routes import Routes
from hanat.config.settings import TcpListen, UnixListen
from hanat.errors import StartupError

CONNECTIONS_MAX: Final = 32
CONNECTIONS_PER_ADDRESS_MAX: Final = 8
ACCEPTS_PER_TURN: Final = 16  # at some 0.1 ms each
# Health checks and scrapers make a few a second; an answer costs the loop a millisecond or more.
ACCEPTS_PER_S: Final = 50.0
ACCEPTS_AT_ONCE: Final = 64.0
EXHAUSTED_WAIT_S: Final = 1.0
CLOSE_WAIT_S: Final = 1.0

_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
ADVICE: Final = "it answers on every address, floating ones too; name one of this node"

_LOG: Final = logging.getLogger(__name__)
_COMPLAINTS: Final = logging.getLogger("hanat.complaints")


async def serve(
    listens: Sequence[UnixListen | TcpListen], backend: Backend, *, names: Iterable[str] = ()
) -> ApiServer:
    """Open every listener and answer on it until closed.

    Args:
        listens: Where; a TCP port of 0 lets the kernel choose, see `ApiServer.listens`.
        backend: The daemon.
        names: By which this node is asked over TCP, beside its addresses and its host name.

    Raises:
        StartupError: One of the places cannot be had; then none is kept.
    """
    known = frozenset(name.lower() for name in ("localhost", socket.gethostname(), *names))
    runner = web.AppRunner(Routes(backend, known).application(), shutdown_timeout=CLOSE_WAIT_S)
    await runner.setup()
    server = ApiServer(runner)
    try:
        for listen in listens:
            await server.listen(listen)
            if isinstance(listen, TcpListen) and listen.is_everywhere:
                _LOG.warning("api listen=%s port=%d to_do=%r", listen.host, listen.port, ADVICE)
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
        listener.start()

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
        self._loop = asyncio.get_running_loop()
        self._resume: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._counts: Counter[str] = Counter()  # of the connections of each address
        self._allowed, self._allowed_at = ACCEPTS_AT_ONCE, self._loop.time()
        self._name: tuple[Path, int] | None = None
        self.listen = listen
        match listen:
            case UnixListen(path):
                self._name = (path, path.lstat().st_ino)
            case TcpListen(host):
                self.listen = TcpListen(host, opened.getsockname()[1])

    def start(self) -> None:
        """Accept from now on."""
        self._resume = None
        self._loop.add_reader(self._opened, self._accept)

    def close(self) -> None:
        """Accept no more."""
        if self._resume is not None:
            self._resume.cancel()
        self._loop.remove_reader(self._opened)
        self._opened.close()
        for task in self._tasks:
            task.cancel()
        if self._name is not None:
            path, inode = self._name
            remove_name(path, inode=inode)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            if wait_s := self._wait_s():
                self._pause(wait_s)
                return
            try:
                opened, address = self._opened.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    _COMPLAINTS.error("api accepts=none found=%r", error.strerror)
                    self._pause(EXHAUSTED_WAIT_S)
                    return
                continue  # accept(2) passes on what the network said of a connection
            self._take(opened, address[0] if self._name is None else "")

    def _wait_s(self) -> float:
        """Return how long to wait before the next connection may be accepted, and count it."""
        if self._name is not None:
            return 0.0
        now = self._loop.time()
        gained = ACCEPTS_PER_S * (now - self._allowed_at)
        self._allowed, self._allowed_at = min(ACCEPTS_AT_ONCE, self._allowed + gained), now
        if self._allowed < 1:
            return (1 - self._allowed) / ACCEPTS_PER_S
        self._allowed -= 1
        return 0.0

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._opened)
        self._resume = self._loop.call_later(seconds, self.start)

    def _take(self, opened: socket.socket, address: str) -> None:
        """Serve a connection, or close it as one too many."""
        too_many = self._counts.total() >= CONNECTIONS_MAX
        if too_many or (address and self._counts[address] >= CONNECTIONS_PER_ADDRESS_MAX):
            opened.close()
            return
        opened.setblocking(False)  # noqa: FBT003 - the socket API's own
        self._counts[address] += 1
        task = self._loop.create_task(self._serve(opened, address))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, opened: socket.socket, address: str) -> None:
        def ended() -> None:
            self._counts[address] -= 1
            if not self._counts[address]:
                del self._counts[address]

        connection = ApiConnection(self._server, ended)
        try:
            await self._loop.connect_accepted_socket(lambda: connection, opened)
        except OSError as error:
            _COMPLAINTS.warning("api accepts=one_less found=%r", error.strerror)
            opened.close()
            ended()
