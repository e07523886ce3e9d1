"""Ask a node's API over its Unix socket, with the standard library."""

from __future__ import annotations

import http.client
import json
import socket
import struct
from pathlib import Path
from typing import Any

Status = dict[str, Any]


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def request(
    path: Path, method: str, url: str, *, body: object = None, timeout_s: float = 1.0
) -> tuple[int, Any]:
    """Send one request; return the HTTP status and the body, decoded if it is JSON.

    Raises:
        OSError: Nobody listens on the socket, or no answer within `timeout_s`.
    """
    connection = UnixConnection(path, timeout_s)
    try:
        text = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"} if text else {}
        connection.request(method, url, body=text, headers=headers)
        response = connection.getresponse()
        answer = response.read().decode()
    except http.client.HTTPException as error:
        raise OSError(f"broken answer from {path}: {error!r}") from error
    finally:
        connection.close()
    try:
        return response.status, json.loads(answer)
    except ValueError:
        return response.status, answer


def read_status(path: Path) -> Status | None:
    """Return what ``/v1/status`` shows, None while nobody answers sensibly."""
    try:
        code, document = request(path, "GET", "/v1/status")
    except OSError:
        return None
    return document if code == 200 and isinstance(document, dict) else None


def read_services(path: Path) -> list[Status]:
    """Return what ``/v1/services`` shows, nothing while nobody answers sensibly."""
    try:
        code, document = request(path, "GET", "/v1/services")
    except OSError:
        return []
    found = document.get("services") if code == 200 and isinstance(document, dict) else None
    return found if isinstance(found, list) else []


def serving_pid(path: Path, timeout_s: float = 1.0) -> int:
    """Return the process that listens on the socket.

    Raises:
        OSError: Nobody does.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout_s)
        sock.connect(str(path))
        # unix(7): on the connecting side, the credentials of whoever called listen(2).
        ucred = struct.Struct("3i")
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, ucred.size)
    pid: int = ucred.unpack(credentials)[0]
    return pid
