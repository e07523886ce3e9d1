"""Numbered probes at a fixed rate; which was answered, and when the answer arrived.

What is sent, and how an answer is known, is the workload's: it hands in something
that sends number n and reads answers. Errors (no route, refused by an ICMP message) count as
lost; the next probe is sent anyway.
"""

from __future__ import annotations

import select
import time
from typing import Protocol

from chaos.lab.stop import Stop
from chaos.observe.run_history import Probes

LAST_ANSWERS_S = 0.5  # how long answers are awaited after the last probe


class Exchange(Protocol):
    """Sends probes and reads answers over a socket that does not block."""

    def fileno(self) -> int:
        """Descriptor to wait on."""
        ...

    def send(self, number: int) -> None:
        """Send a probe; raises OSError if the kernel refuses."""
        ...

    def receive(self) -> tuple[int | None, int] | None:
        """Return the number that was answered and when (monotonic ns); None if it was no answer.

        The number is None for an answer that is wrong.

        Raises:
            BlockingIOError: There is nothing to read.
            OSError: An error of an earlier probe; there may be more to read.
        """
        ...


def run(name: str, exchange: Exchange, *, period_s: float, stop: Stop) -> Probes:
    """Probe until told to stop."""
    flow = _Flow(Probes(name, round(period_s * 1e9), [], []), exchange)
    next_ns = time.monotonic_ns()
    while not stop:
        now_ns = time.monotonic_ns()
        if now_ns >= next_ns:
            flow.send(now_ns)
            # After a stall of this process: go on from here, no burst to catch up.
            next_ns = max(next_ns + flow.probes.period_ns, now_ns)
        flow.receive((next_ns - now_ns) / 1e9)
    deadline = time.monotonic() + LAST_ANSWERS_S
    while (left_s := deadline - time.monotonic()) > 0:
        flow.receive(left_s)
    return Probes(name, flow.probes.period_ns, flow.probes.sent, flow.probes.answered, flow.corrupt)


class _Flow:
    def __init__(self, probes: Probes, exchange: Exchange) -> None:
        self.probes = probes
        self.corrupt = 0
        self._exchange = exchange

    def send(self, now_ns: int) -> None:
        number = len(self.probes.sent)
        self.probes.sent.append(now_ns)
        self.probes.answered.append(None)
        try:
            self._exchange.send(number)
        except OSError:
            return  # lost, and recorded as such

    def receive(self, timeout_s: float) -> None:
        if not select.select([self._exchange], [], [], max(0.0, timeout_s))[0]:
            return
        while True:
            try:
                found = self._exchange.receive()
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error of an earlier probe
            if found is not None:
                self._answered(*found)

    def _answered(self, number: int | None, at_ns: int) -> None:
        if number is None or not 0 <= number < len(self.probes.sent):
            self.corrupt += 1
        elif self.probes.answered[number] is None:
            self.probes.answered[number] = at_ns
