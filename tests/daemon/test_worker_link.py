"""The daemon's end of the flow worker, in front of a worker that only listens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import pytest

from hanat.worker.worker_channel import NUMBER, Kind
from tests.worker.listener import Listener


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    found = Listener()
    yield found
    await found.close()


async def test_what_was_kept_is_installed_before_it_is_waited_for(listener: Listener) -> None:
    listener.client.start()
    listener.client.keep(b"old")
    done: list[bool] = []
    listener.client.settle(lambda: done.append(True))
    listener.client.start_capture(7)
    heard = await listener.settle()
    assert [kind for kind, _ in heard] == [Kind.INSTALL, Kind.FLUSH, Kind.START]
    assert not done
    listener.channels[0].send(Kind.FLUSHED, heard[1][1])
    await listener.settle()
    assert done == [True]


@pytest.mark.parametrize("newer", ["install", "forget"])
async def test_what_was_kept_is_nothing_to_who_hears_of_a_holder(
    listener: Listener, newer: str
) -> None:
    listener.client.start()
    listener.client.keep(b"old")
    if newer == "install":
        listener.client.install(b"new")
    else:
        listener.client.forget()
    listener.client.settle(lambda: None)
    listener.client.start_capture(7)
    assert (Kind.INSTALL, b"old") not in await listener.settle()


async def test_what_was_kept_waits_for_a_worker(listener: Listener) -> None:
    listener.refusing = True
    listener.client.start()
    listener.client.keep(b"old")
    listener.client.settle(lambda: None)
    listener.client.start_capture(7)
    listener.refusing = False
    listener.client._start_again()
    heard = await listener.settle()
    assert [kind for kind, _ in heard] == [Kind.INSTALL, Kind.START]


async def test_worker_that_cannot_be_started_is_waited_for_by_nobody(listener: Listener) -> None:
    listener.refusing = True
    listener.client.start()
    done: list[bool] = []
    listener.client.settle(lambda: done.append(True))
    await listener.settle()
    assert done == [True]


async def test_answer_to_an_earlier_flush_is_not_that_to_a_later_one(listener: Listener) -> None:
    listener.client.start()
    done: list[int] = []
    listener.client.flush(lambda: done.append(1))
    listener.client.flush(lambda: done.append(2))
    await listener.settle()
    listener.channels[0].send(Kind.FLUSHED, NUMBER.pack(1))
    await listener.settle()
    assert done == []
    listener.channels[0].send(Kind.FLUSHED, NUMBER.pack(2))
    await listener.settle()
    assert done == [2]


async def test_who_missed_something_is_not_complete_from_then_on(listener: Listener) -> None:
    listener.client.start()
    await listener.settle()
    listener.channels[0].send(Kind.COMPLETE, b"\x01")
    await listener.settle()
    listener.client.forget()
    assert listener.complete == [True, False]


async def test_number_of_flows_that_ended_comes_back(listener: Listener) -> None:
    listener.client.start()
    told: list[Mapping[str, int]] = []
    listener.client.reconcile(b"{}", told.append)
    ((kind, body),) = await listener.settle()
    assert (kind, body[NUMBER.size :]) == (Kind.RECONCILE, b"{}")
    listener.channels[0].send(Kind.RECONCILED, body[: NUMBER.size] + b'{"server": 3}')
    await listener.settle()
    assert told == [{"server": 3}]


async def test_worker_that_died_while_it_reconciled_does_it_again(listener: Listener) -> None:
    listener.client.start()
    told: list[Mapping[str, int]] = []
    listener.client.reconcile(b"{}", told.append)
    await listener.settle()
    await listener.restarted()
    assert told == [{}]
    assert [kind for kind, _ in await listener.settle()] == [Kind.RECONCILE]
