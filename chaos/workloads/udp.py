"""One UDP flow of numbered probes at a fixed rate, each to be echoed.

The source port is fixed, so that all probes belong to one flow which is established
before the first fault: a new flow would be balanced afresh and hide a lost translation.
"""

from __future__ import annotations

import socket
import struct

from chaos.lab.clock import CONTROL_BYTES, received_at, want_timestamps
from chaos.lab.stop import Stop
from chaos.observe.run_history import Probes
from chaos.workloads import probing

PAYLOAD = struct.Struct(">8sQ48x")
MAGIC = b"hanatudp"


def run(
    name: str, target: tuple[str, int], *, source_port: int, period_s: float, stop: Stop
) -> Probes:
    """Probe until told to stop."""
    family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        want_timestamps(sock)
        sock.setblocking(False)  # noqa: FBT003
        sock.bind(("", source_port))
        sock.connect(target)
        return probing.run(name, _Echo(sock), period_s=period_s, stop=stop)


class _Echo:
    """Implements `probing.Exchange`."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, number: int) -> None:
        self._sock.send(PAYLOAD.pack(MAGIC, number))

    def receive(self) -> tuple[int | None, int]:
        data, control, _, _ = self._sock.recvmsg(2048, CONTROL_BYTES)
        number: int | None = None
        if len(data) == PAYLOAD.size:
            number = PAYLOAD.unpack(data)[1]
            if data != PAYLOAD.pack(MAGIC, number):
                number = None
        return number, received_at(control)
