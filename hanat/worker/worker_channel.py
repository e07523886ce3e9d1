"""Frames between the daemon and its flow worker, over a pair of sockets.

A frame is a length, a kind and a body. Both ends are the same program, so nothing is
negotiated; a frame that cannot be read ends the connection, and with it the worker, which
the daemon starts anew.

    to the worker     START   term             read changes, propose them in this term
                      STOP                     read no more
                      FLUSH   number           say FLUSHED when all that was captured is committed
                      DONE    sequence, flag   a proposed batch was committed, or was not
                      INSTALL batch            committed, of another node
                      RESYNC  flag             tell everything; if that is being done: once more
                      FORGET                   what was committed may have been missed
                      REPORT                   answer with COUNTS, and STATUS at the end
                      SCOPE   JSON             what is captured, and is ours to delete
                      LEVEL   one byte         the feature level in which to write batches
                      QUERY   number, JSON     look flows up, perhaps delete them
                      RECONCILE number, JSON   end what does not fit these rules, as holder
                      END     number, JSON     end connections of servers that went, as holder
    to the daemon     PROPOSE sequence, term, batch
                      FLUSHED number
                      COUNTS  JSON             of a report, some servers' connections
                      STATUS  JSON             and that is all of it
                      ANSWER  number, JSON
                      RECONCILED number, JSON  how many flows ended, by reason
                      ENDED   number, JSON     how many connections ended, of each server
                      ADDED   JSON             what services carried since the last time
                      COMPLETE flag            whether the kernel has all committed flows
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import IntEnum
from struct import Struct
from typing import NamedTuple, cast

FRAME_BYTES_MAX = 8 << 20  # twice the largest entry of the log

_HEAD = Struct("!IB")


class Kind(IntEnum):
    """What a frame is about; see the module."""

    START = 1
    STOP = 2
    FLUSH = 3
    DONE = 4
    INSTALL = 5
    PROPOSE = 6
    FLUSHED = 7
    STATUS = 8
    RESYNC = 9
    FORGET = 10
    COMPLETE = 11
    REPORT = 12
    SCOPE = 13
    QUERY = 14
    ANSWER = 15
    RECONCILE = 16
    RECONCILED = 17
    END = 18
    ENDED = 19
    ADDED = 20
    COUNTS = 21
    LEVEL = 22


TERM = NUMBER = Struct("!Q")
DONE = Struct("!Q?")
FLAG = Struct("!?")
PROPOSAL = Struct("!QQ")


class Answer(NamedTuple):
    """What a query found.

    Attributes:
        total: How many flows fit.
        records: Some of them.
        error: Why it came to an end too early; empty if it did not.
    """

    total: int
    records: list[bytes]
    error: str = ""


class Channel(asyncio.Protocol):
    """One end of the pair.

    Args:
        on_frame: Called with kind and body of each frame, in order.
        on_lost: Called once, when the other end is gone or was not understood.
    """

    def __init__(
        self, on_frame: Callable[[Kind, bytes], None], on_lost: Callable[[], None]
    ) -> None:
        self._on_frame, self._on_lost = on_frame, on_lost
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []  # before there was a transport
        self._received = bytearray()

    @property
    def backlog(self) -> int:
        """How many bytes wait to be sent."""
        if self._transport is None:
            return sum(map(len, self._early))
        return self._transport.get_write_buffer_size()

    def send(self, kind: Kind, body: bytes = b"") -> None:
        """Send a frame; never blocks, and says nothing if the other end is gone."""
        assert len(body) <= FRAME_BYTES_MAX, f"a frame of {len(body)} bytes"
        frame = _HEAD.pack(len(body), kind) + body
        if self._transport is None:
            self._early.append(frame)
        else:
            self._transport.write(frame)

    def abort(self) -> None:
        """End the connection now."""
        if self._transport is not None:
            self._transport.abort()

    # ------------------------------------------------------------------ for asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send what waited."""
        self._transport = cast("asyncio.Transport", transport)
        for frame in self._early:
            self._transport.write(frame)
        self._early.clear()

    def data_received(self, data: bytes) -> None:
        """Take frames apart."""
        self._received += data
        place = 0
        while len(self._received) - place >= _HEAD.size:
            length, kind = _HEAD.unpack_from(self._received, place)
            end = place + _HEAD.size + length
            if length > FRAME_BYTES_MAX or kind not in Kind.__members__.values():
                self.abort()
                return
            if end > len(self._received):
                break
            self._on_frame(Kind(kind), bytes(self._received[place + _HEAD.size : end]))
            place = end
        del self._received[:place]

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - whatever it was
        """Tell the owner."""
        self._on_lost()
