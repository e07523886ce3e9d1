"""A node's API in a thread that says what it is told, and commands against it."""

from __future__ import annotations

import json
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from hanat.cli import main
from hanat.core.status import (
    FlowStatus,
    LogStatus,
    NodeStatus,
    PathStatus,
    PeerStatus,
    Role,
    ServerStatus,
    ServiceStatus,
    VipStatus,
)

REPOSITORY = Path(__file__).parents[2]

PATHS = (PathStatus("10.11.12.12", 0.005), PathStatus("203.0.113.12", None))

HOLDER = NodeStatus(
    node="r1",
    node_id=1,
    cluster="edge1",
    version="0.1.0",
    profile="default",
    lease_s=0.1,
    role=Role.ACTIVE,
    role_s=12.5,
    reason="elected",
    term=7,
    leader="r1",
    holder="r1",
    quorum=True,
    lease_left_s=0.075,
    unsafe=(),
    hindrances=(),
    revision=3,
    uptime_s=7260.0,
    vips=(VipStatus("public", "203.0.113.10/24", "eth0", held=True),),
    peers=(
        PeerStatus(
            "r2",
            2,
            connected=True,
            heard_s=0.012,
            address="10.11.12.12",
            paths=PATHS,
            fit=True,
            hindrances=("1 path broken",),
            complete=True,
        ),
        PeerStatus("r3", 3, connected=False, heard_s=None, address=None),
    ),
    services=(
        ServiceStatus(
            "web",
            ("203.0.113.10 tcp/80",),
            "wrr",
            5,
            (ServerStatus("web1", "10.11.12.101:8080", 2, 3),),
            checks=('http GET "/health", every 2 s', "ping every 2 s"),
        ),
    ),
    flows=FlowStatus(
        captured=100,
        committed=90,
        pending=10,
        lag_s=0.003,
        kernel_entries=123,
        kernel_limit=1000,
        flows=5,
        complete=True,
        resyncs=1,
        age_s=0.002,
    ),
    log=LogStatus(commit_index=55, applied_index=54, last_index=56),
)


@dataclass
class Node:
    """What the API answers, and what it was asked.

    Attributes:
        puts: Answers to PUT, if those are others.
        first: Answers to the next requests, before `body`.
        if_match: What was sent with each PUT.
    """

    status: int = 200
    body: bytes = b"{}"
    puts: tuple[int, bytes] | None = None
    first: list[bytes] = field(default_factory=list)
    if_match: list[str | None] = field(default_factory=list)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    api: str = ""

    def answers(self, document: object, *, status: int = 200) -> None:
        """Answer this document from now on."""
        self.status, self.body = status, json.dumps(document).encode()

    def answers_first(self, *documents: object) -> None:
        """Answer these documents one after the other, then what is answered always."""
        self.first += [json.dumps(document).encode() for document in documents]

    def answers_put(self, document: object, *, status: int = 200) -> None:
        """Answer this document to what is to be written."""
        self.puts = status, json.dumps(document).encode()


@contextmanager
def node_at(path: Path) -> Iterator[Node]:
    """Serve a node's API on a Unix socket."""
    node = Node(api=f"unix:{path}")

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            content = self.rfile.read(length).decode()
            is_json = self.headers.get("Content-Type") == "application/json"
            asked = json.loads(content) if content and is_json else content or None
            node.asked.append((self.command, self.path, asked))
            status, body = node.status, node.first.pop(0) if node.first else node.body
            if self.command == "PUT":
                node.if_match.append(self.headers.get("If-Match"))
                status, body = node.puts or (status, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815  http.server's names

        def log_message(self, *_args: object) -> None:
            pass

    with socketserver.UnixStreamServer(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield node
        finally:
            server.shutdown()
            thread.join()


def call(*arguments: str, environment: dict[str, str] | None = None) -> Result:
    """Run a command in this process; an exception it does not handle is raised here."""
    result = CliRunner().invoke(main, arguments, env=environment)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def run_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "hanat", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
