"""Messages between the daemon and its checker, over a pair of sockets.

A message is one line of JSON: a topic and a body. Both ends are the same program, so nothing is
negotiated; a line that cannot be read ends the connection, and with it the checker, which the
daemon starts anew.

    to the checker    CONFIGURE  {first, last, targets}    a piece of all targets, by name
                      HOLD       tenure or null            this node holds the addresses, or not
                      COMMIT     {target: state}           verdicts in the log
                      SHOW       number                    answer with SHOWN
                      LOOK       null                      answer with ALIVE
    to the daemon     SIGHTING   sighting                  with news, at once
                      SHOWN      [number, last, sightings] a piece of all sightings
                      ALIVE      null
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from enum import StrEnum
from typing import Any, cast

LINE_BYTES_MAX = 8 << 20
PIECE = 200  # targets or sightings of a message: a millisecond or two of the daemon's time


class Topic(StrEnum):
    """What a message is about; see the module."""

    CONFIGURE = "configure"
    HOLD = "hold"
    COMMIT = "commit"
    SHOW = "show"
    LOOK = "look"
    SIGHTING = "sighting"
    SHOWN = "shown"
    ALIVE = "alive"


class Channel(asyncio.Protocol):
    """One end of the pair.

    Args:
        on_message: Called with topic and body of each message, in order.
        on_lost: Called once, when the other end is gone or was not understood.
    """

    def __init__(
        self, on_message: Callable[[Topic, Any], None], on_lost: Callable[[], None]
    ) -> None:
        self._on_message, self._on_lost = on_message, on_lost
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []  # before there was a transport
        self._received = bytearray()
        self._ends = False

    def send(self, topic: Topic, body: object = None) -> None:
        """Send a message; never blocks, and says nothing if the other end is gone."""
        line = json.dumps([topic, body], separators=(",", ":")).encode() + b"\n"
        assert len(line) <= LINE_BYTES_MAX, f"a message of {len(line)} bytes"
        if self._transport is None:
            self._early.append(line)
        else:
            self._transport.write(line)

    def abort(self) -> None:
        """End the connection now, or as soon as there is one."""
        self._ends = True
        if self._transport is not None:
            self._transport.abort()

    # ------------------------------------------------------------------ for asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send what waited."""
        self._transport = cast("asyncio.Transport", transport)
        for line in self._early:
            self._transport.write(line)
        self._early.clear()
        if self._ends:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take lines apart."""
        self._received += data
        *lines, rest = self._received.split(b"\n")
        self._received = rest
        if len(rest) > LINE_BYTES_MAX:
            self.abort()
            return
        for line in lines:
            try:
                topic, body = json.loads(line)
                topic = Topic(topic)
            except (ValueError, TypeError):
                self.abort()
                return
            self._on_message(topic, body)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - whatever it was
        """Tell the owner."""
        self._on_lost()
