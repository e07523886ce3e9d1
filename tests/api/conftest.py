"""A server on both kinds of socket over one fake backend."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hanat.api.server import ApiServer, serve
from hanat.config.settings import TcpListen, UnixListen
from tests.api.helpers import FakeBackend, unix_in


@dataclass(frozen=True)
class Served:
    """A running server and where it answers."""

    server: ApiServer
    backend: FakeBackend
    unix: UnixListen
    tcp: TcpListen


@pytest.fixture(autouse=True)
async def sound() -> AsyncIterator[None]:
    """Fail a test in which anything reached the loop's exception handler: it ends a node."""
    found: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    yield
    gc.collect()  # a task that failed says so when nobody can ask it any more
    assert found == []


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    backend = FakeBackend()
    server = await serve(
        [unix_in(tmp_path), TcpListen("127.0.0.1", 0)], backend, names=["r1", "r1.example.com"]
    )
    unix, tcp = server.listens
    assert isinstance(unix, UnixListen)
    assert isinstance(tcp, TcpListen)
    yield Served(server, backend, unix, tcp)
    await server.close()
