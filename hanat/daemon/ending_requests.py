"""The daemon's side of endings: asked in frames of a bounded size, and again of a new worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hanat.core.endings import Ended, Ending, to_document
from hanat.worker.worker_channel import NUMBER, Kind

Done = Callable[[Sequence[Ended]], None]

ENDINGS_MAX = 250  # of one frame, put into words within about a millisecond
UNANSWERED_MAX = 1000  # frames


@dataclass(slots=True)
class _Request:
    """What was asked for in one call.

    Attributes:
        ended: What is known of each ending.
        left: How many endings have no answer.
    """

    endings: Sequence[Ending]
    done: Done
    ended: list[Ended] = field(init=False)
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.ended = [Ended()] * len(self.endings)
        self.left = len(self.endings)

    def note(self, first: int, ended: Sequence[Ended]) -> None:
        self.ended[first : first + len(ended)] = ended
        self.left -= len(ended)
        if not self.left:
            self.done(self.ended)


class EndingRequests:
    """Those that have no answer yet.

    Args:
        send: Sends a frame to the worker; nothing happens if there is none.
    """

    def __init__(self, send: Callable[[Kind, bytes], None]) -> None:
        self._send = send
        self._unanswered: dict[int, tuple[_Request, int, int]] = {}  # first and last ending
        self._number = 0

    def ask(self, endings: Sequence[Ending], done: Done) -> None:
        """Send the first frame at once, others as the loop has its turns."""
        if endings:
            self._ask(_Request(endings, done), 0)
        else:
            asyncio.get_running_loop().call_soon(done, ())

    def _ask(self, request: _Request, first: int) -> None:
        last = min(first + ENDINGS_MAX, len(request.endings))
        self._number += 1
        self._unanswered[self._number] = request, first, last
        self._tell(self._number)
        if last < len(request.endings):
            asyncio.get_running_loop().call_soon(self._ask, request, last)
        if len(self._unanswered) > UNANSWERED_MAX:
            self._note(next(iter(self._unanswered)), None)

    def _tell(self, number: int) -> None:
        if number in self._unanswered:
            request, first, last = self._unanswered[number]
            document = to_document(request.endings[first:last])
            self._send(Kind.END, NUMBER.pack(number) + json.dumps(document).encode())

    def again(self) -> None:
        """Ask a new worker; what the former one did is not counted."""
        loop = asyncio.get_running_loop()
        for number in self._unanswered:
            loop.call_soon(self._tell, number)

    def answered(self, body: bytes) -> None:
        """Take an answer."""
        (number,) = NUMBER.unpack_from(body)
        self._note(number, [Ended(*one) for one in json.loads(body[NUMBER.size :])])

    def _note(self, number: int, ended: Sequence[Ended] | None) -> None:
        request, first, last = self._unanswered.pop(number, (None, 0, 0))
        if request is not None:
            request.note(first, [Ended()] * (last - first) if ended is None else ended)
