"""HTTP requests at a fixed rate, each over a new connection: are new flows admitted?

Requests do not wait for each other. The timeout is longer than the first retransmission
of a SYN (1 s, RFC 6298), so a request that was begun in a short outage can still succeed.
"""

from __future__ import annotations

import asyncio
import socket
import time

from chaos.lab.stop import Stop
from chaos.observe.frames import endpoint
from chaos.observe.run_history import Outcome, Request

TIMEOUT_S = 2.5
UNDER_WAY_MAX = 600  # 3 s of requests at 200/s: more than can be waiting at once


async def run(name: str, target: tuple[str, int], *, period_s: float, stop: Stop) -> list[Request]:
    """Request until told to stop; return when the last one has ended."""
    done: list[Request] = []
    next_s = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        under_way: set[asyncio.Task[None]] = set()
        while not stop:
            if len(under_way) < UNDER_WAY_MAX:
                task = tasks.create_task(_request(name, target, done))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            next_s = max(next_s + period_s, time.monotonic())
            await asyncio.sleep(next_s - time.monotonic())
    return done


async def _request(name: str, target: tuple[str, int], done: list[Request]) -> None:
    t_ns = time.monotonic_ns()
    outcome: Outcome
    server: str | None = None
    error: str | None = None
    source = ""
    try:
        with _bound(target) as sock:
            source = endpoint(*sock.getsockname()[:2])
            async with asyncio.timeout(TIMEOUT_S):
                server = await _get(sock, target)
        outcome = "ok"
    except TimeoutError:
        outcome, error = "info", f"no answer for {TIMEOUT_S} s"
    except (OSError, ValueError) as problem:
        outcome, error = "fail", repr(problem)
    done.append(Request(name, t_ns, time.monotonic_ns(), outcome, server, error, source))


def _bound(target: tuple[str, int]) -> socket.socket:
    """Return a socket that has its port before it connects: what is refused is known, too."""
    family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.connect(target)  # sends nothing; tells the own address
        own = asking.getsockname()[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)  # noqa: FBT003
    try:
        sock.bind((own, 0))
    except OSError:
        sock.close()
        raise
    return sock


async def _get(sock: socket.socket, target: tuple[str, int]) -> str:
    """Return which server answered."""
    await asyncio.get_running_loop().sock_connect(sock, target)
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        host = f"[{target[0]}]" if ":" in target[0] else target[0]
        writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = (await reader.read()).decode()
    finally:
        writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    if not head.startswith("HTTP/1.1 200 ") or not body:
        raise ValueError(f"unexpected answer {answer[:60]!r}")
    return body.strip()
