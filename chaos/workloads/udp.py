"""One UDP flow of numbered probes at a fixed rate, each to be echoed.

The source port is fixed, so that all probes belong to one flow which is established
before the first fault: a new flow would be balanced afresh and hide a lost translation.
Errors (no route, refused by an ICMP message) count as lost; the next probe is sent anyway.
"""

from __future__ import annotations

import select
import socket
import struct
import time

from chaos.history import Probes
from chaos.workloads.clock import CONTROL_BYTES, received_at, want_timestamps
from chaos.workloads.stop import Stop

PAYLOAD = struct.Struct(">8sQ48x")
MAGIC = b"hanatudp"
LAST_ANSWERS_S = 0.5  # how long answers are awaited after the last probe


def run(
    name: str, target: tuple[str, int], *, source_port: int, period_s: float, stop: Stop
) -> Probes:
    """Probe until told to stop."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    want_timestamps(sock)
    sock.setblocking(False)  # noqa: FBT003
    sock.bind(("", source_port))
    sock.connect(target)
    flow = _Flow(Probes(name, round(period_s * 1e9), [], []), sock)
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
    def __init__(self, probes: Probes, sock: socket.socket) -> None:
        self.probes = probes
        self.corrupt = 0
        self._sock = sock

    def send(self, now_ns: int) -> None:
        number = len(self.probes.sent)
        self.probes.sent.append(now_ns)
        self.probes.answered.append(None)
        try:
            self._sock.send(PAYLOAD.pack(MAGIC, number))
        except OSError:
            return  # lost, and recorded as such

    def receive(self, timeout_s: float) -> None:
        if not select.select([self._sock], [], [], max(0.0, timeout_s))[0]:
            return
        while True:
            try:
                data, control, _, _ = self._sock.recvmsg(2048, CONTROL_BYTES)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error of an earlier probe
            self._answered(data, received_at(control))

    def _answered(self, data: bytes, at_ns: int) -> None:
        number = -1
        if len(data) == PAYLOAD.size:
            magic, number = PAYLOAD.unpack(data)
            number = number if data == PAYLOAD.pack(MAGIC, number) and magic == MAGIC else -1
        if 0 <= number < len(self.probes.sent):
            if self.probes.answered[number] is None:
                self.probes.answered[number] = at_ns
        else:
            self.corrupt += 1
