"""A supervisor with a fence that only writes down what it is told, and a daemon that plays.

``python -m tests.supervisor.supervised supervisor FOLDER [refuse]`` supervises one;
FOLDER/plan has one line for each start of the daemon, words it obeys in turn. A line
on standard output for each thing that happens, with the releases received until then.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

from hanat.core.configuration import Interface
from hanat.errors import KernelError
from hanat.supervisor import supervisor
from hanat.supervisor.death_watch import hold
from hanat.supervisor.last_will import BEAT, LastWill, Route
from hanat.supervisor.sd_notify import Notifier

RELEASE = b"sealed"


def tell(what: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


class Recorder:
    """A fence, and the peer that releases are sent to."""

    def __init__(self, *, refuses: bool) -> None:
        self._refuses = refuses
        self._peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._peer.bind(("127.0.0.2", 0))
        self._peer.setblocking(False)  # noqa: FBT003
        self.port = self._peer.getsockname()[1]

    def _received(self) -> int:
        count = 0
        while True:
            try:
                datagram, (sender, _) = self._peer.recvfrom(100)
            except BlockingIOError:
                return count
            assert (datagram, sender) == (RELEASE, "127.0.0.1")
            count += 1

    def withdraw(self, deadlines: int | None) -> None:
        """Say it, with the number of releases before."""
        assert deadlines is None
        tell(f"withdraw after={self._received()}")
        if self._refuses:
            raise KernelError(operation="withdraw", target="test", found="EPERM")

    def remove(self, addresses: Iterable[tuple[str, Interface]]) -> None:
        """Say it, with the number of releases before."""
        words = ",".join(f"{address}@{device}" for device, address in addresses)
        tell(f"remove {words} after={self._received()}")


def supervise(folder: str, *, refuses: bool) -> int:
    """Supervise the daemon below."""
    fence = Recorder(refuses=refuses)
    supervisor.SILENCE_S = 0.02
    supervisor.RESTART_S_MIN = 0.02
    os.environ["PEER_PORT"] = str(fence.port)
    command = [sys.executable, "-m", "tests.supervisor.supervised", "daemon", folder]
    notifier = Notifier(os.environ)
    return supervisor.Supervisor(command, fence=fence, notifier=notifier).run()


def linger() -> None:
    """End the main thread; the process is gone when standard input has ended."""
    threading.Thread(target=lambda: os._exit(len(sys.stdin.read()))).start()
    # exit(2), of this thread alone; threading has no word for it.
    ctypes.CDLL(None).syscall({"x86_64": 60}.get(os.uname().machine, 93), 0)


def play(folder: Path, line: socket.socket, pulse: int) -> int:
    """Be the daemon: obey the next line of the plan."""
    plan = folder / "plan"
    words, _, rest = plan.read_text().partition("\n")
    plan.write_text(rest)
    tell(f"daemon {words}")
    for word in words.split():
        match word:
            case "will":
                port = int(os.environ["PEER_PORT"])
                routes = (Route("127.0.0.1", ("127.0.0.2",)), Route("192.0.2.1", ("127.0.0.2",)))
                will = LastWill(RELEASE, port, routes, (("eth0", "203.0.113.10/24"),), 0.01)
                line.send(will.encode())
            case "hold":
                hold(pulse)
            case "linger":
                linger()
            case "beat":
                line.send(BEAT + b"plays")
            case "obey":
                signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            case "wait":
                tell("waiting")
                line.recv(1)  # until the supervisor is dead
                return 0
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case code:
                return int(code)
    raise AssertionError("the plan ends with what ends the daemon")


if __name__ == "__main__":
    role, where, *options = sys.argv[1:]
    if role == "supervisor":
        sys.exit(supervise(where, refuses="refuse" in options))
    sys.exit(play(Path(where), socket.socket(fileno=int(options[1])), int(options[2])))
