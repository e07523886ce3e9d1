"""Connections on real sockets: a path that was silent and is heard again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from hanat.raft import connections
from hanat.raft.connections import Connection
from tests.kernel.namespaces import WAIT_S_MAX, run
from tests.sim.test_quiet_connection import ADDRESSES, made

pytestmark = pytest.mark.kernel

PORT = 7411


class Pair:
    """Node 1 dials node 2, whose beacons are heard when a test says so."""

    def __init__(self) -> None:
        self.heard_at: float | None = None
        self.nodes = {node_id: made(node_id, time.monotonic, port=PORT) for node_id in ADDRESSES}
        self.nodes[1].path_heard_at = lambda _peer, _path: self.heard_at

    def hear(self) -> None:
        """Let node 1 hear a beacon after ten silent seconds."""
        self.heard_at = (self.heard_at or 0.0) + 10.0
        self.nodes[1].tick()

    @property
    def refused(self) -> bool:
        """Whether node 1 has dialled in vain, and waits."""
        return bool(self.nodes[1]._returned) and not self.nodes[1]._dialling

    def connection(self) -> Connection | None:
        """Return what node 1 sends over."""
        return self.nodes[1]._current.get(2)


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    """Run node 1; node 2 does not listen."""
    for address in ADDRESSES.values():
        run(f"ip addr add {address}/32 dev lo")
    found = Pair()
    dialling = asyncio.create_task(found.nodes[1].dial())
    try:
        yield found
    finally:
        dialling.cancel()
        for node in found.nodes.values():
            await node.close()


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait, in a bounded time."""
    deadline = time.monotonic() + WAIT_S_MAX
    while not condition():
        assert time.monotonic() < deadline, f"no sign of {what}"
        await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def _never_retries(inside: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert inside
    monkeypatch.setattr(connections, "RETRY_S", (3600.0,))
    monkeypatch.setattr(connections, "DIAL_S_MAX", 3600.0)


def test_connection_that_is_cut_off_at_once_counts_as_a_failure() -> None:
    """Else a node of a version that its peers do not understand dials twenty times a second."""
    assert [connections.failures_after(2, lived_s) for lived_s in (0.01, 0.99, 1.0)] == [3, 3, 0]


@pytest.mark.asyncio
async def test_peer_that_is_heard_again_is_dialled_at_once() -> None:
    async with pair() as found:
        await until(lambda: found.refused, "a refusal")
        await found.nodes[2].listen()
        found.hear()
        await until(lambda: found.connection() is not None, "a connection")


@pytest.mark.asyncio
async def test_dial_into_the_silence_is_given_up() -> None:
    async with pair() as found:
        drop()
        await until(lambda: bool(found.nodes[1]._dialling), "a dial")
        await found.nodes[2].listen()
        limit = found.nodes[1]._dialling[2, 0]
        run("nft delete table inet silence")
        found.hear()
        await until(lambda: found.connection() is not None, "a connection")
        assert limit.expired()


@pytest.mark.asyncio
async def test_dial_that_ends_by_itself_meanwhile_is_no_error() -> None:
    async with pair() as found:
        drop()
        await until(lambda: bool(found.nodes[1]._dialling), "a dial")
        found.nodes[1]._dialling[2, 0].reschedule(0.0)
        await asyncio.sleep(0)  # its time is over; the task has not gone on yet
        found.hear()
        run("nft delete table inet silence")


@pytest.mark.asyncio
async def test_connection_that_waits_to_repeat_something_is_renewed() -> None:
    async with pair() as found:
        await found.nodes[2].listen()
        found.hear()
        await until(lambda: found.connection() is not None, "a connection")
        old = found.connection()
        assert old is not None
        found.hear()  # nothing is lost: it stays
        assert found.connection() is old
        drop()
        old.write(b"")
        await until(lambda: old.repeats, "a repetition")
        run("nft delete table inet silence")

        found.hear()

        await until(lambda: found.connection() not in (None, old), "another connection")


@pytest.mark.asyncio
async def test_what_a_connection_does_not_take_yet_is_counted() -> None:
    """A peer that goes on reading late must not find the log behind all views."""
    async with pair() as found:
        await found.nodes[2].listen()
        found.hear()
        await until(lambda: found.connection() is not None, "a connection")
        assert found.nodes[1].queued(2) == 0
        assert found.nodes[1].queued(3) == 0  # no connection
        drop()
        message = {"type": "views", "views": bytes(1 << 20)}
        for _ in range(8):
            assert found.nodes[1].send(2, message)
        assert found.nodes[1].queued(2) > 1 << 20
        run("nft delete table inet silence")


def drop() -> None:
    """Let no packet of the nodes arrive."""
    run("nft add table inet silence")
    run("nft add chain inet silence input '{ type filter hook input priority 0; }'")
    run(f"nft add rule inet silence input tcp dport {PORT} drop")
    run(f"nft add rule inet silence input tcp sport {PORT} drop")
