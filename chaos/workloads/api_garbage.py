"""Send requests to a node's API that no client of its makes.

``python -m chaos.workloads.api_garbage /.../api.sock --seconds 5``, in a router's namespace: over
the socket and over TCP, targets that no parser likes, broken lines, endless headers, wrong
lengths, random bytes, connections that say nothing.
"""

from __future__ import annotations

import argparse
import random
import socket
import time
from contextlib import suppress
from pathlib import Path

from chaos.lab.stop import Stop

TCP = ("127.0.0.1", 7480)
TIMEOUT_S = 0.05
PERIOD_S = 0.02
SILENT_MAX = 20

HOST = b"Host: localhost\r\n"
# Names that the IDNA codec refuses, ports that are none, schemes, brackets.
TARGETS = (
    b"http://xn--/", b"xn--:1", b"//xn--/", b"http://[::1", b"http://[/", b"http://a:b/",
    b"http://:99999/", b"*", b"http://\xff\xfe/", b"/v1/status?%", b"/%zz", b"?", b"#",
    b"/v1/../../etc/passwd", b"/" + b"a" * 70_000, b"/v1/history?since=" + b"9" * 5000,
    b"/v1/config", b"/v1/\x00status", b"http://a@b@c/", b"http://xn--" + b"z" * 60 + b".de/",
)  # fmt: skip
METHODS = (
    b"GET", b"CONNECT", b"PUT", b"POST", b"DELETE", b"OPTIONS", b"PRI", b"X" * 3000, b"G\x00T",
)  # fmt: skip
VERSIONS = (b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9.9", b"", b"HTTP/1.1 x")
HEADERS = (
    HOST,
    b"",
    b": \r\n",
    b" x\r\n",
    b"Host: xn--\r\n",
    HOST + b"Content-Length: -1\r\n",
    HOST + b"Content-Length: 99\r\n",
    HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    HOST + b"Transfer-Encoding: x\r\n",
    HOST + b"Expect: 100-continue\r\nContent-Length: 10\r\n",
    HOST + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n",
    HOST + b"X: " + b"y" * 70_000 + b"\r\n",
    HOST + b"a: b\r\n" * 2000,
    HOST + b"Content-Encoding: deflate\r\nContent-Length: 3\r\n",
    HOST + b'If-Match: "x"\r\nContent-Length: 2\r\n',
    HOST + b"Range: bytes=9-1\r\n",
)
BODIES = (
    b"",
    b"{}",
    b"{" * 10_000,
    b"5\r\nabc",
    b"ffffffffffffffffff\r\n",
    b"\xff\xfe\x00",
    b"null",
)
# What is known to have ended a node.
KNOWN = (
    b"GET http://xn--/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"CONNECT xn--:1 HTTP/1.1\r\n\r\n",
)


def request(draw: random.Random) -> bytes:
    """Return a request that is wrong somewhere, most likely."""
    if draw.randrange(10) == 0:
        return draw.randbytes(draw.randint(1, 3000))
    line = b" ".join((draw.choice(METHODS), draw.choice(TARGETS), draw.choice(VERSIONS)))
    text = line + b"\r\n" + draw.choice(HEADERS) + b"\r\n" + draw.choice(BODIES)
    return text[: draw.randint(1, len(text))] if draw.randrange(5) == 0 else text


def connect(path: Path, draw: random.Random) -> socket.socket:
    """Return a connection by one of the two ways."""
    if draw.randrange(2):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(TIMEOUT_S)
        sock.connect(str(path))
    else:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.settimeout(TIMEOUT_S)
        sock.connect(TCP)
    return sock


def main() -> None:
    """Ask until told to stop."""
    parser = argparse.ArgumentParser(
        prog="python -m chaos.workloads.api_garbage", description=__doc__
    )
    parser.add_argument("socket", type=Path)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    stop = Stop(options.seconds)
    silent: list[socket.socket] = []
    first = list(KNOWN)
    while not stop:
        with suppress(OSError):
            sock = connect(options.socket, draw)
            if draw.randrange(8) == 0 and not first:
                silent.append(sock)
            else:
                with sock:
                    sock.sendall(first.pop() if first else request(draw))
                    sock.recv(4096)
        while len(silent) > SILENT_MAX:
            silent.pop(0).close()
        time.sleep(PERIOD_S)


if __name__ == "__main__":
    main()
