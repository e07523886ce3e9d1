"""The daemon's end of the checker, in front of a process that only listens."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator
from ipaddress import ip_address
from subprocess import Popen
from typing import Any

import pytest

from hanat.checker.checker_channel import PIECE, Channel, Topic
from hanat.checker.documents import sighting_to_document, target_to_document
from hanat.core.checks import Target, TcpCheck
from hanat.core.probing import Check, Operational, Sighting
from hanat.daemon.checker_link import HUNG_S, CheckerLink
from tests.checker.servers import LONG_S

TURNS = 50
UP, DOWN = Operational.UP, Operational.DOWN
SEEN = Sighting(
    target="a",
    state=UP,
    since=1.0,
    ok=True,
    in_a_row=2,
    answer="connected",
    latency_s=0.1,
    at=2.0,
    tenure=None,
    decided=Operational.UNKNOWN,
    news=True,
)


class Listener:
    """Takes what the daemon says to its checker.

    Attributes:
        refusing: The machine cannot start a process.
        heard: Topic and body of each message.
        ended: How many connections to it the daemon ended.
    """

    def __init__(self) -> None:
        self.refusing = False
        self.heard: list[tuple[Topic, Any]] = []
        self.seen: list[Sighting] = []
        self.lost = self.ended = 0
        self.channels: list[Channel] = []
        self._tasks: list[asyncio.Task[object]] = []
        self.processes: list[Popen[bytes]] = []
        self.client = CheckerLink(self._spawn, sighted=self.seen.append, lost=self._lose)

    def _lose(self) -> None:
        self.lost += 1

    def _end(self) -> None:
        self.ended += 1

    def _spawn(self, theirs: socket.socket) -> Popen[bytes]:
        if self.refusing:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        opened = theirs.dup()
        opened.setblocking(False)  # noqa: FBT003 - the library's signature
        channel = Channel(lambda topic, body: self.heard.append((topic, body)), self._end)
        self.channels.append(channel)
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(loop.create_connection(lambda: channel, sock=opened)))
        self.processes.append(subprocess.Popen(["sleep", "60"]))
        return self.processes[-1]

    async def settle(self) -> list[tuple[Topic, Any]]:
        """Let everything happen; return what was heard since the last time."""
        for _ in range(TURNS):
            await asyncio.sleep(0)
        heard, self.heard = self.heard, []
        return heard

    async def started(self, count: int) -> None:
        """Wait until so many checkers were started."""
        async with asyncio.timeout(10):
            while len(self.channels) < count:  # noqa: ASYNC110 - started by a timer
                await asyncio.sleep(0.01)

    def close(self) -> None:
        self.client.close()
        for channel in self.channels:
            channel.abort()
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    made = Listener()
    yield made
    made.close()
    await asyncio.sleep(0)


def targets(*names: str) -> dict[str, Target]:
    return {
        name: Target(TcpCheck(), Check(2.0, 1.0), ip_address("192.0.2.1"), port)
        for port, name in enumerate(names, start=1)
    }


def configured(*names: str) -> tuple[Topic, Any]:
    documents = {name: target_to_document(target) for name, target in targets(*names).items()}
    return Topic.CONFIGURE, {"first": True, "last": True, "targets": documents}


async def test_checker_is_told_targets_first_then_tenure_and_verdicts(listener: Listener) -> None:
    client = listener.client
    client.configure(targets("a", "b"))
    client.hold(7)
    client.commit("a", UP)
    client.commit("b", UP)
    client.commit("b", DOWN)
    client.commit("gone", DOWN)
    client.start()
    assert await listener.settle() == [
        configured("a", "b"),
        (Topic.HOLD, 7),
        (Topic.COMMIT, {"a": "up", "b": "down"}),
    ]
    client.hold(None)
    client.commit("a", DOWN)
    assert await listener.settle() == [(Topic.HOLD, None), (Topic.COMMIT, {"a": "down"})]


async def test_many_targets_come_in_pieces_before_anything_else(listener: Listener) -> None:
    names = [f"t{number}" for number in range(2 * PIECE + 1)]
    listener.client.start()
    listener.client.configure(targets(*names))
    listener.client.hold(7)
    *pieces, held_before, held = await listener.settle()
    assert (held_before, held) == ((Topic.HOLD, None), (Topic.HOLD, 7))
    assert [(b["first"], b["last"], len(b["targets"])) for _, b in pieces] == [
        (True, False, PIECE),
        (False, False, PIECE),
        (False, True, 1),
    ]
    assert [name for _, body in pieces for name in body["targets"]] == names


async def test_newer_targets_replace_what_was_not_told_yet(listener: Listener) -> None:
    listener.client.start()
    listener.client.configure(targets(*(f"t{number}" for number in range(5 * PIECE))))
    listener.client.configure(targets("a"))
    heard = await listener.settle()
    assert heard[-2:] == [configured("a"), (Topic.HOLD, None)]
    assert len(heard) == 3  # one piece was under way


async def test_verdict_of_a_target_that_went_is_not_told_again(listener: Listener) -> None:
    listener.client.start()
    listener.client.configure(targets("a", "b"))
    listener.client.commit("a", DOWN)
    listener.client.configure(targets("b"))
    listener.client.configure(targets("a", "b"))
    assert (await listener.settle())[-1] == (Topic.HOLD, None)


async def test_checker_that_ends_is_lost_and_the_next_one_told_everything(
    listener: Listener,
) -> None:
    listener.client.start()
    listener.client.configure(targets("a"))
    listener.client.hold(7)
    listener.client.commit("a", UP)
    await listener.settle()
    shown: list[tuple[Sighting, ...]] = []
    listener.client.show(shown.append)
    listener.channels[0].abort()
    await listener.settle()
    assert (listener.lost, shown) == (1, [()])
    await listener.started(2)
    assert await listener.settle() == [
        configured("a"),
        (Topic.HOLD, 7),
        (Topic.COMMIT, {"a": "up"}),
    ]
    assert listener.processes[0].poll() is not None


@pytest.mark.parametrize("line", [b"garbage\n", b'["confused",1]\n', b"[]\n", b"7\n"])
async def test_checker_that_is_not_understood_starts_anew(listener: Listener, line: bytes) -> None:
    listener.client.start()
    listener.client.configure(targets("a"))
    await listener.settle()
    transport = listener.channels[0]._transport
    assert transport is not None
    transport.write(line)
    await listener.started(2)
    assert listener.lost == 1


async def test_checker_that_cannot_be_started_is_tried_again(listener: Listener) -> None:
    listener.refusing = True
    listener.client.start()
    listener.client.configure(targets("a"))
    assert listener.client.restarts == 0
    listener.refusing = False
    await listener.started(1)
    assert await listener.settle() == [configured("a"), (Topic.HOLD, None)]
    assert (listener.lost, listener.client.restarts) == (0, 1)


async def test_targets_that_go_while_a_checker_is_awaited_end_that(listener: Listener) -> None:
    listener.refusing = True
    listener.client.start()
    listener.client.configure(targets("a"))
    listener.refusing = False
    listener.client.configure({})
    assert listener.client._restart is None
    listener.client.configure(targets("b"))
    assert await listener.settle() == [configured("b"), (Topic.HOLD, None)]


async def test_checker_that_is_not_wanted_any_more_is_not_connected_to(listener: Listener) -> None:
    listener.client.start()
    listener.client.configure(targets("a"))
    listener.client.configure({})  # before the loop could connect
    await listener.settle()
    assert (listener.ended, listener.lost) == (1, 0)


async def test_sightings_are_passed_on_and_shown(listener: Listener) -> None:
    listener.client.start()
    listener.client.configure(targets("a"))
    shown: list[tuple[Sighting, ...]] = []
    listener.client.show(shown.append)
    (*_, (topic, number)) = await listener.settle()
    assert topic is Topic.SHOW
    told = sighting_to_document(SEEN)
    listener.channels[0].send(Topic.SIGHTING, told)
    listener.channels[0].send(Topic.SHOWN, [number, False, [told]])
    await listener.settle()
    assert (listener.seen, shown) == ([SEEN], [])
    listener.channels[0].send(Topic.SHOWN, [number, True, [told]])
    await listener.settle()
    assert shown == [(SEEN, SEEN)]


async def test_checker_is_given_up_when_it_is_silent_for_long(listener: Listener) -> None:
    client = listener.client
    client.start()
    client.configure(targets("a"))
    client.look()
    client._looked_at -= HUNG_S
    client.look()
    assert Topic.LOOK in {topic for topic, _ in await listener.settle()}
    client._looked_at -= HUNG_S
    client._called_at -= HUNG_S  # nobody looked: the daemon stood still
    client.look()
    assert listener.lost == 0
    client._looked_at -= HUNG_S
    client.look()
    assert listener.lost == 1


async def test_many_sightings_leave_the_daemon_time_for_other_things(listener: Listener) -> None:
    listener.client.start()
    listener.client.configure(targets("a"))
    await listener.settle()
    for _ in range(5_000):
        listener.channels[0].send(Topic.SIGHTING, sighting_to_document(SEEN))
    most = 0
    async with asyncio.timeout(LONG_S):
        while len(listener.seen) < 5_000:
            before = len(listener.seen)
            await asyncio.sleep(0)
            most = max(most, len(listener.seen) - before)
    assert most <= 300


async def test_closed_client_starts_nothing(listener: Listener) -> None:
    listener.client.start()
    listener.client.configure(targets("a"))
    await listener.settle()
    listener.client.close()
    assert [process.poll() for process in listener.processes] == [-9]
    listener.client.configure(targets("a", "b"))
    await listener.settle()
    assert (len(listener.channels), listener.lost) == (1, 0)
