"""Many new UDP flows in a short time, each of which goes on sending until all is over.

``python -m chaos.workloads.flows NAME 203.0.113.10:53 --out FILE``: a thousand new flows a second
for `OPEN_S`, from ports of their own; then every flow sends twice a second, and what is never
answered any more is told. A flow that a router let through while it had no translation stays
without one as long as it sends.
"""

from __future__ import annotations

import argparse
import select
import socket
import time
from contextlib import suppress
from pathlib import Path

from chaos.lab.stop import Stop
from chaos.observe import run_history
from chaos.observe.observed import Flows

OPEN_S = 0.9
FLOWS = 900
PERIOD_S = 0.5
LAST_ANSWERS_S = 0.3
PAYLOAD = b"hanatflw"


class Opened:
    """The flows and when each was answered last."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._poll = select.epoll()
        self._socks: dict[int, socket.socket] = {}
        self._number: dict[int, int] = {}
        self._due: list[tuple[float, socket.socket]] = []
        self.opened: list[int] = []
        self.sent: list[int] = []
        self.answered: list[int | None] = []

    def open(self, now: float) -> None:
        """Begin another flow."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)  # noqa: FBT003
        sock.connect(self._target)
        self._socks[sock.fileno()] = sock
        self._number[sock.fileno()] = len(self.opened)
        self._poll.register(sock.fileno(), select.EPOLLIN)
        self.opened.append(round(now * 1e9))
        self.sent.append(0)
        self.answered.append(None)
        self._due.append((now, sock))

    def send(self, now: float) -> None:
        """Send what is due."""
        while self._due and self._due[0][0] <= now:
            _, sock = self._due.pop(0)
            with suppress(OSError):  # refused by an ICMP message: lost
                sock.send(PAYLOAD)
            self.sent[self._number[sock.fileno()]] = round(now * 1e9)
            self._due.append((now + PERIOD_S, sock))

    def receive(self, timeout_s: float) -> None:
        """Take answers."""
        for descriptor, _ in self._poll.poll(max(0.0, timeout_s)):
            with suppress(OSError):
                if self._socks[descriptor].recv(64) == PAYLOAD:
                    self.answered[self._number[descriptor]] = time.monotonic_ns()

    def close(self) -> None:
        """End them."""
        for sock in self._socks.values():
            sock.close()
        self._poll.close()


def main() -> None:
    """Open, send until told to stop, write the history."""
    parser = argparse.ArgumentParser(prog="python -m chaos.workloads.flows", description=__doc__)
    parser.add_argument("name")
    parser.add_argument("target")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    address, _, port = options.target.rpartition(":")
    stop = Stop(options.seconds)
    flows = Opened((address, int(port)))
    began = time.monotonic()
    while not stop:
        now = time.monotonic()
        due = min(FLOWS, round((now - began) / OPEN_S * FLOWS))
        while len(flows.opened) < due:
            flows.open(now)
        flows.send(now)
        flows.receive(0.002)
    end_ns = time.monotonic_ns()
    deadline = time.monotonic() + LAST_ANSWERS_S
    while (left_s := deadline - time.monotonic()) > 0:
        flows.receive(left_s)
    flows.close()
    fact = Flows(end_ns, options.name, flows.opened, flows.sent, flows.answered)
    draft = options.out.with_suffix(".part")
    with draft.open("w") as file:
        run_history.write(file, fact)
    draft.rename(options.out)


if __name__ == "__main__":
    main()
