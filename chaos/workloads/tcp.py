"""One TCP connection for the whole run, in lock step with an echo server.

Each payload carries its number and a filler derived from it; the next is sent only
when exactly these bytes have come back. Loss, duplication, reordering or a foreign
byte therefore show at once, as does a connection that was reset or hangs.
"""

from __future__ import annotations

import hashlib
import socket
import struct
import time

from chaos.lab.stop import Stop
from chaos.observe.frames import endpoint
from chaos.observe.run_history import Connection, Fact, Probes

CONNECT_S = 5.0
ANSWER_S = 20.0  # an established connection that is silent for so long is dead
SILENT = "no answer"  # how the error begins then
CLOSED = "closed by the other end"
AGAIN_S = 0.5  # until one that was ended is opened anew
SLICE_S = 0.2  # how often a waiting client looks whether it is to stop
PAYLOAD_BYTES = 256
CONNECTIONS_MAX = 50


def payload(name: str, number: int) -> bytes:
    """Return the bytes of one exchange, different for every connection and number."""
    head = struct.pack(">Q", number)
    filler = hashlib.shake_128(name.encode() + head).digest(PAYLOAD_BYTES - len(head))
    return head + filler


def run(
    name: str, target: tuple[str, int], *, period_s: float, stop: Stop, again: bool = False
) -> list[Fact]:
    """Exchange until told to stop; return the exchanges and how each connection ended.

    Args:
        name: Of the client.
        target: Where to connect.
        period_s: From one payload to the next.
        stop: When to stop.
        again: Whether a connection that was reset is followed by another.
    """
    probes = Probes(name, round(period_s * 1e9), [], [])
    found = [_connection(name, target, probes, period_s, stop)]
    while again and not stop and found[-1].error is not None and len(found) < CONNECTIONS_MAX:
        time.sleep(AGAIN_S)
        if found[-1].opened_ns is None:
            found.pop()
        found.append(_connection(name, target, probes, period_s, stop))
    return [probes, *found]


def _connection(
    name: str, target: tuple[str, int], probes: Probes, period_s: float, stop: Stop
) -> Connection:
    """Exchange over one connection until told to stop, or until it ends."""
    opened_ns: int | None = None
    error: str | None = None
    source = ""
    payload_errors = 0
    before = len(probes.sent)
    try:
        with socket.create_connection(target, CONNECT_S) as sock:
            opened_ns = time.monotonic_ns()
            source = endpoint(*sock.getsockname()[:2])
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(SLICE_S)
            while not stop:
                started = time.monotonic()
                if not _exchange(sock, name, probes, stop):
                    payload_errors += 1
                    break
                time.sleep(max(0.0, started + period_s - time.monotonic()))
    except OSError as problem:
        error = repr(problem)
    answered = sum(1 for t in probes.answered[before:] if t is not None)
    return Connection(name, opened_ns, time.monotonic_ns(), answered, payload_errors, error, source)


def _exchange(sock: socket.socket, name: str, probes: Probes, stop: Stop) -> bool:
    """Send one payload and await it; return False if something else came back."""
    data = payload(name, len(probes.sent))
    probes.sent.append(time.monotonic_ns())
    probes.answered.append(None)
    sock.sendall(data)
    got = b""
    deadline = time.monotonic() + ANSWER_S
    while len(got) < len(data):
        try:
            more = sock.recv(len(data) - len(got))
        except TimeoutError:
            if stop:
                return data.startswith(got)  # nobody will ever know about this one
            if time.monotonic() > deadline:
                raise TimeoutError(f"{SILENT} for {ANSWER_S:.0f} s") from None
            continue
        if not more:
            raise ConnectionError(CLOSED)
        got += more
    if got != data:
        return False
    probes.answered[-1] = time.monotonic_ns()
    return True
