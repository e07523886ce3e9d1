"""Tell a service manager how the node does: systemd's sd_notify, which is one datagram.

The supervisor tells, being the service's main process: a unit needs no more than
``NotifyAccess=main``, and the daemon may die without systemd seeing the service end.
What it tells of is the daemon: READY with its first beat, the watchdog with each.
So a daemon that hangs, or is stopped, is the service that does not answer.

Without ``NOTIFY_SOCKET`` nothing is told to anybody.

Source: sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress


class Notifier:
    """Tells a service manager, if there is one.

    Args:
        environment: Where it is named; the names are taken out, so that no child
            tells in its place.
    """

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        address = environment.pop("NOTIFY_SOCKET", "")
        watched = environment.pop("WATCHDOG_USEC", "0") not in {"", "0"}
        self._watched = watched and environment.pop("WATCHDOG_PID", "") in {"", str(os.getpid())}
        self._ready = False
        self._status = ""
        self._address = f"\0{address[1:]}" if address.startswith("@") else address

    def alive(self, status: str) -> None:
        """Tell that the daemon's loop turns, and what it says of itself."""
        lines = ["WATCHDOG=1"] if self._watched else []
        if not self._ready:
            lines.append("READY=1")
        if status != self._status:
            lines.append(f"STATUS={status}")
        self._ready, self._status = True, status
        self._tell(*lines)

    def awaiting(self, status: str) -> None:
        """Tell that no daemon runs and one is going to: that is no hang."""
        self._status = status
        self._tell(f"STATUS={status}", *(["WATCHDOG=1"] if self._watched else []))

    def stopping(self) -> None:
        """Tell that the node ends because it was told to."""
        self._tell("STOPPING=1")

    def _tell(self, *lines: str) -> None:
        if not self._address or not lines:
            return
        message = "\n".join(lines).encode()
        # A service manager that does not listen must not keep a node from its work.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.sendto(message, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, self._address)
