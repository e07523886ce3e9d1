"""A failure in the node's code ends the node, one in the API's does not."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
from collections.abc import Callable

import pytest

from hanat.api.answers import BODY_BYTES_MAX, read_body
from hanat.core.identity import Identity
from hanat.daemon.failure_origin import failure_of_node
from hanat.net.secure_stream import SecureStream
from hanat.stderr_log import Bounded

Context = dict[str, object]


def _raised(call: Callable[[], object]) -> BaseException:
    with pytest.raises(Exception) as found:  # noqa: PT011 - what is raised does not matter
        call()
    # From where the loop catches: the frames of this test are not hanat's.
    return found.value


def _of_the_node() -> BaseException:
    identity = Identity(bytes(32), "edge1", 0.1, 1)
    return _raised(lambda: SecureStream(identity, nonce=b"short", peer=None))


async def _contexts(begin: Callable[[], object]) -> list[Context]:
    """Return what the loop's handler is told of."""
    loop, found = asyncio.get_running_loop(), list[Context]()
    loop.set_exception_handler(lambda _, context: found.append(context))
    begin()
    for _ in range(4):
        await asyncio.sleep(0)
    gc.collect()
    return found


def test_a_failure_of_the_node_ends_it() -> None:
    error = _of_the_node()
    assert failure_of_node({"message": "in a callback", "exception": error}) is error


async def test_a_task_of_the_api_that_fails_ends_nothing() -> None:
    loop = asyncio.get_running_loop()
    request = object()  # has no content
    found = await _contexts(lambda: loop.create_task(read_body(request, bytes_max=BODY_BYTES_MAX)))  # type: ignore[arg-type]
    assert len(found) == 1
    assert failure_of_node(found[0]) is None


async def test_a_turn_of_the_node_that_the_api_woke_ends_it() -> None:
    """What decides is the code that failed, not the task or the context it began in."""
    loop = asyncio.get_running_loop()
    identity = Identity(bytes(32), "edge1", 0.1, 1)

    async def handler() -> None:
        loop.call_soon(lambda: SecureStream(identity, nonce=b"short", peer=None))

    found = await _contexts(lambda: loop.create_task(handler()))
    assert len(found) == 1
    assert isinstance(failure_of_node(found[0]), AssertionError)


async def test_a_timer_of_a_library_of_nobody_ends_the_node() -> None:
    loop = asyncio.get_running_loop()
    found = await _contexts(lambda: loop.call_soon(int, "x"))
    assert isinstance(failure_of_node(found[0]), ValueError)


async def test_an_error_of_the_network_in_the_loop_itself_ends_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = socket.socket(fileno=os.dup(listener.fileno()))
        closed.setblocking(False)  # noqa: FBT003
        async with await asyncio.start_server(lambda *_: None, sock=closed):
            listener.shutdown(socket.SHUT_RDWR)  # accept(2) fails with EINVAL from here on
            found = await _contexts(lambda: None)
    assert found
    assert [failure_of_node(context) for context in found] == [None] * len(found)


def test_complaints_are_at_most_five_in_a_second_and_what_is_left_out_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 0.0
    log = logging.getLogger("tests.complaints")
    bounded = Bounded(lambda: now)
    log.addFilter(bounded)
    try:
        for number in range(60_000):
            now = number / 60_000
            log.warning("from %d", number)
        assert len(caplog.records) <= 5
        now = 100.0
        log.warning("from one more")
    finally:
        log.removeFilter(bounded)
    said = sum(int(r.getMessage().partition("left_out=")[2] or 0) for r in caplog.records)
    assert said + len(caplog.records) == 60_001
