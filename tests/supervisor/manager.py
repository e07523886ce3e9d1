"""A service manager that only listens."""

from __future__ import annotations

import socket
from pathlib import Path


class Manager:
    """Listens where systemd would: on a socket of this name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(30)

    def hear(self) -> set[str]:
        """Return the lines of the next message; wait for it."""
        return set(self._socket.recv(4096).decode().splitlines())

    def waiting(self) -> list[set[str]]:
        """Return what was said and not heard yet."""
        self._socket.setblocking(False)  # noqa: FBT003
        found = []
        try:
            while True:
                found.append(self.hear())
        except BlockingIOError:
            self._socket.settimeout(30)
            return found

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()
