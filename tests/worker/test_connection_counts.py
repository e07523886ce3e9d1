"""How many connections servers have, from the flow worker to the daemon."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict

import pytest

from hanat.core.flows import Row, ServerKey
from hanat.core.status import FlowStatus
from hanat.worker.connection_counts import SLICE_ROWS, CountsReader, encoded
from hanat.worker.worker_channel import Kind
from tests.worker.listener import Listener

ROWS = [
    Row(ServerKey(6, b"\xcb\0\x71\x0a", 80, bytes([10, 0, n // 256, n % 256])), n % 3, n)
    for n in range(4 * SLICE_ROWS)
]


def status(*, whole: bool) -> bytes:
    return json.dumps({"flows": asdict(FlowStatus()), "whole": whole}).encode()


async def test_report_is_read_a_message_a_turn_and_takes_effect_as_a_whole() -> None:
    reader = CountsReader()
    for message in encoded(ROWS):
        reader.take(message)
    turns, read = 0, asyncio.Event()
    reader.finish(read.set)
    while not read.is_set():
        assert reader.opened == {}
        await asyncio.sleep(0)
        turns += 1
    assert turns == len(ROWS) // SLICE_ROWS - 1
    assert reader.opened == {row.key: row.opened for row in ROWS}
    assert reader.counts == {row.key: row.now for row in ROWS if row.now}


async def test_report_whose_worker_is_gone_takes_no_effect() -> None:
    reader = CountsReader()
    for message in encoded(ROWS):
        reader.take(message)
    reader.finish(lambda: pytest.fail("it was read"))
    reader.clear()
    for _ in range(10):
        await asyncio.sleep(0)
    assert reader.opened == {}


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    found = Listener()
    yield found
    await found.close()


async def test_counts_of_a_worker_that_does_not_know_all_flows_yet_are_not_to_be_used(
    listener: Listener,
) -> None:
    client = listener.client
    client.start()
    await listener.settle()
    assert not client.knows(60.0)
    for whole in (False, True):
        (message,) = encoded(ROWS[:9])
        listener.channels[0].send(Kind.COUNTS, message)
        listener.channels[0].send(Kind.STATUS, status(whole=whole))
        await listener.settle()
        assert client.knows(60.0) is whole
        assert sum(client.counts().values()) == sum(row.now for row in ROWS[:9])
    assert not client.knows(-1.0)

    await listener.restarted()
    assert not client.knows(60.0)
