"""The real servers: HTTP, UDP echo and TCP echo, run inside a namespace.

``python -m chaos.lab.servers s1 --ready FILE`` serves until SIGTERM and creates FILE
when all ports are open. The HTTP answer is the server's name, one connection each. An agent
beside it says what the file of ``--agent`` has, read anew each time, else that all is well.
SIGUSR1 makes it slow: every answer waits for ``--slow-s``. SIGHUP makes it fail: HTTP answers 500.
SIGUSR2 makes it as it was.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import cast

from chaos.lab.priority import prefer

# A namespace of its own: "every address" is this one host.
EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104
HTTP_PORT = 8080
UDP_PORT = 5353
TCP_PORT = 9000
AGENT_PORT = 7077
WELL = "ready up 100%"  # words of HAProxy's agent-check
BACKLOG = 512  # a burst of SYN retransmissions after an outage must not overflow it
IDLE_S = 120.0  # a client that vanished without a word is forgotten after this
SLOW_S = 0.8  # longer than the lab's checks wait


class Pace:
    """How long answers wait at present, seconds, and whether HTTP fails; one for the program."""

    def __init__(self) -> None:
        self.slow_s = SLOW_S
        self.wait_s = 0.0
        self.fails = False

    def slow_down(self) -> None:
        """Let every answer wait."""
        self.wait_s = self.slow_s

    def fail(self) -> None:
        """Let every answer of HTTP be an error."""
        self.fails = True

    def be_well(self) -> None:
        """Let no answer wait or be an error any more."""
        self.wait_s, self.fails = 0.0, False


PACE = Pace()


class UdpEcho(asyncio.DatagramProtocol):
    """Send every datagram back to where it came from."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the socket to answer on."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | int, int]) -> None:
        """Answer."""
        if PACE.wait_s:
            loop = asyncio.get_running_loop()
            loop.call_later(PACE.wait_s, self._transport.sendto, data, addr)
        else:
            self._transport.sendto(data, addr)

    def error_received(self, exc: Exception) -> None:
        """Ignore ICMP errors: clients stop while answers are under way."""


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send every byte of a connection back until its end."""
    try:
        while data := await asyncio.wait_for(reader.read(65536), IDLE_S):
            await asyncio.sleep(PACE.wait_s)
            writer.write(data)
            await writer.drain()
    except (OSError, TimeoutError):
        pass
    finally:
        writer.close()


def http_answer(name: str, status: str = "200 OK") -> bytes:
    """Return a whole HTTP response whose body is the server's name."""
    body = f"{name}\n".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


async def serve(name: str, on_ready: Callable[[], None] | None, words: Path | None = None) -> None:
    """Serve all three protocols, and the agent's, until SIGTERM."""
    answer, error = http_answer(name), http_answer(name, "500 Internal Server Error")

    async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            await asyncio.sleep(PACE.wait_s)
            writer.write(error if PACE.fails else answer)
            await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def agent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            said = words.read_text() if words is not None and words.exists() else WELL  # noqa: ASYNC240
            writer.write(f"{said}\n".encode())
            await writer.drain()
        writer.close()

    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_signal_handler(signal.SIGUSR1, PACE.slow_down)
    loop.add_signal_handler(signal.SIGHUP, PACE.fail)
    loop.add_signal_handler(signal.SIGUSR2, PACE.be_well)
    for every in EVERY_ADDRESS:
        await loop.create_datagram_endpoint(UdpEcho, sock=_datagrams(every))
        await asyncio.start_server(echo, every, TCP_PORT, backlog=BACKLOG)
        await asyncio.start_server(http, every, HTTP_PORT, backlog=BACKLOG)
        await asyncio.start_server(agent, every, AGENT_PORT, backlog=BACKLOG)
    if on_ready is not None:
        on_ready()
    await ended.wait()


def _datagrams(address: str) -> socket.socket:
    """Return a UDP socket of one family: asyncio would open one for both."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_DGRAM)
    if family is socket.AF_INET6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    opened.bind((address, UDP_PORT))
    return opened


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m chaos.lab.servers", description=__doc__)
    parser.add_argument("name", help="what to answer over HTTP")
    parser.add_argument("--ready", type=Path, help="file to create when all ports are open")
    parser.add_argument("--agent", type=Path, help="file that has what the agent says")
    parser.add_argument("--slow-s", type=float, default=SLOW_S, help="how slow it is when it is")
    options = parser.parse_args()
    PACE.slow_s = options.slow_s
    prefer(collect=True)
    on_ready = options.ready.touch if options.ready else None
    asyncio.run(serve(options.name, on_ready, options.agent))


if __name__ == "__main__":
    main()
